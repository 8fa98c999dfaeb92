// Flows in words.

import type { Flow, FlowEnd, RuleRef } from "../api/types";
import { withPort } from "./format";

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
      return at.address ?? at.kind;
  }
}

/** The same with all that is known, for whoever asks. */
export function endInFull(at: FlowEnd): string {
  const name = at.kind === "replica" ? `replica ${at.replica || at.app || ""} of ${at.namespace ?? ""}` : at.kind;
  return at.address ? `${name}, ${withPort(at.address, at.port)}` : name;
}

export function verdict(flow: Flow): string {
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

/** `web-allows-client, rule 1`, or that no rule of it allows the flow. */
export function rule(of: RuleRef): string {
  const policy = of.namespace === "default" ? of.policy : `${of.namespace}/${of.policy}`;
  return of.index == null ? `${policy}, no ${of.direction} rule allows it` : `${policy}, ${of.direction} rule ${of.index + 1}`;
}

/** By which rules, or why not. */
export function cause(flow: Flow): string {
  const rules = [flow.egressRule, flow.ingressRule].filter((each) => each != null).map(rule);
  if (flow.verdict === "dropped") return flow.explanation || flow.reason || "";
  if (rules.length > 0) return rules.join(" · ");
  return flow.verdict === "denied" ? flow.explanation || flow.reason || "" : "";
}
