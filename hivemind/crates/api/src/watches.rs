//! How many watches there are, and what becomes of one that is not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use hivemind_model::{ApiError, ErrorCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{api::Serving, lines::Format};

/// The most watches (of objects and of flows) at a time, of all listeners together: each remembers what it told.
pub const WATCHES_MAX: usize = 256;

/// How long a line may wait to be read before its watch is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines may wait to be read.
const QUEUE: usize = 4;

/// The watches that go on.
#[derive(Clone)]
pub(crate) struct Watches {
    places: Arc<Semaphore>,
    given_up: Arc<AtomicU64>,
    patience: Duration,
}

impl Default for Watches {
    fn default() -> Self {
        Watches {
            places: Arc::new(Semaphore::new(WATCHES_MAX)),
            given_up: Arc::default(),
            patience: PATIENCE,
        }
    }
}

impl Watches {
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Watches { patience, ..self }
    }

    /// A place for one more.
    ///
    /// # Errors
    /// `Busy`.
    pub(crate) fn take(&self) -> Result<WatchPlace, ApiError> {
        match self.places.clone().try_acquire_owned() {
            Ok(permit) => Ok(WatchPlace { permit, watches: self.clone() }),
            Err(_) => {
                let what = format!("there are {WATCHES_MAX} watches already");
                Err(ApiError::new(ErrorCode::Busy, what, "end some that are not needed, then try again"))
            }
        }
    }

    /// How many go on, and how many were given up because they were not read.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let open = WATCHES_MAX - self.places.available_permits();
        (open as u64, self.given_up.load(Ordering::Relaxed))
    }
}

/// The place of one watch.
pub(crate) struct WatchPlace {
    permit: OwnedSemaphorePermit,
    watches: Watches,
}

impl WatchPlace {
    /// `lines` as they are read. If one waits too long, nothing more is kept for the reader: when it comes back, it reads
    /// what waits, then that the watch was given up.
    pub(crate) fn hold(
        self,
        mut lines: BoxStream<'static, Bytes>,
        format: Format,
        serving: &Serving,
    ) -> BoxStream<'static, Bytes> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (last, farewell) = oneshot::channel();
        let shutdown = serving.shutdown.clone();
        serving.sessions.spawn(async move {
            let WatchPlace { permit, watches } = self;
            let _held = permit;
            let telling = async {
                loop {
                    let line = tokio::select! {
                        () = sender.closed() => return,
                        line = lines.next() => line,
                    };
                    let Some(line) = line else { return };
                    match timeout(watches.patience, sender.send(line)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(_) => break,
                    }
                }
                watches.given_up.fetch_add(1, Ordering::Relaxed);
                tracing::info!("A watch was given up: it was not read.");
                let what = format!("the watch was not read for {} s", watches.patience.as_secs_f64());
                let error = ApiError::new(ErrorCode::TimedOut, what, "watch again, and read faster");
                let _ = last.send(format.error_line(error));
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = telling => {}
            }
        });
        let waiting =
            stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let farewell = stream::once(farewell).filter_map(|last| async { last.ok() });
        waiting.chain(farewell).boxed()
    }
}
