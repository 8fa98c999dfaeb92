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
}

/// A counter, and what it said: bytes and packets of both directions, connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub Counter, pub [u64; 5]);

/// All marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Which counters they are of: others begin at zero.
    pub epoch: String,
    /// What each counter said.
    pub said: BTreeMap<Counter, [u64; 5]>,
}

impl Marks {
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
        let marks = Marks { epoch: "e".into(), said: BTreeMap::from([(counter, [5, 5, 5, 5, 5])]) };
        assert_eq!(marks.rise(counter, [7, 5, 6, 5, 5]), [2, 0, 1, 0, 0]);
        assert_eq!(marks.rise(counter, [4, 9, 9, 9, 9]), [4, 9, 9, 9, 9]);
        assert_eq!(marks.rise(Counter::COLLECTIVE, [1; 5]), [1; 5]);
    }
}
