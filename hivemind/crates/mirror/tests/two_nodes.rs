//! A server's store and a node's copy of it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use hivemind_mirror::{Mirror, Reporter, feed, take_report};
use hivemind_model::{
    ApiError, Container, FeedLine, Metadata, Node, NodeReport, NodeSpec, NodeState, NodeStatus, ObjectRef,
    Phase, Problem, Replica, ReplicaSpec, ReplicaStatus, Service, ServiceSpec, ServiceStatus, Template,
};
use hivemind_store::{Objects, Options, RedbStore, Store};
use jiff::Timestamp;
use tokio::sync::mpsc;

struct World {
    _directory: tempfile::TempDir,
    server: Objects,
    node: Objects,
    mirror: Mirror,
}

async fn store(directory: &tempfile::TempDir, name: &str) -> Arc<dyn Store> {
    Arc::new(RedbStore::open(&directory.path().join(name), Options::default()).await.unwrap())
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Objects::new(store(&directory, "server").await);
        let node = Objects::new(store(&directory, "node").await);
        let mirror = Mirror::new(Arc::clone(node.store()), "two");
        World { _directory: directory, server, node, mirror }
    }

    async fn feed(&self) -> impl Stream<Item = Result<FeedLine, ApiError>> + use<> {
        let since = self.mirror.revision().await.unwrap();
        feed(Arc::clone(self.server.store()), "two".into(), since).await.unwrap()
    }

    /// Takes what the server has to tell, up to where it is now. Returns what is gone, and whether all was told.
    async fn catch_up(&mut self) -> (Vec<ObjectRef>, bool) {
        let (feed, now) = (self.feed().await, self.server.store().revision().await.unwrap().0);
        pin_mut!(feed);
        let (mut gone, mut full) = (Vec::new(), false);
        loop {
            let line = feed.next().await.unwrap().unwrap();
            if let FeedLine::Begin { full: true, .. } = line {
                full = true;
            }
            let applied = self.mirror.take(line).await.unwrap();
            gone.extend(applied.gone);
            if applied.revision.is_some_and(|revision| revision >= now) {
                return (gone, full);
            }
        }
    }

    async fn report(&mut self) {
        let (_news, news) = mpsc::channel(1);
        let mut reporter = Reporter::start(self.node.store(), "two", news).await.unwrap();
        let report = reporter.next().await.unwrap();
        take_report(&self.server, "two", report).await.unwrap();
    }
}

fn replica(name: &str, node: &str) -> Replica {
    Replica {
        metadata: Metadata::new("shop", name),
        spec: ReplicaSpec {
            app: "web".into(),
            node: node.into(),
            identity: 300,
            template_hash: "x".into(),
            template: Template {
                containers: vec![Container { image: "nginx".into(), ..Container::default() }],
                ..Template::default()
            },
        },
        status: ReplicaStatus::default(),
    }
}

fn service() -> Service {
    Service {
        metadata: Metadata::new("shop", "web"),
        spec: ServiceSpec {
            number: 1,
            ipv4: Some("10.204.0.10".parse().unwrap()),
            ipv6: Some("fd00::10".parse().unwrap()),
            ..ServiceSpec::default()
        },
        status: ServiceStatus::default(),
    }
}

async fn stop(objects: &Objects, name: &str) {
    let stop = |replica: &mut Replica| {
        replica.metadata.deletion_timestamp = Some(Timestamp::now());
        Ok(())
    };
    objects.update_with("shop", name, stop).await.unwrap();
}

#[tokio::test]
async fn a_node_has_what_concerns_it_and_goes_on_from_where_it_was() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    world.server.create(&replica("theirs", "one")).await.unwrap();
    assert!(world.catch_up().await.1, "a node that knows nothing is told all");
    let mine: Replica = world.node.get("shop", "mine").await.unwrap();
    let theirs: Replica = world.node.get("shop", "theirs").await.unwrap();
    assert_eq!((mine.spec.template.containers.len(), theirs.spec.template.containers.len()), (1, 0));

    world.server.create(&service()).await.unwrap();
    world.server.delete(&world.server.get::<Replica>("shop", "theirs").await.unwrap()).await.unwrap();
    assert!(!world.catch_up().await.1, "then only what changed");
    assert!(world.node.get::<Service>("shop", "web").await.is_ok());
    assert!(world.node.get::<Replica>("shop", "theirs").await.is_err());
}

#[tokio::test]
async fn how_a_replica_is_the_node_says_and_the_server_hears() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    world.catch_up().await;
    let run = |replica: &mut Replica| {
        replica.status.phase = Phase::Running;
        Ok(())
    };
    world.node.update_with("shop", "mine", run).await.unwrap();
    world.report().await;
    let seen: Replica = world.server.get("shop", "mine").await.unwrap();
    assert_eq!(seen.status.phase, Phase::Running);
    // What the server says of it later does not take that back, even if it has not heard.
    let forget = |replica: &mut Replica| {
        replica.status = ReplicaStatus::default();
        replica.spec.identity = 301;
        Ok(())
    };
    world.server.update_with("shop", "mine", forget).await.unwrap();
    world.catch_up().await;
    let kept: Replica = world.node.get("shop", "mine").await.unwrap();
    assert_eq!((kept.status.phase, kept.spec.identity), (Phase::Running, 301));
}

#[tokio::test]
async fn a_replica_goes_from_the_server_only_after_the_node_took_it_down() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    world.catch_up().await;
    stop(&world.server, "mine").await;
    world.catch_up().await;
    let kept: Replica = world.node.get("shop", "mine").await.unwrap();
    assert!(kept.metadata.is_deleting());
    world.node.delete(&kept).await.unwrap();
    // The report is lost: the next connection tells what is missing.
    let (gone, _) = world.catch_up().await;
    assert_eq!(gone.len(), 1);
    take_report(&world.server, "two", NodeReport { gone, ..NodeReport::default() }).await.unwrap();
    assert!(world.server.get::<Replica>("shop", "mine").await.is_err());
}

#[tokio::test]
async fn a_replica_that_is_not_the_nodes_own_any_more_is_marked_and_not_just_forgotten() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    world.catch_up().await;
    world.server.delete(&world.server.get::<Replica>("shop", "mine").await.unwrap()).await.unwrap();
    world.catch_up().await;
    assert!(world.node.get::<Replica>("shop", "mine").await.unwrap().metadata.is_deleting());
}

#[tokio::test]
async fn a_node_that_is_no_member_any_more_stops_its_replicas_and_keeps_what_guards_them() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    world.server.create(&replica("theirs", "one")).await.unwrap();
    world.server.create(&service()).await.unwrap();
    world.catch_up().await;
    world.mirror.disown().await.unwrap();
    assert!(world.node.get::<Replica>("shop", "mine").await.unwrap().metadata.is_deleting());
    assert!(!world.node.get::<Replica>("shop", "theirs").await.unwrap().metadata.is_deleting());
    assert!(world.node.get::<Service>("shop", "web").await.is_ok());
}

#[tokio::test]
async fn one_that_came_and_went_unseen_is_told_to_be_gone() {
    let mut world = World::new().await;
    world.server.create(&replica("mine", "two")).await.unwrap();
    stop(&world.server, "mine").await;
    let (gone, _) = world.catch_up().await;
    assert!(!gone.is_empty() && gone.iter().all(|gone| gone.name == "mine"));
    assert!(world.node.get::<Replica>("shop", "mine").await.is_err());
}

#[tokio::test]
async fn a_node_speaks_for_its_own_replicas_only() {
    let world = World::new().await;
    let theirs = world.server.create(&replica("theirs", "one")).await.unwrap();
    stop(&world.server, "theirs").await;
    let meant = ObjectRef { namespace: "shop".into(), name: "theirs".into(), uid: theirs.metadata.uid };
    let status = ReplicaStatus { phase: Phase::Running, ..ReplicaStatus::default() };
    let report = NodeReport {
        replicas: vec![hivemind_model::ReplicaReport { replica: meant.clone(), status }],
        gone: vec![meant],
        ..NodeReport::default()
    };
    take_report(&world.server, "two", report).await.unwrap();
    let seen: Replica = world.server.get("shop", "theirs").await.unwrap();
    assert_eq!(seen.status.phase, Phase::Pending);
}

#[tokio::test]
async fn what_cannot_be_set_up_is_told_by_node() {
    let mut world = World::new().await;
    world.server.create(&service()).await.unwrap();
    world.catch_up().await;
    let problem = |what: &str| Problem {
        code: hivemind_model::ErrorCode::PortTaken,
        field: String::new(),
        message: what.into(),
        hint: String::new(),
    };
    let note = |objects: &Objects, node: &'static str, what: Option<&'static str>| {
        let objects = objects.clone();
        async move {
            let note = |service: &mut Service| {
                service.status.note(node, what.map(problem));
                Ok(())
            };
            objects.update_with("shop", "web", note).await.unwrap();
        }
    };
    note(&world.node, "two", Some("here")).await;
    note(&world.server, "one", Some("there")).await;
    world.report().await;
    world.catch_up().await;
    for objects in [&world.server, &world.node] {
        let service: Service = objects.get("shop", "web").await.unwrap();
        assert_eq!(service.status.node_problems.keys().collect::<Vec<_>>(), ["one", "two"]);
    }
    note(&world.node, "two", None).await;
    world.report().await;
    let service: Service = world.server.get("shop", "web").await.unwrap();
    assert_eq!(service.status.problem.unwrap().message, "there");
}

#[tokio::test]
async fn the_state_of_a_node_is_the_servers_to_say_and_the_rest_the_nodes() {
    let mut world = World::new().await;
    let status = NodeStatus { state: NodeState::Joining, ..NodeStatus::default() };
    let node = Node { metadata: Metadata::new("default", "two"), spec: NodeSpec::default(), status };
    world.server.create(&node).await.unwrap();
    world.catch_up().await;
    let set = |node: &mut Node| {
        node.status.cpus = 4;
        node.status.state = NodeState::Dead;
        Ok(())
    };
    world.node.update_with("", "two", set).await.unwrap();
    world.report().await;
    let seen: Node = world.server.get("", "two").await.unwrap();
    assert_eq!((seen.status.cpus, seen.status.state), (4, NodeState::Joining));
    let ready = |node: &mut Node| {
        node.status.state = NodeState::Ready;
        node.status.cpus = 0;
        Ok(())
    };
    world.server.update_with("", "two", ready).await.unwrap();
    world.catch_up().await;
    let kept: Node = world.node.get("", "two").await.unwrap();
    assert_eq!((kept.status.cpus, kept.status.state), (4, NodeState::Ready));
}
