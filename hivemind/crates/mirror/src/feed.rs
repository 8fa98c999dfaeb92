//! The server's side: what changes, as far as it concerns one node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::stream::{self, Stream};
use hivemind_model::{ApiError, ErrorCode, FeedLine, Replica, Resource};
use hivemind_store::{Error, Event, KeyValue, ListOptions, Prefix, Revision, Store, Watch};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    fault::of_store,
    key::Kind,
    merge::{of_bytes, reference},
    view::view,
};

/// How long nothing may be told before a sign of life is.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// How often it begins anew because history was compacted meanwhile.
const TRIES_MAX: usize = 8;

/// Everything that concerns node `node` from after `since` on, the revision of a line [`FeedLine::UpTo`] that it has had;
/// all that there is if `since` is `None`, or is not of this store's kept history. The stream ends with an error when the
/// node reads so slowly that history is compacted before it; asking again tells it all.
///
/// # Errors
/// What the store says.
pub async fn feed(
    store: Arc<dyn Store>,
    node: String,
    since: Option<u64>,
) -> Result<impl Stream<Item = Result<FeedLine, ApiError>> + Send + 'static, ApiError> {
    let feed = begin(store, node, since).await?;
    Ok(stream::unfold(Some(Box::new(feed)), |feed| async {
        let mut feed = feed?;
        match feed.next().await {
            Ok(line) => Some((Ok(line), Some(feed))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Where a feed is.
struct Feed {
    node: String,
    watch: Watch,
    /// Up to where everything was looked at.
    revision: Revision,
    /// What was told of other nodes' replicas, which change more often than what is told of them.
    told: BTreeMap<String, Value>,
    /// Lines of the revision that is being told.
    lines: VecDeque<FeedLine>,
}

async fn begin(store: Arc<dyn Store>, node: String, since: Option<u64>) -> Result<Feed, ApiError> {
    let all = Prefix::new("").map_err(of_store)?;
    let now = store.revision().await.map_err(of_store)?;
    if let Some(since) = since.map(Revision).filter(|since| *since <= now) {
        match store.watch(&all, since.next()).await {
            Ok(watch) => {
                let listing = store.list(&replicas()?, ListOptions::default()).await.map_err(of_store)?;
                let mut feed = Feed::new(node, watch, since);
                feed.say_begin(false, &listing.items)?;
                feed.lines.push_back(FeedLine::UpTo { revision: since.0 });
                return Ok(feed);
            }
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(of_store(error)),
        }
    }
    for _ in 0..TRIES_MAX {
        let listing = store.list(&all, ListOptions::default()).await.map_err(of_store)?;
        match store.watch(&all, listing.revision.next()).await {
            Ok(watch) => {
                let mut feed = Feed::new(node, watch, listing.revision);
                let replicas: Vec<_> = listing
                    .items
                    .iter()
                    .filter(|kv| Kind::of(kv.key.as_str()) == Kind::Replica)
                    .cloned()
                    .collect();
                feed.say_begin(true, &replicas)?;
                listing.items.iter().try_for_each(|kv| feed.say_put(kv))?;
                feed.lines.push_back(FeedLine::UpTo { revision: listing.revision.0 });
                return Ok(feed);
            }
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(of_store(error)),
        }
    }
    let what = "history is compacted faster than it can be read";
    Err(ApiError::new(ErrorCode::StoreFailed, what, "it is tried again"))
}

fn replicas() -> Result<Prefix, ApiError> {
    Prefix::new(format!("{}/", Replica::PLURAL)).map_err(of_store)
}

impl Feed {
    fn new(node: String, watch: Watch, revision: Revision) -> Self {
        Feed { node, watch, revision, told: BTreeMap::new(), lines: VecDeque::new() }
    }

    fn say_begin(&mut self, full: bool, replicas: &[KeyValue]) -> Result<(), ApiError> {
        let mut own = Vec::new();
        for kv in replicas {
            let replica: Replica = of_bytes(kv.key.as_str(), &kv.value)?;
            if replica.spec.node == self.node {
                own.push(reference(&replica));
            }
        }
        self.lines.push_back(FeedLine::Begin { full, replicas: own });
        Ok(())
    }

    fn say_put(&mut self, kv: &KeyValue) -> Result<(), ApiError> {
        let key = kv.key.as_str();
        let Some(mut value) = view(&self.node, key, &kv.value)? else { return Ok(()) };
        if Kind::of(key) == Kind::Replica {
            if value.pointer("/spec/node").and_then(Value::as_str) != Some(&self.node) {
                if self.told.get(key) == Some(&value) {
                    return Ok(());
                }
                self.told.insert(key.to_owned(), value.clone());
            }
            // Nothing of it is of use to whoever has the rest.
            value["metadata"]["resourceVersion"] = 0.into();
        }
        self.lines.push_back(FeedLine::Put { key: key.to_owned(), value });
        Ok(())
    }

    fn say(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Put { current, .. } => self.say_put(&current),
            Event::Delete { previous, .. } => {
                let key = previous.key.as_str();
                self.told.remove(key);
                if view(&self.node, key, &previous.value)?.is_some() {
                    self.lines.push_back(FeedLine::Delete { key: key.to_owned() });
                }
                Ok(())
            }
        }
    }

    async fn next(&mut self) -> Result<FeedLine, ApiError> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            match timeout(SILENT_FOR, self.watch.next()).await {
                Ok(batch) => {
                    let batch = batch.map_err(of_store)?;
                    self.revision = batch.revision;
                    for event in batch.events {
                        self.say(event)?;
                    }
                    if !self.lines.is_empty() {
                        self.lines.push_back(FeedLine::UpTo { revision: batch.revision.0 });
                    }
                }
                // Not the store's newest: that may be on its way here.
                Err(_) => return Ok(FeedLine::UpTo { revision: self.revision.0 }),
            }
        }
    }
}
