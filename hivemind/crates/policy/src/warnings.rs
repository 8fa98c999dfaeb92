//! What the author of a valid policy should know.

use std::{collections::BTreeSet, net::IpAddr};

use hivemind_common::packet;
use hivemind_model::{
    ErrorCode, Identity, NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicySpec, PolicyType, Problem,
};

use crate::{
    reference::{OtherEnd, Speaks, judge},
    world::World,
};

/// Where name servers listen.
const DNS_PORT: u16 = 53;
/// How many apps a warning names.
const NAMED_MAX: usize = 5;
/// How many warnings one policy gets.
const WARNINGS_MAX: usize = 32;

/// What `policy` does that its author may not have meant, in a `world` that may hold an older one of its name: it selects
/// nothing; a peer matches nothing; rules have no effect; replicas can no longer resolve names.
pub fn warnings(policy: &NetworkPolicy, world: &World) -> Vec<Problem> {
    let mut world = world.clone();
    let before = world.clone();
    world.set_policy(policy);
    let selected = world.selected(policy);
    let mut found = Vec::new();
    if selected.is_empty() {
        let what = format!("it selects no replica of namespace {:?} now", policy.metadata.namespace);
        found.push(warning(
            "spec.podSelector",
            what,
            "it applies to replicas with these labels as soon as there are some",
        ));
    }
    if let PolicySpec::NetworkPolicy(spec) = &policy.spec {
        idle_rules(spec, &mut found);
        idle_peers(&policy.metadata.namespace, spec, &world, &mut found);
    }
    found.extend(cut_off_names(&selected, &before, &world));
    found.truncate(WARNINGS_MAX);
    found
}

fn warning(field: impl Into<String>, message: String, hint: &str) -> Problem {
    Problem { code: ErrorCode::PolicyWarning, field: field.into(), message, hint: hint.to_owned() }
}

/// Rules of a direction that `policyTypes` leaves out.
fn idle_rules(spec: &NetworkPolicySpec, found: &mut Vec<Problem>) {
    let directions = [(PolicyType::Ingress, spec.ingress.len()), (PolicyType::Egress, spec.egress.len())];
    for (direction, rules) in directions {
        if rules > 0 && !spec.governs(direction) {
            let field = format!("spec.{}", format!("{direction:?}").to_lowercase());
            let what = format!("these rules have no effect: policyTypes does not name {direction:?}");
            found.push(warning(field, what, "name it, or remove the rules"));
        }
    }
}

/// Peers that no replica is.
fn idle_peers(namespace: &str, spec: &NetworkPolicySpec, world: &World, found: &mut Vec<Problem>) {
    let ingress = spec.ingress.iter().enumerate();
    let egress = spec.egress.iter().enumerate();
    let peers = ingress
        .flat_map(|(i, rule)| {
            rule.from.iter().enumerate().map(move |(j, peer)| ("ingress", "from", i, j, peer))
        })
        .chain(egress.flat_map(|(i, rule)| {
            rule.to.iter().enumerate().map(move |(j, peer)| ("egress", "to", i, j, peer))
        }));
    for (direction, list, i, j, peer) in peers {
        let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
        if ip_block.is_some() || found.len() >= WARNINGS_MAX {
            continue;
        }
        if world.peers(namespace, namespace_selector.as_ref(), pod_selector.as_ref()).is_empty() {
            let hint = match namespace_selector {
                None => "without namespaceSelector only replicas of the policy's own namespace are meant",
                Some(_) => "see `hivemind namespace ls` for the labels of namespaces",
            };
            let field = format!("spec.{direction}[{i}].{list}[{j}]");
            found.push(warning(field, "no replica matches this peer now".to_owned(), hint));
        }
    }
}

/// Replicas that could ask for names before the policy and cannot with it.
fn cut_off_names(selected: &[u32], before: &World, world: &World) -> Option<Problem> {
    let can_ask = |world: &World, identity: u32| {
        world.dns_addresses().iter().any(|address: &IpAddr| {
            let other = OtherEnd { identity: Identity::DNS, address: *address };
            let speaks = Speaks { protocol: packet::UDP, port: DNS_PORT };
            judge(world, identity, PolicyType::Egress, other, speaks).allowed
        })
    };
    let cut = selected.iter().filter(|identity| can_ask(before, **identity) && !can_ask(world, **identity));
    let apps: BTreeSet<&str> =
        cut.filter_map(|identity| Some(world.identity(*identity)?.app.as_str())).collect();
    if apps.is_empty() {
        return None;
    }
    let mut named = apps.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if apps.len() > NAMED_MAX {
        named.push_str(&format!(" and {} more", apps.len() - NAMED_MAX));
    }
    Some(warning(
        "spec.egress",
        format!("replicas of {named} can no longer ask for names"),
        "allow UDP and TCP port 53 to namespaceSelector kubernetes.io/metadata.name=hivemind-system with podSelector \
         app=dns",
    ))
}
