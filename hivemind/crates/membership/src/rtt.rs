//! Round-trip times, measured by echoes of our own.
//!
//! A sample holds what the network took and what both hosts' schedulers added; the latter only ever adds, and in bursts.
//! So the least of the last [`WINDOW`] samples goes into an exponentially weighted mean: a single late answer does not
//! show, a path that became longer shows after [`WINDOW`] samples.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::identity::NodeNumber;

/// Of how many samples the least is taken.
const WINDOW: usize = 3;
/// The weight of a new minimum in the mean, as a divisor.
const WEIGHT_DIVISOR: f64 = 4.0;
/// The longest round trip that is believed; an answer that comes later is not a sample.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// The time to a member and back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rtt {
    /// The mean, in µs, of the least of each three successive samples, a new one weighing a quarter.
    pub smoothed_us: f64,
    /// The newest sample, in µs.
    pub last_us: f64,
    /// How many samples there were in this life of the member.
    pub samples: u64,
}

#[derive(Default)]
struct Estimate {
    window: [f64; WINDOW],
    rtt: Option<Rtt>,
    /// The echo that is waited for.
    pending: Option<(u64, Instant)>,
}

impl Estimate {
    fn sample(&mut self, took: Duration) {
        let last_us = took.as_secs_f64() * 1e6;
        let samples = self.rtt.map_or(0, |rtt| rtt.samples);
        self.window[(samples % WINDOW as u64) as usize] = last_us;
        let filled = WINDOW.min(usize::try_from(samples).unwrap_or(WINDOW).saturating_add(1));
        let least = self.window[..filled].iter().copied().fold(f64::INFINITY, f64::min);
        let smoothed_us = match self.rtt {
            // The first ones are what there is: a start by the least of them forgets a slow first answer at once.
            Some(rtt) if filled == WINDOW => rtt.smoothed_us + (least - rtt.smoothed_us) / WEIGHT_DIVISOR,
            _ => least,
        };
        self.rtt = Some(Rtt { smoothed_us, last_us, samples: samples + 1 });
    }
}

/// The estimates of the peers.
#[derive(Default)]
pub(crate) struct RoundTrips {
    peers: BTreeMap<NodeNumber, Estimate>,
}

impl RoundTrips {
    pub(crate) fn get(&self, number: NodeNumber) -> Option<Rtt> {
        self.peers.get(&number).and_then(|estimate| estimate.rtt)
    }

    /// Notes that echo `id` was sent; an older one that was not answered is given up.
    pub(crate) fn sent(&mut self, number: NodeNumber, id: u64, now: Instant) {
        self.peers.entry(number).or_default().pending = Some((id, now));
    }

    /// Takes an answer; says whether it was waited for.
    pub(crate) fn answered(&mut self, number: NodeNumber, id: u64, now: Instant) -> bool {
        let Some(estimate) = self.peers.get_mut(&number) else { return false };
        let Some((_, sent)) = estimate.pending.take_if(|(pending, _)| *pending == id) else { return false };
        let took = now.saturating_duration_since(sent);
        if took <= ROUND_TRIP_MAX {
            estimate.sample(took);
        }
        true
    }

    /// Forgets a peer that is gone or has begun another life.
    pub(crate) fn forget(&mut self, number: NodeNumber) {
        self.peers.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples_us: &[u64]) -> Rtt {
        let mut estimate = Estimate::default();
        samples_us.iter().for_each(|us| estimate.sample(Duration::from_micros(*us)));
        estimate.rtt.unwrap()
    }

    #[test]
    fn a_single_late_answer_does_not_show() {
        let rtt = after(&[200, 200, 200, 9_000, 200]);
        assert_eq!((rtt.smoothed_us, rtt.last_us, rtt.samples), (200.0, 200.0, 5));
        assert_eq!(after(&[50_000, 300]).smoothed_us, 300.0);
    }

    #[test]
    fn a_longer_path_shows_after_a_few_samples() {
        let mut samples = vec![200; 10];
        samples.extend([10_000; 20]);
        assert!(after(&samples).smoothed_us > 9_800.0);
    }

    #[test]
    fn only_the_answer_that_is_waited_for_counts() {
        let number = NodeNumber::try_from(2).unwrap();
        let now = Instant::now();
        let mut round_trips = RoundTrips::default();
        assert!(!round_trips.answered(number, 1, now));
        round_trips.sent(number, 1, now);
        assert!(!round_trips.answered(number, 2, now));
        assert!(round_trips.answered(number, 1, now + Duration::from_micros(250)));
        assert!(!round_trips.answered(number, 1, now + Duration::from_micros(900)), "an answer counts once");
        assert_eq!(round_trips.get(number).map(|rtt| (rtt.last_us, rtt.samples)), Some((250.0, 1)));
    }
}
