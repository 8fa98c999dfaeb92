//! What the writer did, counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How many buckets of commits there are.
pub const COMMIT_BUCKETS: usize = 14;

/// The upper bound of the first bucket, in microseconds.
const FIRST_BOUND_US: u64 = 64;

/// What a store did since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Transactions that were done; those whose comparisons failed, too.
    pub transactions: u64,
    /// Transactions that were not made durable, or of which that is not known.
    pub transactions_failed: u64,
    /// Bytes of keys and values in those that were done.
    pub written_bytes: u64,
    /// Commits by how long they took until they were durable: up to 64 µs, up to 128 µs, and so on, each bound twice the one
    /// before; the last has no bound.
    pub commits: [u64; COMMIT_BUCKETS],
    /// The sum of that, in microseconds.
    pub commits_us: u64,
}

/// Counts as the writer writes.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    transactions: AtomicU64,
    transactions_failed: AtomicU64,
    written_bytes: AtomicU64,
    commits: [AtomicU64; COMMIT_BUCKETS],
    commits_us: AtomicU64,
}

impl Counters {
    pub(crate) fn done(&self, transactions: usize, bytes: usize) {
        self.transactions.fetch_add(transactions as u64, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, transactions: usize) {
        self.transactions_failed.fetch_add(transactions as u64, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.commits_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Statistics {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Statistics {
            transactions: of(&self.transactions),
            transactions_failed: of(&self.transactions_failed),
            written_bytes: of(&self.written_bytes),
            commits: self.commits.each_ref().map(of),
            commits_us: of(&self.commits_us),
        }
    }
}

fn bucket(us: u64) -> usize {
    let within = |bucket: &usize| us <= FIRST_BOUND_US << bucket;
    (0..COMMIT_BUCKETS - 1).find(within).unwrap_or(COMMIT_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_not_longer_than_the_bound_of_its_bucket_and_longer_than_the_one_before() {
        for us in [0, 1, 64, 65, 128, 129, 1_000, 262_144, 262_145, u64::MAX] {
            let bucket = bucket(us);
            assert!(bucket == COMMIT_BUCKETS - 1 || us <= FIRST_BOUND_US << bucket, "{us}");
            assert!(bucket == 0 || us > FIRST_BOUND_US << (bucket - 1), "{us}");
        }
    }
}
