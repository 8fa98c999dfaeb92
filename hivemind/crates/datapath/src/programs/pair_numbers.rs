//! The numbers that no pair has yet: put on their stack once, when the maps are made.

use crate::{
    Error,
    bpffs::Pins,
    maps::{self, failed},
};
use hivemind_common::name;
use std::{fs, io, path::PathBuf};

/// Where the stack is pinned until it holds every number.
const UNFINISHED: &str = "pair_free_new";

/// Where the stack of numbers is, or is being made. Numbers on it would be lost, or there twice, if it were filled in place
/// by a daemon that may be killed: so it gets its lasting name when it is full.
pub(super) struct PairNumbers {
    path: PathBuf,
    is_new: bool,
}

impl PairNumbers {
    pub(super) fn find(pins: &Pins) -> Result<Self, Error> {
        let lasting = pins.map(name::PAIR_FREE);
        if lasting.exists() {
            return Ok(Self { path: lasting, is_new: false });
        }
        let path = pins.map(UNFINISHED);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system(format!("unpin {}", path.display()))(error))
            }
            _ => Ok(Self { path, is_new: true }),
        }
    }

    /// Where the loader finds the map or pins it.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Fills the stack, if it is new, and gives it its lasting name. Before any program runs.
    pub(super) fn keep(self, pins: &Pins) -> Result<(), Error> {
        if !self.is_new {
            return Ok(());
        }
        let numbers = maps::capacity_of(pins, name::PAIR_COUNTERS)?.saturating_sub(1);
        let mut free = maps::stack::<u32>(pins, UNFINISHED, name::PAIR_FREE)?;
        // The lowest comes off first.
        for number in (1..=numbers.min(free.capacity())).rev() {
            free.push(number, 0).map_err(failed(name::PAIR_FREE))?;
        }
        let lasting = pins.map(name::PAIR_FREE);
        fs::rename(&self.path, &lasting).map_err(Error::system(format!("pin a map at {}", lasting.display())))
    }
}
