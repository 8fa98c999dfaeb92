//! Sets of what connections can speak: protocols with ranges of ports.

use std::collections::BTreeMap;

use hivemind_common::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};

use crate::Speaks;

/// The last port, which is the last message of ICMP, too.
const LAST: u16 = u16::MAX;

/// What policies tell apart of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyTransport {
    /// TCP, by port.
    Tcp,
    /// UDP, by port.
    Udp,
    /// SCTP, by port.
    Sctp,
    /// ICMP of IPv4, by message: the type in the higher byte of what is a port elsewhere, the code in the lower.
    Icmp,
    /// ICMP of IPv6, by message.
    Icmpv6,
    /// Every other protocol: no rule names one, so that all of them are allowed or none. Whoever is in the set has all ports.
    Other,
}

impl PolicyTransport {
    /// All of them.
    pub const ALL: [PolicyTransport; 6] = [
        PolicyTransport::Tcp,
        PolicyTransport::Udp,
        PolicyTransport::Sctp,
        PolicyTransport::Icmp,
        PolicyTransport::Icmpv6,
        PolicyTransport::Other,
    ];

    /// That of a protocol's IP number.
    pub fn of(protocol: u8) -> Self {
        match protocol {
            TCP => PolicyTransport::Tcp,
            UDP => PolicyTransport::Udp,
            SCTP => PolicyTransport::Sctp,
            ICMP => PolicyTransport::Icmp,
            ICMPV6 => PolicyTransport::Icmpv6,
            _ => PolicyTransport::Other,
        }
    }

    /// The protocol's IP number; one of those that stand for all others.
    pub(crate) fn number(self) -> u8 {
        match self {
            PolicyTransport::Tcp => TCP,
            PolicyTransport::Udp => UDP,
            PolicyTransport::Sctp => SCTP,
            PolicyTransport::Icmp => ICMP,
            PolicyTransport::Icmpv6 => ICMPV6,
            // Kept for experiments by RFC 3692.
            PolicyTransport::Other => 253,
        }
    }

    /// Whether it is spoken between addresses of a family.
    pub(crate) fn is_of_family(self, is_ipv6: bool) -> bool {
        match self {
            PolicyTransport::Icmp => !is_ipv6,
            PolicyTransport::Icmpv6 => is_ipv6,
            _ => true,
        }
    }
}

/// A set of protocols with ports. Two sets of the same are equal: ranges are sorted and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(BTreeMap<PolicyTransport, Vec<(u16, u16)>>);

impl PortSet {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of some protocols.
    pub fn all_of(transports: impl IntoIterator<Item = PolicyTransport>) -> Self {
        PortSet(transports.into_iter().map(|transport| (transport, vec![(0, LAST)])).collect())
    }

    /// Those that connections speak, which come in the order of protocols and ports; all of a protocol that has no ports.
    pub(crate) fn of_sorted(spoken: impl IntoIterator<Item = Speaks>) -> Self {
        let mut set = PortSet::new();
        for Speaks { protocol, port } in spoken {
            match PolicyTransport::of(protocol) {
                PolicyTransport::Other => drop(set.0.insert(PolicyTransport::Other, vec![(0, LAST)])),
                transport => set.append(transport, port, port),
            }
        }
        set
    }

    /// Adds ports that lie behind all those of the protocol that are in it.
    pub(crate) fn append(&mut self, transport: PolicyTransport, first: u16, last: u16) {
        let ranges = self.0.entry(transport).or_default();
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => ranges.push((first, last)),
        }
    }

    /// Whether a connection is of this set.
    pub fn contains(&self, speaks: Speaks) -> bool {
        self.has(PolicyTransport::of(speaks.protocol), speaks.port)
    }

    fn has(&self, transport: PolicyTransport, port: u16) -> bool {
        let ranges = self.0.get(&transport).map_or(&[][..], Vec::as_slice);
        let at = ranges.partition_point(|(_, last)| *last < port);
        ranges.get(at).is_some_and(|(first, _)| *first <= port)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Protocols with their first and last ports, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (PolicyTransport, u16, u16)> {
        self.0
            .iter()
            .flat_map(|(transport, ranges)| ranges.iter().map(|(first, last)| (*transport, *first, *last)))
    }

    /// What is in either.
    pub fn or(&self, other: &Self) -> Self {
        self.combined(other, |own, others| own || others)
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        self.combined(other, |own, others| own && others)
    }

    /// What is in this one only.
    pub fn without(&self, other: &Self) -> Self {
        self.combined(other, |own, others| own && !others)
    }

    /// What is in the result depends on no more than what is in the two, and that only changes where a range begins or ends.
    fn combined(&self, other: &Self, is_in: impl Fn(bool, bool) -> bool) -> Self {
        let mut result = PortSet::new();
        for transport in PolicyTransport::ALL {
            let ranges = [self, other].map(|set| set.0.get(&transport).map_or(&[][..], Vec::as_slice));
            let mut firsts = vec![0];
            for (first, last) in ranges.into_iter().flatten() {
                firsts.push(*first);
                firsts.extend(last.checked_add(1));
            }
            firsts.sort_unstable();
            firsts.dedup();
            for (first, last) in intervals(&firsts) {
                if is_in(self.has(transport, first), other.has(transport, first)) {
                    result.append(transport, first, last);
                }
            }
        }
        result
    }
}

/// The intervals that begin at these ports, which are sorted; the last one ends with the last port.
pub(super) fn intervals(firsts: &[u16]) -> impl Iterator<Item = (u16, u16)> {
    let lasts = firsts.iter().skip(1).map(|next| next - 1).chain([LAST]);
    firsts.iter().copied().zip(lasts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(ranges: &[(u16, u16)]) -> PortSet {
        let mut set = PortSet::new();
        ranges.iter().for_each(|(first, last)| set.append(PolicyTransport::Tcp, *first, *last));
        set
    }

    #[test]
    fn sets_of_ports_are_put_together_and_ranges_that_touch_become_one() {
        let (low, high) = (tcp(&[(0, 79), (443, 443)]), tcp(&[(80, 100), (444, LAST)]));
        assert_eq!(low.or(&high), tcp(&[(0, 100), (443, LAST)]));
        assert!(low.and(&high).is_empty());
        let everything = PortSet::all_of(PolicyTransport::ALL);
        assert_eq!(everything.and(&low), low);
        let without = everything.without(&low);
        assert_eq!(without.and(&tcp(&[(0, LAST)])), tcp(&[(80, 442), (444, LAST)]));
        assert_eq!(without.or(&low), everything);
        assert!(low.without(&low).is_empty() && low.without(&everything).is_empty());
    }

    #[test]
    fn protocols_that_no_rule_names_are_all_in_it_or_none() {
        let other = PortSet::of_sorted([47, 50].map(|protocol| Speaks { protocol, port: 0 }));
        for protocol in [0, 47, 50, 255] {
            assert!(other.contains(Speaks { protocol, port: 9 }));
        }
        assert!(!other.contains(Speaks { protocol: TCP, port: 7 }));
    }
}
