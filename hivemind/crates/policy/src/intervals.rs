//! Addresses that policies cannot tell apart.
//!
//! The blocks that policies name cut the addresses of a family into intervals, of which each address is in the same blocks. So it is
//! enough to judge one address of each: the first.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hivemind_model::NetworkPolicy;
use ipnet::IpNet;

use crate::{rules::Peer, world::World};

/// Blocks of addresses that no name of a domain opens.
const INTERNAL: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// The first addresses of all intervals; IPv4 is before IPv6.
#[derive(Clone, Debug)]
pub(crate) struct Intervals(BTreeSet<IpAddr>);

impl Intervals {
    /// Those that these blocks cut.
    pub(crate) fn of(blocks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut firsts = BTreeSet::from([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
        let internal = INTERNAL.iter().filter_map(|text| text.parse().ok());
        for block in internal.chain(blocks) {
            firsts.insert(block.network());
            firsts.extend(after(block.broadcast()));
        }
        Intervals(firsts)
    }

    /// The first address of the interval that an address is in.
    pub(crate) fn first(&self, address: IpAddr) -> IpAddr {
        self.0.range(..=address).next_back().copied().unwrap_or(address)
    }

    /// The first addresses of the intervals that a block has something of; of all if there is no block.
    pub(crate) fn within(&self, block: Option<IpNet>) -> impl Iterator<Item = IpAddr> {
        let [from, to] = match block {
            Some(block) => [self.first(block.network()), block.broadcast()],
            None => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into()],
        };
        self.0.range(from..=to).copied()
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

/// All blocks and addresses that some of a world's policies mean.
pub(crate) fn blocks<'a>(world: &World, policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> Vec<IpNet> {
    let rules = policies.into_iter().filter_map(|policy| world.rules(policy));
    let mut blocks = Vec::new();
    for peer in rules.flat_map(|policy| policy.peers()) {
        match peer {
            Peer::Block { whole, except } => {
                blocks.extend([*whole].into_iter().chain(except.iter().copied()))
            }
            Peer::Nodes(selector) => blocks.extend(world.node_addresses(selector).map(IpNet::from)),
            // No name opens a node.
            Peer::Domain(_) => blocks.extend(world.addresses_of_nodes(None).map(IpNet::from)),
            Peer::Replicas { .. } | Peer::Entity(_) => {}
        }
    }
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_stands_for_those_that_are_in_the_same_blocks() {
        let intervals = Intervals::of(["10.0.0.0/8", "10.1.0.0/16"].map(|text| text.parse().unwrap()));
        let first = |text: &str| intervals.first(text.parse().unwrap()).to_string();
        assert_eq!(first("10.0.7.7"), "10.0.0.0");
        assert_eq!(first("10.1.0.1"), "10.1.0.0");
        assert_eq!(first("10.2.0.1"), "10.2.0.0", "what is behind a block is as before it, and has its own");
        assert_eq!(first("2001:db8::1"), "::2");
        let within: Vec<_> = intervals.within("10.0.0.0/8".parse().ok()).map(|a| a.to_string()).collect();
        assert_eq!(within, ["10.0.0.0", "10.1.0.0", "10.2.0.0"]);
        let inside: Vec<_> = intervals.within("10.1.9.0/24".parse().ok()).map(|a| a.to_string()).collect();
        assert_eq!(inside, ["10.1.0.0"]);
        let all: Vec<_> = intervals.within(None).map(|a| a.to_string()).collect();
        let ends = all.first().zip(all.last());
        assert_eq!(ends, Some((&"0.0.0.0".to_owned(), &"ff00::".to_owned())), "of both families");
    }
}
