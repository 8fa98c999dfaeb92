//! Space in the flat table of cells: extents taken first fit and given back.

use std::collections::BTreeMap;

/// A piece of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) base: u32,
    pub(crate) size: u32,
}

/// What is free of a table.
#[derive(Debug)]
pub(crate) struct Slab {
    /// Free extents by their base; never two that touch.
    free: BTreeMap<u32, u32>,
    capacity: u32,
}

impl Slab {
    pub(crate) fn new(capacity: u32) -> Self {
        let free = if capacity > 0 { BTreeMap::from([(0, capacity)]) } else { BTreeMap::new() };
        Self { free, capacity }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Cells taken.
    pub(crate) fn used(&self) -> u32 {
        self.capacity - self.free.values().sum::<u32>()
    }

    /// Takes `size` cells, or `None` if no free extent is that large.
    pub(crate) fn take(&mut self, size: u32) -> Option<Extent> {
        if size == 0 {
            return Some(Extent::default());
        }
        let (&base, &found) = self.free.iter().find(|&(_, &found)| found >= size)?;
        self.free.remove(&base);
        if found > size {
            self.free.insert(base + size, found - size);
        }
        Some(Extent { base, size })
    }

    /// Takes exactly this extent, as found in use. False if it is not wholly free.
    pub(crate) fn claim(&mut self, extent: Extent) -> bool {
        if extent.size == 0 {
            return true;
        }
        let Some((&base, &size)) = self.free.range(..=extent.base).next_back() else { return false };
        let (Some(end), free_end) = (extent.base.checked_add(extent.size), base + size) else { return false };
        if end > free_end {
            return false;
        }
        self.free.remove(&base);
        if extent.base > base {
            self.free.insert(base, extent.base - base);
        }
        if free_end > end {
            self.free.insert(end, free_end - end);
        }
        true
    }

    /// Gives back an extent that was taken.
    pub(crate) fn give_back(&mut self, extent: Extent) {
        if extent.size == 0 {
            return;
        }
        let (mut base, mut size) = (extent.base, extent.size);
        if let Some((&before, &length)) = self.free.range(..base).next_back()
            && before + length == base
        {
            self.free.remove(&before);
            (base, size) = (before, size + length);
        }
        if let Some(length) = self.free.remove(&(base + size)) {
            size += length;
        }
        self.free.insert(base, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_never_overlap_and_nothing_is_lost(steps in prop::collection::vec((any::<bool>(), 1u32..40), 1..200)) {
            let mut slab = Slab::new(500);
            let mut taken: Vec<Extent> = Vec::new();
            for (take, number) in steps {
                if take {
                    if let Some(extent) = slab.take(number) {
                        prop_assert!(extent.base + extent.size <= 500);
                        for other in &taken {
                            prop_assert!(
                                extent.base + extent.size <= other.base || other.base + other.size <= extent.base
                            );
                        }
                        taken.push(extent);
                    }
                } else if !taken.is_empty() {
                    slab.give_back(taken.swap_remove(number as usize % taken.len()));
                }
                prop_assert_eq!(slab.used(), taken.iter().map(|extent| extent.size).sum::<u32>());
            }
            let mut adopted = Slab::new(500);
            for extent in &taken {
                prop_assert!(adopted.claim(*extent));
                prop_assert!(!adopted.claim(*extent));
            }
            prop_assert_eq!(adopted.used(), slab.used());
            for extent in taken {
                slab.give_back(extent);
            }
            prop_assert_eq!(slab.take(500), Some(Extent { base: 0, size: 500 }));
        }
    }
}
