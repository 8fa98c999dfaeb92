//! Policies, rules, peers and names of ports that match nothing now.

use std::collections::BTreeSet;

use hivemind_model::{
    ClusterPeer, ClusterProtocol, Entity, ExtendedPeer, LabelSelector, NetworkPolicy, PolicyAction,
    PolicyPeer, PolicyPort, PolicyProtocol, PolicySpec, PolicyType, PortRef, Problem,
};

use super::{WARNINGS_MAX, warning};
use crate::world::World;

/// What a rule says, whichever the kind of its policy.
struct Rule<'a> {
    /// Such as `spec.ingress[2]`.
    field: String,
    direction: PolicyType,
    denies: bool,
    peers: Vec<Peer<'a>>,
    names: Vec<Name<'a>>,
}

/// A peer, as far as it is looked at here.
enum Peer<'a> {
    Replicas { namespaces: Option<&'a LabelSelector>, pods: Option<&'a LabelSelector> },
    Entity(Entity),
    Other,
}

/// A port's name.
struct Name<'a> {
    /// Below the rule.
    field: String,
    name: &'a str,
    protocol: Option<PolicyProtocol>,
}

pub(super) fn add(policy: &NetworkPolicy, selected: &[u32], world: &World, found: &mut Vec<Problem>) {
    if selected.is_empty() {
        found.push(selects_nothing(policy));
    }
    for rule in rules(policy) {
        if found.len() >= WARNINGS_MAX {
            return;
        }
        idle_peers(policy, &rule, world, found);
        idle_names(policy, &rule, selected, world, found);
        denied_host(&rule, found);
    }
    idle_directions(policy, found);
}

fn selects_nothing(policy: &NetworkPolicy) -> Problem {
    let (field, what) = match &policy.spec {
        PolicySpec::ClusterNetworkPolicy(_) => ("spec.subject", "it selects no replica now".to_owned()),
        _ => {
            let namespace = &policy.metadata.namespace;
            ("spec.podSelector", format!("it selects no replica of namespace {namespace:?} now"))
        }
    };
    warning(field, what, "it applies to replicas with these labels as soon as there are some")
}

/// Rules of a direction that `policyTypes` leaves out.
fn idle_directions(policy: &NetworkPolicy, found: &mut Vec<Problem>) {
    let (ingress, egress) = match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => (spec.ingress.len(), spec.egress.len()),
        PolicySpec::Policy(spec) => (spec.ingress.len(), spec.egress.len()),
        PolicySpec::ClusterNetworkPolicy(_) => return,
    };
    for (direction, rules) in [(PolicyType::Ingress, ingress), (PolicyType::Egress, egress)] {
        if rules > 0 && !policy.spec.governs(direction) {
            let field = format!("spec.{}", format!("{direction:?}").to_lowercase());
            let what = format!("these rules have no effect: policyTypes does not name {direction:?}");
            found.push(warning(field, what, "name it, or remove the rules"));
        }
    }
}

/// Peers that no replica is.
fn idle_peers(policy: &NetworkPolicy, rule: &Rule<'_>, world: &World, found: &mut Vec<Problem>) {
    let list = if rule.direction == PolicyType::Ingress { "from" } else { "to" };
    for (j, peer) in rule.peers.iter().enumerate() {
        let Peer::Replicas { namespaces, pods } = peer else { continue };
        if found.len() < WARNINGS_MAX
            && world.peers(&policy.metadata.namespace, *namespaces, *pods).is_empty()
        {
            let hint = match namespaces {
                None => "without namespaceSelector only replicas of the policy's own namespace are meant",
                Some(_) => "see `hivemind namespace ls` for the labels of namespaces",
            };
            let field = format!("{}.{list}[{j}]", rule.field);
            found.push(warning(field, "no replica matches this peer now".to_owned(), hint));
        }
    }
}

/// Names by which none of those calls a port that take the connections: of ingress the selected replicas, of egress the peers.
fn idle_names(
    policy: &NetworkPolicy,
    rule: &Rule<'_>,
    selected: &[u32],
    world: &World,
    found: &mut Vec<Problem>,
) {
    if rule.names.is_empty() {
        return;
    }
    let takers: BTreeSet<u32> = match rule.direction {
        PolicyType::Ingress => selected.iter().copied().collect(),
        PolicyType::Egress if rule.peers.is_empty() => world.everybody().collect(),
        PolicyType::Egress => rule.peers.iter().flat_map(|peer| replicas(policy, peer, world)).collect(),
    };
    let whose = if rule.direction == PolicyType::Ingress { "selected replica" } else { "peer of the rule" };
    for Name { field, name, protocol } in &rule.names {
        let is_called = takers.iter().filter_map(|identity| world.identity(*identity)).any(|taker| {
            taker
                .ports
                .iter()
                .any(|port| port.name == *name && protocol.is_none_or(|wanted| wanted == port.protocol))
        });
        if !is_called && found.len() < WARNINGS_MAX {
            let of = protocol.map(|protocol| format!(" of {protocol:?}").to_lowercase()).unwrap_or_default();
            let what = format!("no {whose} calls a port{of} {name:?} now");
            let hint = format!("apps name their ports by app deploy --service-port {name}=8080");
            found.push(warning(format!("{}.{field}", rule.field), what, hint));
        }
    }
}

fn replicas(policy: &NetworkPolicy, peer: &Peer<'_>, world: &World) -> Vec<u32> {
    match peer {
        Peer::Replicas { namespaces, pods } => world.peers(&policy.metadata.namespace, *namespaces, *pods),
        Peer::Entity(Entity::Cluster) => world.everybody().collect(),
        Peer::Entity(_) | Peer::Other => Vec::new(),
    }
}

/// Denials of what always passes.
fn denied_host(rule: &Rule<'_>, found: &mut Vec<Problem>) {
    if !rule.denies || rule.direction == PolicyType::Egress {
        return;
    }
    for (j, peer) in rule.peers.iter().enumerate() {
        let what = match peer {
            Peer::Entity(Entity::Host) => {
                "this denies nothing: the node's own processes, health probes among them, always reach its replicas"
            }
            Peer::Entity(Entity::Node) => {
                "this denies other nodes only: a node's own processes, health probes among them, always reach its replicas"
            }
            _ => continue,
        };
        let field = format!("{}.from[{j}]", rule.field);
        found.push(warning(field, what.to_owned(), "leave it out; egress to host can be denied"));
    }
}

/// The rules of a policy that are asked.
fn rules(policy: &NetworkPolicy) -> Vec<Rule<'_>> {
    let directions = [PolicyType::Ingress, PolicyType::Egress];
    let governed = directions.into_iter().filter(|direction| policy.spec.governs(*direction));
    governed.flat_map(|direction| rules_of(&policy.spec, direction)).collect()
}

fn rules_of(spec: &PolicySpec, direction: PolicyType) -> Vec<Rule<'_>> {
    let is_ingress = direction == PolicyType::Ingress;
    let parts: Vec<Parts<'_>> = match spec {
        PolicySpec::NetworkPolicy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| (false, names(&r.ports), plain(&r.from))).collect()
        }
        PolicySpec::NetworkPolicy(spec) => {
            spec.egress.iter().map(|r| (false, names(&r.ports), plain(&r.to))).collect()
        }
        PolicySpec::Policy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| (denies(r.action), names(&r.ports), extended(&r.from))).collect()
        }
        PolicySpec::Policy(spec) => {
            spec.egress.iter().map(|r| (denies(r.action), names(&r.ports), extended(&r.to))).collect()
        }
        PolicySpec::ClusterNetworkPolicy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| (false, cluster_names(&r.protocols), cluster(&r.from))).collect()
        }
        PolicySpec::ClusterNetworkPolicy(spec) => {
            spec.egress.iter().map(|r| (false, cluster_names(&r.protocols), cluster(&r.to))).collect()
        }
    };
    let word = if is_ingress { "ingress" } else { "egress" };
    let mut rules = Vec::with_capacity(parts.len());
    for (i, (denies, names, peers)) in parts.into_iter().enumerate() {
        rules.push(Rule { field: format!("spec.{word}[{i}]"), direction, denies, peers, names });
    }
    rules
}

/// Whether a rule denies, the names of its ports, its peers.
type Parts<'a> = (bool, Vec<Name<'a>>, Vec<Peer<'a>>);

fn denies(action: PolicyAction) -> bool {
    action == PolicyAction::Deny
}

fn plain(peers: &[PolicyPeer]) -> Vec<Peer<'_>> {
    peers.iter().map(Peer::of).collect()
}

fn extended(peers: &[ExtendedPeer]) -> Vec<Peer<'_>> {
    peers.iter().map(Peer::of_extended).collect()
}

fn cluster(peers: &[ClusterPeer]) -> Vec<Peer<'_>> {
    peers.iter().map(Peer::of_cluster).collect()
}

impl<'a> Peer<'a> {
    fn of(peer: &'a PolicyPeer) -> Self {
        match peer.ip_block {
            Some(_) => Peer::Other,
            None => Peer::Replicas {
                namespaces: peer.namespace_selector.as_ref(),
                pods: peer.pod_selector.as_ref(),
            },
        }
    }

    fn of_extended(peer: &'a ExtendedPeer) -> Self {
        let ExtendedPeer { pod_selector, namespace_selector, entity, .. } = peer;
        match entity {
            Some(entity) => Peer::Entity(*entity),
            None if pod_selector.is_some() || namespace_selector.is_some() => {
                Peer::Replicas { namespaces: namespace_selector.as_ref(), pods: pod_selector.as_ref() }
            }
            None => Peer::Other,
        }
    }

    fn of_cluster(peer: &'a ClusterPeer) -> Self {
        match (&peer.namespaces, &peer.pods) {
            (Some(namespaces), _) => Peer::Replicas { namespaces: Some(namespaces), pods: None },
            (None, Some(pods)) => {
                Peer::Replicas { namespaces: Some(&pods.namespace_selector), pods: Some(&pods.pod_selector) }
            }
            (None, None) => Peer::Other,
        }
    }
}

fn names(ports: &[PolicyPort]) -> Vec<Name<'_>> {
    let mut found = Vec::new();
    for (j, port) in ports.iter().enumerate() {
        if let Some(PortRef::Name(name)) = &port.port {
            found.push(Name { field: format!("ports[{j}].port"), name, protocol: Some(port.protocol) });
        }
    }
    found
}

fn cluster_names(protocols: &[ClusterProtocol]) -> Vec<Name<'_>> {
    let mut found = Vec::new();
    for (j, said) in protocols.iter().enumerate() {
        if let Some(name) = &said.destination_named_port {
            found.push(Name { field: format!("protocols[{j}].destinationNamedPort"), name, protocol: None });
        }
    }
    found
}
