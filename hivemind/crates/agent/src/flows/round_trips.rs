//! Round trips between workloads, as flows tell them: read now and then, since it takes a look at a table.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hivemind_datapath::{Datapath, RoundTripStatistics};
use hivemind_model::{ApiError, Identity};

use crate::fault;

/// How long what was read is told again.
const FRESH: Duration = Duration::from_secs(5);

/// How many round trips were measured, and their sum in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) count: u64,
    pub(crate) sum_us: u64,
}

impl Measured {
    /// The mean in microseconds, if any was measured.
    pub(crate) fn mean_us(self) -> Option<u64> {
        self.sum_us.checked_div(self.count)
    }

    /// What was measured since `before`; all of it if the counters began again.
    pub(crate) fn since(self, before: Measured) -> Measured {
        match (self.count.checked_sub(before.count), self.sum_us.checked_sub(before.sum_us)) {
            (Some(count), Some(sum_us)) => Measured { count, sum_us },
            _ => self,
        }
    }
}

/// What was measured by the sockets of the first identity of those to the second.
pub(crate) type ByPair = BTreeMap<(u32, u32), Measured>;

/// The sums over all nodes on which the other end may be.
pub(crate) fn by_pair(round_trips: &[RoundTripStatistics]) -> ByPair {
    let mut pairs = ByPair::new();
    for measured in round_trips {
        let pair = pairs.entry((measured.local, measured.peer)).or_default();
        pair.count = pair.count.saturating_add(measured.buckets.iter().sum());
        pair.sum_us = pair.sum_us.saturating_add(measured.sum_us);
    }
    pairs
}

/// What was measured between two ends: by the source's sockets, or else by the destination's.
pub(crate) fn between(pairs: &ByPair, source: u32, destination: u32) -> Measured {
    let of = |pair| pairs.get(&pair).copied().filter(|measured| measured.count > 0);
    of((source, destination)).or_else(|| of((destination, source))).unwrap_or_default()
}

/// What was read last, and when.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    latest: Mutex<(Option<Instant>, ByPair)>,
}

impl RoundTrips {
    fn latest(&self) -> std::sync::MutexGuard<'_, (Option<Instant>, ByPair)> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads them again, unless that was done a moment ago.
    ///
    /// # Errors
    /// When the data path cannot be read; what was read before stays.
    pub(crate) async fn refresh(&self, datapath: &Datapath) -> Result<(), ApiError> {
        if self.latest().0.is_some_and(|read| read.elapsed() < FRESH) {
            return Ok(());
        }
        let statistics = datapath.statistics().await.map_err(|error| fault::explain_datapath(&error))?;
        self.take(by_pair(&statistics.round_trips));
        Ok(())
    }

    /// Takes what was read.
    pub(crate) fn take(&self, pairs: ByPair) {
        *self.latest() = (Some(Instant::now()), pairs);
    }

    /// The mean between two workloads, in microseconds; none for the world, whose round trips are of many different lengths.
    pub(crate) fn mean_us(&self, source: u32, destination: u32) -> Option<u64> {
        if source == Identity::WORLD || destination == Identity::WORLD {
            return None;
        }
        between(&self.latest().1, source, destination).mean_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(local: u32, peer: u32, node: u16, count: u64, sum_us: u64) -> RoundTripStatistics {
        let mut buckets = [0; _];
        buckets[3] = count;
        RoundTripStatistics { local, peer, node, buckets, sum_us, retransmits: 0 }
    }

    #[test]
    fn the_mean_is_over_all_nodes_and_by_whoever_measured() {
        let round_trips = RoundTrips::default();
        let list = [measured(300, 301, 0, 1, 100), measured(300, 301, 2, 3, 500), measured(302, 2, 0, 5, 10)];
        round_trips.take(by_pair(&list));
        assert_eq!(round_trips.mean_us(300, 301), Some(150));
        assert_eq!(round_trips.mean_us(301, 300), Some(150), "the other side measured");
        assert_eq!(round_trips.mean_us(300, 302), None, "nothing was measured");
        assert_eq!(round_trips.mean_us(302, Identity::WORLD), None);
    }

    #[test]
    fn what_was_measured_meanwhile_is_told_also_if_counters_begin_again() {
        let of = |count, sum_us| Measured { count, sum_us };
        assert_eq!(of(5, 500).since(of(3, 200)), of(2, 300));
        assert_eq!(of(5, 500).since(of(5, 500)).mean_us(), None);
        assert_eq!(of(2, 90).since(of(3, 200)), of(2, 90));
    }
}
