//! The interface that every backend implements.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Key, LeaseId, LeaseInfo, ListOptions, Listing, Prefix, Reading, Result, Revision, Statistics, Txn,
    TxnResponse, Watch,
};

/// A key-value store with the semantics of etcd v3.
///
/// Reads and transactions are linearizable: whatever starts after a transaction was acknowledged sees
/// it. A transaction is acknowledged only when it is durable. All methods are cancel-safe for the
/// store; a transaction whose future is dropped may or may not happen.
///
/// Every method may fail with [`crate::Error::Closed`], [`crate::Error::Io`] or
/// [`crate::Error::Corrupted`], writes also with [`crate::Error::DiskFull`] and
/// [`crate::Error::OutcomeUnknown`]; the errors named below come on top.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Runs a transaction.
    ///
    /// # Errors
    /// Those of [`Txn::validate`]; [`crate::Error::TooManyKeys`]; [`crate::Error::LeaseNotFound`] for
    /// a put under a lease that is gone.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse>;

    /// Reads a key, at an older revision if one is given.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`], [`crate::Error::FutureRevision`].
    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<Reading>;

    /// Reads the keys of a prefix in order.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`], [`crate::Error::FutureRevision`].
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Listing>;

    /// Watches a prefix: first replays what happened from `from` on, then follows. A revision in the
    /// future is waited for.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`] when `from` is not after the compacted revision; also later, from
    /// [`Watch::next`].
    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Watch>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision>;

    /// What it did since it was opened.
    fn statistics(&self) -> Statistics;

    /// Forgets the history before `at`: what was overwritten or deleted up to it is gone, what was
    /// current at it stays readable.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`] when that has happened already; [`crate::Error::FutureRevision`].
    async fn compact(&self, at: Revision) -> Result<()>;

    /// Grants a lease of `ttl`, rounded up to whole seconds.
    ///
    /// # Errors
    /// [`crate::Error::InvalidTtl`], [`crate::Error::TooManyLeases`].
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Sets a lease's remaining time to its full time to live, which is returned.
    ///
    /// # Errors
    /// [`crate::Error::LeaseNotFound`], also when it has expired but its keys are not deleted yet.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Duration>;

    /// Ends a lease and deletes its keys, in one revision (none if it has no keys). Returns the
    /// store's revision after it.
    ///
    /// # Errors
    /// [`crate::Error::LeaseNotFound`].
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision>;

    /// What is known of a lease.
    ///
    /// # Errors
    /// [`crate::Error::LeaseNotFound`].
    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo>;

    /// Ends the store: waits for writes in progress, ends watches, releases what it holds. Everything
    /// afterwards fails with [`crate::Error::Closed`]. Closing twice is fine.
    async fn close(&self) -> Result<()>;
}
