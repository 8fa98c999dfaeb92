//! Looking into an image's root filesystem without running it.
//!
//! The view is mounted in a mount namespace of its own that lives as long as one thread, so that no crash leaves a
//! mount behind; the snapshot under it is held by a lease that expires.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::{
    services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest},
    types::Mount,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tokio::sync::oneshot;

use crate::{
    Error,
    containerd::{CALL_LIMIT, Containerd, lease::Lease, within},
    error::allow_missing,
};

const LEASE_LIFETIME: Duration = Duration::from_secs(3600);

/// Mounts the snapshot `chain_id` read-only below `run_dir` and runs `visit` with its path, on a thread of its own.
pub(crate) async fn with_view<T: Send + 'static>(
    containerd: &Containerd,
    run_dir: &Path,
    chain_id: &str,
    visit: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, Error> {
    let lease = Lease::take(containerd, LEASE_LIFETIME).await?;
    let snapshotter = containerd.snapshotter.to_string();
    let key = format!("view-{:016x}", rand::random::<u64>());
    let request = ViewSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: chain_id.to_owned(),
        ..Default::default()
    };
    let mut snapshots = containerd.snapshots();
    let view = within("Snapshots.View", CALL_LIMIT, snapshots.view(containerd.leased(request, &lease)));
    let mounts = view.await?.mounts;
    let visited = visit_mounted(mounts, run_dir.join("view"), visit).await;
    let remove = containerd.request(RemoveSnapshotRequest { snapshotter, key });
    let removed = allow_missing(within("Snapshots.Remove", CALL_LIMIT, snapshots.remove(remove)).await);
    let released = lease.release().await;
    let value = visited?;
    removed?;
    released?;
    Ok(value)
}

async fn visit_mounted<T: Send + 'static>(
    mounts: Vec<Mount>,
    target: PathBuf,
    visit: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, Error> {
    let (send, receive) = oneshot::channel();
    // Not a thread of the executor: it leaves its mount namespace for good.
    std::thread::Builder::new()
        .name("rootfs-view".into())
        .spawn(move || {
            let outcome = enter_and_mount(&mounts, &target).map(|()| visit(&target));
            let _ = send.send(outcome);
        })
        .map_err(|source| Error::io("start a thread", source))?;
    match receive.await {
        Ok(outcome) => outcome.map_err(|source| Error::io("mount an image's root filesystem", source)),
        Err(_) => Err(Error::io("look into an image", io::Error::other("the thread panicked"))),
    }
}

fn enter_and_mount(mounts: &[Mount], target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mounts.iter().try_for_each(|entry| mount_one(entry, target))
}

fn mount_one(entry: &Mount, target: &Path) -> io::Result<()> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mut data = Vec::new();
    for option in &entry.options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "rw" => {}
            other => data.push(shorten_lowerdir(other)?),
        }
    }
    let data = data.join(",");
    mount(Some(entry.source.as_str()), target, Some(entry.r#type.as_str()), flags, Some(data.as_str()))?;
    if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        // The kernel takes a bind mount's flags only in a second step.
        let none: Option<&str> = None;
        mount(none, target, none, flags | MsFlags::MS_REMOUNT, none)?;
    }
    Ok(())
}

/// Writes lower directories relative to the directory that they share, and goes there: the kernel takes one page of
/// options, which absolute paths of some forty layers exceed.
fn shorten_lowerdir(option: &str) -> io::Result<String> {
    let Some(list) = option.strip_prefix("lowerdir=") else { return Ok(option.to_owned()) };
    let directories: Vec<&Path> = list.split(':').map(Path::new).collect();
    // `<snapshots>/<number>/fs` of containerd's overlay snapshotter.
    let base = directories.first().and_then(|first| first.parent()).and_then(Path::parent);
    let relative: Option<Vec<_>> = base.and_then(|base| {
        directories.iter().map(|path| path.strip_prefix(base).ok().and_then(Path::to_str)).collect()
    });
    match (base, relative) {
        (Some(base), Some(relative)) => {
            std::env::set_current_dir(base)?;
            Ok(format!("lowerdir={}", relative.join(":")))
        }
        _ => Ok(option.to_owned()),
    }
}
