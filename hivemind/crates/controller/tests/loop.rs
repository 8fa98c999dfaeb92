//! The controller on a real store, with the test in the role of the node's agent.
#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test does")]

use std::{sync::Arc, time::Duration};

use hivemind_controller::{Controller, ControllerConfig, Measured};
use hivemind_model::{
    App, AppService, AppSpec, AppStatus, Container, Identity, Metadata, Namespace, Node, NodeSpec,
    NodeStatus, Replica, Service, ServiceSpec, ServiceStatus, Template,
};
use hivemind_store::{Object, Objects, Options, RedbStore};
use jiff::Timestamp;

async fn objects(directory: &tempfile::TempDir) -> Objects {
    Objects::new(Arc::new(
        RedbStore::open(directory.path().join("store.redb"), Options::default()).await.unwrap(),
    ))
}

async fn create_app(objects: &Objects, replicas: u32) {
    let template = Template {
        containers: vec![Container { image: "nginx".into(), ..Container::default() }],
        ..Template::default()
    };
    let spec = AppSpec {
        replicas,
        hostnames: Vec::new(),
        service: AppService::default(),
        depends_on: Vec::new(),
        template,
    };
    let app = App { metadata: Metadata::new("default", "web"), spec, status: AppStatus::default() };
    let spec = ServiceSpec {
        number: 1,
        ipv4: Some("10.204.0.10".parse().unwrap()),
        ipv6: Some("fd00::10".parse().unwrap()),
        ..ServiceSpec::default()
    };
    let service =
        Service { metadata: Metadata::new("default", "web"), spec, status: ServiceStatus::default() };
    let spec = NodeSpec {
        replica_range_v4: "10.200.0.0/24".into(),
        replica_range_v6: "fd00:1::/64".into(),
        ..NodeSpec::default()
    };
    let node = Node { metadata: Metadata::new("default", "node-1"), spec, status: NodeStatus::default() };
    objects.create(&node).await.unwrap();
    objects.create(&app).await.unwrap();
    objects.create(&service).await.unwrap();
}

/// Waits until the objects of a kind satisfy `done`, following the watch.
async fn until<T: Object>(objects: &Objects, what: &str, done: impl Fn(&[T]) -> bool) -> Vec<T> {
    let wait = async {
        loop {
            let (list, mut watch) = objects.list_and_watch::<T>(None).await.unwrap();
            if done(&list.items) {
                return list.items;
            }
            watch.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The agent's part: `replica` runs.
async fn bring_up(objects: &Objects, replica: &Replica, number: u8) {
    let up = |r: &mut Replica| {
        r.status.ready = true;
        r.status.ipv4 = Some([10, 200, 0, number].into());
        r.status.ipv6 = Some("fd00:1::1".parse().unwrap());
        Ok(())
    };
    objects.update_with::<Replica>("default", &replica.metadata.name, up).await.unwrap();
}

#[tokio::test]
async fn an_app_is_brought_up_scaled_and_taken_down_through_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let objects = objects(&directory).await;
    let controller = Controller::start(objects.clone(), config());
    create_app(&objects, 2).await;

    let replicas = until::<Replica>(&objects, "two replicas", |r| r.len() == 2).await;
    for (number, replica) in (1..).zip(&replicas) {
        assert_eq!(replica.spec.node, "node-1");
        bring_up(&objects, replica, number).await;
    }
    until::<Service>(&objects, "two endpoints", |s| s[0].status.endpoints.len() == 2).await;
    until::<App>(&objects, "the app up", |a| a[0].status.is_up(&a[0])).await;

    let one = |app: &mut App| {
        app.spec.replicas = 1;
        Ok(())
    };
    objects.update_with::<App>("default", "web", one).await.unwrap();
    until::<Replica>(&objects, "one told to stop", |r| {
        r.iter().filter(|r| r.metadata.is_deleting()).count() == 1
    })
    .await;
    until::<Service>(&objects, "one endpoint", |s| s[0].status.endpoints.len() == 1).await;

    let delete = |app: &mut App| {
        app.metadata.deletion_timestamp = Some(Timestamp::now());
        Ok(())
    };
    objects.update_with::<App>("default", "web", delete).await.unwrap();
    let replicas =
        until::<Replica>(&objects, "all told to stop", |r| r.iter().all(|r| r.metadata.is_deleting())).await;
    assert_eq!(
        objects.list::<App>(None).await.unwrap().items.len(),
        1,
        "the app stays until its replicas are gone"
    );
    for replica in replicas {
        objects.delete(&replica).await.unwrap();
    }
    until::<App>(&objects, "the app gone", |apps| apps.is_empty()).await;
    assert!(objects.list::<Service>(None).await.unwrap().items.is_empty());
    controller.stop().await;
}

#[tokio::test]
async fn identities_are_made_before_replicas_and_their_numbers_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let objects = objects(&directory).await;
    let first = Controller::start(objects.clone(), config());
    create_app(&objects, 1).await;
    let replica = until::<Replica>(&objects, "a replica", |r| r.len() == 1).await.remove(0);
    let identity = objects.list::<Identity>(None).await.unwrap().items.remove(0);
    assert_eq!((replica.spec.identity, identity.spec.number), (Identity::FIRST, Identity::FIRST));
    let names = until::<Namespace>(&objects, "the built-in namespaces", |n| n.len() == 2).await;
    assert!(names.iter().all(|namespace| Namespace::is_built_in(&namespace.metadata.name)));

    let delete = |app: &mut App| {
        app.metadata.deletion_timestamp = Some(Timestamp::now());
        Ok(())
    };
    objects.update_with::<App>("default", "web", delete).await.unwrap();
    let replica =
        until::<Replica>(&objects, "it is told to stop", |r| r[0].metadata.is_deleting()).await.remove(0);
    assert_eq!(objects.list::<Identity>(None).await.unwrap().items.len(), 1, "the replica still has it");
    objects.delete(&replica).await.unwrap();
    until::<Identity>(&objects, "no identity", |identities| identities.is_empty()).await;
    until::<App>(&objects, "no app", |apps| apps.is_empty()).await;
    first.stop().await;

    let second = Controller::start(objects.clone(), config());
    let node = objects.list::<Node>(None).await.unwrap().items.remove(0);
    objects.delete(&node).await.unwrap();
    create_app(&objects, 1).await;
    let replica = until::<Replica>(&objects, "a replica", |r| r.len() == 1).await.remove(0);
    assert_eq!(replica.spec.identity, Identity::FIRST + 1);
    second.stop().await;
}

#[tokio::test]
async fn a_controller_that_starts_again_finishes_what_another_began() {
    let directory = tempfile::tempdir().unwrap();
    let objects = objects(&directory).await;
    create_app(&objects, 3).await;
    let first = Controller::start(objects.clone(), config());
    until::<Replica>(&objects, "a replica", |r| !r.is_empty()).await;
    first.stop().await;
    let second = Controller::start(objects.clone(), config());
    until::<Replica>(&objects, "three replicas", |r| r.len() == 3).await;
    second.stop().await;
    assert_eq!(objects.list::<Replica>(None).await.unwrap().items.len(), 3);
}

fn config() -> ControllerConfig {
    ControllerConfig {
        grace: std::time::Duration::from_secs(30),
        measured: std::sync::Arc::new(Measured::default),
    }
}
