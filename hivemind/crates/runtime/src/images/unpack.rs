//! Stored layers become snapshots, one upon the other, and an image record makes them an image.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{
        ApplyRequest, CreateImageRequest, Image as ImageRecord, UpdateImageRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        },
    },
    types::Descriptor as ContainerdDescriptor,
};
use hivemind_model::ImageReference;

use super::{
    ImageError,
    content::write_bytes,
    document::{Configuration, Descriptor, Manifest, chain_ids},
};
use crate::{
    Error,
    containerd::{CALL_LIMIT, Containerd, UNPACK_LIMIT, lease::Lease, within},
    error::allow_missing,
};

/// Unpacks every layer that is not unpacked yet; `unpacked` is told the number of layers that are.
///
/// # Errors
/// [`ImageError::Corrupt`] if a layer cannot be decompressed or is not what the configuration announces. Snapshots of
/// lower layers go with the lease.
pub(super) async fn unpack(
    containerd: &Containerd,
    lease: &Lease,
    manifest: &Manifest,
    configuration: &Configuration,
    mut unpacked: impl FnMut(usize),
) -> Result<(), ImageError> {
    let diff_ids = &configuration.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() || diff_ids.is_empty() {
        let reason = format!("{} layers but {} diff ids", manifest.layers.len(), diff_ids.len());
        return Err(ImageError::Corrupt { what: "the image's configuration".into(), reason });
    }
    let mut parent = String::new();
    for (index, name) in chain_ids(diff_ids).into_iter().enumerate() {
        // Held before it is looked for, so that it cannot be collected in between.
        lease.hold_snapshot(&name).await?;
        if !exists(containerd, &name).await? {
            let layer = &manifest.layers[index];
            unpack_layer(containerd, lease, layer, &diff_ids[index], &name, &parent).await?;
        }
        unpacked(index + 1);
        parent = name;
    }
    Ok(())
}

async fn exists(containerd: &Containerd, name: &str) -> Result<bool, Error> {
    let request =
        StatSnapshotRequest { snapshotter: containerd.snapshotter.to_string(), key: name.to_owned() };
    let mut client = containerd.snapshots();
    let answer = within("Snapshots.Stat", CALL_LIMIT, client.stat(containerd.request(request)));
    Ok(allow_missing(answer.await)?.is_some())
}

async fn unpack_layer(
    containerd: &Containerd,
    lease: &Lease,
    layer: &Descriptor,
    diff_id: &str,
    name: &str,
    parent: &str,
) -> Result<(), ImageError> {
    let snapshotter = containerd.snapshotter.to_string();
    let key = format!("unpack-{:016x}-{name}", rand::random::<u64>());
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: parent.to_owned(),
        ..Default::default()
    };
    let mut snapshots = containerd.snapshots();
    let prepared = snapshots.prepare(containerd.leased(request, lease));
    let mounts = within("Snapshots.Prepare", CALL_LIMIT, prepared).await?.mounts;
    let applied = apply(containerd, lease, layer, diff_id, mounts).await;
    let committed = match applied {
        Ok(()) => {
            let request = CommitSnapshotRequest {
                snapshotter: snapshotter.clone(),
                name: name.to_owned(),
                key: key.clone(),
                ..Default::default()
            };
            let commit = snapshots.commit(containerd.leased(request, lease));
            within("Snapshots.Commit", CALL_LIMIT, commit).await.map_err(ImageError::from)
        }
        Err(error) => Err(error),
    };
    let Err(error) = committed else { return Ok(()) };
    let remove = containerd.request(RemoveSnapshotRequest { snapshotter, key });
    allow_missing(within("Snapshots.Remove", CALL_LIMIT, snapshots.remove(remove)).await)?;
    match error {
        // Another pull was faster.
        ImageError::Containerd(error) if error.is_already_exists() => Ok(()),
        other => Err(other),
    }
}

async fn apply(
    containerd: &Containerd,
    lease: &Lease,
    layer: &Descriptor,
    diff_id: &str,
    mounts: Vec<containerd_client::types::Mount>,
) -> Result<(), ImageError> {
    let corrupt = |reason: String| ImageError::Corrupt { what: format!("layer {}", layer.digest), reason };
    let diff = ContainerdDescriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.clone(),
        size: i64::try_from(layer.size).unwrap_or(i64::MAX),
        ..Default::default()
    };
    let request = ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
    let mut client = containerd.diff();
    let answer = within("Diff.Apply", UNPACK_LIMIT, client.apply(containerd.leased(request, lease)));
    let applied = match answer.await {
        Ok(answer) => answer.applied.map(|applied| applied.digest).unwrap_or_default(),
        Err(Error::Call { status, .. }) if is_corruption(status.message()) => {
            return Err(corrupt(status.message().to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if applied == diff_id {
        Ok(())
    } else {
        Err(corrupt(format!("it unpacks to {applied} instead of {diff_id}")))
    }
}

/// What Go's archive and compression readers say about broken data.
fn is_corruption(message: &str) -> bool {
    ["unexpected EOF", "invalid header", "invalid tar header", "corrupt", "checksum error", "magic number"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// Stores the manifest with references to what it consists of, so that nothing of it is collected while it stays.
pub(super) async fn write_manifest(
    containerd: &Containerd,
    lease: &Lease,
    raw: bytes::Bytes,
    manifest: &Manifest,
) -> Result<String, Error> {
    let mut labels =
        HashMap::from([("containerd.io/gc.ref.content.config".into(), manifest.config.digest.clone())]);
    for (index, layer) in manifest.layers.iter().enumerate() {
        labels.insert(format!("containerd.io/gc.ref.content.l.{index}"), layer.digest.clone());
    }
    write_bytes(containerd, lease, raw, labels).await
}

/// Labels of an image's configuration: they keep its snapshots.
pub(super) fn configuration_labels(
    containerd: &Containerd,
    configuration: &Configuration,
) -> HashMap<String, String> {
    let top = chain_ids(&configuration.rootfs.diff_ids).pop();
    top.map(|top| (format!("containerd.io/gc.ref.snapshot.{}", containerd.snapshotter), top))
        .into_iter()
        .collect()
}

/// Lets `reference` name the stored document, whatever it named before.
pub(super) async fn name_image(
    containerd: &Containerd,
    lease: &Lease,
    reference: &ImageReference,
    media_type: &str,
    digest: &str,
    size: usize,
) -> Result<(), Error> {
    let target = ContainerdDescriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..Default::default()
    };
    let image = ImageRecord { name: reference.to_string(), target: Some(target), ..Default::default() };
    let mut images = containerd.images();
    let request = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
    let created = within("Images.Create", CALL_LIMIT, images.create(containerd.leased(request, lease))).await;
    match created {
        Err(error) if error.is_already_exists() => {
            let request = UpdateImageRequest { image: Some(image), ..Default::default() };
            within("Images.Update", CALL_LIMIT, images.update(containerd.leased(request, lease))).await?;
            Ok(())
        }
        other => other.map(drop),
    }
}
