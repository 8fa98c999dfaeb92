//! When a probe's checks are due, and what their outcomes mean.

use std::time::{Duration, Instant};

use hivemind_model::{Probe, ProbeKind};

/// How long after the first check of a container that has just started the second one comes.
const EARLY_FIRST: Duration = Duration::from_millis(100);

/// What an outcome changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unchanged,
    /// The container is well from now on.
    Passed,
    /// The container has been unwell too often in a row.
    Failed,
}

/// The course of one probe of one run of a container.
///
/// Until the container has been well once, checks come sooner than the period: after 100 ms, 200 ms, 400 ms and so on, so that a
/// container that starts quickly is found well quickly. For what fails, they count only once a period. A liveness probe
/// has no such haste.
#[derive(Clone, Debug)]
pub struct Course {
    kind: ProbeKind,
    period: Duration,
    successes_wanted: u32,
    failures_wanted: u32,
    next_at: Instant,
    /// How many checks were made before the container was well for the first time; `None` from then on.
    early: Option<u32>,
    passing: bool,
    successes: u32,
    failures: u32,
    last_counted: Option<Instant>,
}

impl Course {
    /// The course of `probe` for a container that started at `started`. If it was well before (it was only this daemon that
    /// started anew), it stays so until checks say otherwise.
    pub fn new(kind: ProbeKind, probe: &Probe, started: Instant, was_well: bool) -> Self {
        Course {
            kind,
            period: probe.period(),
            successes_wanted: probe.successes(),
            failures_wanted: probe.failures(),
            next_at: started + probe.initial_delay(),
            early: (kind != ProbeKind::Liveness && !was_well).then_some(0),
            passing: was_well,
            successes: 0,
            failures: 0,
            last_counted: None,
        }
    }

    /// When the next check is due.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Takes in the outcome of a check that began at `began`.
    pub fn observe(&mut self, began: Instant, is_well: bool) -> Verdict {
        let step = match &mut self.early {
            Some(made) => {
                let step = EARLY_FIRST.saturating_mul(1_u32.checked_shl(*made).unwrap_or(u32::MAX));
                *made = made.saturating_add(1);
                step.min(self.period)
            }
            None => self.period,
        };
        self.next_at = began + step;
        if is_well { self.well() } else { self.unwell(began) }
    }

    fn well(&mut self) -> Verdict {
        self.failures = 0;
        self.last_counted = None;
        self.successes = self.successes.saturating_add(1);
        if self.passing || self.successes < self.successes_wanted {
            return Verdict::Unchanged;
        }
        self.passing = true;
        self.early = None;
        Verdict::Passed
    }

    fn unwell(&mut self, began: Instant) -> Verdict {
        self.successes = 0;
        if self.last_counted.is_some_and(|last| began < last + self.period) {
            return Verdict::Unchanged;
        }
        self.last_counted = Some(began);
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.failures_wanted {
            return Verdict::Unchanged;
        }
        self.passing = false;
        // Told once; what is not ready stays so.
        if self.kind == ProbeKind::Readiness && self.failures > self.failures_wanted {
            return Verdict::Unchanged;
        }
        Verdict::Failed
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::Seconds;
    use proptest::prelude::*;

    use super::*;

    fn probe(period_ms: u32, successes: u32, failures: u32) -> Probe {
        Probe {
            period_seconds: Some(Seconds::from_millis(period_ms)),
            success_threshold: Some(successes),
            failure_threshold: Some(failures),
            ..Probe::default()
        }
    }

    /// Runs a course over the outcomes of instantaneous checks; what each changed, and when it was made, in milliseconds.
    fn run(mut course: Course, start: Instant, outcomes: &[bool]) -> Vec<(u128, Verdict)> {
        let check = |is_well: &bool| {
            let now = course.next_at();
            let verdict = course.observe(now, *is_well);
            (now.duration_since(start).as_millis(), verdict)
        };
        outcomes.iter().map(check).collect()
    }

    use Verdict::{Failed, Passed, Unchanged};

    #[test]
    fn what_starts_is_looked_at_often_and_what_is_well_once_a_period() {
        let now = Instant::now();
        let course = Course::new(ProbeKind::Readiness, &probe(1_000, 1, 3), now, false);
        let told = run(course, now, &[false, false, false, false, true, true, true]);
        let times: Vec<_> = told.iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [0, 100, 300, 700, 1_500, 2_500, 3_500]);
        assert_eq!(told[4].1, Passed);
        assert_eq!(told.iter().filter(|(_, verdict)| *verdict != Unchanged).count(), 1);
    }

    #[test]
    fn early_failures_count_once_a_period() {
        let now = Instant::now();
        let course = Course::new(ProbeKind::Startup, &probe(1_000, 1, 3), now, false);
        let told = run(course, now, &[false; 7]);
        // Counted at 0, 1,500 and 2,500 ms: at least a period apart.
        assert_eq!(told[5], (2_500, Failed));
        assert!(told[..5].iter().all(|(_, verdict)| *verdict == Unchanged), "{told:?}");
    }

    #[test]
    fn readiness_is_lost_and_regained_by_thresholds() {
        let now = Instant::now();
        let course = Course::new(ProbeKind::Readiness, &probe(100, 2, 2), now, true);
        let told = run(course, now, &[true, false, true, false, false, false, true, false, true, true, true]);
        let verdicts: Vec<_> = told.into_iter().map(|(_, verdict)| verdict).collect();
        let mut expected = [Unchanged; 11];
        (expected[4], expected[9]) = (Failed, Passed);
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn what_was_well_before_stays_so_and_is_looked_at_once_a_period() {
        let now = Instant::now();
        let course = Course::new(ProbeKind::Readiness, &probe(1_000, 1, 2), now, true);
        assert_eq!(run(course, now, &[false, false]), [(0, Unchanged), (1_000, Failed)]);
    }

    #[test]
    fn a_container_is_given_time_before_its_first_check() {
        let now = Instant::now();
        let delayed = Probe { initial_delay_seconds: Some(Seconds::from_millis(700)), ..probe(1_000, 1, 1) };
        let course = Course::new(ProbeKind::Liveness, &delayed, now, false);
        assert_eq!(run(course, now, &[true, false]), [(700, Passed), (1_700, Failed)]);
    }

    proptest! {
        /// Whatever the outcomes: checks are never further apart than a period, a probe fails only after as many failures in a
        /// row as it asks for, and passes only after as many successes.
        #[test]
        fn verdicts_follow_from_what_was_seen_in_a_row(
            outcomes in prop::collection::vec(any::<bool>(), 1..200),
            successes in 1..4_u32,
            failures in 1..4_u32,
            period in prop_oneof![Just(100), Just(150), Just(10_000)],
            was_well in any::<bool>(),
        ) {
            let now = Instant::now();
            let course = Course::new(ProbeKind::Readiness, &probe(period, successes, failures), now, was_well);
            let told = run(course, now, &outcomes);
            for (i, (_, verdict)) in told.iter().enumerate() {
                let in_a_row = |wanted: bool| outcomes[..=i].iter().rev().take_while(|o| **o == wanted).count();
                match verdict {
                    Passed => prop_assert!(in_a_row(true) >= successes as usize),
                    Failed => prop_assert!(in_a_row(false) >= failures as usize),
                    Unchanged => {}
                }
            }
            for pair in told.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 <= u128::from(period));
            }
        }
    }
}
