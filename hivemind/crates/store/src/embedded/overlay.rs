//! A view of a device that takes writes into memory: how a store is read while its disk refuses the
//! few writes that opening a database takes.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use redb::StorageBackend;

use super::device::Device;

const PAGE_BYTES: u64 = 4096;
/// The most that may be written: opening writes a few pages and the allocator's state.
const PAGES_MAX: usize = 4096;

/// The device as it is, with changes that nobody else sees.
#[derive(Debug)]
pub(super) struct Overlay {
    device: Arc<Device>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Below this the device's content shows through; a shrunk and regrown part reads as zero.
    device_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn new(device: Arc<Device>) -> io::Result<Self> {
        let len = device.len()?;
        Ok(Self { device, state: Mutex::new(State { len, device_len: len, pages: BTreeMap::new() }) })
    }

    /// The page's content below the overlay.
    fn beneath(&self, state: &State, page: u64) -> io::Result<Box<[u8]>> {
        let mut content = vec![0; PAGE_BYTES as usize].into_boxed_slice();
        let start = page * PAGE_BYTES;
        let there = state.device_len.saturating_sub(start).min(PAGE_BYTES) as usize;
        if there > 0 {
            self.device.read(start, &mut content[..there])?;
        }
        Ok(content)
    }
}

/// Splits a range of bytes at page borders: (page, offset within it, range of the buffer).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let at = offset + done as u64;
            let within = (at % PAGE_BYTES) as usize;
            let size = (PAGE_BYTES as usize - within).min(len - done);
            done += size;
            (at / PAGE_BYTES, within, done - size..done)
        })
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, range) in pieces(offset, out.len()) {
            let end = within + range.len();
            match state.pages.get(&page) {
                Some(content) => out[range].copy_from_slice(&content[within..end]),
                None => out[range].copy_from_slice(&self.beneath(&state, page)?[within..end]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if len < state.len {
            let (page, within) = (len / PAGE_BYTES, (len % PAGE_BYTES) as usize);
            state.device_len = state.device_len.min(len);
            state.pages.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(content) = state.pages.get_mut(&page) {
                content[within..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (page, within, range) in pieces(offset, data.len()) {
            if !state.pages.contains_key(&page) {
                if state.pages.len() >= PAGES_MAX {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let content = self.beneath(&state, page)?;
                state.pages.insert(page, content);
            }
            let content = state.pages.get_mut(&page).expect("the page was just made");
            content[within..within + range.len()].copy_from_slice(&data[range]);
        }
        state.len = state.len.max(offset + data.len() as u64);
        Ok(())
    }
}
