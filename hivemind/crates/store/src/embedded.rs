//! The store on a local file: etcd's semantics over redb, in one process.
//!
//! One thread writes (`writer.rs`): it takes all transactions that wait, gives each its own revision
//! (`apply.rs`), and makes them durable with a single commit before it answers any of them. Reads
//! (`query.rs`) look at redb's snapshots beside it, on the blocking pool. The tables (`tables.rs`) are
//! a log of revisions, every kept version of every key, and an index of the current ones; old ones are
//! pruned a few at a time with each commit (`prune.rs`). Watches (`watcher.rs`) are positions in that
//! log, helped by the newest revisions in memory (`recent.rs`). `database.rs` keeps a failing disk from
//! taking more with it than the write that met the failure.

mod apply;
mod database;
mod device;
mod leases;
mod overlay;
mod prune;
mod query;
mod recent;
mod tables;
mod watcher;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use redb::StorageBackend;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Error, Key, LeaseId, LeaseInfo, ListOptions, Listing, Prefix, Reading, Result, Revision, Store, Txn,
    TxnResponse, Watch,
    clock::{Clock, SystemClock},
    lease::whole_seconds,
    statistics::{Counters, Statistics},
};
use database::Database;
use device::Device;
use leases::Leases;
use query::Snapshot;
use recent::Recent;
use watcher::LogWatcher;
use writer::{Command, Writer};

/// Commands that may wait for the writer; more callers wait for a place.
const COMMANDS_WAITING_MAX: usize = 256;
/// Reads that run at once on the blocking pool; more wait.
const READS_AT_ONCE_MAX: usize = 4;

/// How an embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for redb's pages, in bytes. Default 4 MiB.
    pub cache_bytes: usize,
    /// Revisions kept for reads and watches in the past; up to a tenth more may be there. Default
    /// 10,000.
    pub history_revisions: u64,
    /// Bytes of overwritten and deleted keys and values kept; when they are more, the oldest
    /// revisions go even if `history_revisions` would keep them. Default 64 MiB.
    pub history_bytes_max: u64,
    /// Revisions kept in memory to feed watches without reading the file. Default 1,024, and never
    /// more than 1 MiB of them.
    pub recent_revisions: usize,
    /// What leases run on.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 4 * 1024 * 1024,
            history_revisions: 10_000,
            history_bytes_max: 64 * 1024 * 1024,
            recent_revisions: 1024,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// What the writer, the reads and the watches share.
struct Shared {
    database: Database,
    recent: Recent,
    /// The newest revision that is durable; `None` once the store is closed.
    head: watch::Sender<Option<Revision>>,
    leases: Leases,
    reads: Arc<Semaphore>,
    counters: Counters,
    clock: Arc<dyn Clock>,
}

impl Shared {
    /// Runs `query` on a snapshot, off the executor.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl Fn(&Snapshot) -> Result<T, database::Interrupt> + Send + 'static,
    ) -> Result<T> {
        let permit = self.reads.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.database.read(query)
        });
        read.await.map_err(|error| Error::Corrupted { detail: format!("a read ended early: {error}") })?
    }
}

/// A [`Store`] in a local redb file, which it holds alone.
///
/// Dropping it closes it, and for that waits for the write in progress: prefer [`Store::close`].
pub struct RedbStore {
    shared: Arc<Shared>,
    /// Taken when the store closes, which ends the writer.
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    expiry: JoinHandle<()>,
}

impl RedbStore {
    /// Opens the store in a file, which is made if it is not there (mode 0600). Must be called on a
    /// tokio runtime that has its timer enabled.
    ///
    /// # Errors
    /// [`Error::Locked`] when somebody else has it open, [`Error::Corrupted`] when the file is
    /// something else, [`Error::DiskFull`], [`Error::Io`].
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path: PathBuf = path.as_ref().into();
        Self::open_device(move || Device::open(&path), options).await
    }

    /// Opens the store on any storage that redb can use. A crash while it is made there for the first
    /// time can leave a storage that is refused as [`Error::Corrupted`]; a file made by
    /// [`RedbStore::open`] has its name only when it is whole.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub async fn open_with_backend(backend: impl StorageBackend, options: Options) -> Result<Self> {
        Self::open_device(move || Device::new(Box::new(backend), None), options).await
    }

    async fn open_device(
        device: impl FnOnce() -> Result<Device> + Send + 'static,
        options: Options,
    ) -> Result<Self> {
        let cache_bytes = options.cache_bytes;
        let opened = tokio::task::spawn_blocking(move || {
            let database = Database::open(device()?, cache_bytes)?;
            let (head, leases) =
                database.read(|snapshot| Ok((snapshot.marks()?.head, snapshot.leases()?)))?;
            Ok((database, head, leases))
        });
        let (database, head, leases) = opened
            .await
            .map_err(|error| Error::Corrupted { detail: format!("opening failed: {error}") })??;
        let shared = Arc::new(Shared {
            database,
            recent: Recent::new(options.recent_revisions),
            head: watch::Sender::new(Some(head)),
            leases: Leases::new(),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)),
            counters: Counters::default(),
            clock: options.clock.clone(),
        });
        shared.leases.reload(&leases, shared.clock.now());
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let writer = Writer::new(shared.clone(), waiting, &options);
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(Error::from_io)?;
        let expiry = tokio::spawn(leases::expire(shared.clone(), commands.downgrade()));
        tracing::info!(revision = head.0, leases = leases.len(), "Store opened");
        Ok(Self { shared, commands: Mutex::new(Some(commands)), writer: Mutex::new(Some(writer)), expiry })
    }

    /// Hands the writer a command and waits for its answer.
    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, answer) = oneshot::channel();
        commands.ok_or(Error::Closed)?.send(command(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Ends the writer and lets go of the file. Blocks.
    fn shut(shared: &Shared, writer: Option<thread::JoinHandle<()>>) -> Result<()> {
        let ended = writer.map_or(Ok(()), thread::JoinHandle::join);
        let closed = shared.database.close();
        shared.head.send_replace(None);
        ended.map_err(|_| Error::Corrupted { detail: "the writer panicked".into() })?;
        closed
    }

    fn stop_commands(&self) -> Option<thread::JoinHandle<()>> {
        self.expiry.abort();
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn txn(&self, txn: Txn) -> Result<TxnResponse> {
        txn.validate()?;
        self.command(|reply| Command::Txn { txn, reply }).await
    }

    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<Reading> {
        let key = key.clone();
        self.shared.read(move |snapshot| snapshot.get(&key, at)).await
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Listing> {
        let prefix = prefix.clone();
        self.shared.read(move |snapshot| snapshot.list(&prefix, &options)).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Watch> {
        let head = self.shared.head.subscribe();
        let compacted = self.shared.read(|snapshot| Ok(snapshot.marks()?.compacted)).await?;
        if from <= compacted {
            return Err(Error::Compacted { compacted });
        }
        Ok(Watch::new(Box::new(LogWatcher::new(self.shared.clone(), head, prefix.clone(), from))))
    }

    async fn revision(&self) -> Result<Revision> {
        self.shared.head.borrow().ok_or(Error::Closed)
    }

    fn statistics(&self) -> Statistics {
        self.shared.counters.read()
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.command(|reply| Command::Compact { at, reply }).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        let ttl_s = whole_seconds(ttl)?;
        self.command(|reply| Command::Grant { ttl_s, reply }).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Duration> {
        if self.shared.head.borrow().is_none() {
            return Err(Error::Closed);
        }
        self.shared.leases.keep_alive(id, self.shared.clock.now()).ok_or(Error::LeaseNotFound { id })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        self.command(|reply| Command::Revoke { id, reply }).await
    }

    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo> {
        let keys = self.shared.read(move |snapshot| snapshot.lease_keys(id)).await?;
        let (ttl, remaining) =
            self.shared.leases.remaining(id, self.shared.clock.now()).ok_or(Error::LeaseNotFound { id })?;
        Ok(LeaseInfo { id, ttl, remaining, keys })
    }

    async fn close(&self) -> Result<()> {
        let writer = self.stop_commands();
        let shared = self.shared.clone();
        let shut = tokio::task::spawn_blocking(move || Self::shut(&shared, writer));
        shut.await.map_err(|error| Error::Corrupted { detail: format!("closing failed: {error}") })?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let writer = self.stop_commands();
        if let Err(error) = Self::shut(&self.shared, writer) {
            tracing::warn!(%error, "Store did not close cleanly");
        }
    }
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").field("head", &*self.shared.head.borrow()).finish_non_exhaustive()
    }
}
