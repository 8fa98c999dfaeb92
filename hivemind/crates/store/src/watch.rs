//! Watches: every change of a prefix, in order, without a gap.

use async_trait::async_trait;

use crate::{Key, KeyValue, Result, Revision};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put {
        /// The key as it is since.
        current: KeyValue,
        /// The key as it was before; `None` when this created it.
        previous: Option<KeyValue>,
    },
    /// The key was deleted, by an operation or with its lease.
    Delete {
        /// The key as it was before.
        previous: KeyValue,
        /// The revision that deleted it.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { current, .. } => &current.key,
            Self::Delete { previous, .. } => &previous.key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { current, .. } => current.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// Bytes of keys and values that it holds in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let of = |kv: &KeyValue| kv.key.as_str().len() + kv.value.len();
        match self {
            Self::Put { current, previous } => of(current) + previous.as_ref().map_or(0, of),
            Self::Delete { previous, .. } => of(previous),
        }
    }
}

/// Everything that one revision changed under the watched prefix, never split, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision. Watching from its [`Revision::next`] continues where this one ends.
    pub revision: Revision,
    /// Its changes, at most one a key.
    pub events: Vec<Event>,
}

/// Where a backend's watch gets its batches from.
#[async_trait]
pub trait WatchSource: Send {
    /// The next batch, waiting for it. Must be cancel-safe, and must end with an error rather than
    /// leave out a revision.
    async fn next(&mut self) -> Result<WatchBatch>;
}

/// A subscription to the changes of a prefix.
///
/// It holds no queue that could overflow: it is a position in the store's log. A watcher that is so
/// slow that its position is compacted gets [`crate::Error::Compacted`] and must list again.
pub struct Watch {
    source: Box<dyn WatchSource>,
    ended: Option<crate::Error>,
}

impl Watch {
    /// A watch that draws from a backend's source.
    pub fn new(source: Box<dyn WatchSource>) -> Self {
        Self { source, ended: None }
    }

    /// The next revision that changed something under the prefix, waiting for one. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`]: this watcher was too slow; list again, and watch from there.
    /// [`crate::Error::Closed`], [`crate::Error::Io`]: the store went away. After an error the
    /// watch has ended and gives the same error again.
    pub async fn next(&mut self) -> Result<WatchBatch> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let next = self.source.next().await;
        if let Err(error) = &next {
            self.ended = Some(error.clone());
        }
        next
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("ended", &self.ended).finish_non_exhaustive()
    }
}
