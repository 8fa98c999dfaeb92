//! The store: one place for the cluster's state, with the semantics of etcd v3.
//!
//! A [`Store`] maps keys to values under one global, ever-growing [`Revision`]. Writes are
//! compare-and-swap transactions ([`Txn`]), keys may be tied to a lease that deletes them when it is
//! not kept alive, reads may look at an older revision, and a [`Watch`] replays every change of a
//! prefix from a revision and then follows the live ones without a gap. What is too old is compacted,
//! and whoever needed it is told so ([`Error::Compacted`]).
//!
//! What it does not do: no consensus of its own (one process holds the file), no schema (values are
//! bytes; [`StoreExt`] adds JSON, [`Objects`] the API's objects), no secrets handling, no network.
//!
//! Start with the trait in `store.rs`, then `txn.rs` and `watch.rs`. `embedded.rs` is the backend on a
//! local redb file ([`RedbStore`]); the module `conformance` (feature `conformance`) is the suite that
//! every backend has to pass.
#![forbid(unsafe_code)]

pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedded;
mod error;
mod key;
mod lease;
mod objects;
mod record;
mod revision;
mod statistics;
mod store;
mod txn;
mod typed;
mod watch;

pub use embedded::{Options, RedbStore};
pub use error::{Error, Result};
pub use key::{KEY_BYTES_MAX, Key, Prefix};
pub use lease::{LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, LeaseId, LeaseInfo};
pub use objects::{Changes, Claim, Object, ObjectWatch, Objects, Stored};
pub use record::{KeyValue, ListOptions, Listing, Reading};
pub use revision::Revision;
pub use statistics::{COMMIT_BUCKETS, Statistics};
pub use store::Store;
pub use txn::{
    Compare, Op, OpResult, Ordering, TXN_KEYS_MAX, TXN_OPS_MAX, Txn, TxnResponse, VALUE_BYTES_MAX,
};
pub use typed::{StoreExt, Versioned};
pub use watch::{Event, Watch, WatchBatch, WatchSource};
