//! Which addresses outside, reasons and rules the connections of a minute had, as far as events tell. Everything is bounded: what finds no
//! room is not told here, but counted by the kernel all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hivemind_datapath::{DropReason, FlowEvent, FlowKind, FlowPeer};
use hivemind_flowlog::Counter;
use hivemind_model::Identity;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;

/// How many shares there may be in a minute.
const SHARES_MAX: usize = 8192;
/// How many shares a record may have.
const SHARES_OF_ONE_MAX: usize = 64;
/// How many addresses outside are told singly in an hour; further ones by their blocks.
const ADDRESSES_MAX: usize = 4096;
/// How many blocks are told in an hour; further addresses are just those of the world.
const BLOCKS_MAX: usize = 1024;

/// What the connections of a share have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Common {
    pub(super) ends: [Option<IpNet>; 2],
    /// For which name the destination's address was answered last, if it is told singly.
    pub(super) domain: Option<Arc<str>>,
    /// Whether a policy that only tells would have denied them.
    pub(super) is_audited: bool,
    pub(super) reason: Option<&'static str>,
    /// Numbers of the rules of the source's and of the destination's policy.
    pub(super) rules: [u32; 2],
}

/// What a record is about: a counter, or what was dropped of what it would have counted.
pub(super) type About = (Counter, Option<&'static str>);

/// Shares by what they are of.
pub(super) type Snapshot = BTreeMap<About, BTreeMap<Common, u64>>;

/// The shares of all records of a minute.
#[derive(Debug, Default)]
pub(super) struct Shares {
    of: Snapshot,
    len: usize,
    outside: Outside,
}

/// What names say of an event when it is taken: they may say otherwise once it is written.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The name of the destination's address.
    pub(super) domain: Option<Arc<str>>,
    /// As [`Common::is_audited`].
    pub(super) is_audited: bool,
}

impl Shares {
    /// Takes an event; `ends` are the addresses of those of its ends that are no replicas.
    pub(super) fn take(&mut self, event: &FlowEvent, ends: &[Option<IpAddr>; 2], known: Known) {
        let (is_allowed, dropped, reason) = match event.kind {
            FlowKind::New => (true, None, None),
            FlowKind::Dropped(reason) if is_denial(reason) => (false, None, Some(reason.name())),
            FlowKind::Dropped(reason) => (false, Some(reason.name()), Some(reason.name())),
            FlowKind::Live | FlowKind::Closed => return,
        };
        let has_ports = matches!(event.protocol, 6 | 17 | 132);
        let port = if has_ports { event.destination.port } else { 0 };
        let counter =
            Counter(event.source.identity, event.destination.identity, event.protocol, port, is_allowed);
        let ends = ends.map(|end| end.and_then(|address| self.outside.block(address, event.time)));
        let is_single = ends[1].is_some_and(|block| block.prefix_len() == block.max_prefix_len());
        let common = Common {
            ends,
            domain: known.domain.filter(|_| is_single),
            is_audited: is_allowed && known.is_audited,
            reason,
            rules: [event.egress_rule, event.ingress_rule],
        };
        let about = (counter, dropped);
        if let Some(count) = self.of.get_mut(&about).and_then(|shares| shares.get_mut(&common)) {
            *count += 1;
            return;
        }
        if self.len >= SHARES_MAX
            || self.of.get(&about).is_some_and(|shares| shares.len() >= SHARES_OF_ONE_MAX)
        {
            return;
        }
        self.of.entry(about).or_default().insert(common, 1);
        self.len += 1;
    }

    /// The shares of a record.
    pub(super) fn of(&self, about: &About) -> impl Iterator<Item = (&Common, u64)> {
        self.of.get(about).into_iter().flatten().map(|(common, count)| (common, *count))
    }

    /// Everything that has shares.
    pub(super) fn all(&self) -> impl Iterator<Item = &About> {
        self.of.keys()
    }

    /// Forgets what was written. What was taken since is left.
    pub(super) fn forget(&mut self, written: &Snapshot) {
        for (about, written) in written {
            let Some(shares) = self.of.get_mut(about) else { continue };
            for (common, count) in written {
                if let Some(left) = shares.get_mut(common) {
                    *left = left.saturating_sub(*count);
                }
            }
            let before = shares.len();
            shares.retain(|_, left| *left > 0);
            self.len -= before - shares.len();
        }
        self.of.retain(|_, shares| !shares.is_empty());
    }

    /// Everything that it has now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.of.clone()
    }
}

/// The shares of these alone.
pub(super) fn only(mut all: Snapshot, about: &BTreeSet<About>) -> Snapshot {
    all.retain(|one, _| about.contains(one));
    all
}

/// Whether a pair's counter has it: what policies refuse.
pub(super) fn is_denial(reason: DropReason) -> bool {
    reason.is_denial()
}

/// The address of an end that is no replica.
pub(super) fn outside(peer: &FlowPeer) -> Option<IpAddr> {
    peer.address.filter(|_| peer.identity < Identity::FIRST)
}

/// The addresses outside that were told in this hour.
#[derive(Debug, Default)]
struct Outside {
    hour: i64,
    addresses: BTreeSet<IpAddr>,
    blocks: BTreeSet<IpNet>,
}

impl Outside {
    /// How an address is told: singly, by its /24 or /64, or not at all.
    fn block(&mut self, address: IpAddr, time: Timestamp) -> Option<IpNet> {
        let hour = time.as_second().div_euclid(3_600);
        if hour != self.hour {
            *self = Outside { hour, ..Outside::default() };
        }
        if self.addresses.contains(&address) || self.addresses.len() < ADDRESSES_MAX {
            self.addresses.insert(address);
            return Some(address.into());
        }
        let block = match address {
            IpAddr::V4(address) => Ipv4Net::new(address, 24).ok().map(|net| net.trunc().into()),
            IpAddr::V6(address) => Ipv6Net::new(address, 64).ok().map(|net| net.trunc().into()),
        }?;
        if !self.blocks.contains(&block) && self.blocks.len() >= BLOCKS_MAX {
            return None;
        }
        self.blocks.insert(block);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::FlowVerdict;

    use super::*;
    use crate::flows::{names::Names, round_trips::RoundTrips, told};

    fn begun(port: u16) -> FlowEvent {
        let peer = |identity, address: &str, port| FlowPeer {
            address: Some(address.parse().unwrap()),
            port,
            identity,
        };
        FlowEvent {
            time: Timestamp::from_second(7_200).unwrap(),
            began: None,
            kind: FlowKind::New,
            source: peer(Identity::FIRST, "10.200.0.1", 40_000),
            destination: peer(Identity::WORLD, "192.0.2.1", port),
            protocol: 6,
            egress_rule: 0,
            ingress_rule: 0,
            bytes: [0; 2],
            packets: [0; 2],
            interface: 0,
        }
    }

    fn take(shares: &mut Shares, port: u16, domain: &str) {
        let event = begun(port);
        let ends = [event.source, event.destination].map(|peer| outside(&peer));
        shares.take(&event, &ends, Known { domain: Some(domain.into()), is_audited: false });
    }

    #[test]
    fn connections_with_an_address_are_told_by_the_name_that_it_had_then() {
        let mut shares = Shares::default();
        take(&mut shares, 443, "a.example");
        take(&mut shares, 443, "b.example");
        take(&mut shares, 443, "b.example");
        let about = *shares.all().next().unwrap();
        let told: Vec<_> =
            shares.of(&about).map(|(common, count)| (common.domain.clone().unwrap(), count)).collect();
        assert_eq!(told, [("a.example".into(), 1), ("b.example".into(), 2)]);
    }

    #[test]
    fn what_is_told_as_denied_is_a_share_of_what_is_counted_as_denied_and_nothing_else_is() {
        for reason in DropReason::ALL {
            let event = FlowEvent { kind: FlowKind::Dropped(reason), ..begun(80) };
            let mut shares = Shares::default();
            shares.take(&event, &[None, None], Known::default());
            let (Counter(.., is_allowed), dropped) = *shares.all().next().unwrap();
            let told = told::flow(&event, &Names::default(), &RoundTrips::default(), "n").verdict;
            let expected = match dropped {
                None => FlowVerdict::Denied,
                Some(_) => FlowVerdict::Dropped,
            };
            assert_eq!((told, is_allowed), (expected, false), "{}", reason.name());
            assert!(dropped.is_none_or(|name| name == reason.name()));
        }
    }

    #[test]
    fn what_is_only_audited_is_a_share_of_what_is_allowed_and_a_denial_is_no_audit() {
        let mut shares = Shares::default();
        let denied = FlowEvent { kind: FlowKind::Dropped(DropReason::PolicyIngress), ..begun(80) };
        for (event, is_audited) in [(begun(80), true), (begun(80), false), (begun(80), true), (denied, true)]
        {
            shares.take(&event, &[None, None], Known { domain: None, is_audited });
        }
        let counter = |is_allowed| Counter(Identity::FIRST, Identity::WORLD, 6, 80, is_allowed);
        let told = |is_allowed| -> Vec<_> {
            let about = (counter(is_allowed), None);
            shares.of(&about).map(|(common, count)| (common.is_audited, count)).collect()
        };
        assert_eq!(told(true), [(false, 1), (true, 2)]);
        assert_eq!(told(false), [(false, 1)]);
    }

    #[test]
    fn what_was_written_before_a_failure_is_forgotten_and_the_rest_is_told_again() {
        let mut shares = Shares::default();
        take(&mut shares, 80, "a.example");
        take(&mut shares, 443, "a.example");
        let snapshot = shares.snapshot();
        take(&mut shares, 80, "a.example");
        let [first, second] =
            [80, 443].map(|port| (Counter(Identity::FIRST, Identity::WORLD, 6, port, true), None));
        shares.forget(&only(snapshot, &BTreeSet::from([first])));
        let counts = |about| shares.of(&about).map(|(_, count)| count).collect::<Vec<_>>();
        assert_eq!(counts(first), [1], "what came since");
        assert_eq!(counts(second), [1]);
        assert_eq!(shares.len, 2);
    }

    #[test]
    fn too_many_addresses_an_hour_fold_into_their_blocks_and_then_into_the_world() {
        let mut outside = Outside::default();
        let time = Timestamp::from_second(7_200).unwrap();
        let address =
            |number: usize| IpAddr::from(u32::try_from(0x0a00_0000 + number).unwrap().to_be_bytes());
        for number in 0..ADDRESSES_MAX {
            assert_eq!(outside.block(address(number), time), Some(address(number).into()));
        }
        for number in 0..BLOCKS_MAX {
            let block = outside.block(address(0x10_0000 + number * 256 + 7), time).unwrap();
            assert_eq!((block.prefix_len(), block.addr()), (24, address(0x10_0000 + number * 256)));
        }
        assert_eq!(outside.block(address(0xff_0000), time), None);
        assert_eq!(outside.block("2001:db8::1".parse().unwrap(), time), None);
        assert_eq!(outside.block(address(1), time), Some(address(1).into()), "what is known stays so");
        let later = Timestamp::from_second(10_800).unwrap();
        assert_eq!(outside.block(address(0xff_0000), later), Some(address(0xff_0000).into()));
    }
}
