//! A server on a Unix socket, and what it takes to talk to it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hivemind_api::{Api, ApiConfig, Role, ServiceRanges, serve_unix};
use hivemind_model::{
    ApiError, ErrorCode, Metadata, Node, NodeSpec, NodeStatus, Replica, ReplicaSpec, ReplicaStatus, Template,
};
use hivemind_store::{Objects, Options, RedbStore};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{cluster::TestCluster, node::TestNode};

/// No test waits longer for anything: what has not come by then will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) objects: Objects,
    pub(crate) node: Arc<TestNode>,
    pub(crate) socket: PathBuf,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) api: Api,
    pub(crate) cluster: Arc<TestCluster>,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Duration::from_secs(15), "10.204.0.0/16").await
    }

    pub(crate) async fn start_with(keep_alive: Duration, ipv4: &str) -> Self {
        Self::start_changed(keep_alive, ipv4, |api| api).await
    }

    /// One that is no server of its cluster.
    pub(crate) async fn start_as_agent() -> Self {
        let role = Role::Agent { server: "n1 (192.0.2.1)".into() };
        Self::start_in_role(role, Duration::from_secs(15), "10.204.0.0/16", |api| api).await
    }

    pub(crate) async fn start_changed(
        keep_alive: Duration,
        ipv4: &str,
        change: impl FnOnce(Api) -> Api,
    ) -> Self {
        Self::start_in_role(Role::Server, keep_alive, ipv4, change).await
    }

    async fn start_in_role(
        role: Role,
        keep_alive: Duration,
        ipv4: &str,
        change: impl FnOnce(Api) -> Api,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { recent_revisions: 0, ..Options::default() };
        let store = RedbStore::open(dir.path().join("store.redb"), options).await.unwrap();
        let objects = Objects::new(Arc::new(store));
        let node = Arc::new(TestNode::default());
        let cluster = Arc::new(TestCluster::new());
        let api = Api::new(ApiConfig {
            objects: objects.clone(),
            node: node.clone(),
            node_name: "n1".into(),
            cluster: cluster.clone(),
            role,
            service_ranges: ServiceRanges {
                ipv4: ipv4.parse().unwrap(),
                ipv6: "fd00:4856:1::/112".parse().unwrap(),
            },
            cluster_domain: "hivemind.internal".into(),
            dns_addresses: vec!["169.254.20.10".parse().unwrap()],
            web_url: "http://localhost:4483".into(),
        });
        let api = change(api.with_keep_alive(keep_alive));
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_unix(listener, api.clone(), shutdown.clone()));
        Server { objects, node, socket, shutdown, task, api, cluster, _dir: dir }
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("no answer").unwrap()
    }

    /// Sends a request with JSON or nothing, and reads the JSON that comes back.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Bytes::new() } else { serde_json::to_vec(&body).unwrap().into() };
        self.send_bytes(method, path, body).await
    }

    pub(crate) async fn send_bytes(&self, method: &str, path: &str, body: Bytes) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let response = self.request(request.body(Full::new(body)).unwrap()).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&bytes)));
        (status, value)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send("GET", path, Value::Null).await
    }

    /// Sends a request that has to fail, with this status and code.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        body: Value,
        status: u16,
        code: ErrorCode,
    ) -> ApiError {
        let (got, value) = self.send(method, path, body).await;
        let error: ApiError = serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("{value}"));
        assert_eq!((got.as_u16(), error.code), (status, code), "{method} {path}: {value}");
        error
    }

    /// Opens a stream of lines.
    pub(crate) async fn lines(&self, path: &str) -> Lines {
        self.lines_with(path, &[]).await
    }

    pub(crate) async fn lines_with(&self, path: &str, headers: &[(&str, &str)]) -> Lines {
        let mut request = Request::builder().uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.request(request.body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), 200, "{path}");
        Lines::new(response)
    }

    pub(crate) async fn create_app(&self, app: Value) -> Value {
        let (status, app) = self.send("POST", "/v1/namespaces/default/apps", app).await;
        assert_eq!(status, 201, "{app}");
        app
    }

    pub(crate) async fn create_replica(&self, app: &str, name: &str) -> Replica {
        let replica = Replica {
            metadata: Metadata::new("default", name),
            spec: ReplicaSpec {
                app: app.into(),
                node: "n1".into(),
                identity: 0,
                template_hash: "0".into(),
                template: Template::default(),
            },
            status: ReplicaStatus::default(),
        };
        self.objects.create(&replica).await.unwrap()
    }

    pub(crate) async fn create_node(&self) -> Node {
        let node = Node {
            metadata: Metadata::new("default", "n1"),
            spec: NodeSpec {
                replica_range_v4: "10.200.0.0/24".into(),
                replica_range_v6: "fd00:4856:1:1::/64".into(),
                ..NodeSpec::default()
            },
            status: NodeStatus::default(),
        };
        self.objects.create(&node).await.unwrap()
    }
}

/// An app as a user writes it.
pub(crate) fn app(name: &str) -> Value {
    app_with(name, &[], &[])
}

pub(crate) fn app_with(name: &str, hostnames: &[&str], ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({"hostPort": port, "containerPort": 80})).collect();
    json!({
        "metadata": {"name": name},
        "spec": {
            "hostnames": hostnames,
            "template": {"containers": [{"image": "nginx:latest", "ports": ports}]},
        },
    })
}

impl Server {
    /// Makes a token of that role; gives its secret.
    pub(crate) async fn create_token(&self, name: &str, role: &str) -> String {
        let body = json!({"metadata": {"name": name}, "spec": {"role": role}});
        let (status, made) = self.send("POST", "/v1/tokens", body).await;
        assert_eq!(status, 201, "{made}");
        made["secret"].as_str().unwrap().to_owned()
    }
}

/// The lines of a body, blank ones too.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    pub(crate) content_type: String,
}

impl Lines {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        Lines { body: response.into_body(), buffer: BytesMut::new(), content_type }
    }

    /// The next line; `None` at the end of the body.
    pub(crate) async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line = self.buffer.split_to(end + 1);
                    return Some(String::from_utf8(line[..end].to_vec()).unwrap());
                }
                match self.body.frame().await {
                    Some(frame) => self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                    None => {
                        assert!(self.buffer.is_empty(), "the body ends in the middle of a line");
                        return None;
                    }
                }
            }
        })
        .await
        .expect("no line came")
    }

    /// The next line that says something; `None` at the end of the body.
    pub(crate) async fn said(&mut self) -> Option<String> {
        loop {
            match self.line().await {
                Some(line) if line.is_empty() || line == ":" => {}
                line => return line,
            }
        }
    }

    /// The next line that says something, as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.said().await.expect("the stream ended")).unwrap()
    }

    /// Type and object's name of the next line of a watch.
    pub(crate) async fn told(&mut self) -> (String, String) {
        let line = self.json().await;
        let name = line.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default();
        (line["type"].as_str().unwrap().to_owned(), name.to_owned())
    }

    pub(crate) async fn expect(&mut self, kind: &str, name: &str) {
        assert_eq!(self.told().await, (kind.to_owned(), name.to_owned()));
    }
}
