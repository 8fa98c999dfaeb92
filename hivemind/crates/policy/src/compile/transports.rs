//! Protocols and ports, each with the rule that allows them.

use std::collections::BTreeMap;

use crate::{rules::PortRange, tables::Transport};

/// Transports that are allowed, and by which rule. All of them allow, so it does not matter which one a lookup finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Transports(BTreeMap<Transport, u32>);

impl Transports {
    /// What `rule` allows with these ports; `None` is every protocol.
    pub(super) fn of_rule(ports: Option<&[PortRange]>, rule: u32) -> Self {
        Transports(match ports {
            None => [(Transport::Any, rule)].into_iter().collect(),
            Some(ports) => {
                ports.iter().flat_map(|range| prefixes(*range)).map(|transport| (transport, rule)).collect()
            }
        })
    }

    /// Allows what `other` allows, too. What both allow keeps the lower rule.
    pub(super) fn add(&mut self, other: &Transports) {
        for (transport, rule) in &other.0 {
            self.0.entry(*transport).and_modify(|own| *own = (*own).min(*rule)).or_insert(*rule);
        }
    }

    pub(super) fn allows_everything(&self) -> bool {
        self.0.contains_key(&Transport::Any)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Transport, u32)> {
        self.0.iter().map(|(transport, rule)| (*transport, *rule))
    }

    /// Without what a broader transport in it, or any in `besides`, allows already.
    pub(super) fn reduced(&self, besides: &Transports) -> Self {
        let needless = |transport: Transport| {
            besides.0.contains_key(&transport)
                || broader(transport).any(|t| self.0.contains_key(&t) || besides.0.contains_key(&t))
        };
        Transports(self.iter().filter(|(transport, _)| !needless(*transport)).collect())
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

    #[test]
    fn what_a_broader_transport_allows_is_left_out() {
        let all = Transports::of_rule(Some(&[range(0, 65_535)]), 1);
        let mut some = Transports::of_rule(Some(&[range(80, 80), range(64, 127)]), 2);
        assert_eq!(some.reduced(&Transports::default()).0.len(), 1);
        assert!(some.reduced(&all).0.is_empty());
        some.add(&all);
        assert_eq!(some.reduced(&Transports::default()), all);
        assert!(all.reduced(&Transports::of_rule(None, 3)).0.is_empty());
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
