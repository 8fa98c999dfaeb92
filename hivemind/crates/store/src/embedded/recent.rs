//! The newest revisions in memory: what nearly every watch is waiting for, without a read each.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock},
};

use super::query::LogPiece;
use crate::{Prefix, Revision, WatchBatch};

/// Bytes of keys and values kept.
const BYTES_MAX: usize = 1024 * 1024;
/// Revisions handed out at once.
const AT_ONCE: usize = 256;

/// A run of revisions without a gap, up to the newest.
pub(super) struct Recent {
    revisions_max: usize,
    ring: RwLock<Ring>,
}

#[derive(Default)]
struct Ring {
    batches: VecDeque<(usize, WatchBatch)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(revisions_max: usize) -> Self {
        Self { revisions_max, ring: RwLock::default() }
    }

    /// Adds the next revisions, and forgets the oldest if there are too many.
    pub(super) fn push(&self, batches: Vec<WatchBatch>) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        for batch in batches {
            debug_assert!(ring.batches.back().is_none_or(|(_, last)| last.revision.next() == batch.revision));
            let size: usize = batch.events.iter().map(crate::Event::size_bytes).sum();
            ring.bytes += size;
            ring.batches.push_back((size, batch));
        }
        while ring.batches.len() > self.revisions_max || ring.bytes > BYTES_MAX {
            let Some((size, _)) = ring.batches.pop_front() else { break };
            ring.bytes -= size;
        }
    }

    /// Forgets everything: after a failure the log is the only truth.
    pub(super) fn clear(&self) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Ring::default();
    }

    /// The revisions from `from` on that concern a prefix, if they are all here.
    pub(super) fn since(&self, from: Revision, prefix: &Prefix) -> Option<LogPiece> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.batches.front()?.1.revision;
        let skip = usize::try_from(from.0.checked_sub(oldest.0)?).ok()?;
        let mut piece = LogPiece { batches: Vec::new(), next: from };
        for (_, batch) in ring.batches.iter().skip(skip).take(AT_ONCE) {
            let concerned = batch.events.iter().filter(|event| prefix.holds(event.key().as_str()));
            let events: Vec<_> = concerned.cloned().collect();
            piece.next = batch.revision.next();
            if !events.is_empty() {
                piece.batches.push(WatchBatch { revision: batch.revision, events });
            }
        }
        (piece.next > from).then_some(piece)
    }
}
