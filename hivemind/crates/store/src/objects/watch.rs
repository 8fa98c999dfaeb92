//! A watch of one kind of objects that heals itself.

use std::{
    collections::{BTreeMap, VecDeque},
    marker::PhantomData,
    sync::Arc,
};

use futures::stream::{self, Stream};
use hivemind_model::{ApiError, ErrorCode, WatchEvent, WatchKind};

use super::object::{Object, decode};
use crate::{Error, Event, Key, KeyValue, ListOptions, Listing, Prefix, Revision, Store, Watch};

/// How often a resync starts over because history was compacted while it ran.
const RESYNC_TRIES_MAX: usize = 8;

/// Every change of the objects of a kind, in order, without a gap.
///
/// It keeps no queue: it is a position in the store's log and what it told last of each object. When it is read so
/// slowly that its position is compacted, it lists again and tells the difference. It starts nothing in the background;
/// dropping it ends it.
pub struct ObjectWatch<T> {
    store: Arc<dyn Store>,
    prefix: Prefix,
    watch: Watch,
    /// What was told, as it is stored; [`Self::pending`] counts as told.
    told: BTreeMap<Key, KeyValue>,
    /// The rest of the revision that is being told, at most what one transaction changes or one list holds.
    pending: VecDeque<(WatchKind, KeyValue)>,
    revision: Revision,
    ended: Option<ApiError>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Object> ObjectWatch<T> {
    /// Follows `prefix` from after `listing`, which counts as told.
    pub(super) async fn start(
        store: Arc<dyn Store>,
        prefix: Prefix,
        listing: Listing,
    ) -> Result<Self, ApiError> {
        let watch = store.watch(&prefix, listing.revision.next()).await?;
        Ok(ObjectWatch {
            store,
            prefix,
            watch,
            revision: listing.revision,
            told: listing.items.into_iter().map(|kv| (kv.key.clone(), kv)).collect(),
            pending: VecDeque::new(),
            ended: None,
            kind: PhantomData,
        })
    }

    /// The next change, waiting for one. The object of a `deleted` event is as it last was, save for its
    /// `resourceVersion`, which is the revision that deleted it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ErrorCode::StoreFailed`]: the store went away or holds an object that cannot be read. The watch has ended and
    /// gives the same error again.
    pub async fn next(&mut self) -> Result<WatchEvent<T>, ApiError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let next = self.advance().await;
        if let Err(error) = &next {
            self.ended = Some(error.clone());
        }
        next
    }

    /// The revision up to which everything was told: where another watch could go on. `None` while only a part of a
    /// revision's changes has been told.
    pub fn told_up_to(&self) -> Option<u64> {
        self.pending.is_empty().then_some(self.revision.0)
    }

    /// The same as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchEvent<T>, ApiError>> + Send + 'static {
        stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(event) => Some((Ok(event), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn advance(&mut self) -> Result<WatchEvent<T>, ApiError> {
        loop {
            if let Some((kind, stored)) = self.pending.pop_front() {
                return Ok(WatchEvent { kind, object: decode(&stored)? });
            }
            match self.watch.next().await {
                Ok(batch) => {
                    self.revision = batch.revision;
                    batch.events.into_iter().for_each(|event| self.tell(event));
                }
                Err(Error::Compacted { .. }) => self.resync().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Put { current, .. } => {
                let known = self.told.insert(current.key.clone(), current.clone()).is_some();
                let kind = if known { WatchKind::Modified } else { WatchKind::Added };
                self.pending.push_back((kind, current));
            }
            Event::Delete { previous, revision } => {
                self.told.remove(&previous.key);
                self.pending.push_back((WatchKind::Deleted, gone(previous, revision)));
            }
        }
    }

    /// Lists again and tells what differs. Nothing changes until both list and watch are there, so that a future that
    /// is dropped half-way leaves the watch where it was.
    async fn resync(&mut self) -> Result<(), ApiError> {
        for _ in 0..RESYNC_TRIES_MAX {
            let listing = self.store.list(&self.prefix, ListOptions::default()).await?;
            match self.store.watch(&self.prefix, listing.revision.next()).await {
                Ok(watch) => {
                    tracing::info!(prefix = %self.prefix, revision = %listing.revision, "Watch fell behind and listed again.");
                    self.watch = watch;
                    self.tell_difference(listing);
                    return Ok(());
                }
                Err(Error::Compacted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let what = "history is compacted faster than it can be read";
        Err(ApiError::new(ErrorCode::StoreFailed, what, "watch again"))
    }

    fn tell_difference(&mut self, listing: Listing) {
        let revision = listing.revision;
        let now: BTreeMap<_, _> = listing.items.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let before = std::mem::take(&mut self.told);
        for (key, old) in &before {
            let remains = now.get(key).is_some_and(|new| new.create_revision == old.create_revision);
            if !remains {
                self.pending.push_back((WatchKind::Deleted, gone(old.clone(), revision)));
            }
        }
        for (key, new) in &now {
            match before.get(key) {
                Some(old) if old.create_revision != new.create_revision => {
                    self.pending.push_back((WatchKind::Added, new.clone()));
                }
                Some(old) if old.mod_revision == new.mod_revision => {}
                Some(_) => self.pending.push_back((WatchKind::Modified, new.clone())),
                None => self.pending.push_back((WatchKind::Added, new.clone())),
            }
        }
        self.told = now;
        self.revision = revision;
    }
}

/// A stored object as of its deletion.
fn gone(previous: KeyValue, revision: Revision) -> KeyValue {
    KeyValue { mod_revision: revision, ..previous }
}

impl<T> std::fmt::Debug for ObjectWatch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWatch")
            .field("prefix", &self.prefix)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
