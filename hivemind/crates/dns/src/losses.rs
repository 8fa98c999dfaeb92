//! What is lost in floods: counted, and told in the log now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use tracing::warn;

use crate::limits::LOSS_LOG_PAUSE;
use crate::statistics::Lost;

/// What can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Datagrams,
    Queries,
    Connections,
    Replies,
}

#[derive(Debug, Default)]
pub(crate) struct Losses {
    counts: [AtomicU64; 4],
    told: Mutex<Option<Instant>>,
}

impl Losses {
    pub(crate) fn count(&self, loss: Loss, count: u64) {
        if count == 0 {
            return;
        }
        self.counts[loss as usize].fetch_add(count, Ordering::Relaxed);
        if self.is_to_be_told(Instant::now()) {
            let Lost { datagrams, queries, connections, replies } = self.read();
            warn!(
                datagrams,
                queries, connections, replies, "The DNS server is flooded and loses queries; so many in all."
            );
        }
    }

    pub(crate) fn read(&self) -> Lost {
        let of = |loss: Loss| self.counts[loss as usize].load(Ordering::Relaxed);
        Lost {
            datagrams: of(Loss::Datagrams),
            queries: of(Loss::Queries),
            connections: of(Loss::Connections),
            replies: of(Loss::Replies),
        }
    }

    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| now.saturating_duration_since(told) >= LOSS_LOG_PAUSE);
        if is_due {
            *told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn losses_are_counted_always_and_told_once_in_a_while() {
        let losses = Losses::default();
        losses.count(Loss::Queries, 2);
        losses.count(Loss::Datagrams, 3);
        losses.count(Loss::Connections, 0);
        assert_eq!(losses.read(), Lost { datagrams: 3, queries: 2, ..Lost::default() });
        let now = Instant::now();
        assert!(!losses.is_to_be_told(now), "it was told with the first");
        assert!(losses.is_to_be_told(now + LOSS_LOG_PAUSE));
        assert!(!losses.is_to_be_told(now + LOSS_LOG_PAUSE + Duration::from_secs(1)));
    }
}
