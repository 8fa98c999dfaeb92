//! Snapshots to observe.

use std::{sync::Arc, time::Duration};

use hivemind_common::telemetry::{PairCounters, RTT_BUCKETS, RttHistogram};
use hivemind_observe::*;

use crate::document::Document;

/// The default bounds, but that a series goes at once with its app.
pub(crate) const AT_ONCE: Bounds =
    Bounds { flow_label_sets: 2_000, round_trip_pairs: 400, rules: 4_096, told_when_gone: Duration::ZERO };

pub(crate) fn app(namespace: &str, name: &str) -> Arc<AppName> {
    Arc::new(AppName { namespace: namespace.into(), name: name.into() })
}

/// A pair over TCP: so many connections, ten times as many packets, a thousand times as many bytes; half of it back.
pub(crate) fn pair(source: u32, destination: u32, port: u16, allowed: bool, connections: u64) -> PairSample {
    let counters = PairCounters {
        bytes: [connections * 1_000, connections * 500],
        packets: [connections * 10, connections * 5],
        connections,
    };
    PairSample { source, destination, protocol: Transport::TCP, port, allowed, counters }
}

pub(crate) fn round_trip(local: u32, peer: u32, each: u64) -> RoundTripSample {
    let histogram =
        RttHistogram { buckets: [each; RTT_BUCKETS], sum_us: each * 1_000_000, retransmits: each };
    RoundTripSample { local, peer, histogram }
}

/// A snapshot of these apps, the first of which has the identity 256, the second 257 and so on.
pub(crate) fn snapshot(apps: &[&Arc<AppName>]) -> Snapshot {
    let sample = |app: &&Arc<AppName>| AppSample {
        app: Arc::clone(app),
        wanted: 3,
        replicas: 2,
        ready: 1,
        ports: Vec::new(),
    };
    Snapshot {
        version: "1.2.3".into(),
        node: "node-1".into(),
        apps: apps.iter().map(sample).collect(),
        traffic: Traffic {
            identities: (256..).zip(apps.iter().map(|app| Arc::clone(app))).collect(),
            ..Traffic::default()
        },
        ..Snapshot::default()
    }
}

/// What is told after a snapshot, read from OpenMetrics; text 0.0.4 has to say the same.
pub(crate) fn scrape(metrics: &Metrics, snapshot: Snapshot) -> Document {
    metrics.observe(snapshot);
    let read = |format| Document::read(&metrics.render(format).expect("a scrape"), format);
    let (open_metrics, text) = (read(Format::OpenMetrics), read(Format::Text));
    assert_eq!(open_metrics.samples, text.samples, "the formats do not say the same");
    open_metrics
}

/// The names of series of the ends of flows.
pub(crate) fn flow<'a>(source: &'a str, destination: &'a str) -> [(&'a str, &'a str); 2] {
    [("source_app", source), ("destination_app", destination)]
}
