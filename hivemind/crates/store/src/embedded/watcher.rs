//! A watch: a position in the log.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use super::Shared;
use crate::{Error, Prefix, Result, Revision, WatchBatch, WatchSource};

/// Follows the log from a position, for one prefix.
pub(super) struct LogWatcher {
    shared: Arc<Shared>,
    head: watch::Receiver<Option<Revision>>,
    prefix: Prefix,
    /// The first revision that was not read yet.
    next: Revision,
    /// Read, and waiting to be taken: one piece of the log at most.
    read: VecDeque<WatchBatch>,
}

impl LogWatcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        head: watch::Receiver<Option<Revision>>,
        prefix: Prefix,
        from: Revision,
    ) -> Self {
        Self { shared, head, prefix, next: from, read: VecDeque::new() }
    }
}

#[async_trait]
impl WatchSource for LogWatcher {
    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            if let Some(batch) = self.read.pop_front() {
                return Ok(batch);
            }
            let head = self.head.borrow_and_update().ok_or(Error::Closed)?;
            if self.next > head {
                self.head.changed().await.map_err(|_| Error::Closed)?;
                continue;
            }
            let piece = match self.shared.recent.since(self.next, &self.prefix) {
                Some(piece) => piece,
                None => {
                    let (from, prefix) = (self.next, self.prefix.clone());
                    self.shared.read(move |snapshot| snapshot.log(from, &prefix)).await?
                }
            };
            // Nothing is awaited from here on, so a dropped future loses no batch.
            self.next = piece.next;
            self.read.extend(piece.batches);
        }
    }
}
