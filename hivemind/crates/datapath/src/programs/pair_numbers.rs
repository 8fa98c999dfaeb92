//! The numbers that no pair has yet: put on their stack once, when the maps are made.

use super::{processors, run_alone};
use crate::{Error, MapSizes, bpffs::Pins, maps};
use aya::Ebpf;
use hivemind_common::name;
use std::{fs, io, path::PathBuf};

/// How many pairs each processor has counters of, the collective one among them: as many as the map has that is there, or as
/// one will have that is made by these sizes.
pub(super) fn count(pins: &Pins, sizes: &MapSizes) -> Result<u32, Error> {
    match pins.map(name::PAIR_COUNTERS).exists() {
        true => Ok(maps::capacity_of(pins, name::PAIR_COUNTERS)? / processors()),
        false => Ok(sizes.pairs.saturating_add(1)),
    }
}

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

    /// Fills the stack, if it is new, and gives it its lasting name. Before any other program runs.
    pub(super) fn keep(self, ebpf: &Ebpf, pins: &Pins) -> Result<(), Error> {
        if !self.is_new {
            return Ok(());
        }
        run_alone(ebpf, name::FILL_PAIRS, "the numbers of pairs could not be given out")?;
        let lasting = pins.map(name::PAIR_FREE);
        fs::rename(&self.path, &lasting).map_err(Error::system(format!("pin a map at {}", lasting.display())))
    }
}
