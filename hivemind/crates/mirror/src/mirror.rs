//! The node's side: what it was told, in a store of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hivemind_model::{ApiError, ErrorCode, FeedLine, ObjectRef, Replica, Resource};
use hivemind_store::{
    Compare, Key, KeyValue, ListOptions, Op, Ordering, Prefix, Revision, Store, StoreExt, Txn,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    fault::{malformed, of_store},
    key::Kind,
    merge::{self, Outcome, of_bytes, reference},
};

/// The key that holds the server's revision up to which everything is known.
const REVISION_KEY: &str = "mirror/revision";

/// How many keys are written in one transaction.
const KEYS_AT_ONCE: usize = 64;

/// How often a write is tried again because the node itself was faster.
const TRIES_MAX: usize = 32;

/// What the node keeps of the store.
pub struct Mirror {
    store: Arc<dyn Store>,
    node: String,
    /// What was told and is not written yet, as it was told last. `None`: gone.
    pending: BTreeMap<String, Option<Value>>,
    /// Whether what is pending is all that there is.
    full: bool,
    gone: Vec<ObjectRef>,
}

/// What [`Mirror::take`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The server's revision that the node's store is at now, if it moved.
    pub revision: Option<u64>,
    /// Replicas of which the server is to be told that they are gone.
    pub gone: Vec<ObjectRef>,
}

impl Mirror {
    /// The copy of node `node` in `store`.
    pub fn new(store: Arc<dyn Store>, node: impl Into<String>) -> Self {
        Mirror { store, node: node.into(), pending: BTreeMap::new(), full: false, gone: Vec::new() }
    }

    /// The server's revision up to which everything is known; `None`: nothing was told yet.
    ///
    /// # Errors
    /// What the store says.
    pub async fn revision(&self) -> Result<Option<u64>, ApiError> {
        let key = Key::new(REVISION_KEY).map_err(of_store)?;
        let found = self.store.get_json::<u64>(&key).await.map_err(of_store)?;
        Ok(found.map(|found| found.value))
    }

    /// Takes the next line of a feed. With each [`FeedLine::UpTo`] what was told before is written, and only then counts as
    /// known: a node that dies in between is told again.
    ///
    /// # Errors
    /// What the store says. What was told is still to be written: the feed has to begin anew.
    pub async fn take(&mut self, line: FeedLine) -> Result<Applied, ApiError> {
        match line {
            FeedLine::Begin { full, replicas } => {
                self.pending.clear();
                self.full = full;
                self.gone = self.missing(replicas).await?;
                Ok(Applied::default())
            }
            FeedLine::Put { key, value } => {
                self.pending.insert(key, Some(value));
                Ok(Applied::default())
            }
            FeedLine::Delete { key } => {
                self.pending.insert(key, None);
                Ok(Applied::default())
            }
            FeedLine::UpTo { revision } => {
                self.write().await?;
                self.note(revision).await?;
                Ok(Applied { revision: Some(revision), gone: std::mem::take(&mut self.gone) })
            }
        }
    }

    /// The node is no member any more: marks all of its replicas as on their way out. What else is known stays, policies
    /// above all: they hold until the last replica is gone.
    ///
    /// # Errors
    /// What the store says.
    pub async fn disown(&mut self) -> Result<(), ApiError> {
        let prefix = Prefix::new(format!("{}/", Replica::PLURAL)).map_err(of_store)?;
        let listing = self.store.list(&prefix, ListOptions::default()).await.map_err(of_store)?;
        self.full = false;
        self.pending.clear();
        for kv in listing.items {
            let replica: Replica = of_bytes(kv.key.as_str(), &kv.value)?;
            if replica.spec.node == self.node {
                self.pending.insert(kv.key.as_str().to_owned(), None);
            }
        }
        self.write().await
    }

    /// Those of `replicas` that are not here.
    async fn missing(&self, replicas: Vec<ObjectRef>) -> Result<Vec<ObjectRef>, ApiError> {
        let prefix = Prefix::new(format!("{}/", Replica::PLURAL)).map_err(of_store)?;
        let listing = self.store.list(&prefix, ListOptions::default()).await.map_err(of_store)?;
        let mut here = BTreeSet::new();
        for kv in &listing.items {
            here.insert(reference(&of_bytes::<Replica>(kv.key.as_str(), &kv.value)?));
        }
        Ok(replicas.into_iter().filter(|replica| !here.contains(replica)).collect())
    }

    async fn write(&mut self) -> Result<(), ApiError> {
        if std::mem::take(&mut self.full) {
            self.forget_untold().await?;
        }
        while !self.pending.is_empty() {
            let keys: Vec<String> = self.pending.keys().take(KEYS_AT_ONCE).cloned().collect();
            for attempt in 0.. {
                if self.write_some(&keys).await? {
                    break;
                }
                if attempt == TRIES_MAX {
                    let what = "objects change faster than they can be written";
                    return Err(ApiError::new(ErrorCode::StoreFailed, what, "it is tried again"));
                }
            }
            keys.iter().for_each(|key| drop(self.pending.remove(key)));
        }
        Ok(())
    }

    /// Notes that what is here and was not told is gone.
    async fn forget_untold(&mut self) -> Result<(), ApiError> {
        let all = Prefix::new("").map_err(of_store)?;
        let listing = self.store.list(&all, ListOptions::default()).await.map_err(of_store)?;
        for kv in listing.items {
            let key = kv.key.as_str();
            if Kind::of(key) != Kind::Other {
                self.pending.entry(key.to_owned()).or_insert(None);
            }
        }
        Ok(())
    }

    /// Writes what is pending of these keys, unless one of them changes meanwhile.
    async fn write_some(&mut self, keys: &[String]) -> Result<bool, ApiError> {
        let (mut txn, mut gone) = (Txn::new(), Vec::new());
        for text in keys {
            let key = Key::new(text.as_str()).map_err(of_store)?;
            let kept = self.store.get(&key, None).await.map_err(of_store)?.found;
            let op = match self.outcome(text, kept.as_ref())? {
                Outcome::Put(value) => {
                    let is_same = |kept: &KeyValue| {
                        serde_json::from_slice::<Value>(&kept.value).is_ok_and(|kept| kept == value)
                    };
                    if kept.as_ref().is_some_and(is_same) {
                        continue;
                    }
                    let value = serde_json::to_vec(&value).map_err(|error| malformed(text, &error))?;
                    Op::Put { key: key.clone(), value: value.into(), lease: None }
                }
                Outcome::Delete => Op::Delete(key.clone()),
                Outcome::Keep => continue,
                Outcome::Gone(replica) => {
                    gone.push(replica);
                    continue;
                }
            };
            let known = kept.map_or(Revision::ZERO, |kept| kept.mod_revision);
            txn = txn.when(Compare::ModRevision(key, Ordering::Equal, known)).then(op);
        }
        if !txn.success.is_empty() && !self.store.txn(txn).await.map_err(of_store)?.succeeded {
            return Ok(false);
        }
        self.gone.extend(gone);
        Ok(true)
    }

    fn outcome(&self, key: &str, kept: Option<&KeyValue>) -> Result<Outcome, ApiError> {
        let kept = kept.map(|kept| &*kept.value);
        match self.pending.get(key) {
            Some(Some(told)) => merge::put(&self.node, key, kept, told.clone()),
            Some(None) => merge::delete(&self.node, key, kept, Timestamp::now()),
            None => Ok(Outcome::Keep),
        }
    }

    async fn note(&self, revision: u64) -> Result<(), ApiError> {
        if self.revision().await? == Some(revision) {
            return Ok(());
        }
        let key = Key::new(REVISION_KEY).map_err(of_store)?;
        self.store.put(key, revision.to_string().into()).await.map(drop).map_err(of_store)
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("node", &self.node).finish_non_exhaustive()
    }
}
