//! The DNS server's figures.

use hivemind_dns::{Caches, Latency, Lost, Protocol, Queries, Statistics, UpstreamStatistics};
use hivemind_observe::{DnsQueries, DnsSample, DnsUpstream, Durations, Figure};

pub(super) fn sample(statistics: Statistics) -> DnsSample {
    let Statistics { queries, at_once, waited, upstreams, caches, lost, .. } = statistics;
    DnsSample {
        queries: queries.iter().map(self::queries).collect(),
        at_once: durations(&at_once),
        waited: durations(&waited),
        upstreams: upstreams.iter().map(upstream).collect(),
        caches: fills(&caches),
        lost: losses(lost),
    }
}

fn queries(queries: &Queries) -> DnsQueries {
    let Queries { record_type, protocol, outcome, count } = *queries;
    let protocol = match protocol {
        Protocol::Udp => "udp",
        Protocol::Tcp => "tcp",
    };
    DnsQueries { record_type, protocol, outcome, count }
}

fn durations(latency: &Latency) -> Durations {
    let bounds = Latency::BOUNDS_S.into_iter().chain([f64::INFINITY]);
    Durations { buckets: bounds.zip(latency.buckets).collect(), sum_s: latency.sum_s }
}

fn upstream(upstream: &UpstreamStatistics) -> DnsUpstream {
    DnsUpstream {
        address: upstream.address.to_string(),
        is_up: upstream.is_up,
        failed: upstream.failed,
        answers: durations(&upstream.latency),
    }
}

fn fills(caches: &Caches) -> Vec<(Figure, u64)> {
    let all = [("forwarded", caches.forwarded), ("local", caches.local), ("failures", caches.failures)];
    let figure = |name, entries: usize| Figure { name, value: entries as u64 };
    all.map(|(name, fill)| (figure(name, fill.entries), fill.capacity as u64)).into()
}

fn losses(lost: Lost) -> Vec<Figure> {
    let Lost { datagrams, queries, connections, replies } = lost;
    [("datagrams", datagrams), ("queries", queries), ("connections", connections), ("replies", replies)]
        .map(|(name, value)| Figure { name, value })
        .into()
}
