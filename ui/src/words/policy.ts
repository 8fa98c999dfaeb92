// Network policies in sentences.

import type { LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort } from "../api/types";

/** What a selector asks for; empty if it asks for nothing. */
export function selector(labels: LabelSelector | null | undefined): string {
  const equal = Object.entries(labels?.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const further = (labels?.matchExpressions ?? []).map(({ key, operator, values }) => {
    const list = `(${(values ?? []).join(", ")})`;
    switch (operator) {
      case "In":
        return `${key} in ${list}`;
      case "NotIn":
        return `${key} not in ${list}`;
      case "Exists":
        return `with ${key}`;
      case "DoesNotExist":
        return `without ${key}`;
    }
  });
  return [...equal, ...further].join(", ");
}

function port({ protocol, port, endPort }: PolicyPort): string {
  const name = protocol ?? "TCP";
  if (port == null) return `all of ${name}`;
  return endPort == null ? `${name} ${port}` : `${name} ${port} to ${endPort}`;
}

function peer({ podSelector, namespaceSelector, ipBlock }: PolicyPeer): string {
  if (ipBlock) {
    const except = ipBlock.except ?? [];
    return except.length === 0 ? ipBlock.cidr : `${ipBlock.cidr} except ${except.join(", ")}`;
  }
  const pods = selector(podSelector);
  if (!namespaceSelector) return pods === "" ? "every replica of the namespace" : pods;
  const namespaces = selector(namespaceSelector);
  const where = namespaces === "" ? "every namespace" : `namespaces ${namespaces}`;
  return pods === "" ? `all of ${where}` : `${pods} in ${where}`;
}

const list = (parts: string[]): string => parts.join(" or ");

interface Line {
  direction: "in" | "out";
  /** The rule's place among those of its direction, by which flows name it. */
  index?: number;
  text: string;
}

/** One line for each rule; what is not in any of them is denied. */
export function rulesOf(policy: NetworkPolicy): Line[] {
  const { spec } = policy;
  const types = spec.policyTypes ?? [];
  const governs = {
    in: types.length === 0 || types.includes("Ingress"),
    out: types.length === 0 ? (spec.egress ?? []).length > 0 : types.includes("Egress"),
  };
  const lines: Line[] = [];
  if (governs.in) {
    const rules = spec.ingress ?? [];
    for (const [index, { ports, from }] of rules.entries()) {
      const what = (ports ?? []).length === 0 ? "anything" : list((ports ?? []).map(port));
      const whom = (from ?? []).length === 0 ? "anywhere" : list((from ?? []).map(peer));
      lines.push({ direction: "in", index, text: `${what} from ${whom}` });
    }
    if (rules.length === 0) lines.push({ direction: "in", text: "nothing" });
  }
  if (governs.out) {
    const rules = spec.egress ?? [];
    for (const [index, { ports, to }] of rules.entries()) {
      const what = (ports ?? []).length === 0 ? "anything" : list((ports ?? []).map(port));
      const whom = (to ?? []).length === 0 ? "anywhere" : list((to ?? []).map(peer));
      lines.push({ direction: "out", index, text: `${what} to ${whom}` });
    }
    if (rules.length === 0) lines.push({ direction: "out", text: "nothing" });
  }
  return lines;
}
