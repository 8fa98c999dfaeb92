// Flows in words.

import type { Flow, FlowEnd, RuleRef } from "../api/types";
import { withPort, words } from "./format";

/** Who it is: the app where there is one, else what is known. */
export function end(at: FlowEnd): string {
  switch (at.kind) {
    case "replica":
      return at.namespace === "default" || !at.namespace ? (at.app ?? "") : `${at.namespace}/${at.app ?? ""}`;
    case "host":
      return "this node";
    case "dns":
      return "DNS";
    default:
      return at.domain || (at.address ?? at.kind);
  }
}

/** The same with all that is known, for whoever asks. */
export function endInFull(at: FlowEnd): string {
  const known = at.domain ? `${at.kind} ${at.domain}` : at.kind;
  const name = at.kind === "replica" ? `replica ${at.replica || at.app || ""} of ${at.namespace ?? ""}` : known;
  return at.address ? `${name}, ${withPort(at.address, at.port)}` : name;
}

export function verdict(flow: Flow): string {
  if (flow.verdict === "audited" && flow.event === "new") return "Audited";
  switch (flow.event) {
    case "closed":
      return "Closed";
    case "live":
      return "Open";
    case "denied":
      return "Denied";
    case "dropped":
      return "Dropped";
    default:
      return "Allowed";
  }
}

/** `web-allows-client/ingress[0]`, as the command line has it; without a number where none of its rules allows the flow. */
export function rule(of: RuleRef): string {
  const policy = of.namespace === "default" ? of.policy : `${of.namespace}/${of.policy}`;
  return `${policy}/${of.direction}${of.index == null ? "" : `[${of.index}]`}`;
}

/** The rules that decided. */
export function rules(flow: Flow): string {
  return [flow.egressRule, flow.ingressRule].filter((each) => each != null).map(rule).join(", ");
}

/** Why it may not pass. */
export function reason(flow: Flow): string {
  return flow.verdict === "allowed" ? "" : flow.explanation || words(flow.reason ?? "");
}
