//! Waiting: until an app is up, and until apps are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt;
use hivemind_client::{Client, Selection, Watch, WatchItem};
use hivemind_model::{ApiError, App, ErrorCode, Replica, WatchKind};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use uuid::Uuid;

use super::{
    paint::Painter,
    progress::{Blame, Observation, Progress, Replicas, Verdict},
};
use crate::cli::fault::{Failure, fault};

/// Between two tries to reach a daemon that went away.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How the waiting for an app to be up ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It is up.
    Up,
    /// It was deleted meanwhile.
    Gone,
    /// It will not come up by itself.
    Failed(Blame),
    /// It was not up in time; why, as far as it is known.
    TimedOut(Option<Blame>),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// Waits until `app` is up, for at most `limit`; shows what its replicas do. A daemon that is started again meanwhile is
/// found again.
///
/// # Errors
/// The daemon's own, and `DaemonUnreachable` if it is not there when the time is up.
pub(crate) async fn until_up(
    client: &Client,
    app: &App,
    replicas_are: Replicas,
    limit: Duration,
    painter: &mut Painter,
) -> Result<(End, Progress), Failure> {
    let deadline = Instant::now() + limit;
    let mut progress = Progress::new(app, replicas_are);
    let mut lost: Option<ApiError> = None;
    loop {
        let end = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok((End::Interrupted, progress)),
            () = sleep_until(deadline) => {
                let blame = progress.blame();
                return match lost {
                    Some(error) if blame.is_none() => Err(error.into()),
                    _ => Ok((End::TimedOut(blame), progress)),
                };
            }
            end = watch_once(client, app, &mut progress, painter, &mut lost) => end,
        };
        match end {
            Ok(end) => return Ok((end, progress)),
            Err(error) if error.code != ErrorCode::DaemonUnreachable && error.code != ErrorCode::TimedOut => {
                return Err(error.into());
            }
            Err(error) => {
                if lost.is_none() {
                    painter.say("the daemon went away; waiting for it to come back");
                }
                lost = Some(error);
            }
        }
    }
}

/// Follows both watches until it is clear how it ends, or until one of them breaks off.
async fn watch_once(
    client: &Client,
    app: &App,
    progress: &mut Progress,
    painter: &mut Painter,
    lost: &mut Option<ApiError>,
) -> Result<End, ApiError> {
    if lost.is_some() {
        sleep(RETRY_DELAY).await;
    }
    let namespace = &app.metadata.namespace;
    let mut apps = client.watch::<App>(&Selection::namespace(namespace)).await?;
    let mut replicas = client.watch::<Replica>(&Selection::app(namespace, &app.metadata.name)).await?;
    *lost = None;
    progress.observe(Observation::Resync);
    loop {
        let seen = tokio::select! {
            item = next(&mut apps) => Observation::App(Box::new(item?)),
            item = next(&mut replicas) => Observation::Replica(Box::new(item?)),
        };
        let (steps, verdict) = progress.observe(seen);
        steps.iter().for_each(|step| painter.show(step));
        match verdict {
            Verdict::Waiting => {}
            Verdict::Up => return Ok(End::Up),
            Verdict::Gone => return Ok(End::Gone),
            Verdict::Failed(blame) => return Ok(End::Failed(blame)),
        }
    }
}

/// The next item of a watch that goes on for ever; whatever ends it is told as `DaemonUnreachable`.
pub(crate) async fn next<T: serde::de::DeserializeOwned>(
    watch: &mut Watch<T>,
) -> Result<WatchItem<T>, ApiError> {
    match watch.next().await {
        // Whatever ends a watch that was running, for example that it fell too far behind, is mended by a new one.
        Some(item) => item.map_err(|error| ApiError { code: ErrorCode::DaemonUnreachable, ..error }),
        None => Err(ApiError::new(
            ErrorCode::DaemonUnreachable,
            "the daemon ended the watch",
            "see whether it still runs: systemctl status hivemind",
        )),
    }
}

/// Waits until the apps `left`, by uid with their names, are gone; tells each by `on_gone`.
///
/// # Errors
/// `TimedOut` after `limit`; the daemon's own.
pub(crate) async fn until_gone(
    client: &Client,
    namespace: &str,
    mut left: BTreeMap<Uuid, String>,
    limit: Duration,
    mut on_gone: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    while !left.is_empty() {
        match timeout_at(deadline, watch_deletions(client, namespace, &mut left, &mut on_gone)).await {
            Ok(Ok(())) => {}
            Ok(Err(Failure::Told(told))) if told.error.code == ErrorCode::DaemonUnreachable => {
                if Instant::now() + RETRY_DELAY > deadline {
                    return Err(Failure::Told(told));
                }
                sleep(RETRY_DELAY).await;
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                let names: Vec<&str> = left.values().map(String::as_str).collect();
                return Err(fault(
                    ErrorCode::TimedOut,
                    format!("still being deleted after {} s: {}", limit.as_secs(), names.join(", ")),
                    "it goes on in the background; see hivemind app ls and hivemind status",
                ));
            }
        }
    }
    Ok(())
}

async fn watch_deletions(
    client: &Client,
    namespace: &str,
    left: &mut BTreeMap<Uuid, String>,
    on_gone: &mut impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut apps = client.watch::<App>(&Selection::namespace(namespace)).await?;
    let mut there = BTreeSet::new();
    while !left.is_empty() {
        match next(&mut apps).await? {
            WatchItem::Event(event) if event.kind == WatchKind::Deleted => {
                if let Some(name) = left.remove(&event.object.metadata.uid) {
                    on_gone(&name)?;
                }
            }
            WatchItem::Event(event) => {
                there.insert(event.object.metadata.uid);
            }
            WatchItem::Synced { .. } => {
                for (_, name) in left.extract_if(.., |uid, _| !there.contains(uid)) {
                    on_gone(&name)?;
                }
            }
        }
    }
    Ok(())
}
