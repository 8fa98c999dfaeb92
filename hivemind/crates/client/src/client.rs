//! The client and its requests.

use std::path::PathBuf;

use futures::StreamExt;
use hivemind_model::{
    ApiError, App, ErrorCode, ImageSummary, ImportResult, List, Replica, Resource, Scale, Service, Status,
    Volume,
};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, Request, body::Frame, header};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::{
    connection::{self, Body, empty, json},
    exec::{self, ExecInput, ExecOutput, ExecRequest},
    lines::{JsonLines, LogStream},
    path::ApiPath,
    remote::{Remote, Secured},
    watch::Watch,
    way::Way,
};

/// Bytes of an archive that are read and sent at once.
const IMPORT_PIECE_BYTES: usize = 256 << 10;

/// Which objects to list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this namespace; `None`: of all.
    pub namespace: Option<String>,
    /// Of this app, by its name; for replicas only.
    pub app: Option<String>,
}

impl Selection {
    /// All of one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Selection { namespace: Some(namespace.into()), app: None }
    }

    /// The replicas of one app.
    pub fn app(namespace: impl Into<String>, app: impl Into<String>) -> Self {
        Selection { namespace: Some(namespace.into()), app: Some(app.into()) }
    }
}

/// Which lines of a replica's log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Those of its container of this name; `None`: of its first one.
    pub container: Option<String>,
    /// At most this many of the last lines that are there already; `None`: all.
    pub tail: Option<u64>,
    /// Whether to go on with new lines as they come.
    pub follow: bool,
}

/// A way to a daemon. Cheap to clone; every request has a connection of its own.
///
/// All requests fail with the daemon's own error if it answers with one, with `DaemonUnreachable` if it does not
/// answer, and, other than streams and what says so, with `TimedOut` after [`crate::REQUEST_TIMEOUT`]; whether a request that changes
/// something took effect is unknown in the last two cases. Objects are named by name, short id or uid.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) way: Way,
}

#[derive(Deserialize)]
struct Images {
    items: Vec<ImageSummary>,
}

impl Client {
    /// A client of the daemon that listens at the Unix socket `path`. Nothing is connected yet.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Client { way: Way::Socket(path.into()) }
    }

    /// A client of a daemon elsewhere, or of the web port of this machine's. Nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidConfig` for a URL, token or certificate that cannot be used, `FileFailed` for a file that cannot be read.
    pub fn remote(remote: &Remote) -> Result<Self, ApiError> {
        Ok(Client { way: Way::Remote(Secured::new(remote)?.into()) })
    }

    /// Where the daemon is: the path of a socket, or a URL.
    pub fn server(&self) -> String {
        self.way.to_string()
    }

    /// Whether the daemon answers.
    ///
    /// # Errors
    /// Those of all requests.
    pub async fn health(&self) -> Result<(), ApiError> {
        let request = request(Method::GET, "/healthz", empty())?;
        connection::send_in_time(&self.way, request).await.map(drop)
    }

    /// How the daemon and its node are.
    ///
    /// # Errors
    /// Those of all requests.
    pub async fn status(&self) -> Result<Status, ApiError> {
        self.get(&ApiPath::of("status")).await
    }

    /// All objects of a kind that `selection` takes.
    ///
    /// # Errors
    /// Those of all requests.
    pub async fn list<T: Resource>(&self, selection: &Selection) -> Result<List<T>, ApiError> {
        self.get(&list_path::<T>(selection)).await
    }

    /// The object of a kind that answers to `word`.
    ///
    /// # Errors
    /// The kind's own "not found" if there is none.
    pub async fn find<T: Resource>(&self, namespace: Option<&str>, word: &str) -> Result<T, ApiError> {
        let selection = Selection { namespace: namespace.map(str::to_owned), app: None };
        let list = self.list::<T>(&selection).await?;
        let found = list.items.into_iter().find(|object| object.metadata().answers_to(word));
        found.ok_or_else(|| {
            let kind = T::ID_PREFIX;
            let place = namespace.map(|n| format!(" in namespace {n:?}")).unwrap_or_default();
            ApiError::new(
                T::NOT_FOUND,
                format!("no {kind} named {word:?}{place}"),
                format!("see what there is: hivemind {kind} ls"),
            )
        })
    }

    /// The objects of a kind as they are and as they change.
    ///
    /// # Errors
    /// Those of all requests; the stream has its own.
    pub async fn watch<T: Resource>(&self, selection: &Selection) -> Result<Watch<T>, ApiError> {
        let path = list_path::<T>(selection).query("watch", "true");
        let request = request(Method::GET, path.as_str(), empty())?;
        Ok(Watch::new(connection::send_in_time(&self.way, request).await?))
    }

    /// One app.
    ///
    /// # Errors
    /// `AppNotFound`.
    pub async fn app(&self, namespace: &str, app: &str) -> Result<App, ApiError> {
        self.get(&ApiPath::within(namespace, App::PLURAL).part(app)).await
    }

    /// One replica.
    ///
    /// # Errors
    /// `ReplicaNotFound`.
    pub async fn replica(&self, namespace: &str, replica: &str) -> Result<Replica, ApiError> {
        self.get(&ApiPath::within(namespace, Replica::PLURAL).part(replica)).await
    }

    /// Makes an app, in the namespace of its metadata; returns it as it is kept.
    ///
    /// # Errors
    /// Every fault of the app at once; `AppExists`, `ServiceNameTaken`, `PortPublished`.
    pub async fn create_app(&self, app: &App) -> Result<App, ApiError> {
        let path = ApiPath::within(&app.metadata.namespace, App::PLURAL);
        self.change(Method::POST, &path, json(app)?).await
    }

    /// Everything that [`Client::create_app`] checks, without making it; returns the app as it would be kept.
    ///
    /// # Errors
    /// As [`Client::create_app`].
    pub async fn try_app(&self, app: &App) -> Result<App, ApiError> {
        let path = ApiPath::within(&app.metadata.namespace, App::PLURAL).query("dryRun", "true");
        self.change(Method::POST, &path, json(app)?).await
    }

    /// Replaces labels, annotations and spec of an app, if it is still of the `resourceVersion` that `app` has; returns it as it is
    /// kept.
    ///
    /// # Errors
    /// Every fault at once; `AppNotFound`, `Stale`, `Deleting`; `Unsupported` for what stays for an app's life.
    pub async fn replace_app(&self, app: &App) -> Result<App, ApiError> {
        let path = ApiPath::within(&app.metadata.namespace, App::PLURAL).part(&app.metadata.name);
        self.change(Method::PUT, &path, json(app)?).await
    }

    /// Everything that [`Client::replace_app`] checks, without doing it; returns the app as it would be kept.
    ///
    /// # Errors
    /// As [`Client::replace_app`].
    pub async fn try_replace_app(&self, app: &App) -> Result<App, ApiError> {
        let path = ApiPath::within(&app.metadata.namespace, App::PLURAL).part(&app.metadata.name);
        self.change(Method::PUT, &path.query("dryRun", "true"), json(app)?).await
    }

    /// Asks for the deletion of an app; it is gone only when a watch says so.
    ///
    /// # Errors
    /// `AppNotFound`.
    pub async fn delete_app(&self, namespace: &str, app: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::within(namespace, App::PLURAL).part(app)).await
    }

    /// Sets how many replicas an app has; returns it as it is kept.
    ///
    /// # Errors
    /// `AppNotFound`, `OutOfRange`, `Deleting`.
    pub async fn scale_app(&self, namespace: &str, app: &str, scale: Scale) -> Result<App, ApiError> {
        let path = ApiPath::within(namespace, App::PLURAL).part(app).part("scale");
        self.change(Method::PUT, &path, json(&scale)?).await
    }

    /// Asks for all replicas of an app to be replaced; returns the app as it is kept.
    ///
    /// # Errors
    /// `AppNotFound`, `Deleting`.
    pub async fn restart_app(&self, namespace: &str, app: &str) -> Result<App, ApiError> {
        let path = ApiPath::within(namespace, App::PLURAL).part(app).part("restart");
        self.change(Method::POST, &path, empty()).await
    }

    /// Makes a service for a name outside, in the namespace of its metadata; returns it as it is kept.
    ///
    /// # Errors
    /// Every fault of the service at once; `ServiceNameTaken`.
    pub async fn create_service(&self, service: &Service) -> Result<Service, ApiError> {
        let path = ApiPath::within(&service.metadata.namespace, Service::PLURAL);
        self.change(Method::POST, &path, json(service)?).await
    }

    /// Deletes a service for a name outside.
    ///
    /// # Errors
    /// `ServiceNotFound`; `Unsupported` if it is an app's.
    pub async fn delete_service(&self, namespace: &str, service: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::within(namespace, Service::PLURAL).part(service)).await
    }

    /// Makes a volume, in the namespace of its metadata; returns it as it is kept.
    ///
    /// # Errors
    /// `InvalidName` and the like.
    pub async fn create_volume(&self, volume: &Volume) -> Result<Volume, ApiError> {
        let path = ApiPath::within(&volume.metadata.namespace, Volume::PLURAL);
        self.change(Method::POST, &path, json(volume)?).await
    }

    /// Asks for the deletion of a volume and of what is in it.
    ///
    /// # Errors
    /// `VolumeNotFound`, `VolumeInUse`.
    pub async fn delete_volume(&self, namespace: &str, volume: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::within(namespace, Volume::PLURAL).part(volume)).await
    }

    /// What a replica wrote.
    ///
    /// # Errors
    /// `ReplicaNotFound`; the stream has its own.
    pub async fn logs(
        &self,
        namespace: &str,
        replica: &str,
        options: LogOptions,
    ) -> Result<LogStream, ApiError> {
        let mut path = ApiPath::within(namespace, Replica::PLURAL).part(replica).part("logs");
        path = path.query_if("container", options.container.as_deref());
        if let Some(tail) = options.tail {
            path = path.query("tail", &tail.to_string());
        }
        if options.follow {
            path = path.query("follow", "true");
        }
        self.stream(&path).await
    }

    /// Starts a process in a replica.
    ///
    /// # Errors
    /// `ReplicaNotFound`, `NothingRunning`; that the process could not be started is told by the session.
    pub async fn exec(
        &self,
        namespace: &str,
        replica: &str,
        exec: &ExecRequest,
    ) -> Result<(ExecInput, ExecOutput), ApiError> {
        let mut path = ApiPath::within(namespace, Replica::PLURAL).part(replica).part("exec");
        for word in &exec.command {
            path = path.query("command", word);
        }
        if exec.tty {
            path = path.query("tty", "true");
        }
        path = path.query_if("user", exec.user.as_deref());
        path = path.query_if("container", exec.container.as_deref());
        let builder = Request::builder().method(Method::GET).uri(path.as_str());
        let (builder, key) = exec::handshake(builder);
        let request = exec::bodiless(builder).map_err(|e| unsendable(&e))?;
        let answer = connection::send_in_time(&self.way, request).await?;
        exec::open(answer, &key).await
    }

    /// The images on the node.
    ///
    /// # Errors
    /// `ContainerdUnreachable`.
    pub async fn images(&self) -> Result<Vec<ImageSummary>, ApiError> {
        Ok(self.get::<Images>(&ApiPath::of("images")).await?.items)
    }

    /// Sends an OCI or Docker archive, a tar, to the node. It may take as long as it needs.
    ///
    /// # Errors
    /// `ImageCorrupt`, `ImagePlatform`, `DiskFull`; `FileFailed` if `archive` cannot be read.
    pub async fn import(&self, archive: impl AsyncRead + Send + 'static) -> Result<ImportResult, ApiError> {
        let pieces = ReaderStream::with_capacity(archive, IMPORT_PIECE_BYTES).map(|p| p.map(Frame::data));
        let body = StreamBody::new(pieces).boxed_unsync();
        let mut request = request(Method::POST, ApiPath::of("images").part("import").as_str(), body)?;
        let tar = header::HeaderValue::from_static("application/x-tar");
        request.headers_mut().insert(header::CONTENT_TYPE, tar);
        connection::send(&self.way, request).await?.json().await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &ApiPath) -> Result<T, ApiError> {
        connection::fetch(&self.way, request(Method::GET, path.as_str(), empty())?).await
    }

    /// A stream of what `path` gives, one value a line.
    pub(crate) async fn stream<T>(&self, path: &ApiPath) -> Result<JsonLines<T>, ApiError> {
        let request = request(Method::GET, path.as_str(), empty())?;
        Ok(JsonLines::new(connection::send_in_time(&self.way, request).await?))
    }

    /// The text that `path` gives.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ApiError> {
        connection::fetch_text(&self.way, request(Method::GET, path, empty())?).await
    }

    /// Sends `body`; the answer says nothing of interest.
    pub(crate) async fn tell_json(&self, path: &ApiPath, body: Body) -> Result<(), ApiError> {
        let request = request(Method::POST, path.as_str(), body)?;
        connection::send_in_time(&self.way, request).await.map(drop)
    }

    /// A request whose answer says nothing of interest.
    pub(crate) async fn tell(&self, method: Method, path: &ApiPath) -> Result<(), ApiError> {
        let request = request(method, path.as_str(), empty())?;
        connection::send_in_time(&self.way, request).await.map(drop)
    }

    /// As [`Client::tell`], without a limit of time.
    pub(crate) async fn tell_at_length(&self, method: Method, path: &ApiPath) -> Result<(), ApiError> {
        let request = request(method, path.as_str(), empty())?;
        connection::send(&self.way, request).await.map(drop)
    }

    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &ApiPath,
        body: Body,
    ) -> Result<T, ApiError> {
        connection::fetch(&self.way, request(method, path.as_str(), body)?).await
    }

    /// As [`Client::change`], without a limit of time.
    pub(crate) async fn change_at_length<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &ApiPath,
        body: Body,
    ) -> Result<T, ApiError> {
        connection::send(&self.way, request(method, path.as_str(), body)?).await?.json().await
    }

    pub(crate) async fn delete(&self, path: &ApiPath) -> Result<(), ApiError> {
        self.tell(Method::DELETE, path).await
    }
}

fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, ApiError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|e| unsendable(&e))
}

fn unsendable(error: &hyper::http::Error) -> ApiError {
    ApiError::new(ErrorCode::Malformed, format!("the request cannot be sent: {error}"), "use shorter names")
}

fn list_path<T: Resource>(selection: &Selection) -> ApiPath {
    ApiPath::of(T::PLURAL)
        .query_if("namespace", selection.namespace.as_deref())
        .query_if("app", selection.app.as_deref())
}
