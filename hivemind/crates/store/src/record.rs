//! What reads return.

use bytes::Bytes;

use crate::{Key, LeaseId, Revision};

/// A key with its value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value, up to [`crate::VALUE_BYTES_MAX`] bytes.
    pub value: Bytes,
    /// The revision that created the key (anew, if it had been deleted).
    pub create_revision: Revision,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
    /// How often it was written since it was created; 1 right after creation.
    pub version: u64,
    /// The lease it goes with, if any.
    pub lease: Option<LeaseId>,
}

/// The answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The revision that was read: the one asked for, or the store's newest.
    pub revision: Revision,
    /// The key, if it existed then.
    pub found: Option<KeyValue>,
}

/// Which part of a prefix to list, and when.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// The revision to read at; the newest when `None`.
    pub at: Option<Revision>,
    /// List only keys after this one: the last key of the page before. Read the pages after the first
    /// `at` the first one's revision to see one consistent state.
    pub after: Option<Key>,
    /// The most keys to return; all when `None`.
    pub limit: Option<usize>,
}

/// The answer to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision that was read. Watching from [`Revision::next`] of it misses nothing.
    pub revision: Revision,
    /// The keys found, in order.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut the list short.
    pub more: bool,
}
