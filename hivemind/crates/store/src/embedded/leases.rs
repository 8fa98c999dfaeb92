//! When leases expire. Deadlines live in memory: after a restart every lease has its full time again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::{Shared, writer::Command};
use crate::{LeaseId, Result};

/// How long to wait before trying again to delete the keys of leases, when writing failed.
const RETRY: Duration = Duration::from_secs(1);
/// Leases ended with one command.
const AT_ONCE: usize = 256;

struct Lease {
    ttl: Duration,
    deadline: Duration,
    /// Its keys are being deleted: it cannot be kept alive any more.
    ending: bool,
}

/// The leases and their deadlines.
pub(super) struct Leases {
    leases: Mutex<HashMap<LeaseId, Lease>>,
    /// A lease was added, which may have the earliest deadline.
    added: Notify,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { leases: Mutex::default(), added: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the leases those of the tables; ones that were not known get their full time.
    pub(super) fn reload(&self, there: &[(LeaseId, u64)], now: Duration) {
        let mut leases = self.lock();
        let mut before = std::mem::take(&mut *leases);
        for &(id, ttl_s) in there {
            let ttl = Duration::from_secs(ttl_s);
            let fresh = || Lease { ttl, deadline: now + ttl, ending: false };
            leases.insert(id, before.remove(&id).unwrap_or_else(fresh));
        }
        self.added.notify_one();
    }

    pub(super) fn add(&self, id: LeaseId, ttl_s: u64, now: Duration) {
        let ttl = Duration::from_secs(ttl_s);
        self.lock().insert(id, Lease { ttl, deadline: now + ttl, ending: false });
        self.added.notify_one();
    }

    pub(super) fn remove(&self, id: LeaseId) {
        self.lock().remove(&id);
    }

    /// Sets the full time again and returns it; `None` when there is no such lease any more.
    pub(super) fn keep_alive(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        let mut leases = self.lock();
        let lease = leases.get_mut(&id).filter(|lease| !lease.ending && lease.deadline > now)?;
        lease.deadline = now + lease.ttl;
        Some(lease.ttl)
    }

    /// The time to live and what is left of it.
    pub(super) fn remaining(&self, id: LeaseId, now: Duration) -> Option<(Duration, Duration)> {
        let leases = self.lock();
        let lease = leases.get(&id).filter(|lease| !lease.ending && lease.deadline > now)?;
        Some((lease.ttl, lease.deadline.saturating_sub(now)))
    }

    /// Takes leases whose time is over out of reach of keep-alives.
    fn end_due(&self, now: Duration) -> Vec<LeaseId> {
        let mut leases = self.lock();
        let due = leases.iter_mut().filter(|(_, lease)| lease.ending || lease.deadline <= now);
        due.take(AT_ONCE)
            .map(|(id, lease)| {
                lease.ending = true;
                *id
            })
            .collect()
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.lock().values().map(|lease| lease.deadline).min()
    }
}

/// Ends leases when their time is over, for as long as the store is open.
pub(super) async fn expire(shared: Arc<Shared>, commands: mpsc::WeakSender<Command>) {
    loop {
        let due = shared.leases.end_due(shared.clock.now());
        if !due.is_empty() {
            match end(&commands, due).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "Expired leases could not be ended, trying again");
                    shared.clock.sleep_until(shared.clock.now() + RETRY).await;
                }
            }
            continue;
        }
        let deadline = shared.leases.next_deadline();
        tokio::select! {
            () = shared.clock.sleep_until(deadline.unwrap_or_default()), if deadline.is_some() => {}
            () = shared.leases.added.notified() => {}
        }
    }
}

/// Has the writer end leases; `None` when the store is closed.
async fn end(commands: &mpsc::WeakSender<Command>, ids: Vec<LeaseId>) -> Option<Result<()>> {
    let (reply, answer) = oneshot::channel();
    // Neither kept nor waited with: closing the store waits until no sender is left.
    let sent = commands.upgrade()?.try_send(Command::Expire { ids, reply });
    match sent {
        Ok(()) => answer.await.ok(),
        Err(mpsc::error::TrySendError::Closed(_)) => None,
        Err(mpsc::error::TrySendError::Full(_)) => {
            let busy = std::io::Error::new(std::io::ErrorKind::WouldBlock, "the writer is busy");
            Some(Err(crate::Error::from_io(busy)))
        }
    }
}
