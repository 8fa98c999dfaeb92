//! The runtime of a node: the one handle through which everything else is reached.

use std::{path::Path, sync::Arc};

use hivemind_model::ImageReference;
use tokio::{io::AsyncRead, sync::watch};

use crate::{
    Config, ContainerId, ContainerSpec, ContainerState, ContainerStatus, Error, Events, ExecSession,
    ExecSpec, Image, ImageError, Metrics, PrivateContainerd, PullProgress, Running, Signal,
    containerd::{Containerd, private},
    containers::{self, Containers},
    images::{Images, view::with_view},
    logs::{self, LogError, Logs},
};

/// A node's containers and images. Cheap to clone; all clones share one connection to containerd, which is
/// re-established by itself whenever it breaks. Calls fail with [`Error::Unavailable`] meanwhile.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    /// The private containerd, where that is the one in use.
    private: Option<PrivateContainerd>,
    containerd: Containerd,
    images: Images,
    logs: Logs,
}

impl Runtime {
    /// Connects to the private containerd if this node has one already, else to the one at [`Config::socket`], else
    /// starts a private one. Creates the directories of `config`.
    ///
    /// # Errors
    /// [`Error::ContainerdUnreachable`], [`Error::BinaryMissing`], [`Error::StartFailed`], [`Error::Io`].
    pub async fn connect(config: Config) -> Result<Self, Error> {
        for directory in [&config.run_dir, &config.log_dir, &config.pipe_dir()] {
            std::fs::create_dir_all(directory)
                .map_err(|source| Error::io(format!("create {}", directory.display()), source))?;
        }
        let private = find_containerd(&config).await?;
        let socket = private.as_ref().map_or_else(|| config.socket.clone(), PrivateContainerd::socket);
        let containerd = Containerd::at(&socket, &config.namespace, &config.snapshotter)?;
        let version = containerd.version().await?;
        tracing::info!(version, socket = %socket.display(), "Connected to containerd");
        let images = Images::new(containerd.clone(), config.registries.clone());
        let logs = Logs::new(&config);
        Ok(Self { inner: Arc::new(Inner { config, private, containerd, images, logs }) })
    }

    /// What the runtime was connected with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// containerd's version, such as `1.6.20`; fails while it is unavailable.
    pub async fn version(&self) -> Result<String, Error> {
        self.inner.containerd.version().await
    }

    /// Whether the containerd in use is one that the runtime started.
    pub fn is_private(&self) -> bool {
        self.inner.private.is_some()
    }

    /// Stops the private containerd, if that is the one in use; containers that were not deleted before go on
    /// without anyone to ask about them. Images stay on disk.
    pub async fn stop_private(&self) -> Result<(), Error> {
        match &self.inner.private {
            Some(private) => private::stop(private).await,
            None => Ok(()),
        }
    }

    /// Starts the private containerd again if it is the one in use and has died. [`Runtime::events`] does so too.
    pub async fn revive(&self) -> Result<(), Error> {
        match &self.inner.private {
            Some(private) => private::start(private).await,
            None => Ok(()),
        }
    }

    /// Pulls an image and unpacks it. An image that is there already is looked up anew, and its layers are not
    /// transferred again. Dropping the future gives the pull up and leaves nothing.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Image, ImageError> {
        self.inner.images.pull(reference, progress).await
    }

    /// The image of that name, if this node has it.
    pub async fn image(&self, reference: &ImageReference) -> Result<Option<Image>, Error> {
        self.inner.images.get(reference).await
    }

    /// The images of this node.
    pub async fn list_images(&self) -> Result<Vec<Image>, Error> {
        self.inner.images.list().await
    }

    /// Imports the images of an archive (OCI layout or `docker save`, perhaps gzipped) and returns their names.
    pub async fn import(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<ImageReference>, ImageError> {
        self.inner.images.import(archive).await
    }

    /// As [`Runtime::import`], from a file.
    pub async fn import_file(&self, path: &Path) -> Result<Vec<ImageReference>, ImageError> {
        self.inner.images.import_file(path).await
    }

    /// Removes a name, and what only it referred to; containers that run the image go on. False if there is no such
    /// name.
    pub async fn remove_image(&self, reference: &ImageReference) -> Result<bool, Error> {
        self.inner.images.remove(reference).await
    }

    /// Runs `visit` with the path of the image's root filesystem, mounted read-only for as long as that takes, on a
    /// thread of its own that may block.
    pub async fn with_rootfs_view<T: Send + 'static>(
        &self,
        image: &Image,
        visit: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, Error> {
        with_view(&self.inner.containerd, &self.inner.config.run_dir, &image.chain_id, visit).await
    }

    /// Creates a container and starts it. On an error nothing is left behind; if the future is dropped, call
    /// [`Runtime::delete`].
    ///
    /// # Errors
    /// [`Error::ContainerExists`], [`Error::ImageMissing`], [`Error::NoCommand`], [`Error::CommandNotFound`],
    /// [`Error::CommandNotExecutable`], [`Error::MemoryLimitTooSmall`], [`Error::UnknownUser`],
    /// [`Error::InvalidSpec`], [`Error::Runc`], and those of the connection.
    pub async fn run(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        containers::run::run(&self.containers(), spec).await
    }

    /// Sends a signal to the container's first process.
    pub async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), Error> {
        self.containers().kill(id, signal).await
    }

    /// Asks the container to end by `signal`, and kills it when `grace` has passed. Returns its exit code once it
    /// has ended, also where it had ended before. The container stays, to be looked at and deleted.
    pub async fn stop(
        &self,
        id: &ContainerId,
        signal: Signal,
        grace: std::time::Duration,
    ) -> Result<u32, Error> {
        self.containers().stop(id, signal, grace).await
    }

    /// Removes the container with all that belongs to it except its log, killing it first if need be. Removing
    /// what is not there, or only half there, succeeds.
    pub async fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.containers().delete(id).await
    }

    /// What the first process of a container does at this moment; `None` if there is no such container. For one that nobody else
    /// creates or deletes meanwhile.
    pub async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, Error> {
        self.containers().state(id).await
    }

    /// Every container, with what its processes do at this moment.
    pub async fn list(&self) -> Result<Vec<ContainerStatus>, Error> {
        self.containers().list().await
    }

    /// Tells of containers that end, from now on, until it is dropped. See [`crate::Event`] for what to do with
    /// each.
    pub fn events(&self) -> Events {
        let Inner { containerd, private, logs, .. } = &*self.inner;
        containers::events::subscribe(containerd.clone(), private.clone(), logs.clone())
    }

    /// Starts a process in a running container.
    pub async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, Error> {
        containers::exec::exec(&self.containers(), id, spec).await
    }

    /// What the container uses at this moment.
    pub async fn metrics(&self, id: &ContainerId) -> Result<Metrics, Error> {
        containers::metrics::metrics(&self.inner.containerd, id).await
    }

    /// The container's output: the last `tail` lines, or all that is kept, and then, if `follow` is set, what comes.
    pub fn logs(&self, id: &ContainerId, tail: Option<usize>, follow: bool) -> logs::LogReader {
        logs::read(&self.inner.config.log_dir, id, tail, follow)
    }

    /// Removes the files of the container's output.
    pub async fn remove_logs(&self, id: &ContainerId) -> Result<(), LogError> {
        self.inner.logs.remove(id).await
    }

    /// Starts the node's log collector unless it runs. [`Runtime::run`] does so too.
    pub async fn ensure_log_collector(&self) -> Result<(), LogError> {
        self.inner.logs.ensure_collector().await
    }

    /// Ends the node's log collector; drop every [`Events`] before, for they keep it running. Containers that still run wait when they have written more than fits into
    /// their pipes.
    pub async fn stop_log_collector(&self) -> Result<(), LogError> {
        self.inner.logs.stop_collector().await
    }

    fn containers(&self) -> Containers<'_> {
        let Inner { config, containerd, images, logs, .. } = &*self.inner;
        Containers { config, containerd, images, logs }
    }
}

async fn find_containerd(config: &Config) -> Result<Option<PrivateContainerd>, Error> {
    let established = config.private.as_ref().filter(|private| private::is_established(private));
    if let Some(private) = established {
        private::start(private).await?;
        return Ok(Some(private.clone()));
    }
    match (private::listener_pid(&config.socket).await, &config.private) {
        (Ok(_), _) => Ok(None),
        (Err(source), None) => Err(Error::ContainerdUnreachable { socket: config.socket.clone(), source }),
        (Err(_), Some(private)) => {
            private::start(private).await.map_err(|error| match error {
                Error::BinaryMissing { binary, .. } => {
                    Error::BinaryMissing { socket: config.socket.clone(), binary }
                }
                other => other,
            })?;
            Ok(Some(private.clone()))
        }
    }
}
