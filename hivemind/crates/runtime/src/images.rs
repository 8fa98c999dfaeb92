//! Images: pulled from registries or imported from archives into containerd, looked up, listed and removed.
//!
//! [`Images`] keeps no list of its own: containerd's image records are the truth. It remembers what the documents of
//! recently used images say, by digest, so that starting a container asks containerd one question.

mod content;
mod document;
mod import;
mod pull;
mod registry;
mod unpack;
pub(crate) mod view;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use containerd_client::services::v1::{DeleteImageRequest, GetImageRequest, ListImagesRequest};
use hivemind_model::ImageReference;
use tokio::{
    io::AsyncRead,
    sync::{Semaphore, watch},
};

pub use self::pull::{PullPhase, PullProgress};
use crate::{
    Error, Registries,
    containerd::{CALL_LIMIT, Containerd, within},
    error::allow_missing,
};
use document::{Configuration, Manifest, Target, chain_ids, select_platform};

const REMEMBERED_MAX: usize = 64;

/// An image that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its complete name.
    pub reference: ImageReference,
    /// Digest of what the name stands for: an index or a manifest.
    pub digest: String,
    /// What its configuration says about running it.
    pub config: Arc<ImageConfig>,
    /// Name of the snapshot of its root filesystem.
    pub chain_id: Arc<str>,
    /// Bytes of its configuration and layers as transferred, mostly compressed.
    pub size_bytes: u64,
}

/// How an image wants to be run. Empty lists and strings mean that it does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// What is executed, with `command` as arguments.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the command itself where there is none.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or any mix.
    pub user: String,
    /// Directory in which the command starts.
    pub working_dir: String,
    /// Such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that are meant to hold data.
    pub volumes: Vec<String>,
    /// Signal that asks it to end, such as `SIGQUIT`.
    pub stop_signal: Option<String>,
}

/// A failed operation on images. Unless said otherwise nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry has no such image or tag. Correct the name.
    #[error("{reference} does not exist at {host}")]
    NotFound {
        /// The image.
        reference: ImageReference,
        /// The registry that was asked last.
        host: String,
    },
    /// The registry wants credentials, or hides that there is no such image.
    #[error("{host} does not let us pull {reference}: it does not exist there or needs credentials")]
    Unauthorized {
        /// The image.
        reference: ImageReference,
        /// The registry that was asked last.
        host: String,
    },
    /// The registry cannot be reached, after several tries. Check name, network, and whether it speaks HTTPS.
    #[error("registry {host} cannot be reached: {reason}")]
    RegistryUnreachable {
        /// The registry that was asked last.
        host: String,
        /// What the network said.
        reason: String,
    },
    /// The registry does not speak TLS and is not among those that may do without. List it, if the network to it can be
    /// trusted.
    #[error("registry {host} does not speak HTTPS")]
    RegistryWithoutTls {
        /// The registry that was asked last.
        host: String,
    },
    /// The registry answered with an error of its own. Try again later.
    #[error("registry {host} failed: {reason}")]
    RegistryFailed {
        /// The registry that was asked last.
        host: String,
        /// What it said.
        reason: String,
    },
    /// What came is not what was announced. Whoever published it has to repair it.
    #[error("{what} is corrupt: {reason}")]
    Corrupt {
        /// The part.
        what: String,
        /// In which way.
        reason: String,
    },
    /// There is no variant of the image for this machine.
    #[error("{reference} has no variant for linux/{architecture}")]
    Platform {
        /// The image.
        reference: ImageReference,
        /// This machine's architecture.
        architecture: &'static str,
    },
    /// A configured mirror is not an `http://` or `https://` URL.
    #[error("mirror {url:?} is not an http:// or https:// URL")]
    Mirror {
        /// The mirror as configured.
        url: String,
    },
    /// The HTTP client cannot be made, for instance for want of CA certificates.
    #[error("cannot make an HTTP client: {reason}")]
    Client {
        /// What is missing.
        reason: String,
    },
    /// The archive is not an image archive that is understood.
    #[error("not an image archive: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// containerd failed; [`Error::NoSpace`] and [`Error::Unavailable`] are the likely ones.
    #[error(transparent)]
    Containerd(#[from] Error),
}

impl ImageError {
    fn platform(reference: &ImageReference) -> Self {
        Self::Platform { reference: reference.clone(), architecture: document::host_architecture() }
    }
}

/// The images of this node.
pub(crate) struct Images {
    containerd: Containerd,
    registries: Registries,
    transfers: Semaphore,
    remembered: Mutex<Vec<Remembered>>,
}

/// What is known of the document with this digest: it never changes.
#[derive(Clone)]
struct Remembered {
    digest: String,
    config: Arc<ImageConfig>,
    chain_id: Arc<str>,
    size_bytes: u64,
}

impl Images {
    pub(crate) fn new(containerd: Containerd, registries: Registries) -> Self {
        let transfers = Semaphore::new(pull::TRANSFERS_MAX);
        Self { containerd, registries, transfers, remembered: Mutex::default() }
    }

    pub(crate) async fn pull(
        &self,
        reference: &ImageReference,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Image, ImageError> {
        crate::install_crypto();
        pull::pull(self, reference, progress).await
    }

    pub(crate) async fn import(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<ImageReference>, ImageError> {
        import::import(self, archive).await
    }

    pub(crate) async fn import_file(&self, path: &Path) -> Result<Vec<ImageReference>, ImageError> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        self.import(file).await
    }

    pub(crate) async fn get(&self, reference: &ImageReference) -> Result<Option<Image>, Error> {
        let request = GetImageRequest { name: reference.to_string() };
        let mut client = self.containerd.images();
        let answer = within("Images.Get", CALL_LIMIT, client.get(self.containerd.request(request)));
        let record = allow_missing(answer.await)?.and_then(|answer| answer.image);
        let Some(target) = record.and_then(|record| record.target) else { return Ok(None) };
        let Some(remembered) = self.look_up(&target.digest).await? else { return Ok(None) };
        let Remembered { digest, config, chain_id, size_bytes } = remembered;
        Ok(Some(Image { reference: reference.clone(), digest, config, chain_id, size_bytes }))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Image>, Error> {
        let request = self.containerd.request(ListImagesRequest { filters: Vec::new() });
        let records = within("Images.List", CALL_LIMIT, self.containerd.images().list(request)).await?.images;
        let mut images = Vec::with_capacity(records.len());
        for record in records {
            // What others put into our namespace under names of their own is not ours to show.
            let Ok(reference) = record.name.parse::<ImageReference>() else { continue };
            if let Some(image) = self.get(&reference).await? {
                images.push(image);
            }
        }
        Ok(images)
    }

    pub(crate) async fn remove(&self, reference: &ImageReference) -> Result<bool, Error> {
        let request = DeleteImageRequest { name: reference.to_string(), sync: true, target: None };
        let mut client = self.containerd.images();
        let answer = within("Images.Delete", CALL_LIMIT, client.delete(self.containerd.request(request)));
        Ok(allow_missing(answer.await)?.is_some())
    }

    async fn look_up(&self, digest: &str) -> Result<Option<Remembered>, Error> {
        if let Some(found) = self.remembered().iter().find(|known| known.digest == digest) {
            return Ok(Some(found.clone()));
        }
        let Some(found) = allow_missing(self.read(digest).await)?.flatten() else { return Ok(None) };
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.remove(0);
        }
        remembered.push(found.clone());
        Ok(Some(found))
    }

    /// `None` if the documents are there but none is for this machine.
    async fn read(&self, digest: &str) -> Result<Option<Remembered>, Error> {
        let manifest = match self.document(digest).await? {
            Target::Manifest(manifest) => manifest,
            Target::Index(index) => {
                let Some(entry) = select_platform(&index.manifests) else { return Ok(None) };
                self.document::<Manifest>(&entry.digest).await?
            }
        };
        let configuration: Configuration = self.document(&manifest.config.digest).await?;
        let chain_id = chain_ids(&configuration.rootfs.diff_ids).pop().unwrap_or_default().into();
        let size_bytes = manifest.size_bytes();
        let config = Arc::new(ImageConfig::from(configuration.config.unwrap_or_default()));
        Ok(Some(Remembered { digest: digest.to_owned(), config, chain_id, size_bytes }))
    }

    async fn document<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, Error> {
        let raw = content::read(&self.containerd, digest).await?;
        serde_json::from_slice(&raw)
            .map_err(|source| Error::Malformed { what: format!("image document {digest}"), source })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Vec<Remembered>> {
        self.remembered.lock().expect("nothing panics with this lock")
    }
}

impl From<document::Execution> for ImageConfig {
    fn from(said: document::Execution) -> Self {
        Self {
            entrypoint: said.entrypoint.unwrap_or_default(),
            command: said.cmd.unwrap_or_default(),
            env: said.env.unwrap_or_default(),
            user: said.user.unwrap_or_default(),
            working_dir: said.working_dir.unwrap_or_default(),
            exposed_ports: said.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: said.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: said.stop_signal.filter(|signal| !signal.is_empty()),
        }
    }
}
