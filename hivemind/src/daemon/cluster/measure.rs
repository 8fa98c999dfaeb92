//! What this node measures of the network, told to whoever places replicas.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hivemind_agent::Agent;
use hivemind_datapath::RoundTripStatistics;
use hivemind_membership::View;
use hivemind_model::{ApiError, Identity, Measurements, PairTraffic, TRAFFIC_MAX};
use tokio::sync::watch;
use tracing::debug;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(5);

/// Of fewer round trips of TCP than these nothing is concluded.
const ROUND_TRIPS_MIN: u64 = 16;

/// What traffic was counted up to when.
#[derive(Default)]
struct Counted {
    at: Option<Instant>,
    bytes: BTreeMap<(u32, u32), u64>,
}

/// How many round trips TCP has measured to a node, and their sum in microseconds.
#[derive(Clone, Copy, Default)]
struct RoundTrips {
    count: u64,
    sum_us: u64,
}

/// Round trips of TCP to other nodes, by their numbers, up to the last time; `None` before the first.
#[derive(Default)]
struct TcpCounted(Option<BTreeMap<u16, RoundTrips>>);

/// Measures for ever, and hands what was measured to `tell`. Nothing is measured as long as the node is alone.
pub(crate) async fn keep<F>(
    agent: Arc<Agent>,
    view: watch::Receiver<Option<Arc<View>>>,
    tell: impl Fn(Measurements) -> F,
) where
    F: Future<Output = Result<(), ApiError>>,
{
    let (mut counted, mut tcp) = (Counted::default(), TcpCounted::default());
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(view) = view.borrow().clone() else { continue };
        let measured = async {
            let statistics = agent.datapath_statistics().await?;
            let mut bytes = BTreeMap::<(u32, u32), u64>::new();
            let pairs = statistics.pairs.iter().filter(|pair| pair.allowed);
            for pair in pairs.filter(|p| p.source >= Identity::FIRST && p.destination >= Identity::FIRST) {
                let ends = (pair.source, pair.destination);
                *bytes.entry(ends).or_default() += pair.totals.bytes.iter().sum::<u64>();
            }
            let traffic = counted.rates(bytes, Instant::now());
            let round_trips_us = round_trips(&view, &tcp.means(&statistics.round_trips));
            tell(Measurements { round_trips_us, traffic }).await
        };
        if let Err(error) = measured.await {
            debug!(error = error.message, "What was measured could not be told");
        }
    }
}

/// Of what gossip and what TCP measured the shorter: an answer that waited in a busy program says nothing of the network.
fn round_trips(view: &View, tcp: &BTreeMap<u16, u32>) -> BTreeMap<String, u32> {
    let measured = view.members.iter().filter_map(|member| {
        // Bounded by what gossip waits for an answer, and never negative.
        let gossip = member.rtt.as_ref().map(|rtt| rtt.smoothed_us.round().clamp(1.0, 60e6) as u32);
        let us = gossip.into_iter().chain(tcp.get(&member.number.get()).copied()).min()?;
        Some((member.name.to_string(), us))
    });
    measured.collect()
}

impl TcpCounted {
    /// The mean round trip to each node since the last time, in microseconds; the first time nothing is known, since the
    /// programs have counted for longer than the daemon runs.
    fn means(&mut self, counted: &[RoundTripStatistics]) -> BTreeMap<u16, u32> {
        let mut now = BTreeMap::<u16, RoundTrips>::new();
        for pair in counted.iter().filter(|pair| pair.node != 0) {
            let node = now.entry(pair.node).or_default();
            node.count = node.count.saturating_add(pair.buckets.iter().sum());
            node.sum_us = node.sum_us.saturating_add(pair.sum_us);
        }
        let Some(before) = self.0.replace(now.clone()) else { return BTreeMap::new() };
        let means = now.iter().filter_map(|(node, now)| {
            let before = before.get(node).copied().unwrap_or_default();
            // Less than before: identities that are gone were forgotten.
            let count = now.count.checked_sub(before.count).filter(|count| *count >= ROUND_TRIPS_MIN)?;
            let mean = now.sum_us.checked_sub(before.sum_us)? / count;
            Some((*node, u32::try_from(mean.max(1)).unwrap_or(u32::MAX)))
        });
        means.collect()
    }
}

impl Counted {
    /// What was counted since the last time, a second; the first time nothing is known.
    fn rates(&mut self, bytes: BTreeMap<(u32, u32), u64>, now: Instant) -> Vec<PairTraffic> {
        let before = std::mem::replace(self, Counted { at: Some(now), bytes });
        let Some(since) = before.at else { return Vec::new() };
        let ms = now.duration_since(since).as_millis().max(1);
        let rates = self.bytes.iter().filter_map(|(ends, bytes)| {
            // Identities that are gone are forgotten, and their counters begin anew.
            let more = bytes.checked_sub(before.bytes.get(ends).copied().unwrap_or(0))?;
            let bytes_per_s = u64::try_from(u128::from(more) * 1000 / ms).unwrap_or(u64::MAX);
            (bytes_per_s > 0).then_some(PairTraffic { source: ends.0, destination: ends.1, bytes_per_s })
        });
        let mut rates: Vec<_> = rates.collect();
        rates.sort_by_key(|pair| std::cmp::Reverse(pair.bytes_per_s));
        rates.truncate(TRAFFIC_MAX);
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_came_since_the_last_time() {
        let (mut counted, start) = (Counted::default(), Instant::now());
        assert!(counted.rates([((256, 257), 1000)].into(), start).is_empty());
        let later = start + Duration::from_secs(2);
        let rates = counted.rates([((256, 257), 5000), ((256, 258), 20_000)].into(), later);
        let told: Vec<_> = rates.iter().map(|pair| (pair.destination, pair.bytes_per_s)).collect();
        assert_eq!(told, [(258, 10_000), (257, 2000)]);
        // Forgotten and counted anew.
        assert!(counted.rates([((256, 257), 10)].into(), later + Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn round_trips_of_tcp_count_once_there_are_enough() {
        let counted = |node, peer, count, sum_us| {
            let mut buckets = [0; _];
            buckets[3] = count;
            RoundTripStatistics { local: 256, peer, node, buckets, sum_us, retransmits: 0 }
        };
        let mut tcp = TcpCounted::default();
        // What an earlier daemon's time brought says nothing of now.
        assert!(tcp.means(&[counted(2, 257, 5000, 5_000_000)]).is_empty());
        assert!(tcp.means(&[counted(2, 257, 5015, 5_001_500), counted(0, 257, 900, 9000)]).is_empty());
        let later = [counted(2, 257, 5025, 5_002_500), counted(2, 258, 10, 6000), counted(3, 257, 16, 160)];
        assert_eq!(tcp.means(&later), [(2, 350), (3, 10)].into());
        // Forgotten and counted anew.
        assert!(tcp.means(&[counted(2, 257, 20, 2000)]).is_empty());
    }
}
