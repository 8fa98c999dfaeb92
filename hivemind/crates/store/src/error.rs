//! What can go wrong, and what is left behind then.

use std::{io, sync::Arc, time::Duration};

use crate::{
    KEY_BYTES_MAX, Key, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, LeaseId, Revision, TXN_KEYS_MAX,
    TXN_OPS_MAX, VALUE_BYTES_MAX,
};

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store did not do what it was asked. Unless a variant says otherwise, nothing changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key or prefix of a length that no key has. Use another key.
    #[error("a key must have 1 to {KEY_BYTES_MAX} bytes, not {size_bytes}")]
    InvalidKey {
        /// The length that was given.
        size_bytes: usize,
    },
    /// A value that is too large. Store less, or in pieces.
    #[error("the value of {key} has {size_bytes} bytes, more than {VALUE_BYTES_MAX}")]
    ValueTooLarge {
        /// The key it was for.
        key: Key,
        /// Its size.
        size_bytes: usize,
    },
    /// Too many operations or compares in one transaction. Split it.
    #[error("the transaction has {ops} operations, more than {TXN_OPS_MAX}")]
    TooManyOps {
        /// The length of the longest of its lists.
        ops: usize,
    },
    /// A prefix operation in a transaction met too many keys. List in pages, delete in parts.
    #[error("the transaction touches more than {TXN_KEYS_MAX} keys")]
    TooManyKeys,
    /// One list of operations writes a key twice. Merge the writes.
    #[error("the transaction writes {key} twice")]
    DuplicateKey {
        /// The key in question.
        key: Key,
    },
    /// A time to live out of range.
    #[error("a lease's time to live must be {LEASE_TTL_MIN:?} to {LEASE_TTL_MAX:?}, not {ttl:?}")]
    InvalidTtl {
        /// The time that was asked for.
        ttl: Duration,
    },
    /// No such lease: revoked, expired, or never granted. Its keys are gone or going; grant another.
    #[error("lease {id} does not exist")]
    LeaseNotFound {
        /// The lease that was named.
        id: LeaseId,
    },
    /// Too many leases exist. Revoke some, or wait until some expire.
    #[error("there are already {LEASES_MAX} leases")]
    TooManyLeases,
    /// The revision asked for is no longer kept. List anew; a watch can start after `compacted`.
    #[error("history up to revision {compacted} is compacted")]
    Compacted {
        /// The oldest revision that can still be read; watches start after it.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// Another process, or another store in this one, has the file open. Stop that one first.
    #[error("the store is in use by another process")]
    Locked,
    /// The disk is full. Nothing was written; reads go on. Free some space and try again: the store
    /// recovers by itself.
    #[error("no space is left on the store's device")]
    DiskFull {
        /// The device's answer.
        source: Arc<io::Error>,
    },
    /// The device failed. Nothing was written; reads go on as far as the device lets them. The store
    /// tries the device anew with the next write.
    #[error("the store's device failed")]
    Io {
        /// The device's answer.
        source: Arc<io::Error>,
    },
    /// The device failed while the write was being made durable. The write has happened whole or not
    /// at all: read to find out, before trying again.
    #[error("the store's device failed during the write, which may have happened")]
    OutcomeUnknown {
        /// The device's answer.
        source: Arc<io::Error>,
    },
    /// The file is not a store, is of another format, or is damaged. Restore a backup.
    #[error("the store is damaged: {detail}")]
    Corrupted {
        /// What was found.
        detail: String,
    },
    /// A value that is not what its reader expects. Fix or delete the key.
    #[error("the value of {key} is not the JSON that was expected: {detail}")]
    Malformed {
        /// The key whose value it is.
        key: Key,
        /// What the parser said.
        detail: String,
    },
    /// The store was closed. A write that was waiting may have happened.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// An error of the device, with a full disk told apart.
    pub(crate) fn from_io(source: impl Into<Arc<io::Error>>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { source },
            _ => Self::Io { source },
        }
    }
}
