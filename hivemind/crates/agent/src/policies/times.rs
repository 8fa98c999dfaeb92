//! How long policies took to come into force on this node.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How many buckets of times there are.
pub const POLICY_TIME_BUCKETS: usize = 18;

/// The upper bound of the first bucket, in milliseconds.
const FIRST_BOUND_MS: u64 = 1;

/// A distribution of times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// How many by length: up to 1 ms, up to 2 ms, and so on, each bound twice the one before; the last has no bound.
    pub buckets: [u64; POLICY_TIME_BUCKETS],
    /// Their sum.
    pub sum: Duration,
}

/// How long it took until connections on this node were judged as wanted, since the agent was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyTimes {
    /// From the moment at which the API took a policy, or a change of one, in the clock of the server. What was taken while
    /// the agent did not run is not in it.
    pub policies: Times,
    /// From the moment at which a new replica's worker asked for its identity's policies.
    pub replicas: Times,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Clock {
    times: Mutex<PolicyTimes>,
}

impl Clock {
    pub(super) fn policy(&self, took: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).policies.add(took);
    }

    pub(super) fn replica(&self, took: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).replicas.add(took);
    }

    pub(super) fn read(&self) -> PolicyTimes {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// The upper bound of each bucket in seconds.
    pub fn bounds_s() -> [f64; POLICY_TIME_BUCKETS] {
        std::array::from_fn(|bucket| match bucket {
            last if last == POLICY_TIME_BUCKETS - 1 => f64::INFINITY,
            bucket => (FIRST_BOUND_MS << bucket) as f64 / 1e3,
        })
    }

    fn add(&mut self, took: Duration) {
        let within = |bucket: &usize| took <= Duration::from_millis(FIRST_BOUND_MS << bucket);
        let bucket = (0..POLICY_TIME_BUCKETS - 1).find(within).unwrap_or(POLICY_TIME_BUCKETS - 1);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_not_longer_than_the_bound_of_its_bucket_and_longer_than_the_one_before() {
        let bounds = Times::bounds_s();
        for ms in [0, 1, 2, 3, 900, 65_536, 65_537, u64::from(u32::MAX)] {
            let mut times = Times::default();
            times.add(Duration::from_millis(ms));
            let bucket = times.buckets.iter().position(|count| *count == 1).unwrap();
            let seconds = ms as f64 / 1e3;
            assert!(seconds <= bounds[bucket] && (bucket == 0 || seconds > bounds[bucket - 1]), "{ms} ms");
            assert_eq!(times.sum, Duration::from_millis(ms));
        }
    }
}
