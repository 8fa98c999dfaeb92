//! The meaning of policies, written down as Kubernetes' documentation tells it and as slowly as that reads.
//!
//! Nothing here is shared with the compiler: tests hold the two against each other. Who wants to know why a connection may
//! pass asks [`judge`].

use std::{collections::BTreeMap, net::IpAddr};

use hivemind_common::policy::{EGRESS, RULE_HOST, RULE_NONE, rule_number};
use hivemind_model::{
    Identity, IpBlock, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PolicyProtocol, PolicyType,
    PortRef,
};
use ipnet::IpNet;

use crate::world::World;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherEnd {
    /// Its identity; zero if it has none that is known.
    pub identity: u32,
    /// Its address.
    pub address: IpAddr,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// The transport protocol's IP number.
    pub protocol: u8,
    /// The port of the end that takes the connection, in host order.
    pub port: u16,
}

/// Whether one end's policies let a connection pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether they do.
    pub allowed: bool,
    /// The rules that say so, by number, in the order of policies and rules: all that allow it; if none does, the defaults of
    /// the policies that govern; [`RULE_NONE`] if no policy governs.
    pub rules: Vec<u32>,
}

/// Whether the policies of `identity` let it take (or make, by `direction`) a connection with `other`. An identity that the
/// world does not have is governed by no policy.
pub fn judge(
    world: &World,
    identity: u32,
    direction: PolicyType,
    other: OtherEnd,
    speaks: Speaks,
) -> Judgement {
    // "By default, a pod is non-isolated [...]; all connections are allowed. A pod is isolated [...] if there is any
    // NetworkPolicy that both selects the pod and has [the direction] in its policyTypes."
    let isolating: Vec<&NetworkPolicy> = world
        .policies()
        .filter(|policy| applies_to(policy, identity, world) && policy.spec.governs(direction))
        .collect();
    if isolating.is_empty() {
        return Judgement { allowed: true, rules: vec![RULE_NONE] };
    }
    // "[...] the only allowed connections into the pod are those from the pod's node and those allowed by the ingress
    // list of some NetworkPolicy that applies to the pod for ingress."
    if direction == PolicyType::Ingress && other.identity == Identity::HOST {
        return Judgement { allowed: true, rules: vec![RULE_HOST] };
    }
    // "Network policies do not conflict; they are additive. [...] the connections allowed in that direction from that pod
    // is the union of what the applicable policies allow."
    let bit = if direction == PolicyType::Egress { EGRESS } else { 0 };
    let mut allowing = Vec::new();
    for policy in &isolating {
        for (index, (ports, peers)) in (0_u32..).zip(rules(policy, direction)) {
            if allows_port(ports, speaks) && allows_peer(peers, policy, other, world) {
                allowing.push(rule_number(policy.status.number, bit, Some(index)));
            }
        }
    }
    if allowing.is_empty() {
        let defaults = isolating.iter().map(|policy| rule_number(policy.status.number, bit, None)).collect();
        return Judgement { allowed: false, rules: defaults };
    }
    Judgement { allowed: true, rules: allowing }
}

/// "Each NetworkPolicy includes a podSelector which selects the grouping of pods to which the policy applies", of those in
/// its own namespace.
fn applies_to(policy: &NetworkPolicy, identity: u32, world: &World) -> bool {
    world.identity(identity).is_some_and(|own| {
        own.namespace == policy.metadata.namespace && policy.spec.pod_selector.selects(&own.labels)
    })
}

fn rules(policy: &NetworkPolicy, direction: PolicyType) -> Vec<(&[PolicyPort], &[PolicyPeer])> {
    match direction {
        PolicyType::Ingress => policy.spec.ingress.iter().map(|r| (&r.ports[..], &r.from[..])).collect(),
        PolicyType::Egress => policy.spec.egress.iter().map(|r| (&r.ports[..], &r.to[..])).collect(),
    }
}

/// "If this field is empty or missing, this rule matches all ports (traffic not restricted by port)."
fn allows_port(ports: &[PolicyPort], speaks: Speaks) -> bool {
    ports.is_empty() || ports.iter().any(|port| matches_port(port, speaks))
}

fn matches_port(port: &PolicyPort, speaks: Speaks) -> bool {
    let protocol = match port.protocol {
        PolicyProtocol::Tcp => 6,
        PolicyProtocol::Udp => 17,
        PolicyProtocol::Sctp => 132,
    };
    let in_range = match &port.port {
        None => true,
        Some(PortRef::Number(first)) => {
            let last = port.end_port.map_or(*first, i64::from);
            (*first..=last).contains(&i64::from(speaks.port))
        }
        Some(PortRef::Name(_)) => false,
    };
    protocol == speaks.protocol && in_range
}

/// "If this field is empty or missing, this rule matches all sources (traffic not restricted by source)."
fn allows_peer(peers: &[PolicyPeer], policy: &NetworkPolicy, other: OtherEnd, world: &World) -> bool {
    peers.is_empty() || peers.iter().any(|peer| matches_peer(peer, policy, other, world))
}

fn matches_peer(peer: &PolicyPeer, policy: &NetworkPolicy, other: OtherEnd, world: &World) -> bool {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => in_block(block, other.address),
        (None, Some(namespaces), pods) => is_replica(other, world, |namespace, labels| {
            namespaces.selects(&world.namespace_labels(namespace)) && all_or(pods.as_ref(), labels)
        }),
        (None, None, Some(pods)) => is_replica(other, world, |namespace, labels| {
            namespace == policy.metadata.namespace && pods.selects(labels)
        }),
        _ => false,
    }
}

fn all_or(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| selector.selects(labels))
}

fn is_replica(
    other: OtherEnd,
    world: &World,
    holds: impl Fn(&str, &BTreeMap<String, String>) -> bool,
) -> bool {
    world.identity(other.identity).is_some_and(|peer| holds(&peer.namespace, &peer.labels))
}

fn in_block(block: &IpBlock, address: IpAddr) -> bool {
    let holds = |text: &String| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    holds(&block.cidr) && !block.except.iter().any(holds)
}
