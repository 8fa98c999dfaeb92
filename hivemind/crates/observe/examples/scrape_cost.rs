//! What a scrape costs when the kernel's table of pairs is full: time and memory. Run with `--release`.

use std::{sync::Arc, time::Instant};

use hivemind_common::telemetry::{PairCounters, RTT_BUCKETS, RttHistogram};
use hivemind_observe::{
    AppName, AppSample, Bounds, Format, Metrics, PairSample, Process, RoundTripSample, Snapshot, Traffic,
    Transport,
};

/// The sizes of the kernel's tables.
const PAIRS: u32 = 16_384;
const ROUND_TRIPS: u32 = 4_096;
const APPS: u32 = 128;

fn snapshot(turn: u64) -> Snapshot {
    let app = |i: u32| Arc::new(AppName { namespace: "default".into(), name: format!("app-{i}") });
    let apps: Vec<_> = (0..APPS).map(|i| AppSample { app: app(i), ..AppSample::default() }).collect();
    let counters = PairCounters { bytes: [turn << 20; 2], packets: [turn << 10; 2], connections: turn };
    let pair = |i: u32| PairSample {
        source: 256 + i % APPS,
        destination: 256 + i / APPS,
        protocol: Transport::TCP,
        port: 80,
        allowed: true,
        counters,
    };
    let histogram = RttHistogram { buckets: [turn; RTT_BUCKETS], sum_us: turn * 1_000, retransmits: turn };
    let round_trip = |i: u32| RoundTripSample { local: 256 + i % APPS, peer: 256 + i / APPS, histogram };
    let traffic = Traffic {
        identities: (256..).zip(apps.iter().map(|sample| Arc::clone(&sample.app))).collect(),
        pairs: (0..PAIRS).map(pair).collect(),
        round_trips: (0..ROUND_TRIPS).map(round_trip).collect(),
        ..Traffic::default()
    };
    Snapshot { apps, traffic, ..Snapshot::default() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let before = Process::read()?.resident_bytes;
    let metrics = Metrics::new(Bounds::default());
    for turn in 1..=10 {
        let snapshot = snapshot(turn);
        let began = Instant::now();
        metrics.observe(snapshot);
        let observed = began.elapsed();
        for format in [Format::OpenMetrics, Format::Text] {
            let began = Instant::now();
            let text = metrics.render(format)?;
            let took = began.elapsed();
            let resident = Process::read()?.resident_bytes;
            println!(
                "observed in {:.1} ms, {format:?} in {:.1} ms, {} series, {} kB of text, {} kB more memory",
                observed.as_secs_f64() * 1e3,
                took.as_secs_f64() * 1e3,
                text.lines().filter(|line| !line.starts_with('#')).count(),
                text.len() >> 10,
                resident.saturating_sub(before) >> 10,
            );
        }
    }
    Ok(())
}
