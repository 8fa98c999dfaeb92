//! What the server counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::server::Protocol;

/// What happened since the server started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Queries by their outcome.
    pub outcomes: Outcomes,
    /// The same by type and protocol as well; what did not occur is left out.
    pub queries: Vec<Queries>,
    /// How long queries took that were answered at once, from being read to being sent.
    pub at_once: Latency,
    /// How long queries took that waited for upstreams.
    pub waited: Latency,
    /// The upstreams in use, in their order.
    pub upstreams: Vec<UpstreamStatistics>,
    /// Answers that are kept.
    pub caches: Caches,
    /// What was lost in floods.
    pub lost: Lost,
}

/// How many queries had which outcome. Each query that was answered counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered from the published records, "no such name" and "no such data" included.
    pub local: u64,
    /// Answered by an upstream.
    pub forwarded: u64,
    /// Answered from the cache.
    pub cached: u64,
    /// SERVFAIL: no upstream answered, there is none, or too many questions waited.
    pub failed: u64,
    /// Refused: `ANY`, zone transfers, updates, other classes, and names that are not ours without a wish for
    /// recursion.
    pub refused: u64,
    /// Not understood: not to be decoded, more or fewer than one question, records besides it, or too long. Responses
    /// and what is shorter than a header are in no counter.
    pub malformed: u64,
}

/// How many queries were of one type, came over one protocol and had one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queries {
    /// The type by its name in capital letters, or `other`.
    pub record_type: &'static str,
    /// How it came.
    pub protocol: Protocol,
    /// The name of its outcome: the field of [`Outcomes`].
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamStatistics {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it is asked; if not, it did not answer.
    pub is_up: bool,
    /// How many questions were put to it.
    pub sent: u64,
    /// How many of them it did not answer, or with a failure.
    pub failed: u64,
    /// How long its answers took.
    pub latency: Latency,
}

/// The fill of the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Answers of upstreams that are kept, expired ones that have not made room yet included.
    pub forwarded: Fill,
    /// Local answers that are kept in wire format.
    pub local: Fill,
    /// Failures that are remembered.
    pub failures: Fill,
}

/// How full something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// How many are in it.
    pub entries: usize,
    /// How many fit.
    pub capacity: usize,
}

/// What was lost in floods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Datagrams that the kernel dropped, since we did not read them in time. Known with the next one that is read.
    pub datagrams: u64,
    /// Queries that got SERVFAIL, since too many waited for upstreams.
    pub queries: u64,
    /// Connections that were closed, since there were too many.
    pub connections: u64,
    /// Replies that the kernel did not take.
    pub replies: u64,
}

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many took at most the time in [`Latency::BOUNDS_S`] and more than the one before; the last, how many took
    /// longer than all.
    pub buckets: [u64; LATENCY_BUCKETS],
    /// The sum of all, in seconds.
    pub sum_s: f64,
}

const LATENCY_BUCKETS: usize = 11;

impl Latency {
    /// The upper ends of the buckets but the last, in seconds.
    pub const BOUNDS_S: [f64; LATENCY_BUCKETS - 1] =
        [0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0, 2.5];
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Local,
    Forwarded,
    Cached,
    Failed,
    Refused,
    Malformed,
}

const OUTCOMES: [&str; 6] = ["local", "forwarded", "cached", "failed", "refused", "malformed"];

/// The types that are told singly, by number and name.
const TYPES: [(u16, &str); 11] = [
    (1, "A"),
    (28, "AAAA"),
    (12, "PTR"),
    (33, "SRV"),
    (16, "TXT"),
    (6, "SOA"),
    (2, "NS"),
    (15, "MX"),
    (5, "CNAME"),
    (65, "HTTPS"),
    (64, "SVCB"),
];
const OTHER_TYPE: usize = TYPES.len();
const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// What a query is counted under besides its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    type_at: usize,
    protocol: Protocol,
}

impl Class {
    pub(crate) fn new(record_type: u16, protocol: Protocol) -> Self {
        let found = TYPES.iter().position(|(number, _)| *number == record_type);
        Self { type_at: found.unwrap_or(OTHER_TYPE), protocol }
    }

    /// Of a query whose type is not known, or of no matter.
    pub(crate) fn other(protocol: Protocol) -> Self {
        Self { type_at: OTHER_TYPE, protocol }
    }
}

/// The live counters behind [`Statistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    queries: [[[AtomicU64; OUTCOMES.len()]; PROTOCOLS.len()]; TYPES.len() + 1],
    pub(crate) at_once: Timer,
    pub(crate) waited: Timer,
}

impl Counters {
    pub(crate) fn count(&self, class: Class, outcome: Outcome) {
        self.queries[class.type_at][class.protocol as usize][outcome as usize]
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn queries(&self) -> Vec<Queries> {
        let names = TYPES.iter().map(|(_, name)| *name).chain(["other"]);
        let by_type = names.zip(&self.queries).flat_map(|(record_type, counters)| {
            PROTOCOLS.into_iter().zip(counters).flat_map(move |(protocol, counters)| {
                OUTCOMES.into_iter().zip(counters).map(move |(outcome, count)| Queries {
                    record_type,
                    protocol,
                    outcome,
                    count: count.load(Ordering::Relaxed),
                })
            })
        });
        by_type.filter(|queries| queries.count > 0).collect()
    }
}

impl Outcomes {
    /// The sums over types and protocols.
    pub(crate) fn sum(queries: &[Queries]) -> Self {
        let of = |outcome: Outcome| {
            let name = OUTCOMES[outcome as usize];
            queries.iter().filter(|queries| queries.outcome == name).map(|queries| queries.count).sum()
        };
        Self {
            local: of(Outcome::Local),
            forwarded: of(Outcome::Forwarded),
            cached: of(Outcome::Cached),
            failed: of(Outcome::Failed),
            refused: of(Outcome::Refused),
            malformed: of(Outcome::Malformed),
        }
    }
}

/// The live counters behind [`Latency`].
#[derive(Debug, Default)]
pub(crate) struct Timer {
    buckets: [AtomicU64; LATENCY_BUCKETS],
    sum_ns: AtomicU64,
}

impl Timer {
    /// Counts `count` things that took `time` each.
    pub(crate) fn count(&self, time: Duration, count: u64) {
        let seconds = time.as_secs_f64();
        let at = Latency::BOUNDS_S.iter().position(|bound| seconds <= *bound);
        self.buckets[at.unwrap_or(LATENCY_BUCKETS - 1)].fetch_add(count, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(count);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Latency {
        Latency {
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum_s: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_counted_by_type_protocol_and_outcome_and_summed() {
        let counters = Counters::default();
        counters.count(Class::new(28, Protocol::Tcp), Outcome::Local);
        counters.count(Class::new(28, Protocol::Udp), Outcome::Local);
        counters.count(Class::new(4711, Protocol::Udp), Outcome::Failed);
        let queries = counters.queries();
        let line = |record_type, protocol, outcome| Queries { record_type, protocol, outcome, count: 1 };
        assert_eq!(
            queries,
            [
                line("AAAA", Protocol::Udp, "local"),
                line("AAAA", Protocol::Tcp, "local"),
                line("other", Protocol::Udp, "failed")
            ]
        );
        assert_eq!(Outcomes::sum(&queries), Outcomes { local: 2, failed: 1, ..Outcomes::default() });
    }

    #[test]
    fn a_time_is_in_the_bucket_whose_end_it_does_not_pass() {
        let timer = Timer::default();
        timer.count(Duration::from_millis(1), 1);
        timer.count(Duration::from_micros(1001), 2);
        timer.count(Duration::from_secs(9), 1);
        let read = timer.read();
        assert_eq!(read.buckets, [0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1]);
        assert!((read.sum_s - 9.003_002).abs() < 1e-9);
    }
}
