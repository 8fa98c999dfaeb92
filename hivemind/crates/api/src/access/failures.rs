//! Attempts to get in that failed.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::UNPOISONED;

/// How many attempts may fail at once before the answers say to wait.
const BURST: f64 = 20.0;

/// How many more may fail each second.
const PER_SECOND: f64 = 1.0;

/// How often the log tells of them.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Counts failed attempts, of all callers together: an address says nothing behind a proxy. Attempts that succeed are
/// never held up.
#[derive(Default)]
pub(super) struct Failures {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: u64,
    untold: u64,
    told_at: Option<Instant>,
    /// How many of [`BURST`] are used up, as of `counted_at`.
    used: f64,
    counted_at: Option<Instant>,
}

impl Failures {
    /// Counts one; false if there were too many lately.
    pub(super) fn count(&self) -> bool {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock().expect(UNPOISONED);
        state.total += 1;
        state.untold += 1;
        if state.told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
            tracing::warn!(attempts = state.untold, "Requests with tokens or codes that are not valid.");
            (state.untold, state.told_at) = (0, Some(now));
        }
        let since = state.counted_at.map_or(Duration::ZERO, |at| now.duration_since(at));
        state.counted_at = Some(now);
        state.used = (state.used - since.as_secs_f64() * PER_SECOND).max(0.0);
        let within = state.used + 1.0 <= BURST;
        if within {
            state.used += 1.0;
        }
        within
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.state.lock().expect(UNPOISONED).total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_one_a_second_is_let_fail() {
        let (failures, start) = (Failures::default(), Instant::now());
        let passed = (0..100).filter(|_| failures.count_at(start)).count();
        assert_eq!(passed, 20);
        let passed = (0..100).filter(|_| failures.count_at(start + Duration::from_millis(1500))).count();
        assert_eq!(passed, 1);
        let passed = (0..100).filter(|_| failures.count_at(start + Duration::from_secs(600))).count();
        assert_eq!((passed, failures.total()), (20, 300));
    }
}
