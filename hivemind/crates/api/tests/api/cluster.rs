//! Machines that join, and what nodes may ask of one another.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::StreamExt as _;
use hivemind_api::{ClusterAccess, serve_nodes};
use hivemind_client::{Client, NodeLink, pinned};
use hivemind_model::{
    ApiError, App, ClusterFacts, ClusterStatus, ErrorCode, FeedLine, JoinRequest, Measurements, Node,
    NodeReport, Routing,
};
use hivemind_pki::{Authority, NodeIdentity, NodeKey, SERVER_NAME, node_name, tls};
use hivemind_scheduler::Decision;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::Server;

/// A cluster with an authority of its own, around a node that is not there.
pub(crate) struct TestCluster {
    authority: Authority,
    measured: Mutex<BTreeMap<String, Measurements>>,
    connections: Mutex<BTreeMap<String, CancellationToken>>,
    _directory: tempfile::TempDir,
}

impl TestCluster {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        TestCluster {
            authority: Authority::open(directory.path()).unwrap(),
            measured: Mutex::default(),
            connections: Mutex::default(),
            _directory: directory,
        }
    }

    /// The identity of a node that did not join, but was made.
    fn issue(&self, name: &str, is_server: bool) -> NodeIdentity {
        let key = NodeKey::generate().unwrap();
        let (chain, _) = self.authority.sign(&key.signing_request().unwrap(), name, is_server).unwrap();
        key.with_certificate(&chain).unwrap()
    }
}

#[async_trait]
impl ClusterAccess for TestCluster {
    fn facts(&self) -> ClusterFacts {
        ClusterFacts {
            id: uuid::Uuid::max(),
            ula_prefix: "fd00:4856:1::".parse().unwrap(),
            replica_range: "10.200.0.0/22".parse().unwrap(),
            service_range: "10.204.0.0/16".parse().unwrap(),
            domain: "hivemind.internal".into(),
            dns: ("169.254.20.10".parse().unwrap(), "fd00:20::10".parse().unwrap()),
            routing: Routing::Overlay,
        }
    }

    async fn status(&self) -> Result<ClusterStatus, ApiError> {
        Err(ApiError::new(ErrorCode::Internal, "nobody asks", ""))
    }

    async fn placement(&self, _: &App) -> Result<Decision, ApiError> {
        Err(ApiError::new(ErrorCode::Internal, "nobody asks", ""))
    }

    async fn open(&self) -> Result<(Ipv4Addr, u16), ApiError> {
        Ok((Ipv4Addr::LOCALHOST, 4484))
    }

    fn fingerprint(&self) -> String {
        self.authority.fingerprint()
    }

    fn sign(&self, name: &str, request: &str) -> Result<(String, String), ApiError> {
        let signed = self.authority.sign(request, name, false);
        signed.map_err(|error| ApiError::new(ErrorCode::Malformed, error.to_string(), ""))
    }

    fn take_measurements(&self, name: &str, measured: Measurements) {
        self.measured.lock().unwrap().insert(name.into(), measured);
    }

    fn connections_of(&self, name: &str) -> CancellationToken {
        self.connections.lock().unwrap().entry(name.into()).or_default().clone()
    }

    fn cut_off(&self, name: &str) {
        if let Some(token) = self.connections.lock().unwrap().remove(name) {
            token.cancel();
        }
    }

    async fn leave(&self, _: bool) -> Result<(), ApiError> {
        Err(ApiError::new(ErrorCode::Unsupported, "nobody leaves", ""))
    }
}

/// A server with a node port.
struct World {
    server: Server,
    cluster: Arc<TestCluster>,
    address: SocketAddrV4,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.create_node().await;
        let cluster = server.cluster.clone();
        let address = listen(&server, &cluster, "n1", true).await;
        World { server, cluster, address }
    }

    async fn token(&self, uses: u32) -> String {
        let body = json!({"uses": uses, "validS": 3600});
        let (status, made) = self.server.send("POST", "/v1/jointokens", body).await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["address"], "127.0.0.1:4484");
        let secret = made["secret"].as_str().unwrap();
        let (secret, fingerprint) = secret.strip_prefix("hmj_").unwrap().split_once('_').unwrap();
        assert_eq!(fingerprint, self.cluster.fingerprint());
        secret.to_owned()
    }

    /// A machine that knows the cluster by the fingerprint of its token.
    fn stranger(&self) -> Client {
        let tls = pinned(self.cluster.fingerprint().parse().unwrap()).unwrap();
        client(self.address, SERVER_NAME, tls)
    }

    fn member(&self, identity: &NodeIdentity) -> Client {
        client(self.address, SERVER_NAME, tls::client(identity).unwrap())
    }

    async fn join(&self, name: &str) -> NodeIdentity {
        let key = NodeKey::generate().unwrap();
        let mut request = request(&self.token(1).await, name);
        request.signing_request = Some(key.signing_request().unwrap());
        let answer = self.stranger().join(&request).await.unwrap();
        key.with_certificate(&answer.certificate.unwrap()).unwrap()
    }
}

fn client(address: SocketAddrV4, name: &str, tls: Arc<tokio_rustls::rustls::ClientConfig>) -> Client {
    Client::node(NodeLink { address, certificate_name: name.into(), tls }).unwrap()
}

async fn listen(server: &Server, cluster: &TestCluster, name: &str, is_server: bool) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4 was asked for") };
    let tls = tls::server(&cluster.issue(name, is_server)).unwrap();
    let (api, stop) = (server.api.clone(), server.shutdown.clone());
    tokio::spawn(serve_nodes(listener, move || tls.clone(), api, stop));
    address
}

fn request(token: &str, name: &str) -> JoinRequest {
    JoinRequest {
        token: token.into(),
        name: name.into(),
        address: Ipv4Addr::new(192, 0, 2, u8::try_from(name.len()).unwrap()),
        signing_request: None,
        time: Timestamp::now(),
        version: "0.1.0".into(),
    }
}

#[tokio::test]
async fn a_machine_joins_by_a_token_that_is_used_up_then() {
    let world = World::new().await;
    let token = world.token(1).await;
    let key = NodeKey::generate().unwrap();
    let mut asked = request(&token, "two");
    let could = world.stranger().join(&asked).await.unwrap();
    assert_eq!((could.number, could.certificate), (1, None), "nothing was used yet");
    asked.signing_request = Some(key.signing_request().unwrap());
    let answer = world.stranger().join(&asked).await.unwrap();
    key.with_certificate(&answer.certificate.unwrap()).unwrap();
    let node: Node = world.server.objects.get("", "two").await.unwrap();
    assert_eq!(node.spec.number, answer.number);
    assert_eq!(node.spec.replica_range_v4, answer.cluster.node_ranges(answer.number).unwrap().0.to_string());
    let error = world.stranger().join(&request(&token, "three")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::JoinTokenInvalid);
    assert!(error.message.contains("used up"), "{error}");
}

#[tokio::test]
async fn what_is_in_the_way_of_joining_is_told_at_once() {
    let world = World::new().await;
    let error = world.stranger().join(&request("wrong", "two")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::JoinTokenInvalid);
    let mut asked = request(&world.token(1).await, "n1");
    asked.time = Timestamp::now() - SignedDuration::from_secs(600);
    let error = world.stranger().join(&asked).await.unwrap_err();
    let codes: Vec<_> = error.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [ErrorCode::ClockSkew, ErrorCode::NodeExists]);
    assert!(error.problems[0].message.contains("behind"), "{error}");

    world.join("two").await;
    let mut same = request(&world.token(1).await, "other");
    same.address = Ipv4Addr::new(192, 0, 2, 3);
    let error = world.stranger().join(&same).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::NodeExists, Some("address")));
}

#[tokio::test]
async fn a_cluster_takes_no_more_nodes_than_it_has_ranges_for() {
    let world = World::new().await;
    // The range of replicas holds four.
    for name in ["a", "bb", "ccc", "dddd"] {
        world.join(name).await;
    }
    let error = world.stranger().join(&request(&world.token(1).await, "eeeee")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AddressesExhausted);
}

#[tokio::test]
async fn machines_that_join_at_once_get_different_numbers() {
    let world = World::new().await;
    let token = world.token(3).await;
    let joins = ["a", "bb", "ccc"].map(|name| {
        let mut asked = request(&token, name);
        asked.signing_request = Some(NodeKey::generate().unwrap().signing_request().unwrap());
        let stranger = world.stranger();
        async move { stranger.join(&asked).await.unwrap().number }
    });
    let mut numbers = futures::future::join_all(joins).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn a_token_of_another_cluster_is_told_to_be_that() {
    let world = World::new().await;
    let other = TestCluster::new();
    let tls = pinned(other.fingerprint().parse().unwrap()).unwrap();
    let error = client(world.address, SERVER_NAME, tls).join(&request("x", "two")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OtherCluster, "{error}");
}

#[tokio::test]
async fn a_member_speaks_for_itself_until_it_is_removed() {
    let world = World::new().await;
    let two = world.join("two").await;
    let member = world.member(&two);
    let mut feed = member.feed("two", None).await.unwrap();
    assert!(matches!(feed.next().await, Some(Ok(FeedLine::Begin { full: true, .. }))));
    let error = member.report("n1", &NodeReport::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    let error = world.stranger().report("two", &NodeReport::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthorized);
    // Another key under the same name, of the same authority.
    let impostor = world.cluster.issue("two", false);
    let error = world.member(&impostor).report("two", &NodeReport::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NodeRemoved);

    member.report("two", &NodeReport::default()).await.unwrap();
    let (status, _) = world.server.send("DELETE", "/v1/nodes/two", serde_json::Value::Null).await;
    assert_eq!(status, 200);
    // What goes on ends, and nothing begins.
    while let Some(line) = feed.next().await {
        if line.is_err() {
            break;
        }
    }
    assert_eq!(member.feed("two", None).await.err().unwrap().code, ErrorCode::NodeRemoved);
}

#[tokio::test]
async fn the_server_cannot_be_removed() {
    let world = World::new().await;
    let set = |node: &mut Node| {
        node.spec.server = true;
        Ok(())
    };
    world.server.objects.update_with("", "n1", set).await.unwrap();
    let none = serde_json::Value::Null;
    world.server.refused("DELETE", "/v1/nodes/n1?force=true", none, 400, ErrorCode::Unsupported).await;
}

#[tokio::test]
async fn a_certificate_is_renewed_and_the_old_one_is_worth_nothing() {
    let world = World::new().await;
    let two = world.join("two").await;
    let key = NodeKey::generate().unwrap();
    let asked = hivemind_model::RenewRequest { signing_request: key.signing_request().unwrap() };
    let answer = world.member(&two).renew("two", &asked).await.unwrap();
    let next = key.with_certificate(&answer.certificate).unwrap();
    world.member(&next).report("two", &NodeReport::default()).await.unwrap();
    let error = world.member(&two).report("two", &NodeReport::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NodeRemoved);
}

#[tokio::test]
async fn labels_taints_and_cordons_are_the_operators_and_the_rest_is_not() {
    let world = World::new().await;
    let (_, mut node) = world.server.get("/v1/nodes/n1").await;
    node["metadata"]["labels"] = json!({"zone": "a"});
    node["spec"]["cordoned"] = json!(true);
    node["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
    node["spec"]["number"] = json!(77);
    let (status, node) = world.server.send("PUT", "/v1/nodes/n1", node).await;
    assert_eq!(status, 200, "{node}");
    assert_eq!(node["spec"]["number"], 0);
    assert_eq!((&node["spec"]["cordoned"], &node["metadata"]["labels"]["zone"]), (&json!(true), &json!("a")));
    let mut wrong = node.clone();
    wrong["spec"]["taints"] = json!([{"key": "-", "effect": "NoSchedule"}]);
    world.server.refused("PUT", "/v1/nodes/n1", wrong, 400, ErrorCode::InvalidLabel).await;
}

#[tokio::test]
async fn a_server_asks_a_member_and_nobody_else_does() {
    let world = World::new().await;
    // The same API, as a member would serve it.
    let agent = Server::start_as_agent().await;
    let cluster = agent.cluster.clone();
    let address = listen(&agent, &cluster, "two", false).await;
    let ask = |identity: NodeIdentity| client(address, &node_name("two"), tls::client(&identity).unwrap());
    assert!(ask(cluster.issue("n1", true)).images().await.is_ok());
    let error = ask(cluster.issue("three", false)).images().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    let foreign = ask(world.cluster.issue("n1", true)).images().await.unwrap_err();
    assert_eq!(foreign.code, ErrorCode::OtherCluster, "{foreign}");
    let none = serde_json::Value::Null;
    agent.refused("GET", "/v1/apps", none, 409, ErrorCode::NotServer).await;
}
