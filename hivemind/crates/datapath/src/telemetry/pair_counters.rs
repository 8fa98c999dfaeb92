//! The counters of pairs, mapped into the daemon's memory: what the programs count is read without a call, and emptied in place.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::maps::MapData;
use hivemind_common::{name, telemetry::PairCounters};
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::{Error, PairTotals, maps::failed, programs::processors};

/// How many words a pair's counters on one processor take. The kernel puts values at multiples of eight bytes.
const WORDS: usize = size_of::<PairCounters>() / size_of::<u64>();
const _: () = assert!(WORDS == 5 && size_of::<PairCounters>().is_multiple_of(size_of::<u64>()));

/// The map `pair_counters`.
pub(super) struct PairTable {
    map: MapData,
    entries: u32,
    /// The kernel's number of the map, which no other map has before the next boot.
    pub(super) id: u32,
}

impl PairTable {
    pub(super) fn new(map: MapData) -> Result<Self, Error> {
        let info = map.info().map_err(failed(name::PAIR_COUNTERS))?;
        Ok(Self { entries: info.max_entries(), id: info.id(), map })
    }

    /// Maps it for as long as what this gives is kept: not longer than it takes to read, since all of its pages, 655 kB for each
    /// processor by default, count as the daemon's meanwhile.
    pub(super) fn look(&self) -> Result<Look, Error> {
        let refused = |error| Error::system("map the counters of pairs")(io::Error::from(error));
        let bytes = self.entries as usize * size_of::<PairCounters>();
        let length = NonZeroUsize::new(bytes).ok_or_else(|| refused(Errno::EINVAL))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let mapped = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, self.map.fd().as_fd(), 0) };
        let processors = processors();
        Ok(Look {
            words: mapped.map_err(refused)?.cast(),
            bytes,
            pairs: self.entries / processors,
            processors,
        })
    }
}

/// The map's memory.
pub(super) struct Look {
    words: NonNull<AtomicU64>,
    bytes: usize,
    /// How many pairs each processor has.
    pairs: u32,
    processors: u32,
}

impl Look {
    /// The words of a pair on each processor; none of a number that no pair has.
    fn of(&self, pair: u32) -> impl Iterator<Item = &[AtomicU64]> {
        let processors = if pair < self.pairs { self.processors } else { 0 };
        (0..processors as usize).map(move |processor| {
            let at = (processor * self.pairs as usize + pair as usize) * WORDS;
            // SAFETY: it ends at most where the mapping does: `processor` and `pair` are below their numbers, the product of
            // which is at most the map's entries; pages are aligned for words, and the map's memory is never without a value.
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(at), WORDS) }
        })
    }

    /// What all processors counted.
    pub(super) fn totals(&self, pair: u32) -> PairTotals {
        let mut sum = PairTotals::default();
        for words in self.of(pair) {
            let word = |index: usize| words.get(index).map_or(0, |word| word.load(Relaxed));
            sum.bytes = [sum.bytes[0] + word(0), sum.bytes[1] + word(1)];
            sum.packets = [sum.packets[0] + word(2), sum.packets[1] + word(3)];
            sum.connections += word(4);
        }
        sum
    }

    /// Sets a pair's counters to zero. No program may be at them.
    pub(super) fn empty(&self, pair: u32) {
        self.of(pair).flatten().for_each(|word| word.store(0, Relaxed));
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; nothing borrowed from it outlives the value.
        let _ = unsafe { munmap(self.words.cast(), self.bytes) };
    }
}
