//! The status of a replica on its way to the store.
//!
//! A worker says what is; a task beside it writes the latest of it. So a container's start does not wait for the disk, and
//! what changes faster than the store writes is written once.

use std::time::Duration;

use hivemind_model::{ApiError, Replica, ReplicaStatus};
use hivemind_store::Objects;
use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

/// How long after a failed write the next is tried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a worker says what is.
#[derive(Debug)]
pub(crate) struct StatusWriter {
    latest: watch::Sender<ReplicaStatus>,
    stored: watch::Receiver<ReplicaStatus>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// Begins with `status`, which the store holds already.
    pub(crate) fn start(objects: Objects, namespace: String, name: String, status: ReplicaStatus) -> Self {
        let (told, stored) = watch::channel(status.clone());
        let (latest, changes) = watch::channel(status);
        let task = tokio::spawn(write(objects, namespace, name, changes, told));
        StatusWriter { latest, stored, task }
    }

    /// Changes the status; it is written soon if that made a difference.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ReplicaStatus)) {
        self.latest.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// Returns when what was said last is in the store, or cannot be because the object is gone.
    pub(crate) async fn written(&self) {
        let latest = self.latest.borrow().clone();
        let _ = self.stored.clone().wait_for(|stored| *stored == latest).await;
    }

    /// Returns when the last change is written, or cannot be because the object is gone.
    pub(crate) async fn finish(self) {
        let StatusWriter { latest, task, stored: _ } = self;
        drop(latest);
        let _ = task.await;
    }
}

async fn write(
    objects: Objects,
    namespace: String,
    name: String,
    mut changes: watch::Receiver<ReplicaStatus>,
    stored: watch::Sender<ReplicaStatus>,
) {
    while changes.changed().await.is_ok() {
        loop {
            let status = changes.borrow_and_update().clone();
            match write_once(&objects, &namespace, &name, &status).await {
                Ok(()) => {
                    stored.send_replace(status);
                    break;
                }
                Err(error) if error.code == hivemind_model::ErrorCode::ReplicaNotFound => return,
                Err(error) => {
                    warn!(replica = %name, %error, "A replica's status could not be written; trying again")
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn write_once(
    objects: &Objects,
    namespace: &str,
    name: &str,
    status: &ReplicaStatus,
) -> Result<(), ApiError> {
    let set = |replica: &mut Replica| {
        replica.status.clone_from(status);
        Ok(())
    };
    objects.update_with(namespace, name, set).await.map(drop)
}
