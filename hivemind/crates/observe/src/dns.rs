//! What is told of the DNS server.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use crate::{
    Figure,
    families::{counter, gauge, of},
    family::{Family, Kind, Unit, Value},
};

/// The DNS server at one moment.
#[derive(Clone, Debug, Default)]
pub struct DnsSample {
    /// Queries answered.
    pub queries: Vec<DnsQueries>,
    /// How long queries took that were answered at once.
    pub at_once: Durations,
    /// How long queries took that waited for upstreams.
    pub waited: Durations,
    /// The upstreams in use; there are a few at most.
    pub upstreams: Vec<DnsUpstream>,
    /// The caches: by name the entries of each, and how many fit.
    pub caches: Vec<(Figure, u64)>,
    /// What was lost in floods, by its name.
    pub lost: Vec<Figure>,
}

/// Queries of one type that came over one protocol and had one outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DnsQueries {
    /// The type, of a fixed, small set.
    pub record_type: &'static str,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// The outcome, of a fixed, small set.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct DnsUpstream {
    /// Its address and port.
    pub address: String,
    /// Whether it is asked.
    pub is_up: bool,
    /// How many questions it did not answer, or with a failure.
    pub failed: u64,
    /// How long its answers took.
    pub answers: Durations,
}

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Durations {
    /// How many fell into each bucket, with the bucket's upper bound in seconds; the last one's is `f64::INFINITY`.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all, in seconds.
    pub sum_s: f64,
}

impl Default for Durations {
    /// None.
    fn default() -> Self {
        Self { buckets: vec![(f64::INFINITY, 0)], sum_s: 0.0 }
    }
}

impl Durations {
    pub(crate) fn value(&self) -> Value<'_> {
        Value::Observations { buckets: &self.buckets, sum: self.sum_s }
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

const QUERIES: Family = counter(
    "hivemind_dns_queries",
    &["type", "protocol", "outcome"],
    "DNS queries answered. A rise of failed means that no upstream answers; of refused or malformed, a strange client; of \
     tcp, answers that do not fit a datagram.",
);
const ANSWER: Family = of(
    Unit::Seconds,
    Family {
        kind: Kind::Histogram,
        ..gauge(
            "hivemind_dns_answer",
            &["waited"],
            "How long queries took from being read to being answered, by whether they waited for upstreams. More in high \
             buckets means slow upstreams, or a daemon that gets no processor.",
        )
    },
);
const UPSTREAM_UP: Family = gauge(
    "hivemind_dns_upstream_up",
    &["upstream"],
    "1 if the upstream is asked. 0 means that it does not answer, and is asked now and then whether it does again.",
);
const UPSTREAM_QUERIES: Family = counter(
    "hivemind_dns_upstream_queries",
    &["upstream", "outcome"],
    "Questions put to an upstream that it answered or did not. A rise of failed means that it is silent or fails itself.",
);
const UPSTREAM_ROUND_TRIP: Family = of(
    Unit::Seconds,
    Family {
        kind: Kind::Histogram,
        ..gauge(
            "hivemind_dns_upstream_round_trip",
            &["upstream"],
            "How long an upstream's answers took. More in high buckets means a slow upstream or network.",
        )
    },
);
const CACHE_ENTRIES: Family = gauge(
    "hivemind_dns_cache_entries",
    &["cache"],
    "Answers that the DNS server keeps, expired ones included. Near its capacity, new ones take the place of old ones.",
);
const CACHE_CAPACITY: Family =
    gauge("hivemind_dns_cache_capacity", &["cache"], "Answers that fit a cache of the DNS server.");
const LOST: Family = counter(
    "hivemind_dns_lost",
    &["what"],
    "What was lost as there was too much: datagrams not read in time, queries that found no room to wait for upstreams, \
     connections closed for others, replies that the kernel did not take. A rise means a flood, or a daemon that gets no \
     processor.",
);

/// All of this module, in the order in which they are written.
pub(crate) const FAMILIES: [Family; 8] = [
    QUERIES,
    ANSWER,
    UPSTREAM_UP,
    UPSTREAM_QUERIES,
    UPSTREAM_ROUND_TRIP,
    CACHE_ENTRIES,
    CACHE_CAPACITY,
    LOST,
];

/// Writes all families.
pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, sample: &DnsSample) -> fmt::Result {
    QUERIES.encode(encoder, |series| {
        sample.queries.iter().try_for_each(|DnsQueries { record_type, protocol, outcome, count }| {
            series.add([record_type, protocol, outcome], Value::Whole(*count))
        })
    })?;
    ANSWER.encode(encoder, |series| {
        series.add(["no"], sample.at_once.value())?;
        series.add(["yes"], sample.waited.value())
    })?;
    upstreams(encoder, &sample.upstreams)?;
    CACHE_ENTRIES.encode(encoder, |series| {
        let mut caches = sample.caches.iter();
        caches.try_for_each(|(fill, _)| series.add([fill.name], Value::Whole(fill.value)))
    })?;
    CACHE_CAPACITY.encode(encoder, |series| {
        let mut caches = sample.caches.iter();
        caches.try_for_each(|(fill, capacity)| series.add([fill.name], Value::Whole(*capacity)))
    })?;
    LOST.encode(encoder, |series| {
        sample.lost.iter().try_for_each(|lost| series.add([lost.name], Value::Whole(lost.value)))
    })
}

fn upstreams(encoder: &mut DescriptorEncoder<'_>, upstreams: &[DnsUpstream]) -> fmt::Result {
    UPSTREAM_UP.encode(encoder, |series| {
        upstreams
            .iter()
            .try_for_each(|upstream| series.add([&upstream.address], Value::Whole(upstream.is_up.into())))
    })?;
    UPSTREAM_QUERIES.encode(encoder, |series| {
        upstreams.iter().try_for_each(|upstream| {
            let answered = upstream.answers.count();
            series.add([&upstream.address, "answered"], Value::Whole(answered))?;
            series.add([&upstream.address, "failed"], Value::Whole(upstream.failed))
        })
    })?;
    UPSTREAM_ROUND_TRIP.encode(encoder, |series| {
        upstreams.iter().try_for_each(|upstream| series.add([&upstream.address], upstream.answers.value()))
    })
}
