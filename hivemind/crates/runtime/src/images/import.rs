//! Images from archives: the OCI layout in a tar (`skopeo copy … oci-archive:`, `buildah`), and what `docker save`
//! writes, each also compressed with gzip.
//!
//! An archive is read once, front to back, so it may come from a network. Its files go into the content store as they
//! pass, before it is known what refers to them; what nothing refers to in the end goes with the lease.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Component, Path},
    time::Duration,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use hivemind_model::{ImageReference, is_sha256_digest};
use serde::Deserialize;
use tokio::{io::AsyncRead, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::SyncIoBridge;

use super::{
    ImageError, Images,
    content::{self, Expected, WriteError},
    document::{
        Configuration, DOCUMENT_BYTES_MAX, Descriptor, Index, Manifest, OCI_CONFIG, OCI_LAYER,
        OCI_LAYER_GZIP, OCI_MANIFEST, Target, select_platform,
    },
    pull::check_platform,
    unpack::{configuration_labels, name_image, unpack, write_manifest},
};
use crate::containerd::lease::Lease;

const LEASE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CHUNK_BYTES: usize = 256 << 10;
const ENTRIES_MAX: usize = 16_384;

/// What the reading thread tells of the archive, in the archive's order.
enum Part {
    /// A file begins; its bytes follow.
    File {
        path: String,
        size: u64,
    },
    Bytes(Bytes),
    /// A name for another file of the archive.
    Link {
        path: String,
        target: String,
    },
    Failed(io::Error),
}

/// A file of the archive that is in the content store.
struct Stored {
    digest: String,
    size: u64,
    gzip: bool,
}

/// What the archive holds.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Stored>,
    links: BTreeMap<String, String>,
    /// `index.json` of an OCI layout.
    index: Option<Bytes>,
    /// `manifest.json` of `docker save`.
    docker: Option<Bytes>,
}

/// An entry of `docker save`'s `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) async fn import(
    images: &Images,
    archive: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Vec<ImageReference>, ImageError> {
    let lease = Lease::take(&images.containerd, LEASE_LIFETIME).await?;
    let outcome = import_leased(images, &lease, archive).await;
    let released = lease.release().await;
    let names = outcome?;
    released?;
    Ok(names)
}

async fn import_leased(
    images: &Images,
    lease: &Lease,
    archive: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Vec<ImageReference>, ImageError> {
    let (send, mut parts) = mpsc::channel(4);
    let reader: JoinHandle<()> =
        tokio::task::spawn_blocking(move || read_archive(SyncIoBridge::new(archive), &send));
    let contents = store_all(images, lease, &mut parts).await;
    // A closed channel ends the thread also where the archive was not read to its end.
    drop(parts);
    let _ = reader.await;
    let contents = contents?;
    let found = match (&contents.index, &contents.docker) {
        (Some(index), _) => {
            let named = from_oci_index(images, index).await?;
            // `docker save` writes both; only its own file has complete names.
            match &contents.docker {
                Some(docker) if named.is_empty() => from_docker(&contents, docker)?,
                _ => named,
            }
        }
        (None, Some(docker)) => from_docker(&contents, docker)?,
        (None, None) => return Err(archive_error("it has neither index.json nor manifest.json")),
    };
    if found.is_empty() {
        return Err(archive_error("it names no image"));
    }
    for (reference, manifest) in &found {
        finish(images, lease, reference, manifest).await?;
    }
    Ok(found.into_iter().map(|(reference, _)| reference).collect())
}

fn archive_error(reason: impl Into<String>) -> ImageError {
    ImageError::Archive { reason: reason.into() }
}

async fn finish(
    images: &Images,
    lease: &Lease,
    reference: &ImageReference,
    manifest: &Manifest,
) -> Result<(), ImageError> {
    let containerd = &images.containerd;
    let raw = content::read(containerd, &manifest.config.digest).await?;
    let configuration: Configuration = serde_json::from_slice(&raw)
        .map_err(|error| archive_error(format!("image configuration: {error}")))?;
    check_platform(&configuration, reference)?;
    unpack(containerd, lease, manifest, &configuration, |_| ()).await?;
    content::write_bytes(containerd, lease, raw.into(), configuration_labels(containerd, &configuration))
        .await?;
    let raw = Bytes::from(serde_json::to_vec(manifest).map_err(|error| archive_error(error.to_string()))?);
    let digest = write_manifest(containerd, lease, raw.clone(), manifest).await?;
    let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
    Ok(name_image(containerd, lease, reference, media_type, &digest, raw.len()).await?)
}

/// The images that an OCI layout names completely, for this machine.
async fn from_oci_index(images: &Images, raw: &[u8]) -> Result<Vec<(ImageReference, Manifest)>, ImageError> {
    let index: Index =
        serde_json::from_slice(raw).map_err(|error| archive_error(format!("index.json: {error}")))?;
    let mut found = Vec::new();
    for entry in index.manifests {
        let Some(reference) = name_of(&entry) else { continue };
        let manifest = match document(images, &entry.digest).await? {
            Target::Manifest(manifest) => manifest,
            Target::Index(index) => {
                let chosen =
                    select_platform(&index.manifests).ok_or_else(|| ImageError::platform(&reference))?;
                match document(images, &chosen.digest).await? {
                    Target::Manifest(manifest) => manifest,
                    Target::Index(_) => return Err(archive_error("an index within an index")),
                }
            }
        };
        found.push((reference, manifest));
    }
    Ok(found)
}

async fn document(images: &Images, digest: &str) -> Result<Target, ImageError> {
    let raw = match content::read(&images.containerd, digest).await {
        Err(error) if error.is_not_found() => return Err(archive_error(format!("{digest} is missing"))),
        other => other?,
    };
    serde_json::from_slice(&raw).map_err(|error| archive_error(format!("{digest}: {error}")))
}

/// containerd writes complete names into an annotation of its own; others put them where the layout has the tag.
fn name_of(entry: &Descriptor) -> Option<ImageReference> {
    let annotation = |key: &str| entry.annotations.get(key);
    let full = annotation("io.containerd.image.name");
    let short = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    full.or(short).and_then(|name| name.parse().ok())
}

fn from_docker(contents: &Contents, raw: &[u8]) -> Result<Vec<(ImageReference, Manifest)>, ImageError> {
    let entries: Vec<DockerEntry> =
        serde_json::from_slice(raw).map_err(|error| archive_error(format!("manifest.json: {error}")))?;
    let mut found = Vec::new();
    for entry in entries {
        let stored =
            |path: &String| contents.resolve(path).ok_or_else(|| archive_error(format!("{path} is missing")));
        let descriptor = |stored: &Stored, media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: stored.digest.clone(),
            size: stored.size,
            platform: None,
            annotations: BTreeMap::new(),
        };
        let layers = entry.layers.iter().map(|path| {
            let layer = stored(path)?;
            Ok(descriptor(layer, if layer.gzip { OCI_LAYER_GZIP } else { OCI_LAYER }))
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: descriptor(stored(&entry.config)?, OCI_CONFIG),
            layers: layers.collect::<Result<_, ImageError>>()?,
        };
        for name in entry.repo_tags.unwrap_or_default() {
            let reference =
                name.parse().map_err(|error| archive_error(format!("image name {name:?}: {error}")))?;
            found.push((reference, manifest.clone()));
        }
    }
    Ok(found)
}

impl Contents {
    /// The file at `path`, which old versions of `docker save` may have written as a link.
    fn resolve(&self, path: &str) -> Option<&Stored> {
        let path = normal(Path::new(path))?;
        self.files.get(&path).or_else(|| self.files.get(self.links.get(&path)?))
    }
}

async fn store_all(
    images: &Images,
    lease: &Lease,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<Contents, ImageError> {
    let mut contents = Contents::default();
    while let Some(part) = parts.recv().await {
        match part {
            Part::File { path, size } => store_file(images, lease, parts, &mut contents, path, size).await?,
            Part::Link { path, target } => {
                contents.links.insert(path, target);
            }
            Part::Failed(error) => return Err(archive_error(error.to_string())),
            Part::Bytes(_) => return Err(archive_error("bytes outside of a file")),
        }
        if contents.files.len() + contents.links.len() > ENTRIES_MAX {
            return Err(archive_error(format!("more than {ENTRIES_MAX} entries")));
        }
    }
    Ok(contents)
}

async fn store_file(
    images: &Images,
    lease: &Lease,
    parts: &mut mpsc::Receiver<Part>,
    contents: &mut Contents,
    path: String,
    size: u64,
) -> Result<(), ImageError> {
    if path == "index.json" || path == "manifest.json" {
        let document = read_document(parts, &path, size).await?;
        let slot = if path == "index.json" { &mut contents.index } else { &mut contents.docker };
        *slot = Some(document);
        return Ok(());
    }
    let digest = path.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
    let digest = digest.filter(|digest| is_sha256_digest(digest));
    let mut head = None;
    let (send, receive) = mpsc::channel::<Result<Bytes, io::Error>>(1);
    // The blob may be in the store already: then its bytes are read and dropped here.
    let forward = async {
        let mut left = size;
        let mut wanted = true;
        while left > 0 {
            let bytes = next_bytes(parts).await?;
            left = left.saturating_sub(bytes.len() as u64);
            head.get_or_insert_with(|| bytes.starts_with(&[0x1f, 0x8b]));
            wanted = wanted && send.send(Ok(bytes)).await.is_ok();
        }
        drop(send);
        Ok::<_, ImageError>(())
    };
    let expected = Expected { digest: digest.as_deref(), size };
    let open = std::future::ready(Ok::<_, io::Error>(ReceiverStream::new(receive)));
    let store = content::write(&images.containerd, lease, expected, Default::default(), open, |_| ());
    let (forwarded, stored) = tokio::join!(forward, store);
    forwarded?;
    let digest = stored.map_err(|error| match error {
        WriteError::Source(error) => archive_error(error.to_string()),
        WriteError::Mismatch(reason) => ImageError::Corrupt { what: path.clone(), reason },
        WriteError::Containerd(error) => error.into(),
    })?;
    contents.files.insert(path, Stored { digest, size, gzip: head.unwrap_or(false) });
    Ok(())
}

async fn read_document(parts: &mut mpsc::Receiver<Part>, path: &str, size: u64) -> Result<Bytes, ImageError> {
    if size > DOCUMENT_BYTES_MAX {
        return Err(archive_error(format!("{path} is too large")));
    }
    let mut document = Vec::new();
    while (document.len() as u64) < size {
        document.extend_from_slice(&next_bytes(parts).await?);
    }
    Ok(document.into())
}

async fn next_bytes(parts: &mut mpsc::Receiver<Part>) -> Result<Bytes, ImageError> {
    match parts.recv().await {
        Some(Part::Bytes(bytes)) => Ok(bytes),
        Some(Part::Failed(error)) => Err(archive_error(error.to_string())),
        _ => Err(archive_error("it ends within a file")),
    }
}

/// Reads the archive on a thread that may block, and tells of its parts until it ends, fails, or nobody listens.
fn read_archive(archive: impl Read, parts: &mpsc::Sender<Part>) {
    if let Err(error) = read_entries(archive, parts) {
        let _ = parts.blocking_send(Part::Failed(error));
    }
}

fn read_entries(mut archive: impl Read, parts: &mpsc::Sender<Part>) -> io::Result<()> {
    let mut magic = [0; 2];
    archive.read_exact(&mut magic)?;
    let whole = io::Cursor::new(magic).chain(archive);
    let reader: Box<dyn Read> =
        if magic == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    let tell = |part| parts.blocking_send(part).map_err(|_| io::Error::other("the import was given up"));
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let Some(path) = normal(&entry.path()?) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            tell(Part::File { path, size: entry.size() })?;
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                let length = entry.read(&mut chunk)?;
                if length == 0 {
                    break;
                }
                tell(Part::Bytes(Bytes::copy_from_slice(&chunk[..length])))?;
            }
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name()?
        {
            let from = if kind.is_symlink() { Path::new(&path).parent() } else { None };
            if let Some(target) = normal(&from.unwrap_or(Path::new("")).join(target)) {
                tell(Part::Link { path, target })?;
            }
        }
    }
    Ok(())
}

/// A path within the archive without `.` and `..`; `None` if it leads out of it.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_archive_is_no_path() {
        assert_eq!(normal(Path::new("a/../b/./c")), Some("b/c".into()));
        for outside in ["../a", "a/../../b", "/etc/passwd", "."] {
            assert_eq!(normal(Path::new(outside)), None, "{outside}");
        }
    }
}
