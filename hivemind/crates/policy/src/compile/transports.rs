//! Protocols and ports, each with what is said of it.

use std::collections::BTreeMap;

use hivemind_common::policy::RULE_NONE;
use hivemind_model::IdentitySpec;

use crate::{
    rules::{PortRange, Speech, protocol_number},
    tables::Transport,
};

/// What a rule says of what it matches; of two that say something the one of the greater precedence counts, and among
/// equals, which say the same, the one with the lower number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Said {
    pub(super) precedence: u32,
    /// A verdict of [`hivemind_common::policy`]; zero says nothing.
    pub(super) verdict: u8,
    pub(super) rule: u32,
}

impl Said {
    /// Nothing at all.
    pub(super) const NOTHING: Self = Said { precedence: 0, verdict: 0, rule: RULE_NONE };

    fn or(self, other: Self) -> Self {
        let is_weaker = (self.precedence, other.rule) < (other.precedence, self.rule);
        if is_weaker { other } else { self }
    }
}

/// Transports of which something is said; of those that match a connection the one counts that says it with the greatest
/// precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Transports(BTreeMap<Transport, Said>);

impl Transports {
    /// What a rule says with these transports, of which `None` is every protocol. `taker` is who takes the connection, and
    /// has ports with names.
    pub(super) fn of_rule(transports: Option<&[Speech]>, taker: Option<&IdentitySpec>, said: Said) -> Self {
        let Some(transports) = transports else {
            return Transports([(Transport::Any, said)].into_iter().collect());
        };
        let ranges = transports.iter().flat_map(|speech| ranges(speech, taker));
        Transports(ranges.flat_map(prefixes).map(|transport| (transport, said)).collect())
    }

    /// Says what `other` says, too.
    pub(super) fn add(&mut self, other: &Transports) {
        for (transport, said) in &other.0 {
            self.0.entry(*transport).and_modify(|own| *own = own.or(*said)).or_insert(*said);
        }
    }

    /// Whether it says something of everything.
    pub(super) fn says_everything(&self) -> bool {
        self.0.contains_key(&Transport::Any)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Transport, Said)> {
        self.0.iter().map(|(transport, said)| (*transport, *said))
    }

    /// The same for lookups that find the longest transport only: each says what the strongest says that covers it. Without what
    /// a broader one says already, and without what `besides`, which is looked up as well, says with no less precedence.
    pub(super) fn reduced(&self, besides: &Transports) -> Self {
        let mut reduced = BTreeMap::new();
        let mut all: Vec<(Transport, Said)> = self.iter().collect();
        // The broad ones first.
        all.sort_by_key(|(transport, _)| transport.bits());
        for (transport, own) in all {
            let around = broader(transport).filter_map(|broad| self.0.get(&broad).copied());
            let inherited = around.reduce(Said::or);
            let said = inherited.map_or(own, |inherited| inherited.or(own));
            let beside = broader(transport).chain([transport]).filter_map(|broad| besides.0.get(&broad));
            let is_said_besides = beside.into_iter().any(|beside| beside.precedence >= said.precedence);
            let is_inherited = inherited.is_some_and(|inherited| inherited.precedence >= own.precedence);
            if !is_said_besides && !is_inherited {
                reduced.insert(transport, said);
            }
        }
        Transports(reduced)
    }
}

/// The ports that are meant, as far as the one who takes the connection has them.
fn ranges(speech: &Speech, taker: Option<&IdentitySpec>) -> Vec<PortRange> {
    match speech {
        Speech::Ports(range) => vec![*range],
        Speech::Named { name, protocol } => {
            let ports = taker.into_iter().flat_map(|taker| &taker.ports).filter(|port| port.name == *name);
            let ports = ports.map(|port| PortRange {
                protocol: protocol_number(port.protocol),
                first: port.port,
                last: port.port,
            });
            ports.filter(|range| protocol.is_none_or(|protocol| protocol == range.protocol)).collect()
        }
    }
}

/// All transports that are broader than this one.
fn broader(transport: Transport) -> impl Iterator<Item = Transport> {
    let by_port = match transport {
        Transport::Ports { protocol, port, bits } => {
            let shorter = move |bits: u8| Transport::Ports { protocol, port: port & mask(bits), bits };
            Some((1..bits).map(shorter))
        }
        _ => None,
    };
    let by_protocol = match transport {
        Transport::Ports { protocol, .. } => Some(Transport::Protocol(protocol)),
        _ => None,
    };
    let any = (transport != Transport::Any).then_some(Transport::Any);
    any.into_iter().chain(by_protocol).chain(by_port.into_iter().flatten())
}

/// The leading `bits` (1 to 16) of a port.
fn mask(bits: u8) -> u16 {
    u16::MAX << (16 - bits)
}

/// The fewest prefixes that make up a range: at most 30.
fn prefixes(range: PortRange) -> Vec<Transport> {
    let PortRange { protocol, first, last } = range;
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut found = Vec::new();
    while next < end {
        // As many as the alignment of the first allows, and the rest of the range.
        let aligned = next.trailing_zeros().min(16);
        let fitting = (end - next).ilog2();
        let size = aligned.min(fitting);
        found.push(match u8::try_from(16 - size) {
            Ok(bits @ 1..) => {
                Transport::Ports { protocol, port: u16::try_from(next).unwrap_or(u16::MAX), bits }
            }
            _ => Transport::Protocol(protocol),
        });
        next += 1 << size;
    }
    found
}

#[cfg(test)]
mod tests {
    use hivemind_common::policy::{ALLOW, DENY};
    use hivemind_model::{NamedPort, PolicyProtocol};
    use proptest::prelude::*;

    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { protocol: 6, first, last }
    }

    #[test]
    fn a_range_is_made_of_few_prefixes() {
        assert_eq!(prefixes(range(0, 65_535)), [Transport::Protocol(6)]);
        assert_eq!(prefixes(range(80, 80)), [Transport::Ports { protocol: 6, port: 80, bits: 16 }]);
        assert_eq!(
            prefixes(range(32_000, 32_768)),
            [
                Transport::Ports { protocol: 6, port: 32_000, bits: 8 },
                Transport::Ports { protocol: 6, port: 32_256, bits: 7 },
                Transport::Ports { protocol: 6, port: 32_768, bits: 16 }
            ]
        );
        assert_eq!(prefixes(range(1, 65_534)).len(), 30);
    }

    fn said(precedence: u32, rule: u32) -> Said {
        Said { precedence, verdict: if precedence == 2 { DENY } else { ALLOW }, rule }
    }

    fn of(ranges: &[PortRange], said: Said) -> Transports {
        let speech: Vec<_> = ranges.iter().copied().map(Speech::Ports).collect();
        Transports::of_rule(Some(&speech), None, said)
    }

    #[test]
    fn what_a_broader_transport_says_is_left_out() {
        let all = of(&[range(0, 65_535)], said(1, 1));
        let mut some = of(&[range(80, 80), range(64, 127)], said(1, 2));
        assert_eq!(some.reduced(&Transports::default()).0.len(), 1);
        assert!(some.reduced(&all).0.is_empty());
        some.add(&all);
        assert_eq!(some.reduced(&Transports::default()), all);
        assert!(all.reduced(&Transports::of_rule(None, None, said(1, 3))).0.is_empty());
    }

    #[test]
    fn what_is_stronger_stays_within_what_is_broader_and_reaches_into_what_is_weaker() {
        let mut all = of(&[range(64, 127)], said(2, 1));
        all.add(&of(&[range(0, 65_535), range(80, 80)], said(1, 2)));
        let reduced = all.reduced(&Transports::default());
        let denied = Transport::Ports { protocol: 6, port: 64, bits: 10 };
        assert_eq!(
            reduced.iter().collect::<Vec<_>>(),
            [(Transport::Protocol(6), said(1, 2)), (denied, said(2, 1))],
            "port 80 is denied as the others are"
        );
        let besides = Transports::of_rule(None, None, said(1, 9));
        assert_eq!(all.reduced(&besides).iter().collect::<Vec<_>>(), [(denied, said(2, 1))]);
    }

    #[test]
    fn a_name_means_the_port_that_the_taker_calls_so() {
        let mut taker = IdentitySpec::clone(&hivemind_model::Identity::dns());
        let port = |name: &str, port, protocol| NamedPort { name: name.to_owned(), port, protocol };
        taker.ports = vec![
            port("http", 80, PolicyProtocol::Tcp),
            port("http", 81, PolicyProtocol::Udp),
            port("x", 82, PolicyProtocol::Tcp),
        ];
        let of = |protocol, taker| {
            let speech = [Speech::Named { name: "http".to_owned(), protocol }];
            let transports = Transports::of_rule(Some(&speech), taker, said(1, 1));
            transports.iter().map(|(transport, _)| transport).collect::<Vec<_>>()
        };
        let tcp = Transport::Ports { protocol: 6, port: 80, bits: 16 };
        let udp = Transport::Ports { protocol: 17, port: 81, bits: 16 };
        assert_eq!(of(Some(6), Some(&taker)), [tcp]);
        assert_eq!(of(None, Some(&taker)), [tcp, udp]);
        assert_eq!(of(None, None), []);
    }

    proptest! {
        #[test]
        fn prefixes_hold_the_ports_of_their_range_once_and_no_others(a: u16, b: u16, near in 0_u16..4) {
            let (first, last) = (a.min(b), a.max(b));
            let found = prefixes(range(first, last));
            prop_assert!(found.len() <= 30);
            for port in [first.wrapping_add(near), first.wrapping_sub(near), last.wrapping_add(near), last.wrapping_sub(near)] {
                let holders = found.iter().filter(|t| t.contains(6, port)).count();
                prop_assert_eq!(holders, usize::from((first..=last).contains(&port)), "port {}", port);
            }
        }

        #[test]
        fn broader_transports_are_those_that_cover(port: u16, bits in 1_u8..=16) {
            let transport = Transport::Ports { protocol: 6, port: port & mask(bits), bits };
            let found: Vec<_> = broader(transport).collect();
            prop_assert_eq!(found.len(), usize::from(bits) + 1);
            prop_assert!(found.iter().all(|t| *t != transport && t.covers(transport)));
        }
    }
}
