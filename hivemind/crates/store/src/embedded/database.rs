//! The redb database, reopened when its disk failed.
//!
//! redb refuses everything after an I/O error until it is reopened, since what it holds in memory may
//! not be what is on the disk. So whoever meets an error reopens it. If even that fails, because it
//! takes a few writes, a copy that keeps those writes in memory serves the reads, until a later write
//! finds the disk well again.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};

use redb::{Builder, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::{
    device::{Access, Device},
    overlay::Overlay,
    query::Snapshot,
    tables,
};
use crate::{Error, Result};

/// Why work on the database stopped.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// The request cannot be met; the database is fine.
    Rejected(Error),
    /// The database failed, and must be reopened.
    Broken(redb::Error),
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        Self::Rejected(error)
    }
}

macro_rules! broken_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Interrupt {
            fn from(error: $error) -> Self {
                Self::Broken(error.into())
            }
        }
    )*};
}
broken_from!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);

/// Which opening of the database something was done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

enum State {
    Writable {
        database: redb::Database,
        access: Access,
    },
    /// The disk takes no writes; `cause` is what it said.
    ReadOnly {
        database: redb::Database,
        cause: Error,
    },
    /// Not even reads work.
    Failed {
        cause: Error,
    },
    Closed,
}

struct Slot {
    generation: Generation,
    state: State,
}

/// The database and what is needed to open it again.
pub(super) struct Database {
    device: Arc<Device>,
    cache_bytes: usize,
    slot: RwLock<Slot>,
}

impl Database {
    /// Opens or makes the database on a device that was locked.
    pub(super) fn open(device: Device, cache_bytes: usize) -> Result<Self> {
        let device = Arc::new(device);
        let opened = open_writable(&device, cache_bytes).and_then(|state| {
            device.finish()?;
            Ok(state)
        });
        let state = opened.inspect_err(|_| {
            // The error that is already there says more than one of unlocking.
            let _ = device.close();
        })?;
        Ok(Self { device, cache_bytes, slot: RwLock::new(Slot { generation: Generation(0), state }) })
    }

    /// Runs `query` on a snapshot; again on a reopened database if the first one failed. Blocks.
    pub(super) fn read<T>(&self, query: impl Fn(&Snapshot) -> Result<T, Interrupt>) -> Result<T> {
        let mut reopened = false;
        loop {
            let (generation, error) = {
                let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
                let result = match &slot.state {
                    State::Writable { database, .. } | State::ReadOnly { database, .. } => {
                        snapshot(database).and_then(|snapshot| query(&snapshot))
                    }
                    State::Failed { cause } if reopened => return Err(cause.clone()),
                    State::Failed { .. } => Err(Interrupt::Broken(redb::Error::PreviousIo)),
                    State::Closed => return Err(Error::Closed),
                };
                match result {
                    Ok(value) => return Ok(value),
                    Err(Interrupt::Rejected(error)) => return Err(error),
                    Err(Interrupt::Broken(error)) => (slot.generation, error),
                }
            };
            if reopened {
                return Err(self.explain(error));
            }
            self.reopen(generation);
            reopened = true;
        }
    }

    /// Begins a write, after reopening a database that was not writable. Blocks.
    pub(super) fn begin_write(&self) -> Result<(Generation, WriteTransaction)> {
        let generation = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            if let State::Writable { database, .. } = &slot.state
                && let Ok(write) = database.begin_write()
            {
                return Ok((slot.generation, write));
            }
            slot.generation
        };
        self.reopen(generation);
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        match &slot.state {
            State::Writable { database, .. } => database
                .begin_write()
                .map(|write| (slot.generation, write))
                .map_err(|error| self.explain(error.into())),
            State::ReadOnly { cause, .. } | State::Failed { cause } => Err(cause.clone()),
            State::Closed => Err(Error::Closed),
        }
    }

    /// Opens the database anew, unless somebody did since `seen`.
    pub(super) fn reopen(&self, seen: Generation) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.generation != seen || matches!(slot.state, State::Closed) {
            return;
        }
        if let State::Writable { access, .. } = &slot.state {
            access.revoke();
        }
        slot.state = State::Failed { cause: Error::Closed };
        slot.generation.0 += 1;
        slot.state =
            open_writable(&self.device, self.cache_bytes).unwrap_or_else(|cause| {
                match open_overlay(&self.device, self.cache_bytes) {
                    Ok(database) => State::ReadOnly { database, cause },
                    Err(error) => {
                        tracing::error!(%error, "Store cannot be read");
                        State::Failed { cause }
                    }
                }
            });
        match &slot.state {
            State::Writable { .. } => tracing::warn!("Store reopened after a failure of its device"),
            State::ReadOnly { cause, .. } => tracing::error!(%cause, "Store is read-only for now"),
            State::Failed { .. } | State::Closed => {}
        }
    }

    /// What a failure means to a caller.
    pub(super) fn explain(&self, error: redb::Error) -> Error {
        let noted = self.device.take_failure();
        match error {
            redb::Error::Corrupted(detail) => Error::Corrupted { detail },
            error @ (redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. }) => {
                Error::Corrupted { detail: error.to_string() }
            }
            redb::Error::Io(error) => Error::from_io(noted.unwrap_or_else(|| Arc::new(error))),
            error => Error::from_io(noted.unwrap_or_else(|| Arc::new(io::Error::other(error)))),
        }
    }

    /// Waits for reads, closes the database and unlocks the device. Blocks.
    pub(super) fn close(&self) -> Result<()> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut slot.state, State::Closed) {
            State::Closed => Ok(()),
            State::Writable { database, .. } => {
                let closed = database.close().map_err(open_error);
                self.device.close().and(closed)
            }
            State::ReadOnly { .. } | State::Failed { .. } => self.device.close(),
        }
    }
}

fn snapshot(database: &redb::Database) -> Result<Snapshot, Interrupt> {
    let read: ReadTransaction = database.begin_read()?;
    Snapshot::new(&read)
}

fn open_writable(device: &Arc<Device>, cache_bytes: usize) -> Result<State> {
    let access = Access::new(device.clone());
    let opened = || {
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(access.clone())
            .map_err(redb::Error::from)?;
        tables::create(&database)?;
        Ok(State::Writable { database, access: access.clone() })
    };
    opened().map_err(|error: Interrupt| {
        access.revoke();
        match error {
            Interrupt::Rejected(error) => error,
            Interrupt::Broken(error) => cause(device, error),
        }
    })
}

impl From<redb::Error> for Interrupt {
    fn from(error: redb::Error) -> Self {
        Self::Broken(error)
    }
}

fn open_overlay(device: &Arc<Device>, cache_bytes: usize) -> Result<redb::Database> {
    let overlay = Overlay::new(device.clone()).map_err(Error::from_io)?;
    let database = Builder::new().set_cache_size(cache_bytes).create_with_backend(overlay);
    database.map_err(open_error)
}

fn cause(device: &Device, error: redb::Error) -> Error {
    match (error, device.take_failure()) {
        (_, Some(failure)) => Error::from_io(failure),
        (error, None) => storage_error(error),
    }
}

/// What a failure to open or close means to a caller.
pub(super) fn open_error(error: redb::DatabaseError) -> Error {
    storage_error(error.into())
}

fn storage_error(error: redb::Error) -> Error {
    match error {
        redb::Error::DatabaseAlreadyOpen => Error::Locked,
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Error::Corrupted { detail: error.to_string() }
        }
        redb::Error::Io(error) => Error::from_io(error),
        error @ (redb::Error::Corrupted(_)
        | redb::Error::RepairAborted
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }) => Error::Corrupted { detail: error.to_string() },
        error => Error::from_io(io::Error::other(error)),
    }
}
