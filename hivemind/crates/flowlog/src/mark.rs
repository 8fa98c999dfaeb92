//! Up to where the kernel's counters were told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a counter counts: the source's identity, the destination's, protocol, port, and whether it is of what was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Counter(pub u32, pub u32, pub u8, pub u16, pub bool);

impl Counter {
    /// What found no counter of its own.
    pub const COLLECTIVE: Counter = Counter(u32::MAX, u32::MAX, 0, 0, true);

    /// Packets that were dropped for the reason of this number.
    pub const fn drops(reason: u32) -> Counter {
        Counter(u32::MAX, reason, 0, 0, false)
    }

    const fn is_of_drops(self) -> bool {
        matches!(self, Counter(u32::MAX, _, 0, 0, false))
    }
}

/// Which counters marks are of. Those of another boot, or of a table that was made anew, began at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// The boot of the machine.
    pub boot: String,
    /// The kernel's number of the table with the counters of pairs.
    pub pairs: u32,
    /// The same of dropped packets; `None` in a log of a version that did not note it, under which the table stayed the same.
    pub drops: Option<u32>,
}

impl Epoch {
    /// Whether there are other counters `now` in place of some of these, though the machine was not booted since: nobody knows any more
    /// what those had counted last.
    pub fn is_made_anew(&self, now: &Epoch) -> bool {
        self.boot == now.boot && self.same(now) != [true; 2]
    }

    /// Whether the counters of pairs are the same, and those of dropped packets.
    fn same(&self, now: &Epoch) -> [bool; 2] {
        let is_same_boot = self.boot == now.boot;
        [
            is_same_boot && self.pairs == now.pairs,
            is_same_boot && (self.drops.is_none() || self.drops == now.drops),
        ]
    }

    /// The part that logs of all versions have.
    pub(crate) fn text(&self) -> String {
        format!("{}:{}", self.boot, self.pairs)
    }

    pub(crate) fn read(text: &str, drops: Option<u32>) -> Self {
        let (boot, pairs) = text.rsplit_once(':').unwrap_or((text, ""));
        Epoch { boot: boot.to_owned(), pairs: pairs.parse().unwrap_or(0), drops }
    }
}

/// A counter, and what it said: bytes and packets of both directions, connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub Counter, pub [u64; 5]);

/// All marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Which counters they are of.
    pub epoch: Epoch,
    /// When those were read last, in milliseconds since the boot; `None` if that is not known.
    pub counted_ms: Option<u64>,
    /// What each counter said.
    pub said: BTreeMap<Counter, [u64; 5]>,
}

impl Marks {
    /// The marks of those counters that are the same now; the others begin at zero.
    pub fn in_epoch(mut self, epoch: Epoch) -> Self {
        let [same_pairs, same_drops] = self.epoch.same(&epoch);
        self.said.retain(|counter, _| if counter.is_of_drops() { same_drops } else { same_pairs });
        self.counted_ms = self.counted_ms.filter(|_| self.epoch.boot == epoch.boot);
        Marks { epoch, ..self }
    }

    /// What a counter says beyond its mark; all that it says if it began again.
    pub fn rise(&self, counter: Counter, says: [u64; 5]) -> [u64; 5] {
        let Some(said) = self.said.get(&counter) else { return says };
        if says.iter().zip(said).any(|(says, said)| says < said) {
            return says;
        }
        std::array::from_fn(|i| says[i] - said[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_began_again_is_told_from_zero() {
        let counter = Counter(300, 301, 6, 80, true);
        let marks = Marks { said: BTreeMap::from([(counter, [5; 5])]), ..Marks::default() };
        assert_eq!(marks.rise(counter, [7, 5, 6, 5, 5]), [2, 0, 1, 0, 0]);
        assert_eq!(marks.rise(counter, [4, 9, 9, 9, 9]), [4, 9, 9, 9, 9]);
        assert_eq!(marks.rise(Counter::COLLECTIVE, [1; 5]), [1; 5]);
    }

    #[test]
    fn of_tables_that_were_made_anew_the_counters_begin_at_zero_and_the_others_go_on() {
        let of = |boot: &str, pairs, drops| Epoch { boot: boot.to_owned(), pairs, drops };
        let (pair, drops) = (Counter(300, 301, 6, 80, true), Counter::drops(6));
        let said = BTreeMap::from([pair, Counter::COLLECTIVE, drops].map(|counter| (counter, [9; 5])));
        let marks = |epoch| Marks { epoch, counted_ms: Some(7), said: said.clone() };
        let rises = |before: Epoch, now: Epoch| {
            let marks = marks(before).in_epoch(now.clone());
            assert_eq!(marks.epoch, now);
            let rise = |counter| marks.rise(counter, [10; 5])[0];
            (rise(pair), rise(Counter::COLLECTIVE), rise(drops), marks.counted_ms)
        };
        let before = of("a", 5, Some(6));
        for (now, anew) in [
            (before.clone(), false),
            (of("a", 8, Some(6)), true),
            (of("a", 5, Some(8)), true),
            (of("b", 8, Some(8)), false),
        ] {
            assert_eq!(before.is_made_anew(&now), anew, "{now:?}");
        }
        assert!(!of("a", 5, None).is_made_anew(&before));
        assert_eq!(rises(before.clone(), before.clone()), (1, 1, 1, Some(7)));
        assert_eq!(rises(before.clone(), of("a", 8, Some(6))), (10, 10, 1, Some(7)), "an upgrade");
        assert_eq!(rises(before.clone(), of("a", 5, Some(8))), (1, 1, 10, Some(7)));
        assert_eq!(rises(before, of("b", 5, Some(6))), (10, 10, 10, None), "numbers begin again with a boot");
        assert_eq!(
            rises(of("a", 5, None), of("a", 8, Some(6))),
            (10, 10, 1, Some(7)),
            "of an earlier version"
        );
    }

    #[test]
    fn an_epoch_is_read_as_it_was_written() {
        let epoch = Epoch { boot: "0d8c:1".to_owned(), pairs: 12, drops: Some(3) };
        assert_eq!(Epoch::read(&epoch.text(), epoch.drops), epoch);
        assert_eq!(Epoch::read("0d8c:12", None), Epoch { boot: "0d8c".to_owned(), pairs: 12, drops: None });
    }
}
