//! Replicas that a policy cuts off from the DNS server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_common::packet;
use hivemind_model::{Identity, NetworkPolicy, PolicyType, Problem};

use super::{NAMED_MAX, warning};
use crate::{
    reference::{OtherEnd, Speaks, judge},
    world::World,
};

/// How many of the identities that a policy selects are asked about: more would not be named.
const ASKED_MAX: usize = 1_000;
/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// For each of `policies` what it cuts off: replicas that could ask for names with all the others, and with what was in its
/// place before, but cannot with it. All of them are in `world`, which is left as it is.
pub(super) fn cut_off(
    policies: &[&NetworkPolicy],
    before: &World,
    world: &mut World,
) -> Vec<Option<Problem>> {
    let mut can_now: BTreeMap<u32, bool> = BTreeMap::new();
    let of_policy = |policy: &&NetworkPolicy| {
        if !policy.spec.governs(PolicyType::Egress) {
            return None;
        }
        let selected = world.selected(policy);
        let silent: Vec<u32> = selected
            .into_iter()
            .take(ASKED_MAX)
            .filter(|identity| !*can_now.entry(*identity).or_insert_with(|| can_ask(world, *identity)))
            .collect();
        if silent.is_empty() {
            return None;
        }
        let (namespace, name) = (&policy.metadata.namespace, &policy.metadata.name);
        match before.policy(namespace, name) {
            Some(older) => world.set_policy(older),
            None => world.remove_policy(namespace, name),
        };
        let cut: Vec<u32> = silent.into_iter().filter(|identity| can_ask(world, *identity)).collect();
        world.set_policy(policy);
        let apps: BTreeSet<&str> =
            cut.into_iter().filter_map(|identity| Some(world.identity(identity)?.app.as_str())).collect();
        told(&apps)
    };
    policies.iter().map(of_policy).collect()
}

fn can_ask(world: &World, identity: u32) -> bool {
    world.dns_addresses().iter().any(|address: &IpAddr| {
        let other = OtherEnd { identity: Identity::DNS, address: *address };
        let speaks = Speaks { protocol: packet::UDP, port: DNS_PORT };
        judge(world, identity, PolicyType::Egress, other, speaks).allowed
    })
}

fn told(apps: &BTreeSet<&str>) -> Option<Problem> {
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
