//! Pulling: an image's documents and layers go from a registry into containerd's content store, are unpacked, and
//! become an image. Until the last step nothing refers to them but a lease, so that any failure, even of this
//! process, leaves nothing.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hivemind_model::{ImageReference, is_sha256_digest};
use tokio::sync::{Semaphore, watch};

use super::{
    Image, ImageError, Images,
    content::{self, Expected, WriteError},
    document::{
        Configuration, DOCUMENT_BYTES_MAX, Descriptor, Index, Manifest, OCI_INDEX, OCI_MANIFEST, Target,
        digest_of, host_architecture, select_platform,
    },
    registry::{Endpoint, Fault, Place, retrying},
    unpack::{configuration_labels, name_image, unpack, write_manifest},
};
use crate::containerd::lease::Lease;

/// Layers in transfer at once on the node, over all pulls: each holds a few pieces of a megabyte.
pub(super) const TRANSFERS_MAX: usize = 3;
const LAYERS_MAX: usize = 512;
/// What a pull that died holds is collected after this long.
const LEASE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// What is being done.
    pub phase: PullPhase,
    /// Layers that are complete in this phase.
    pub layers_done: usize,
    /// Layers of the image; 0 until the manifest is known.
    pub layers_total: usize,
    /// Bytes that are stored, of configuration and layers.
    pub bytes_done: u64,
    /// Bytes of configuration and layers; 0 until the manifest is known.
    pub bytes_total: u64,
}

/// The steps of a pull, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPhase {
    /// Asking mirrors and registry for the manifest.
    #[default]
    Resolving,
    /// Transferring layers.
    Downloading,
    /// Unpacking layers.
    Unpacking,
    /// The image can be run.
    Done,
}

/// What an endpoint said the image is.
struct Resolved {
    endpoint: Endpoint,
    index: Option<(Bytes, String)>,
    raw_manifest: Bytes,
    manifest: Manifest,
}

pub(super) async fn pull(
    images: &Images,
    reference: &ImageReference,
    progress: &watch::Sender<PullProgress>,
) -> Result<Image, ImageError> {
    progress.send_replace(PullProgress::default());
    let resolved = resolve(images, reference).await?;
    let lease = Lease::take(&images.containerd, LEASE_LIFETIME).await?;
    let outcome = fetch(images, &lease, reference, &resolved, progress).await;
    // Also after success: now the image refers to everything.
    let released = lease.release().await;
    outcome?;
    released?;
    progress.send_modify(|progress| progress.phase = PullPhase::Done);
    images.get(reference).await?.ok_or_else(|| ImageError::NotFound {
        reference: reference.clone(),
        host: resolved.endpoint.host.clone(),
    })
}

/// Asks the endpoints in turn. If none has the image, the answer of the last, the registry itself, counts.
async fn resolve(images: &Images, reference: &ImageReference) -> Result<Resolved, ImageError> {
    let mut failure = None;
    for place in Place::all(&images.registries, reference)? {
        let host = place.host.clone();
        match resolve_at(place.open()?, reference).await {
            Ok(resolved) => return Ok(resolved),
            Err(error) => {
                tracing::debug!(host, %error, "A registry does not give the image");
                failure = Some(error);
            }
        }
    }
    Err(failure.expect("the registry itself is always an endpoint"))
}

async fn resolve_at(endpoint: Endpoint, reference: &ImageReference) -> Result<Resolved, ImageError> {
    let about = |fault: Fault| fault.about(reference, &endpoint.host);
    let raw = endpoint.manifest(reference).await.map_err(about)?;
    let (index, raw_manifest, manifest) = match parse_target(&raw).map_err(about)? {
        Target::Manifest(manifest) => (None, raw, manifest),
        Target::Index(Index { manifests }) => {
            let entry = select_platform(&manifests).ok_or_else(|| ImageError::platform(reference))?;
            let digest = checked_digest(entry).map_err(about)?;
            let raw_manifest = endpoint.manifest_by_digest(digest).await.map_err(about)?;
            let Target::Manifest(manifest) = parse_target(&raw_manifest).map_err(about)? else {
                return Err(about(Fault::Corrupt("an index within an index".into())));
            };
            (Some((raw, digest.to_owned())), raw_manifest, manifest)
        }
    };
    if manifest.layers.len() > LAYERS_MAX {
        return Err(about(Fault::Corrupt(format!("{} layers", manifest.layers.len()))));
    }
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        checked_digest(blob).map_err(about)?;
    }
    Ok(Resolved { endpoint, index, raw_manifest, manifest })
}

fn parse_target(raw: &[u8]) -> Result<Target, Fault> {
    serde_json::from_slice(raw).map_err(|_| Fault::Corrupt("neither a manifest nor an index".into()))
}

fn checked_digest(descriptor: &Descriptor) -> Result<&str, Fault> {
    if is_sha256_digest(&descriptor.digest) {
        Ok(&descriptor.digest)
    } else {
        Err(Fault::Corrupt(format!("{:?} is no digest", descriptor.digest)))
    }
}

async fn fetch(
    images: &Images,
    lease: &Lease,
    reference: &ImageReference,
    resolved: &Resolved,
    progress: &watch::Sender<PullProgress>,
) -> Result<(), ImageError> {
    let Resolved { endpoint, index, raw_manifest, manifest } = resolved;
    let containerd = &images.containerd;
    progress.send_modify(|progress| {
        progress.phase = PullPhase::Downloading;
        progress.layers_total = manifest.layers.len();
        progress.bytes_total = manifest.size_bytes();
    });
    let configuration = fetch_configuration(images, lease, reference, endpoint, manifest, progress).await?;
    // Checked before anything large is transferred.
    check_platform(&configuration, reference)?;
    let fetch = |layer| fetch_layer(images, lease, reference, endpoint, layer, progress).boxed();
    let transfers: Vec<_> = manifest.layers.iter().map(fetch).collect();
    stream::iter(transfers).buffer_unordered(TRANSFERS_MAX).try_collect::<()>().await?;
    progress.send_modify(|progress| {
        progress.phase = PullPhase::Unpacking;
        progress.layers_done = 0;
    });
    unpack(containerd, lease, manifest, &configuration, |layers| {
        progress.send_modify(|progress| progress.layers_done = layers);
    })
    .await?;
    write_manifest(containerd, lease, raw_manifest.clone(), manifest).await?;
    match index {
        None => {
            let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
            let digest = digest_of(raw_manifest);
            name_image(containerd, lease, reference, media_type, &digest, raw_manifest.len()).await?;
        }
        Some((raw, chosen)) => {
            let labels = [("containerd.io/gc.ref.content.m.0".to_owned(), chosen.clone())].into();
            let digest = content::write_bytes(containerd, lease, raw.clone(), labels).await?;
            name_image(containerd, lease, reference, OCI_INDEX, &digest, raw.len()).await?;
        }
    }
    Ok(())
}

pub(super) fn check_platform(
    configuration: &Configuration,
    reference: &ImageReference,
) -> Result<(), ImageError> {
    let architecture = configuration.architecture.as_str();
    let fits = ["", "linux"].contains(&configuration.os.as_str())
        && ["", host_architecture()].contains(&architecture);
    if fits { Ok(()) } else { Err(ImageError::platform(reference)) }
}

async fn fetch_configuration(
    images: &Images,
    lease: &Lease,
    reference: &ImageReference,
    endpoint: &Endpoint,
    manifest: &Manifest,
    progress: &watch::Sender<PullProgress>,
) -> Result<Configuration, ImageError> {
    let about = |fault: Fault| fault.about(reference, &endpoint.host);
    let descriptor = &manifest.config;
    if descriptor.size > DOCUMENT_BYTES_MAX {
        return Err(about(Fault::Corrupt(format!("a configuration of {} bytes", descriptor.size))));
    }
    let raw = retrying(|| read_configuration(endpoint, descriptor).boxed()).await.map_err(about)?;
    let configuration: Configuration = serde_json::from_slice(&raw)
        .map_err(|error| about(Fault::Corrupt(format!("no image configuration: {error}"))))?;
    let labels = configuration_labels(&images.containerd, &configuration);
    content::write_bytes(&images.containerd, lease, raw.into(), labels).await?;
    progress.send_modify(|progress| progress.bytes_done += descriptor.size);
    Ok(configuration)
}

async fn read_configuration(endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Vec<u8>, Fault> {
    let mut pieces = endpoint.blob(descriptor).await?;
    let mut raw = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        raw.extend_from_slice(&piece);
        if raw.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Fault::Corrupt("a configuration that does not end".into()));
        }
    }
    Ok(raw)
}

async fn fetch_layer(
    images: &Images,
    lease: &Lease,
    reference: &ImageReference,
    endpoint: &Endpoint,
    layer: &Descriptor,
    progress: &watch::Sender<PullProgress>,
) -> Result<(), ImageError> {
    let _transfer = permit(&images.transfers).await;
    let stored = std::sync::atomic::AtomicU64::new(0);
    let failure = std::sync::Mutex::new(None);
    let (stored, failed) = (&stored, &failure);
    let attempt = move || async move {
        let expected = Expected { digest: Some(&layer.digest), size: layer.size };
        let advance = |bytes: u64| {
            stored.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            progress.send_modify(|progress| progress.bytes_done += bytes);
        };
        let open = endpoint.blob(layer);
        let written =
            content::write(&images.containerd, lease, expected, Default::default(), open, advance).await;
        written.map(drop).map_err(|error| {
            // A new attempt begins at the layer's first byte.
            let lost = stored.swap(0, std::sync::atomic::Ordering::Relaxed);
            progress.send_modify(|progress| progress.bytes_done -= lost);
            match error {
                WriteError::Source(fault) => fault,
                WriteError::Mismatch(reason) => Fault::Corrupt(format!("layer {}: {reason}", layer.digest)),
                WriteError::Containerd(error) => {
                    let reason = error.to_string();
                    *failed.lock().expect("nothing panics with this lock") = Some(error);
                    Fault::Refused(reason)
                }
            }
        })
    };
    let outcome = retrying(|| attempt().boxed()).await;
    if let Some(error) = failure.into_inner().expect("nothing panics with this lock") {
        return Err(error.into());
    }
    outcome.map_err(|fault| fault.about(reference, &endpoint.host))?;
    progress.send_modify(|progress| progress.layers_done += 1);
    Ok(())
}

async fn permit(transfers: &Semaphore) -> tokio::sync::SemaphorePermit<'_> {
    transfers.acquire().await.expect("the semaphore is never closed")
}
