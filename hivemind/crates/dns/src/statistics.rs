//! Counters of queries by outcome.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many queries had which outcome since the server started. Each query that was answered counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
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
    /// Decodable and yet not a query: more or fewer than one question, records besides it, or too long. What
    /// cannot be decoded, and responses, are in no counter.
    pub malformed: u64,
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

/// The live counters behind [`Statistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; 6]);

impl Counters {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Statistics {
        let of = |outcome: Outcome| self.0[outcome as usize].load(Ordering::Relaxed);
        Statistics {
            local: of(Outcome::Local),
            forwarded: of(Outcome::Forwarded),
            cached: of(Outcome::Cached),
            failed: of(Outcome::Failed),
            refused: of(Outcome::Refused),
            malformed: of(Outcome::Malformed),
        }
    }
}
