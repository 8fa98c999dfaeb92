//! What the policies of one identity tell apart of that which is outside of the cluster: by addresses, and by names that addresses
//! may have been answered for.

use std::{collections::BTreeSet, net::IpAddr};

use hivemind_common::policy::EGRESS;
use hivemind_model::PolicyType;
use ipnet::IpNet;

use crate::{
    domain::is_internal,
    intervals::{Intervals, blocks},
    reference::Governing,
    rules::Peer,
    world::World,
};

/// What has to be asked of one direction of one identity to know what it says of everything outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// One address of each range within which its policies say the same: the range's first. Those of the machine itself, of its links
    /// and of nodes are not outside.
    pub addresses: BTreeSet<IpAddr>,
    /// The domains that its rules name, as [`crate::domain_pattern`] writes them.
    pub domains: BTreeSet<String>,
}

impl Outside {
    /// For the policies of `identity` that govern `direction`.
    pub fn of(world: &World, identity: u32, direction: PolicyType) -> Self {
        let governing = Governing::of(world, identity, direction);
        let bit = if direction == PolicyType::Egress { EGRESS } else { 0 };
        let rules = governing.policies().iter().filter_map(|policy| world.rules(policy)?.direction(bit));
        let peers = rules.flat_map(|direction| &direction.rules).flat_map(|rule| rule.peers.iter().flatten());
        let domains = peers.filter_map(|peer| match peer {
            Peer::Domain(pattern) => Some(pattern.clone()),
            _ => None,
        });
        let of_nodes: BTreeSet<IpAddr> = world.addresses_of_nodes(None).collect();
        let named = blocks(world, governing.policies().iter().copied());
        let intervals = Intervals::of(named.into_iter().chain(of_nodes.iter().copied().map(IpNet::from)));
        let addresses =
            intervals.within(None).filter(|address| !is_internal(*address) && !of_nodes.contains(address));
        Outside { addresses: addresses.collect(), domains: domains.collect() }
    }
}
