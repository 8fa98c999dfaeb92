// Network policies in sentences.

import type { ClusterPeer, ClusterProtocol, ExtendedPeer, IcmpMessage, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort } from "../api/types";

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

function plainPeer({ podSelector, namespaceSelector, ipBlock }: PolicyPeer): string {
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

function extendedPeer(peer: ExtendedPeer): string {
  if (peer.entity) return ENTITIES[peer.entity];
  if (peer.domainName) return peer.domainName;
  return plainPeer(peer);
}

const ENTITIES = {
  host: "its own node",
  node: "every node",
  world: "outside of the cluster",
  cluster: "the whole cluster",
};

function message({ family, type, code }: IcmpMessage): string {
  const name = family === "IPv6" ? "ICMPv6" : "ICMP";
  if (type == null) return `all of ${name}`;
  return code == null ? `${name} type ${type}` : `${name} type ${type} code ${code}`;
}

function clusterPeer({ namespaces, pods, nodes, networks, domainNames }: ClusterPeer): string {
  if (namespaces) return plainPeer({ namespaceSelector: namespaces });
  if (pods) return plainPeer({ namespaceSelector: pods.namespaceSelector ?? {}, podSelector: pods.podSelector });
  if (nodes) {
    const which = selector(nodes);
    return which === "" ? "every node" : `nodes ${which}`;
  }
  return list([...(networks ?? []), ...(domainNames ?? [])]);
}

function protocol({ tcp, udp, sctp, destinationNamedPort }: ClusterProtocol): string {
  if (destinationNamedPort) return `port ${destinationNamedPort}`;
  const [name, ports] = tcp ? ["TCP", tcp] : udp ? ["UDP", udp] : ["SCTP", sctp];
  const said = ports?.destinationPort;
  if (!said) return `all of ${name}`;
  return said.range ? `${name} ${said.range.start} to ${said.range.end}` : `${name} ${said.number}`;
}

const list = (parts: string[]): string => parts.join(" or ");
const what = (parts: string[]): string => (parts.length === 0 ? "anything" : list(parts));
const whom = (parts: string[]): string => (parts.length === 0 ? "anywhere" : list(parts));

interface Line {
  direction: "in" | "out";
  /** The rule's place among those of its direction, by which flows name it. */
  index?: number;
  text: string;
}

/** What the rules of one direction say, without who takes and who makes connections. */
interface Side {
  governs: boolean;
  rules: { action: string; what: string; whom: string }[];
}

const ALLOW = "";

/** Whom a policy governs. */
export function subject(policy: NetworkPolicy): string {
  if (policy.kind !== "ClusterNetworkPolicy") return selector(policy.spec.podSelector) || "every replica of the namespace";
  const { namespaces, pods } = policy.spec.subject;
  return clusterPeer(namespaces ? { namespaces } : { pods });
}

/** What sets a policy apart from the others of its namespace, in a few words. */
export function remarks(policy: NetworkPolicy): string[] {
  if (policy.kind === "ClusterNetworkPolicy") return [`${policy.spec.tier} tier, priority ${policy.spec.priority}`];
  if (policy.kind !== "Policy") return [];
  const { audit, log, until } = policy.spec;
  return [...(audit ? ["only audits"] : []), ...(log ? ["logged"] : []), ...(until ? [`until ${until}`] : [])];
}

function sides(policy: NetworkPolicy): { in: Side; out: Side } {
  if (policy.kind === "ClusterNetworkPolicy") {
    const { ingress, egress } = policy.spec;
    const into = (ingress ?? []).map(({ action, from, protocols }) => ({ action, what: what((protocols ?? []).map(protocol)), whom: whom(from.map(clusterPeer)) }));
    const out = (egress ?? []).map(({ action, to, protocols }) => ({ action, what: what((protocols ?? []).map(protocol)), whom: whom(to.map(clusterPeer)) }));
    return { in: { governs: into.length > 0, rules: into }, out: { governs: out.length > 0, rules: out } };
  }
  if (policy.kind === "Policy") {
    const { spec } = policy;
    const types = spec.policyTypes ?? [];
    const into = (spec.ingress ?? []).map(({ action, from, ports, icmp }) => ({
      action: action === "Deny" ? "Deny" : ALLOW,
      what: what([...(ports ?? []).map(port), ...(icmp ?? []).map(message)]),
      whom: whom((from ?? []).map(extendedPeer)),
    }));
    const out = (spec.egress ?? []).map(({ action, to, ports, icmp }) => ({
      action: action === "Deny" ? "Deny" : ALLOW,
      what: what([...(ports ?? []).map(port), ...(icmp ?? []).map(message)]),
      whom: whom((to ?? []).map(extendedPeer)),
    }));
    const governs = {
      in: types.length === 0 ? into.length > 0 || out.length === 0 : types.includes("Ingress"),
      out: types.length === 0 ? out.length > 0 : types.includes("Egress"),
    };
    return { in: { governs: governs.in, rules: into }, out: { governs: governs.out, rules: out } };
  }
  const { spec } = policy;
  const types = spec.policyTypes ?? [];
  const into = (spec.ingress ?? []).map(({ ports, from }) => ({ action: ALLOW, what: what((ports ?? []).map(port)), whom: whom((from ?? []).map(plainPeer)) }));
  const out = (spec.egress ?? []).map(({ ports, to }) => ({ action: ALLOW, what: what((ports ?? []).map(port)), whom: whom((to ?? []).map(plainPeer)) }));
  return {
    in: { governs: types.length === 0 || types.includes("Ingress"), rules: into },
    out: { governs: types.length === 0 ? out.length > 0 : types.includes("Egress"), rules: out },
  };
}

/** One line for each rule; what none of a direction's rules allows is denied, unless all of them say what they do. */
export function rulesOf(policy: NetworkPolicy): Line[] {
  const { in: into, out } = sides(policy);
  const lines: Line[] = [];
  const tell = (direction: "in" | "out", way: string, { governs, rules }: Side) => {
    if (!governs) return;
    for (const [index, rule] of rules.entries()) {
      const action = rule.action === ALLOW ? "" : `${rule.action}: `;
      lines.push({ direction, index, text: `${action}${rule.what} ${way} ${rule.whom}` });
    }
    if (rules.length === 0) lines.push({ direction, text: "nothing" });
  };
  tell("in", "from", into);
  tell("out", "to", out);
  return lines;
}
