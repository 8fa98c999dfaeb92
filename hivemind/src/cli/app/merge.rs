//! The logs of several replicas as one, in the order of their times.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, future::poll_fn};
use hivemind_model::{ApiError, LogLine};
use tokio::time::timeout;

type Line = Result<LogLine, ApiError>;
type Source = Pin<Box<dyn Stream<Item = Line> + Send>>;

/// A merge of streams that are each in order: it gives the earliest of the lines that are next in each. It holds one
/// line a stream.
pub(crate) struct Merge {
    sources: Vec<Head>,
    /// How long a stream that has nothing yet is waited for while others have; `None`: as long as it takes.
    patience: Option<Duration>,
}

struct Head {
    source: Source,
    next: Option<Line>,
}

impl Merge {
    /// A merge of no streams yet. Streams that go on for ever need `patience`: a stream may be silent for an hour, and
    /// order is then only kept among lines that come within that time.
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Merge { sources: Vec::new(), patience }
    }

    /// Adds a stream.
    pub(crate) fn add(&mut self, source: impl Stream<Item = Line> + Send + 'static) {
        self.sources.push(Head { source: Box::pin(source), next: None });
    }

    /// Whether no stream is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The next line; `None` when all streams are over. May be dropped and called again without losing a line.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        poll_fn(|cx| self.poll_any(cx)).await?;
        match self.patience {
            None => poll_fn(|cx| self.poll_all(cx)).await,
            // What is not there in time is not waited for.
            Some(patience) => drop(timeout(patience, poll_fn(|cx| self.poll_all(cx))).await),
        }
        self.take_earliest()
    }

    /// Ready with `Some` once at least one line is there, with `None` once all streams are over.
    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        let all_there = self.poll_all(context).is_ready();
        if self.sources.iter().any(|head| head.next.is_some()) {
            return Poll::Ready(Some(()));
        }
        if all_there { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Ready once every stream has a line or is over; streams that are over are let go.
    fn poll_all(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut pending = false;
        self.sources.retain_mut(|head| {
            if head.next.is_none() {
                match head.source.as_mut().poll_next(context) {
                    Poll::Ready(Some(line)) => head.next = Some(line),
                    Poll::Ready(None) => return false,
                    Poll::Pending => pending = true,
                }
            }
            true
        });
        if pending { Poll::Pending } else { Poll::Ready(()) }
    }

    fn take_earliest(&mut self) -> Option<Line> {
        // Errors first: what comes after them is cut off anyway.
        let time = |head: &&mut Head| match &head.next {
            Some(Ok(line)) => Some(line.time),
            _ => None,
        };
        self.sources.iter_mut().filter(|head| head.next.is_some()).min_by_key(time)?.next.take()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    fn line(replica: &str, second: i64) -> Line {
        Ok(LogLine {
            replica: replica.into(),
            container: None,
            time: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second),
            stream: "stdout".into(),
            message: format!("{replica}{second}"),
        })
    }

    async fn all(merge: &mut Merge) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(line) = merge.next().await {
            messages.push(line.unwrap().message);
        }
        messages
    }

    #[tokio::test]
    async fn lines_of_several_replicas_come_in_the_order_of_their_times() {
        let mut merge = Merge::new(None);
        merge.add(stream::iter([line("a", 1), line("a", 4), line("a", 5)]));
        merge.add(stream::iter([line("b", 2), line("b", 3), line("b", 6)]));
        merge.add(stream::empty());
        assert_eq!(all(&mut merge).await, ["a1", "b2", "b3", "a4", "a5", "b6"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_replica_does_not_hold_the_others_up() {
        let mut merge = Merge::new(Some(Duration::from_millis(100)));
        merge.add(stream::iter([line("a", 1), line("a", 2)]));
        merge.add(stream::pending());
        assert_eq!(merge.next().await.unwrap().unwrap().message, "a1");
        assert_eq!(merge.next().await.unwrap().unwrap().message, "a2");
        assert!(timeout(Duration::from_secs(60), merge.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_stream_that_is_added_later_is_merged_too() {
        let mut merge = Merge::new(None);
        merge.add(stream::iter([line("a", 1)]));
        assert_eq!(merge.next().await.unwrap().unwrap().message, "a1");
        merge.add(stream::iter([line("b", 0)]));
        assert_eq!(all(&mut merge).await, ["b0"]);
    }
}
