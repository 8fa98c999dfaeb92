//! The connection to containerd: one lazy channel that reconnects by itself, and the few things that every call
//! needs (namespace, time limit, meaning of an error).

pub(crate) mod lease;
pub(crate) mod private;

use std::{io, path::Path, sync::Arc, time::Duration};

use containerd_client::services::v1::{
    containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
    events_client::EventsClient, images_client::ImagesClient, leases_client::LeasesClient,
    snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient, version_client::VersionClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request, Response, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint, Uri},
};

use crate::Error;

/// Limit of calls that only touch containerd's database.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Limit of calls that make runc work: a busy machine starts dozens of containers at once.
pub(crate) const TASK_LIMIT: Duration = Duration::from_secs(120);
/// Limit of unpacking one layer.
pub(crate) const UNPACK_LIMIT: Duration = Duration::from_secs(15 * 60);

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A handle to containerd; clones share the connection.
#[derive(Clone)]
pub(crate) struct Containerd {
    channel: Channel,
    namespace: AsciiMetadataValue,
    /// Name of the snapshotter for every image and container.
    pub(crate) snapshotter: Arc<str>,
}

impl Containerd {
    /// A handle to what will answer at `socket`; connects with the first call.
    pub(crate) fn at(socket: &Path, namespace: &str, snapshotter: &str) -> Result<Self, Error> {
        let namespace = namespace.parse().map_err(|_| Error::InvalidSpec {
            reason: format!("{namespace:?} is not a containerd namespace"),
        })?;
        let path = socket.to_path_buf();
        // The URI is required by gRPC and goes nowhere: the connector decides.
        let channel = Endpoint::from_static("http://containerd.invalid")
            .connect_timeout(CONNECT_LIMIT)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }));
        Ok(Self { channel, namespace, snapshotter: snapshotter.into() })
    }

    /// A request in our namespace.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// The namespace of every request.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.to_str().unwrap_or_default()
    }

    /// A request whose results are kept from garbage collection by `lease`.
    pub(crate) fn leased<T>(&self, message: T, lease: &lease::Lease) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.metadata());
        request
    }

    /// containerd's version, such as `1.6.20`.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let mut client = VersionClient::new(self.channel.clone());
        let answer = within("Version", CALL_LIMIT, client.version(self.request(()))).await?;
        Ok(answer.version)
    }

    pub(crate) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }
    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }
    pub(crate) fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }
    pub(crate) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }
    pub(crate) fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }
    pub(crate) fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }
    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }
    pub(crate) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }
}

/// Awaits an answer of containerd for at most `limit`.
pub(crate) async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::from_status(call, status)),
        Err(_) => Err(Error::TimedOut { call, after: limit }),
    }
}
