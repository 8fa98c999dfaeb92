//! Statuses of policies on their way to the store.
//!
//! The task that enforces says what is; a task beside it writes the latest of it, so that enforcing does not wait for the
//! disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hivemind_model::{ApiError, Enforcement, ErrorCode, NetworkPolicy, Problem};
use hivemind_store::Objects;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::Key;

/// How long after a failed write the next is tried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is, of one policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Enforced {
    /// The policy that is meant, not one that is made in its place.
    pub(super) uid: Uuid,
    /// The generation that is in force as of now, unless something is in the way.
    pub(super) generation: Option<(u64, Timestamp)>,
    /// How many replicas it selects.
    pub(super) replicas: u32,
    /// What is in the way.
    pub(super) problem: Option<Problem>,
}

/// The statuses that are to be written, at most one a policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Statuses {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    due: Mutex<BTreeMap<Key, Enforced>>,
    news: Notify,
}

impl Statuses {
    /// Has `enforced` written soon, in place of what was to be written before.
    pub(super) fn tell(&self, key: Key, enforced: Enforced) {
        self.due().insert(key, enforced);
        self.shared.news.notify_one();
    }

    /// Writes until `stop`, what is due then included as far as the store takes it at once.
    pub(super) async fn write(self, node: String, objects: Objects, stop: CancellationToken) {
        loop {
            let Some((key, enforced)) = self.next() else {
                tokio::select! {
                    () = self.shared.news.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            let Err(error) = write_once(&objects, &node, &key, &enforced).await else { continue };
            warn!(policy = key.1, namespace = key.0, %error, "A policy's status could not be written; trying again");
            self.due().entry(key).or_insert(enforced);
            tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn due(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Enforced>> {
        self.shared.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Key, Enforced)> {
        self.due().pop_first()
    }
}

async fn write_once(objects: &Objects, node: &str, key: &Key, enforced: &Enforced) -> Result<(), ApiError> {
    let set = |policy: &mut NetworkPolicy| {
        if policy.metadata.uid != enforced.uid {
            return Ok(());
        }
        let (generation, at) = enforced.generation.unzip();
        let enforcement =
            Enforcement { generation: generation.unwrap_or_default(), at, problem: enforced.problem.clone() };
        policy.status.note(node, &enforcement);
        policy.status.replicas = enforced.replicas;
        Ok(())
    };
    match objects.update_with::<NetworkPolicy>(&key.0, &key.1, set).await {
        Err(error) if error.code == ErrorCode::PolicyNotFound => Ok(()),
        done => done.map(drop),
    }
}
