//! A disk in memory that records, refuses, stalls, and loses what was not synced.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use rand::{Rng, rngs::StdRng};
use redb::StorageBackend;

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// One thing that happened to a disk, in order.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    SetLen(usize),
    Sync,
    /// The store acknowledged this revision.
    Acknowledged(u64),
}

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    trace: Option<Vec<Entry>>,
    syncs: usize,
    sync_lies: bool,
    capacity: Option<usize>,
    fail_reads: usize,
    fail_writes: bool,
    fail_syncs: usize,
    hold_syncs: bool,
    syncs_held: usize,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<(Mutex<State>, Condvar)>);

impl Disk {
    pub(super) fn holding(content: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().content = content;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn record(self) -> Self {
        self.state().trace = Some(Vec::new());
        self
    }

    /// From now on syncs return without having synced.
    pub(super) fn lie_about_syncs(self) -> Self {
        self.state().sync_lies = true;
        self
    }

    pub(super) fn acknowledged(&self, revision: u64) {
        self.state().trace.as_mut().unwrap().push(Entry::Acknowledged(revision));
    }

    pub(super) fn take_trace(&self) -> Vec<Entry> {
        self.state().trace.replace(Vec::new()).unwrap()
    }

    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.state().content.len()
    }

    /// The disk cannot grow beyond this many bytes.
    pub(super) fn set_capacity(&self, capacity: Option<usize>) {
        self.state().capacity = capacity;
    }

    /// Every write fails, or none.
    pub(super) fn fail_writes(&self, fail: bool) {
        self.state().fail_writes = fail;
    }

    /// The next so many syncs fail.
    pub(super) fn fail_syncs(&self, syncs: usize) {
        self.state().fail_syncs = syncs;
    }

    /// The next so many reads fail.
    pub(super) fn fail_reads(&self, reads: usize) {
        self.state().fail_reads = reads;
    }

    /// Syncs wait, until they are let go.
    pub(super) fn hold_syncs(&self, hold: bool) {
        self.state().hold_syncs = hold;
        self.0.1.notify_all();
    }

    /// Waits until a sync is being held.
    pub(super) fn wait_for_held_sync(&self) {
        drop(self.0.1.wait_while(self.state(), |state| state.syncs_held == 0).unwrap());
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.fail_reads > 0 {
            state.fail_reads -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        let start = offset as usize;
        let there = state.content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.capacity.is_some_and(|capacity| len as usize > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.content.resize(len as usize, 0);
        if let Some(trace) = &mut state.trace {
            trace.push(Entry::SetLen(len as usize));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.syncs_held += usize::from(state.hold_syncs);
        self.0.1.notify_all();
        state = self.0.1.wait_while(state, |state| state.hold_syncs).unwrap();
        state.syncs_held = 0;
        if state.fail_syncs > 0 {
            state.fail_syncs -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        state.syncs += 1;
        let lies = state.sync_lies;
        if let Some(trace) = &mut state.trace
            && !lies
        {
            trace.push(Entry::Sync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.fail_writes {
            return Err(io::Error::from_raw_os_error(5));
        }
        write_at(&mut state.content, offset as usize, data);
        if let Some(trace) = &mut state.trace {
            trace.push(Entry::Write { offset: offset as usize, data: data.to_vec() });
        }
        Ok(())
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// Walks along a trace and shows what a crash at each point could leave on the disk.
pub(super) struct Crash {
    synced: Vec<u8>,
    pending: Vec<Entry>,
    pub(super) acknowledged: u64,
}

impl Crash {
    /// A disk that holds `synced` safely.
    pub(super) fn of(synced: Vec<u8>, acknowledged: u64) -> Self {
        Self { synced, pending: Vec::new(), acknowledged }
    }

    /// Lets one more thing happen before the crash. Returns whether crashing here is a new case.
    pub(super) fn step(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Write { .. } | Entry::SetLen(_) => self.pending.push(entry.clone()),
            Entry::Acknowledged(revision) => self.acknowledged = *revision,
            Entry::Sync => {
                for entry in self.pending.drain(..) {
                    match entry {
                        Entry::Write { offset, data } => write_at(&mut self.synced, offset, &data),
                        Entry::SetLen(len) => self.synced.resize(len, 0),
                        Entry::Sync | Entry::Acknowledged(_) => {}
                    }
                }
            }
        }
        !matches!(entry, Entry::Sync)
    }

    /// What is left: all that was synced, and of the rest any sector in any state that it was in since
    /// (so writes get lost, torn and reordered), as the dice fall.
    pub(super) fn image(&self, rng: &mut StdRng) -> Vec<u8> {
        // All lost, all kept, or each sector for itself.
        let kept_of_eight = [0, 8, 2, 4, 6][rng.random_range(0..5)];
        let mut image = self.synced.clone();
        let mut cached = self.synced.clone();
        let mut sectors: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut lens = vec![self.synced.len()];
        for entry in &self.pending {
            match entry {
                Entry::SetLen(len) => {
                    cached.resize(*len, 0);
                    lens.push(*len);
                }
                Entry::Write { offset, data } => {
                    write_at(&mut cached, *offset, data);
                    for sector in offset / SECTOR..(offset + data.len()).div_ceil(SECTOR) {
                        let end = cached.len().min((sector + 1) * SECTOR);
                        sectors.entry(sector).or_default().push(cached[sector * SECTOR..end].to_vec());
                    }
                }
                Entry::Sync | Entry::Acknowledged(_) => {}
            }
        }
        let len = match kept_of_eight {
            0 => lens[0],
            8 => lens[lens.len() - 1],
            _ => lens[rng.random_range(0..lens.len())],
        };
        image.resize(len, 0);
        for (sector, versions) in sectors {
            let start = sector * SECTOR;
            if !rng.random_ratio(kept_of_eight, 8) || start >= len {
                continue;
            }
            let newest = versions.len() - 1;
            let version = if kept_of_eight == 8 { newest } else { rng.random_range(0..=newest) };
            let end = len.min(start + versions[version].len());
            image[start..end].copy_from_slice(&versions[version][..end - start]);
        }
        image
    }
}
