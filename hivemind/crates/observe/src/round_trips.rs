//! Round trips and retransmissions by pair of apps.

use hivemind_common::telemetry::{RTT_BUCKETS, RTT_FIRST_BITS, RttHistogram};

use crate::{
    accumulator::Accumulator,
    ends::{End, Ends},
    snapshot::RoundTripSample,
};

const SUM_US: usize = RTT_BUCKETS;
const RETRANSMITS: usize = RTT_BUCKETS + 1;
const NUMBERS: usize = RTT_BUCKETS + 2;

/// The side that measured and its peer.
pub(crate) type Labels = (End, End);

/// The round trips' totals.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    totals: Accumulator<(u32, u32), Labels, NUMBERS>,
    pairs_max: usize,
}

/// What was measured for a pair of apps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Measured {
    /// Upper bounds in seconds, and how many round trips fell below each and not below the one before.
    pub(crate) buckets: [(f64, u64); RTT_BUCKETS],
    pub(crate) sum_s: f64,
    pub(crate) retransmits: u64,
}

impl RoundTrips {
    pub(crate) fn new(pairs_max: usize) -> Self {
        RoundTrips { totals: Accumulator::new(), pairs_max }
    }

    /// Takes in all of the kernel's figures.
    pub(crate) fn observe(&mut self, ends: &mut Ends, samples: &[RoundTripSample]) {
        self.totals.begin(|(local, peer)| ends.exists(local) && ends.exists(peer));
        for sample in samples {
            let rise = self.totals.rise((sample.local, sample.peer), numbers(&sample.histogram));
            let (Some(local), Some(peer)) = (ends.of(sample.local), ends.of(sample.peer)) else { continue };
            let labels = (local, peer);
            let has_room = self.totals.contains(&labels) || self.totals.len() < self.pairs_max;
            self.totals.add(if has_room { labels } else { (End::Other, End::Other) }, rise);
        }
        self.totals.end();
    }

    /// What was measured, in the order of the pairs.
    pub(crate) fn sorted(&self) -> Vec<(&Labels, Measured)> {
        self.totals.sorted().into_iter().map(|(labels, numbers)| (labels, measured(numbers))).collect()
    }
}

fn numbers(histogram: &RttHistogram) -> [u64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    numbers[..RTT_BUCKETS].copy_from_slice(&histogram.buckets);
    numbers[SUM_US] = histogram.sum_us;
    numbers[RETRANSMITS] = histogram.retransmits;
    numbers
}

fn measured(numbers: &[u64; NUMBERS]) -> Measured {
    let mut buckets = [(f64::INFINITY, 0); RTT_BUCKETS];
    for (i, bucket) in buckets.iter_mut().enumerate() {
        bucket.1 = numbers[i];
        if i + 1 < RTT_BUCKETS {
            bucket.0 = (1_u64 << (RTT_FIRST_BITS as usize + i)) as f64 / 1e6;
        }
    }
    Measured { buckets, sum_s: numbers[SUM_US] as f64 / 1e6, retransmits: numbers[RETRANSMITS] }
}

#[cfg(test)]
mod tests {
    use hivemind_common::telemetry::rtt_bucket;

    use super::*;

    #[test]
    fn a_round_trip_is_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        let bounds = measured(&[0; NUMBERS]).buckets.map(|(bound, _)| bound);
        for rtt_us in [0, 1, 15, 16, 100, 1_000, 65_535, 65_536, 4_194_303, 4_194_304, u32::MAX] {
            let (bucket, seconds) = (rtt_bucket(rtt_us), f64::from(rtt_us) / 1e6);
            assert!(seconds < bounds[bucket], "{rtt_us} µs");
            assert!(bucket == 0 || seconds >= bounds[bucket - 1], "{rtt_us} µs");
        }
    }
}
