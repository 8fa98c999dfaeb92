//! What this node measures of the network, told to whoever places replicas.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hivemind_agent::Agent;
use hivemind_membership::View;
use hivemind_model::{ApiError, Identity, Measurements, PairTraffic, TRAFFIC_MAX};
use tokio::sync::watch;
use tracing::debug;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(5);

/// What traffic was counted up to when.
#[derive(Default)]
struct Counted {
    at: Option<Instant>,
    bytes: BTreeMap<(u32, u32), u64>,
}

/// Measures for ever, and hands what was measured to `tell`. Nothing is measured as long as the node is alone.
pub(crate) async fn keep<F>(
    agent: Arc<Agent>,
    view: watch::Receiver<Option<Arc<View>>>,
    tell: impl Fn(Measurements) -> F,
) where
    F: Future<Output = Result<(), ApiError>>,
{
    let mut counted = Counted::default();
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
            tell(Measurements { round_trips_us: round_trips(&view), traffic }).await
        };
        if let Err(error) = measured.await {
            debug!(error = error.message, "What was measured could not be told");
        }
    }
}

fn round_trips(view: &View) -> BTreeMap<String, u32> {
    let measured = view.members.iter().filter_map(|member| {
        let us = member.rtt.as_ref()?.smoothed_us;
        // Bounded by what gossip waits for an answer, and never negative.
        Some((member.name.to_string(), us.round().clamp(1.0, 60e6) as u32))
    });
    measured.collect()
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
}
