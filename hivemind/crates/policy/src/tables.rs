//! What the data path holds for one identity.

use hivemind_common::policy::{ALLOW, ANY_PEER, EGRESS, PolicyEntry, RULE_NONE};
use ipnet::IpNet;

/// Everything by which the connections of one identity's endpoints are judged, in both directions and in all tiers.
///
/// Entries are sorted by peer and transport, prefixes by side and block; neither has duplicates. Each tier that a direction
/// has, [`hivemind_common::policy::NAMESPACE`] always among them, has an entry for any peer and any transport: its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// What is said of each peer.
    pub entries: Vec<TableEntry>,
    /// The blocks of addresses that are peers.
    pub prefixes: Vec<TablePrefix>,
}

/// What is said of one peer and transport; of two entries for a peer, the one with the longer transport counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// [`ANY_PEER`], an identity, or a prefix's number with [`hivemind_common::policy::PREFIX_PEER`]; with [`EGRESS`] for
    /// connections that the endpoint makes, and with the tier.
    pub peer: u32,
    /// The protocols and ports of the end that takes the connection.
    pub transport: Transport,
    /// What is said.
    pub value: PolicyEntry,
}

/// A block of addresses; of two that hold an address, the longer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TablePrefix {
    /// [`EGRESS`] for connections that the endpoint makes, else zero; with the tier.
    pub side: u32,
    /// The block.
    pub net: IpNet,
    /// Its number, of at most [`hivemind_common::policy::NUMBER_BITS`] bits. Blocks of a side of which the same is said share
    /// one.
    pub number: u32,
}

/// Protocols and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Every protocol.
    Any,
    /// All of one protocol, by its IP number.
    Protocol(u8),
    /// Ports of one protocol that begin with the same bits.
    Ports {
        /// The protocol's IP number.
        protocol: u8,
        /// The first of the ports, in host order.
        port: u16,
        /// How many leading bits they share, 1 to 16.
        bits: u8,
    },
}

impl Transport {
    /// How many bits of a key behind [`hivemind_common::policy::PEER_BITS`] it fixes: 0, 8, or 9 to 24.
    pub const fn bits(self) -> u32 {
        match self {
            Transport::Any => 0,
            Transport::Protocol(_) => 8,
            Transport::Ports { bits, .. } => 8 + bits as u32,
        }
    }

    /// The protocol, if it is of one.
    pub const fn protocol(self) -> Option<u8> {
        match self {
            Transport::Any => None,
            Transport::Protocol(protocol) | Transport::Ports { protocol, .. } => Some(protocol),
        }
    }

    /// Whether connections of this protocol to this port are meant.
    pub const fn contains(self, protocol: u8, port: u16) -> bool {
        match self {
            Transport::Any => true,
            Transport::Protocol(own) => own == protocol,
            Transport::Ports { protocol: own, port: first, bits } => {
                own == protocol && (first ^ port).leading_zeros() >= bits as u32
            }
        }
    }

    /// Whether everything that `other` means is meant, too.
    pub const fn covers(self, other: Transport) -> bool {
        match other {
            _ if self.bits() > other.bits() => false,
            Transport::Any => true,
            Transport::Protocol(protocol) => self.contains(protocol, 0),
            Transport::Ports { protocol, port, .. } => self.contains(protocol, port),
        }
    }
}

impl Tables {
    /// No policy governs: everything may pass in both directions.
    pub fn open() -> Self {
        let value = PolicyEntry { rule: RULE_NONE, verdict: ALLOW, ..PolicyEntry::default() };
        let entry = |direction| TableEntry { peer: direction | ANY_PEER, transport: Transport::Any, value };
        Tables { entries: vec![entry(0), entry(EGRESS)], prefixes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_tables_let_everything_pass_in_both_directions() {
        let peers: Vec<_> = Tables::open().entries.iter().map(|e| (e.peer, e.value.verdict)).collect();
        assert_eq!(peers, [(ANY_PEER, ALLOW), (EGRESS | ANY_PEER, ALLOW)]);
    }

    #[test]
    fn ports_with_the_same_leading_bits_are_contained() {
        let ports = Transport::Ports { protocol: 6, port: 8080, bits: 14 };
        assert!(ports.contains(6, 8080) && ports.contains(6, 8083));
        assert!(!ports.contains(6, 8084) && !ports.contains(6, 8079) && !ports.contains(17, 8080));
        assert_eq!(ports.bits(), 22);
    }

    #[test]
    fn a_transport_covers_what_is_within_it() {
        let all = Transport::Protocol(6);
        let some = Transport::Ports { protocol: 6, port: 0, bits: 1 };
        let one = Transport::Ports { protocol: 6, port: 80, bits: 16 };
        assert!(Transport::Any.covers(all) && all.covers(some) && some.covers(one) && one.covers(one));
        assert!(!one.covers(some) && !some.covers(all) && !all.covers(Transport::Any));
        assert!(!Transport::Protocol(17).covers(one));
    }
}
