//! Objects in a real store on disk.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use hivemind_model::{
    App, AppService, AppSpec, AppStatus, Container, ErrorCode, Metadata, Namespace, Node, NodeSpec,
    NodeStatus, Port, Protocol, Service, ServiceSpec, ServiceStatus, Template, Token, TokenRole, TokenSpec,
    WatchKind,
};
use hivemind_store::{Changes, Key, ListOptions, ObjectWatch, Objects, Options, Prefix, RedbStore, Revision};

struct Fixture {
    objects: Objects,
    _dir: tempfile::TempDir,
}

async fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    // Without revisions in memory, what is compacted is gone for watches at once.
    let options = Options { recent_revisions: 0, ..Options::default() };
    let store = RedbStore::open(dir.path().join("store.redb"), options).await.unwrap();
    Fixture { objects: Objects::new(Arc::new(store)), _dir: dir }
}

fn app(name: &str, hostnames: &[&str], ports: &[u16]) -> App {
    let ports =
        ports.iter().map(|port| Port { host_port: *port, container_port: 80, protocol: Protocol::Tcp });
    let container = Container { image: "nginx".into(), ports: ports.collect(), ..Container::default() };
    App {
        metadata: Metadata::new("default", name),
        spec: AppSpec {
            replicas: 1,
            hostnames: hostnames.iter().map(|h| (*h).to_owned()).collect(),
            service: AppService::default(),
            depends_on: Vec::new(),
            template: Template { containers: vec![container], ..Template::default() },
        },
        status: AppStatus::default(),
    }
}

async fn keys(objects: &Objects) -> Vec<String> {
    let listing = objects.store().list(&Prefix::all(), ListOptions::default()).await.unwrap();
    listing.items.iter().map(|kv| kv.key.to_string()).collect()
}

/// The next event, or a failure if none comes.
async fn next(watch: &mut ObjectWatch<App>) -> (WatchKind, App) {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("no event came");
    let event = event.unwrap();
    (event.kind, event.object)
}

#[tokio::test]
async fn an_object_is_found_by_name_short_id_and_uid_and_only_in_its_namespace() {
    let f = open().await;
    let made = f.objects.create(&app("web", &[], &[])).await.unwrap();
    assert_eq!(made.metadata.generation, 1);
    assert!(made.metadata.resource_version > 0 && made.metadata.id.starts_with("app-"));
    assert_eq!(made.metadata.uid.get_version_num(), 7);
    for word in ["web", &made.metadata.id, &made.metadata.uid.to_string()] {
        assert_eq!(f.objects.find::<App>("default", word).await.unwrap(), made, "{word}");
        let elsewhere = f.objects.find::<App>("other", word).await.unwrap_err();
        assert_eq!(elsewhere.code, ErrorCode::AppNotFound);
    }
    for word in ["", "nope", "app-00000", "default/web", "../default/web", &"x".repeat(2000)] {
        assert_eq!(f.objects.find::<App>("default", word).await.unwrap_err().code, ErrorCode::AppNotFound);
    }
}

#[tokio::test]
async fn a_list_holds_one_namespace_or_all_in_order() {
    let f = open().await;
    for (namespace, name) in [("b", "x"), ("a-b", "x"), ("a", "y"), ("a", "x")] {
        let mut app = app(name, &[], &[]);
        app.metadata.namespace = namespace.into();
        f.objects.create(&app).await.unwrap();
    }
    let place = |app: &App| format!("{}/{}", app.metadata.namespace, app.metadata.name);
    let all = f.objects.list::<App>(None).await.unwrap();
    assert_eq!(all.items.iter().map(place).collect::<Vec<_>>(), ["a/x", "a/y", "a-b/x", "b/x"]);
    assert_eq!(all.resource_version, f.objects.store().revision().await.unwrap().0);
    let one = f.objects.list::<App>(Some("a")).await.unwrap();
    assert_eq!(one.items.iter().map(place).collect::<Vec<_>>(), ["a/x", "a/y"]);
}

#[tokio::test]
async fn all_conflicts_of_an_app_are_told_with_their_owner_and_nothing_is_left_behind() {
    let f = open().await;
    f.objects.create(&app("web", &["web.local"], &[8080])).await.unwrap();
    let before = keys(&f.objects).await;
    let error = f.objects.create(&app("other", &["free.local", "web.local"], &[8080])).await.unwrap_err();
    let codes: Vec<_> = error.problems.iter().map(|p| p.code).collect();
    assert_eq!(codes, [ErrorCode::ServiceNameTaken, ErrorCode::PortPublished]);
    assert_eq!(error.problems[0].field, "spec.hostnames[1]");
    assert!(error.problems.iter().all(|p| p.message.contains("default/web")), "{error:?}");
    assert_eq!(keys(&f.objects).await, before);
    // What comes with the app itself is not told again.
    let error = f.objects.create(&app("web", &["web.local"], &[8080])).await.unwrap_err();
    assert_eq!((error.code, error.problems.len()), (ErrorCode::AppExists, 0), "{error:?}");
}

#[tokio::test]
async fn deletion_releases_everything_that_the_object_had() {
    let f = open().await;
    let made = f.objects.create(&app("web", &["web.local"], &[8080])).await.unwrap();
    assert_eq!(keys(&f.objects).await.len(), 4);
    let mut altered = made.clone();
    altered.spec.hostnames.clear();
    f.objects.delete(&altered).await.unwrap();
    assert_eq!(keys(&f.objects).await, [""; 0]);
    assert_eq!(f.objects.delete(&made).await.unwrap_err().code, ErrorCode::AppNotFound);
    f.objects.create(&app("other", &["web.local"], &[8080])).await.unwrap();
}

#[tokio::test]
async fn an_update_of_what_has_changed_since_is_stale_and_changes_nothing() {
    let f = open().await;
    let mut first = f.objects.create(&app("web", &[], &[])).await.unwrap();
    let mut second = first.clone();
    first.spec.replicas = 2;
    let first = f.objects.update(&first).await.unwrap();
    assert_eq!((first.metadata.generation, first.spec.replicas), (2, 2));
    second.spec.replicas = 3;
    assert_eq!(f.objects.update(&second).await.unwrap_err().code, ErrorCode::Stale);
    assert_eq!(f.objects.delete(&second).await.unwrap_err().code, ErrorCode::Stale);
    assert_eq!(f.objects.get::<App>("default", "web").await.unwrap(), first);
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_alone_and_nothing_is_written_for_nothing() {
    let f = open().await;
    let made = f.objects.create(&app("web", &[], &[])).await.unwrap();
    let status = f
        .objects
        .update_with("default", "web", |app: &mut App| {
            app.status.ready_replicas = 1;
            app.metadata.uid = uuid::Uuid::nil();
            app.metadata.generation = 77;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(status.metadata.generation, 1);
    assert_eq!(status.metadata.uid, made.metadata.uid, "the server's own fields stay");
    assert!(status.metadata.resource_version > made.metadata.resource_version);
    let revision = f.objects.store().revision().await.unwrap();
    let same = f.objects.update_with("default", "web", |_: &mut App| Ok(())).await.unwrap();
    assert_eq!(same, status);
    assert_eq!(f.objects.store().revision().await.unwrap(), revision);
}

#[tokio::test]
async fn claims_follow_what_an_update_asks_for() {
    let f = open().await;
    f.objects.create(&app("other", &["other.local"], &[])).await.unwrap();
    f.objects.create(&app("web", &["a.local"], &[])).await.unwrap();
    let rename = |to: &'static str| {
        move |app: &mut App| {
            app.spec.hostnames = vec![to.to_owned()];
            Ok(())
        }
    };
    let taken = f.objects.update_with("default", "web", rename("other.local")).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::ServiceNameTaken);
    f.objects.update_with("default", "web", rename("b.local")).await.unwrap();
    f.objects.create(&app("third", &["a.local"], &[])).await.unwrap();
    let error = f.objects.create(&app("fourth", &["b.local"], &[])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceNameTaken);
}

#[tokio::test]
async fn concurrent_changes_of_one_object_lose_nothing() {
    let f = open().await;
    f.objects.create(&app("web", &[], &[])).await.unwrap();
    let writers = (0..16).map(|_| {
        f.objects.update_with("default", "web", |app: &mut App| {
            app.spec.replicas += 1;
            Ok(())
        })
    });
    for outcome in join_all(writers).await {
        outcome.unwrap();
    }
    let app = f.objects.get::<App>("default", "web").await.unwrap();
    assert_eq!((app.spec.replicas, app.metadata.generation), (17, 17));
}

#[tokio::test]
async fn one_of_many_creators_wins() {
    let f = open().await;
    for (what, make) in [
        ("name", (|_| app("same", &[], &[])) as fn(usize) -> App),
        ("hostname", |i| app(&format!("h{i}"), &["same.local"], &[])),
        ("port", |i| app(&format!("p{i}"), &[], &[8080])),
    ] {
        let outcomes = join_all((0..16).map(|i| {
            let objects = f.objects.clone();
            async move { objects.create(&make(i)).await }
        }))
        .await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_transaction_of_several_objects_is_all_or_nothing() {
    let f = open().await;
    let service = |name: &str, last: u8| Service {
        metadata: Metadata::new("default", name),
        spec: ServiceSpec {
            number: u32::from(last),
            ipv4: Some([10, 204, 0, last].into()),
            ipv6: Some([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into()),
            ..ServiceSpec::default()
        },
        status: ServiceStatus::default(),
    };
    let mut changes = Changes::new();
    changes.create(&mut app("web", &[], &[])).unwrap();
    changes.create(&mut service("web", 20)).unwrap();
    let revision = f.objects.transact(changes).await.unwrap();
    let (web, made) = (
        f.objects.get::<App>("default", "web").await.unwrap(),
        f.objects.get::<Service>("default", "web").await.unwrap(),
    );
    assert_eq!((web.metadata.resource_version, made.metadata.resource_version), (revision, revision));

    let mut changes = Changes::new();
    changes.create(&mut app("next", &[], &[])).unwrap();
    changes.create(&mut service("next", 20)).unwrap();
    let before = keys(&f.objects).await;
    let taken = f.objects.transact(changes).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::Stale, "an address that was taken meanwhile is chosen anew");
    assert_eq!(keys(&f.objects).await, before);

    let mut changes = Changes::new();
    changes.delete(&web).unwrap();
    changes.delete(&made).unwrap();
    f.objects.check(changes).await.unwrap();
    assert_eq!(keys(&f.objects).await, before, "a check writes nothing");
    let mut changes = Changes::new();
    changes.delete(&web).unwrap();
    changes.delete(&made).unwrap();
    f.objects.transact(changes).await.unwrap();
    assert_eq!(keys(&f.objects).await, [""; 0]);
}

#[tokio::test]
async fn nodes_lie_outside_of_namespaces() {
    let f = open().await;
    let node = Node {
        metadata: Metadata::new("default", "n1"),
        spec: NodeSpec {
            replica_range_v4: "10.200.0.0/24".into(),
            replica_range_v6: "fd00::/64".into(),
            ..NodeSpec::default()
        },
        status: NodeStatus::default(),
    };
    let made = f.objects.create(&node).await.unwrap();
    assert!(f.objects.store().get(&Key::new("nodes/n1").unwrap(), None).await.unwrap().found.is_some());
    assert_eq!(f.objects.find::<Node>("whatever", "n1").await.unwrap(), made);
    assert_eq!(f.objects.find::<Node>("whatever", &made.metadata.id).await.unwrap(), made);
    assert_eq!(f.objects.list::<Node>(Some("whatever")).await.unwrap().items, [made]);
}

#[tokio::test]
async fn an_object_that_is_being_deleted_is_told_apart_from_one_that_exists() {
    let f = open().await;
    f.objects.create(&app("web", &[], &[])).await.unwrap();
    let now = jiff::Timestamp::now();
    let mark = |app: &mut App| {
        app.metadata.deletion_timestamp = Some(now);
        Ok(())
    };
    f.objects.update_with("default", "web", mark).await.unwrap();
    assert_eq!(f.objects.create(&app("web", &[], &[])).await.unwrap_err().code, ErrorCode::Deleting);
    let unmark = |app: &mut App| {
        app.metadata.deletion_timestamp = None;
        Ok(())
    };
    let app = f.objects.update_with("default", "web", unmark).await.unwrap();
    assert_eq!(app.metadata.deletion_timestamp, Some(now), "deletion cannot be taken back");
}

#[tokio::test]
async fn a_watch_tells_every_change_after_its_list() {
    let f = open().await;
    f.objects.create(&app("old", &[], &[])).await.unwrap();
    let (list, mut watch) = f.objects.list_and_watch::<App>(Some("default")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let made = f.objects.create(&app("web", &[], &[])).await.unwrap();
    assert_eq!(next(&mut watch).await, (WatchKind::Added, made.clone()));
    let mut changed = made;
    changed.spec.replicas = 5;
    let changed = f.objects.update(&changed).await.unwrap();
    assert_eq!(next(&mut watch).await, (WatchKind::Modified, changed.clone()));
    f.objects.delete(&changed).await.unwrap();
    let (kind, gone) = next(&mut watch).await;
    assert_eq!(kind, WatchKind::Deleted);
    assert_eq!(gone.spec, changed.spec);
    assert_eq!(gone.metadata.resource_version, f.objects.store().revision().await.unwrap().0);
    assert_eq!(watch.told_up_to(), Some(gone.metadata.resource_version));
    // From the list's revision on, the same is told again.
    let mut again = f.objects.watch::<App>(Some("default"), list.resource_version).await.unwrap();
    for kind in [WatchKind::Added, WatchKind::Modified, WatchKind::Deleted] {
        assert_eq!(next(&mut again).await.0, kind);
    }
}

#[tokio::test]
async fn a_watch_that_was_overtaken_tells_the_difference() {
    let f = open().await;
    for name in ["kept", "changed", "gone", "replaced"] {
        f.objects.create(&app(name, &[], &[])).await.unwrap();
    }
    let (_, mut watch) = f.objects.list_and_watch::<App>(None).await.unwrap();
    let scale = |app: &mut App| {
        app.spec.replicas += 1;
        Ok(())
    };
    for _ in 0..3 {
        f.objects.update_with("default", "changed", scale).await.unwrap();
    }
    for name in ["gone", "replaced"] {
        let app = f.objects.get::<App>("default", name).await.unwrap();
        f.objects.delete(&app).await.unwrap();
    }
    f.objects.create(&app("replaced", &[], &[])).await.unwrap();
    f.objects.create(&app("new", &[], &[])).await.unwrap();
    f.objects.store().compact(f.objects.store().revision().await.unwrap()).await.unwrap();

    let mut told = BTreeSet::new();
    for _ in 0..5 {
        let (kind, app) = next(&mut watch).await;
        told.insert((format!("{kind:?}"), app.metadata.name, app.spec.replicas));
    }
    let expected = [
        ("Added", "new", 1),
        ("Added", "replaced", 1),
        ("Deleted", "gone", 1),
        ("Deleted", "replaced", 1),
        ("Modified", "changed", 4),
    ];
    assert_eq!(told, expected.into_iter().map(|(k, n, r)| (k.to_owned(), n.to_owned(), r)).collect());
    // And it goes on from there.
    f.objects.update_with("default", "kept", scale).await.unwrap();
    let (kind, app) = next(&mut watch).await;
    assert_eq!((kind, app.metadata.name.as_str()), (WatchKind::Modified, "kept"));
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_gone_or_never_was_is_stale() {
    let f = open().await;
    for name in ["a", "b", "c"] {
        f.objects.create(&app(name, &[], &[])).await.unwrap();
    }
    let revision = f.objects.store().revision().await.unwrap();
    f.objects.store().compact(revision).await.unwrap();
    for from in [0, revision.0 - 1, revision.0 + 1] {
        let error = f.objects.watch::<App>(None, from).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Stale, "{from}");
    }
    f.objects.watch::<App>(None, revision.0).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_an_error_when_the_store_does() {
    let f = open().await;
    let (_, mut watch) = f.objects.list_and_watch::<App>(None).await.unwrap();
    f.objects.store().close().await.unwrap();
    for _ in 0..2 {
        assert_eq!(watch.next().await.unwrap_err().code, ErrorCode::StoreFailed);
    }
    let error = f.objects.create(&app("web", &[], &[])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreFailed);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_not_left_out() {
    let f = open().await;
    let txn = hivemind_store::Txn::new().put(Key::new("apps/default/web").unwrap(), "{");
    assert_eq!(f.objects.store().txn(txn).await.unwrap().revision, Revision(2));
    assert_eq!(f.objects.list::<App>(None).await.unwrap_err().code, ErrorCode::StoreFailed);
    assert_eq!(f.objects.get::<App>("default", "web").await.unwrap_err().code, ErrorCode::StoreFailed);
}

#[tokio::test]
async fn an_object_too_large_for_the_store_is_refused() {
    let f = open().await;
    let mut big = app("web", &[], &[]);
    big.metadata.annotations.insert("note".into(), "x".repeat(1 << 20));
    assert_eq!(f.objects.create(&big).await.unwrap_err().code, ErrorCode::OutOfRange);
    assert_eq!(keys(&f.objects).await, [""; 0]);
}

#[tokio::test]
async fn a_token_is_found_by_its_hash_as_long_as_it_is_there() {
    let f = open().await;
    let spec = TokenSpec { role: TokenRole::Admin, expires_at: None, hash: "abc".into() };
    let token = Token { metadata: Metadata::new("default", "ci"), spec };
    let made = f.objects.create(&token).await.unwrap();
    assert_eq!(f.objects.token("abc").await.unwrap(), Some(made.clone()));
    for hash in ["", "ab", "abcd", "../token/abc"] {
        assert_eq!(f.objects.token(hash).await.unwrap(), None, "{hash}");
    }
    let error = f.objects.create(&token).await.unwrap_err();
    assert_eq!(error.message, "token \"ci\" exists already", "a token is in no namespace");
    f.objects.delete(&made).await.unwrap();
    assert_eq!(f.objects.token("abc").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_provided_and_there_already_is_no_conflict_but_a_reason_to_look_again() {
    let f = open().await;
    f.objects.create(&Namespace::new("team")).await.unwrap();
    let mut changes = Changes::new();
    changes.provide(&mut Namespace::new("team")).unwrap();
    assert_eq!(f.objects.transact(changes).await.unwrap_err().code, ErrorCode::Stale);
    let mut changes = Changes::new();
    changes.create(&mut Namespace::new("team")).unwrap();
    assert_eq!(f.objects.transact(changes).await.unwrap_err().code, ErrorCode::NamespaceExists);
}
