//! What is counted and what is told of connections.
//!
//! Exact totals are kept for each pair: source and destination identity, protocol, destination port, verdict. On a
//! connection's first packet its pair is looked up once; its number, kept in the connection's entry, is an index into
//! counters of each CPU. Pairs are bounded: what finds no free number counts into the collective one,
//! [`PAIR_OTHER`]. Single connections are told as [`Event`]s through one ring buffer, at most so many a second of each
//! class; what is not told is counted.

use crate::drop_reason::DropReason;

/// The number of the collective pair: whatever found no number of its own.
pub const PAIR_OTHER: u32 = 0;

/// Key of `pair`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PairKey {
    /// Identity of the end that began.
    pub source: u32,
    /// Identity of the other end.
    pub destination: u32,
    /// Port of the other end, in network order.
    pub port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`crate::policy::ALLOW`] or [`crate::policy::DENY`].
    pub verdict: u8,
}

/// Value of `pair_counters`, which has those of the first processor by the pair's number, then those of the second, and so on; a
/// reader maps it into its memory. (As a map by processor the kernel would make them one by one, which took it 18 ms.) Arrays: what the end that began sent, then what the other sent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PairCounters {
    /// Bytes of IP packets.
    pub bytes: [u64; 2],
    /// Packets; segments that the kernel cuts later count singly.
    pub packets: [u64; 2],
    /// Connections; of denied ones, attempts.
    pub connections: u64,
}

/// Key of `rtt`: a TCP socket's own identity and its peer's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RttKey {
    /// The identity of the side whose socket measured.
    pub local: u32,
    /// The identity of the other side.
    pub peer: u32,
    /// The number of the node that the other side is on; zero if it is this node or none.
    pub node: u32,
}

/// In a [`DropKey`]: the packet was no endpoint's, and the node's own stack sent it. What came in is under
/// [`crate::endpoint::OUTSIDE`].
pub const DROPS_OF_HOST: u32 = u32::MAX;

/// Key of `endpoint_drops`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DropKey {
    /// The endpoint at whose interface, or on whose way, the packet was dropped; else [`crate::endpoint::OUTSIDE`] or
    /// [`DROPS_OF_HOST`].
    pub endpoint: u32,
    /// The number of the [`DropReason`].
    pub reason: u32,
}

/// How many buckets an [`RttHistogram`] has.
pub const RTT_BUCKETS: usize = 20;
/// The first bucket counts round trips below two to this power, in microseconds; each further one twice as long.
pub const RTT_FIRST_BITS: u32 = 4;

/// Value of `rtt`, on each CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RttHistogram {
    /// Round trips by [`rtt_bucket`].
    pub buckets: [u64; RTT_BUCKETS],
    /// Their sum in microseconds.
    pub sum_us: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

/// The bucket of a round trip: 0 below 16 µs, 1 below 32 µs, and so on; the last one has no bound.
#[inline(always)]
pub fn rtt_bucket(rtt_us: u32) -> usize {
    let bits = 32 - (rtt_us >> RTT_FIRST_BITS).leading_zeros();
    let last = RTT_BUCKETS as u32 - 1;
    (if bits < last { bits } else { last }) as usize
}

/// `kind` of an [`Event`]: a connection's first packet passed.
pub const EVENT_NEW: u8 = 0;
/// `kind` of an [`Event`]: a connection ended.
pub const EVENT_CLOSED: u8 = 1;
/// `kind` of an [`Event`]: a packet was dropped or denied; `reason` says why.
pub const EVENT_DROPPED: u8 = 2;

/// One thing that happened, as it lies in the ring buffer. Arrays: the end that began the connection, then the other; of a
/// packet that was dropped before that was known, its sender and its receiver.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// When the connection began; zero if there is none.
    pub began_ns: u64,
    /// Bytes of IP packets that each end sent.
    pub bytes: [u64; 2],
    /// Packets that each end sent.
    pub packets: [u64; 2],
    /// Addresses, as they lie in packets; an IPv4 address is the first word.
    pub addresses: [[u32; 4]; 2],
    /// Identities; zero where unknown.
    pub identities: [u32; 2],
    /// The rules of the policies: the source's egress rule, the destination's ingress rule.
    pub rules: [u32; 2],
    /// The interface of the endpoint at which the program sits.
    pub interface: u32,
    /// Ports in network order.
    pub ports: [u16; 2],
    /// The transport protocol's number.
    pub protocol: u8,
    /// 4 or 6; zero if the packet could not be read.
    pub family: u8,
    /// [`EVENT_NEW`], [`EVENT_CLOSED`] or [`EVENT_DROPPED`].
    pub kind: u8,
    /// The number of the [`DropReason`], of a drop.
    pub reason: u8,
    /// Always zero.
    pub padding: [u32; 1],
}

/// How many classes of events there are.
pub const EVENT_CLASSES: u32 = 2 + DropReason::COUNT;

/// The class by which an event is limited and counted: new, closed, then each reason to drop.
#[inline(always)]
pub const fn event_class(kind: u8, reason: u8) -> u32 {
    if kind == EVENT_DROPPED { 2 + reason as u32 } else { kind as u32 }
}

/// Value of `event_budgets`, on each CPU: a token bucket, and what came of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventBudget {
    /// Events that may be told now, in nanoseconds of [`EventBudget::take`].
    pub credit_ns: u64,
    /// When credit was given last.
    pub refilled_ns: u64,
    /// Events that were told.
    pub told: u64,
    /// Events that were not: too many, or no room in the ring buffer.
    pub lost: u64,
}

/// Events of new and of closed connections that each CPU tells a second, and at once.
pub const FLOW_EVENTS_PER_S: u64 = 20_000;
/// Events of each reason to drop that each CPU tells a second, and at once.
pub const DROP_EVENTS_PER_S: u64 = 200;

impl EventBudget {
    /// Whether one more event may be told at `now_ns`, of a class of which `per_s` may be told a second.
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64, per_s: u64) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let price_ns = SECOND_NS / per_s;
        // Who interrupted another may have looked at the clock after it: time does not go back for that.
        let since_ns = now_ns.saturating_sub(self.refilled_ns);
        self.refilled_ns += since_ns;
        let credit = self.credit_ns.saturating_add(since_ns);
        // A second's worth at most; a clock that never ran before gives just that.
        self.credit_ns = if credit < SECOND_NS { credit } else { SECOND_NS };
        if self.credit_ns < price_ns {
            return false;
        }
        self.credit_ns -= price_ns;
        true
    }
}

/// Feature: policies are looked at.
pub const FEATURE_POLICY: u32 = 1;
/// Feature: connections are remembered.
pub const FEATURE_TRACKING: u32 = 2;
/// Feature: pairs are counted, events told, round trips measured.
pub const FEATURE_TELEMETRY: u32 = 4;
/// Feature: connections that a table of the layout before still holds are taken over when a packet of theirs comes. Only while
/// programs are changed: see [`crate::layout`].
pub const FEATURE_TAKE_OVER: u32 = 8;
/// Every feature that a data path has for good.
pub const FEATURES_ALL: u32 = FEATURE_POLICY | FEATURE_TRACKING | FEATURE_TELEMETRY;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_bucket_ends_at_twice_the_one_before() {
        for (rtt, bucket) in
            [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2), (1 << 20, 17), (1 << 22, 19), (u32::MAX, 19)]
        {
            assert_eq!(rtt_bucket(rtt), bucket, "{rtt} µs");
        }
    }

    #[test]
    fn a_budget_gives_a_seconds_worth_at_once_and_then_at_its_rate() {
        let mut budget = EventBudget::default();
        let start = 5_000_000_000;
        assert_eq!((0..1_000).filter(|_| budget.take(start, 200)).count(), 200);
        assert!(!budget.take(start + 4_000_000, 200));
        assert!(budget.take(start + 5_000_000, 200));
    }

    proptest! {
        #[test]
        fn no_timing_gets_more_out_of_a_budget_than_its_rate_and_one_burst(
            gaps in prop::collection::vec((0u64..20_000_000, 0u64..5_000), 1..500)
        ) {
            let mut budget = EventBudget::default();
            let start = 10_000_000_000_u64;
            let mut now = start;
            let mut told = 0;
            for (gap, late) in gaps {
                now += gap;
                // Looked at the clock `late` nanoseconds before the one that it is after.
                told += u64::from(budget.take(now - late, 200));
            }
            prop_assert!(told <= 200 + (now - start) / 5_000_000 + 1);
        }
    }
}
