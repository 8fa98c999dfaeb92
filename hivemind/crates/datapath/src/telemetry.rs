//! What the programs tell and count, as the daemon reads it: events of connections, the connections themselves, and
//! totals of pairs.
//!
//! Nothing here changes what happens to a packet. [`events`] reads the ring buffer and hands what is in it to whoever
//! listens, through a [`feed`]; [`connections`] reads the tables of connections; [`pairs`] and
//! [`verdicts`] read and tidy up the counters.

pub(crate) mod connections;
pub(crate) mod events;
pub(crate) mod feed;
mod pair_counters;
pub(crate) mod pairs;
pub(crate) mod verdicts;

use hivemind_common::{drop_reason::DropReason, telemetry::RTT_BUCKETS};
use jiff::Timestamp;
use std::net::IpAddr;

/// A connection, or an attempt at one, at one moment. Arrays: the end that began it, then the other; of a packet that was
/// dropped before that was known, its sender and its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEvent {
    /// When this was so.
    pub time: Timestamp,
    /// When the connection began, if there is one.
    pub began: Option<Timestamp>,
    /// What happened.
    pub kind: FlowKind,
    /// The end that began it.
    pub source: FlowPeer,
    /// The other end.
    pub destination: FlowPeer,
    /// The transport protocol's number; zero if the packet could not be read.
    pub protocol: u8,
    /// The number of the rule of the source's policy that decided ([`hivemind_common::policy::rule_parts`]); zero: no
    /// policy governs the source, or it was not asked.
    pub egress_rule: u32,
    /// The same of the destination's policy.
    pub ingress_rule: u32,
    /// Bytes of IP packets that each end sent so far.
    pub bytes: [u64; 2],
    /// Packets that each end sent so far.
    pub packets: [u64; 2],
    /// The number of the interface at which the program sits; zero if it is not known.
    pub interface: u32,
}

/// What happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowKind {
    /// Its first packet passed.
    New,
    /// It goes on.
    Live,
    /// It ended, or was silent for too long.
    Closed,
    /// A packet was dropped, or denied by a policy.
    Dropped(DropReason),
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowPeer {
    /// Its address, if the packet could be read.
    pub address: Option<IpAddr>,
    /// Its port; of a ping, its identifier; zero for protocols without ports.
    pub port: u16,
    /// Its workload identity; zero if it is not known.
    pub identity: u32,
}

/// What a reader of events gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowItem {
    /// An event.
    Event(FlowEvent),
    /// So many events are lost to this reader, who was too slow.
    Lost(u64),
    /// So many events were not told by the kernel: too many of one class in a second, or no room in the ring buffer.
    LostInKernel(u64),
}

/// Totals of a pair: what went between two identities over one protocol and port. Arrays as in [`FlowEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairStatistics {
    /// The identity of the end that began.
    pub source: u32,
    /// The identity of the other end.
    pub destination: u32,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port of the other end; zero for protocols without ports.
    pub port: u16,
    /// Whether it was allowed, or denied by a policy.
    pub allowed: bool,
    /// Its totals.
    pub totals: PairTotals,
}

/// Totals since the maps were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PairTotals {
    /// Bytes of IP packets.
    pub bytes: [u64; 2],
    /// Packets; the segments of a packet that the kernel cuts later count singly.
    pub packets: [u64; 2],
    /// Connections; of what was denied, attempts.
    pub connections: u64,
}

/// Round trips between the sockets of one identity and those of another, as the kernel's TCP measured them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTripStatistics {
    /// The identity whose sockets measured.
    pub local: u32,
    /// The identity of the other end.
    pub peer: u32,
    /// The number of the node that the other end is on; zero if it is this node or none.
    pub node: u16,
    /// How many by length: below 16 µs, below 32 µs, and so on, each bucket's bound twice the one before; the last has no
    /// bound.
    pub buckets: [u64; RTT_BUCKETS],
    /// Their sum in microseconds.
    pub sum_us: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

/// How many connections a rule of a policy decided about in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerdictStatistics {
    /// The number of the rule ([`hivemind_common::policy::rule_parts`]); none: of all rules that found no room.
    pub rule: Option<u32>,
    /// Whether it let them pass.
    pub allowed: bool,
    /// Connections, since the policy was made or the maps were; of denied ones, attempts.
    pub connections: u64,
}

/// How many events of a class were told, and how many were not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventStatistics {
    /// `new`, `closed`, or the name of a reason to drop.
    pub class: &'static str,
    /// Events that were told.
    pub told: u64,
    /// Events that were not: too many in a second, or no room in the ring buffer.
    pub lost: u64,
}

/// The classes in the order of their numbers ([`hivemind_common::telemetry::event_class`]).
pub(crate) fn classes() -> impl Iterator<Item = &'static str> {
    ["new", "closed"].into_iter().chain(DropReason::ALL.into_iter().map(DropReason::name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_common::telemetry::{EVENT_CLASSES, EVENT_DROPPED, event_class};

    #[test]
    fn every_class_has_its_name_at_its_number() {
        let classes: Vec<_> = classes().collect();
        assert_eq!(classes.len(), EVENT_CLASSES as usize);
        for reason in DropReason::ALL {
            assert_eq!(classes[event_class(EVENT_DROPPED, reason as u8) as usize], reason.name());
        }
    }
}
