//! Totals by label that never go back, out of counters that come and go.
//!
//! Many counters of the kernel (one a pair of identities) make one series (one a pair of apps), and the kernel frees a
//! counter together with its identity while the app lives on. So what is added up is by how much each counter rose since
//! it was seen last, not the counters themselves: a counter that is gone leaves in its series what it had brought.
//! A counter that fell began again at zero.

use std::{collections::HashMap, hash::Hash};

/// Totals by label `L` of counters with the keys `K`, each of them `N` numbers.
#[derive(Debug)]
pub(crate) struct Accumulator<K, L, const N: usize> {
    counters: HashMap<K, Counter<N>>,
    series: HashMap<L, [u64; N]>,
    round: u64,
}

#[derive(Debug)]
struct Counter<const N: usize> {
    last: [u64; N],
    /// The round in which it was seen last.
    seen: u64,
}

impl<K: Eq + Hash, L: Eq + Hash, const N: usize> Accumulator<K, L, N> {
    pub(crate) fn new() -> Self {
        Accumulator { counters: HashMap::new(), series: HashMap::new(), round: 0 }
    }

    /// Begins a round: all counters are about to be read. Series that are not kept are gone, with their totals.
    pub(crate) fn begin(&mut self, mut keep: impl FnMut(&L) -> bool) {
        self.round += 1;
        self.series.retain(|label, _| keep(label));
    }

    /// By how much a counter rose since the round before.
    pub(crate) fn rise(&mut self, key: K, now: [u64; N]) -> [u64; N] {
        let counter = self.counters.entry(key).or_insert(Counter { last: [0; N], seen: 0 });
        let fell = now.iter().zip(&counter.last).any(|(now, last)| now < last);
        let mut rise = now;
        if !fell {
            rise.iter_mut().zip(&counter.last).for_each(|(rise, last)| *rise -= last);
        }
        *counter = Counter { last: now, seen: self.round };
        rise
    }

    /// Adds to a series, which is made if it is not there.
    pub(crate) fn add(&mut self, label: L, rise: [u64; N]) {
        let total = self.series.entry(label).or_insert([0; N]);
        total.iter_mut().zip(rise).for_each(|(total, rise)| *total = total.saturating_add(rise));
    }

    /// Ends a round: counters that were not read are gone.
    pub(crate) fn end(&mut self) {
        let round = self.round;
        self.counters.retain(|_, counter| counter.seen == round);
    }

    /// Takes a series away, with what it had come to.
    pub(crate) fn remove(&mut self, label: &L) -> Option<[u64; N]> {
        self.series.remove(label)
    }

    /// The series in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&L, &[u64; N])> {
        self.series.iter()
    }

    pub(crate) fn contains(&self, label: &L) -> bool {
        self.series.contains_key(label)
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// The series in the order of their labels.
    pub(crate) fn sorted(&self) -> Vec<(&L, &[u64; N])>
    where
        L: Ord,
    {
        let mut series: Vec<_> = self.series.iter().collect();
        series.sort_unstable_by_key(|(label, _)| *label);
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(totals: &mut Accumulator<u32, &'static str, 1>, counters: &[(u32, u64, &'static str)]) {
        totals.begin(|label| *label != "gone");
        for (key, now, label) in counters {
            let rise = totals.rise(*key, [*now]);
            totals.add(*label, rise);
        }
        totals.end();
    }

    #[test]
    fn a_counter_that_is_freed_leaves_what_it_brought() {
        let mut totals = Accumulator::new();
        round(&mut totals, &[(1, 10, "a"), (2, 5, "a"), (3, 7, "b")]);
        assert_eq!(totals.sorted(), [(&"a", &[15]), (&"b", &[7])]);
        round(&mut totals, &[(2, 6, "a"), (3, 7, "b")]);
        assert_eq!(totals.sorted(), [(&"a", &[16]), (&"b", &[7])]);
        assert_eq!(totals.counters.len(), 2);
    }

    #[test]
    fn a_counter_that_fell_began_again() {
        let mut totals = Accumulator::new();
        round(&mut totals, &[(1, 10, "a")]);
        round(&mut totals, &[(1, 4, "a")]);
        assert_eq!(totals.sorted(), [(&"a", &[14])]);
    }

    #[test]
    fn a_series_that_is_not_kept_begins_again() {
        let mut totals = Accumulator::new();
        round(&mut totals, &[(1, 10, "gone")]);
        round(&mut totals, &[(1, 12, "gone")]);
        assert_eq!(totals.sorted(), [(&"gone", &[2])]);
    }
}
