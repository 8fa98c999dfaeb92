//! The storage below redb, which outlives a redb database that failed.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, PosixFadviseAdvice, RenameFlags, posix_fadvise, renameat2},
};
use redb::{BackendError, StorageBackend, backends::FileBackend};

use crate::{Error, Result};

/// A storage backend that is held (and locked) from opening the store to closing it.
#[derive(Debug)]
pub(super) struct Device {
    backend: Box<dyn StorageBackend>,
    /// The same file, to tell the kernel to forget pages that it failed to write.
    file: Option<File>,
    /// What the backend last failed with: redb reports only the first failure in full.
    failure: Mutex<Option<Arc<io::Error>>>,
    unfinished: Option<Unfinished>,
}

/// A new file's name while it is being made, and afterwards.
#[derive(Debug)]
struct Unfinished {
    from: PathBuf,
    to: PathBuf,
}

impl Device {
    /// Opens and locks the file. One that is not there is made under another name, and gets its own
    /// with [`Device::finish`]: so a crash in between leaves no file that is half a store.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unfinished = (!path.try_exists().map_err(Error::from_io)?).then(|| {
            let mut from = path.as_os_str().to_owned();
            from.push(".new");
            Unfinished { from: from.into(), to: path.to_owned() }
        });
        let opened = unfinished.as_ref().map_or(path, |unfinished| &unfinished.from);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(unfinished.is_some()).mode(0o600);
        let file = options.open(opened).map_err(Error::from_io)?;
        let same = file.try_clone().map_err(Error::from_io)?;
        let backend = FileBackend::new(file).map_err(super::database::open_error)?;
        let device = Self::new(Box::new(backend), Some(same))?;
        if unfinished.is_some() {
            device.backend.set_len(0).map_err(Error::from_io)?;
        }
        Ok(Self { unfinished, ..device })
    }

    /// Gives a file that was just made its name, durably.
    pub(super) fn finish(&self) -> Result<()> {
        let Some(Unfinished { from, to }) = &self.unfinished else { return Ok(()) };
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            // Somebody else made the store at the same time, and was faster.
            Err(Errno::EEXIST) => return Err(Error::Locked),
            Err(error) => return Err(Error::from_io(io::Error::from(error))),
        }
        let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")));
        directory.and_then(|directory| directory.sync_all()).map_err(Error::from_io)
    }

    /// Takes and locks a backend. One without locks is taken as it is: nobody else can have it.
    pub(super) fn new(backend: Box<dyn StorageBackend>, file: Option<File>) -> Result<Self> {
        match backend.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            Ok(true) | Err(BackendError::Unsupported) => {}
            Ok(false) => return Err(Error::Locked),
            Err(error) => return Err(Error::from_io(io::Error::from(error))),
        }
        Ok(Self { backend, file, failure: Mutex::new(None), unfinished: None })
    }

    /// Releases the lock. Nothing may be read or written afterwards.
    pub(super) fn close(&self) -> Result<()> {
        self.backend.close().map_err(Error::from_io)
    }

    /// What it last failed with, once.
    pub(super) fn take_failure(&self) -> Option<Arc<io::Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.note(self.backend.len())
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.backend.read(offset, out))
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.backend.sync_data();
        if synced.is_err()
            && let Some(file) = &self.file
        {
            // After a failed fsync Linux keeps the unwritten pages as if they were clean. Drop them,
            // so that the recovery sees what is on the disk and not what should be.
            let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        self.note(synced)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let error = Arc::new(error);
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            io::Error::new(error.kind(), error)
        })
    }
}

/// One redb database's access to the device, which can be taken away from it.
#[derive(Clone, Debug)]
pub(super) struct Access {
    device: Arc<Device>,
    /// Whether access is still granted; held shared during each use.
    granted: Arc<RwLock<bool>>,
}

impl Access {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self { device, granted: Arc::new(RwLock::new(true)) }
    }

    /// Waits for uses in progress and lets none follow: a database that failed must not write beside
    /// the one that recovers from it.
    pub(super) fn revoke(&self) {
        *self.granted.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn with<T>(&self, run: impl FnOnce(&Device) -> io::Result<T>) -> io::Result<T> {
        let granted = self.granted.read().unwrap_or_else(PoisonError::into_inner);
        if !*granted {
            return Err(io::Error::other("the database was reopened after a failure"));
        }
        run(&self.device)
    }
}

/// Locks are the device's, so those of the trait stay unsupported; `close` has nothing to release.
impl StorageBackend for Access {
    fn len(&self) -> io::Result<u64> {
        self.with(Device::len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|device| device.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|device| device.note(device.backend.set_len(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Device::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|device| device.note(device.backend.write(offset, data)))
    }
}
