//! Watches.

use std::time::Duration;

use hivemind_model::{App, ErrorCode};
use serde_json::{Value, json};

use crate::harness::{Server, app};

const APPS: &str = "/v1/namespaces/default/apps";

#[tokio::test]
async fn a_watch_tells_what_is_there_then_a_bookmark_then_every_change() {
    let server = Server::start().await;
    server.create_app(app("a")).await;
    server.create_app(app("b")).await;
    let revision = server.objects.store().revision().await.unwrap().0;
    let mut watch = server.lines("/v1/apps?watch=true").await;
    assert_eq!(watch.content_type, "application/x-ndjson");
    watch.expect("added", "a").await;
    watch.expect("added", "b").await;
    assert_eq!(watch.json().await, json!({"type": "bookmark", "resourceVersion": revision}));
    server.create_app(app("c")).await;
    watch.expect("added", "c").await;
    server.send("PUT", &format!("{APPS}/b/scale"), json!({"replicas": 3})).await;
    let line = watch.json().await;
    assert_eq!((&line["type"], &line["object"]["spec"]["replicas"]), (&json!("modified"), &json!(3)));
    let a = server.objects.get::<App>("default", "a").await.unwrap();
    server.objects.delete(&a).await.unwrap();
    watch.expect("deleted", "a").await;
}

#[tokio::test]
async fn a_watch_from_a_revision_tells_only_what_came_after_it() {
    let server = Server::start().await;
    server.create_app(app("a")).await;
    let list = server.get("/v1/apps").await.1;
    server.create_app(app("b")).await;
    server.send("DELETE", &format!("{APPS}/a"), Value::Null).await;
    let path = format!("/v1/apps?watch=true&resourceVersion={}", list["resourceVersion"]);
    let mut watch = server.lines(&path).await;
    watch.expect("added", "b").await;
    watch.expect("modified", "a").await;
    server.create_app(app("c")).await;
    watch.expect("added", "c").await;
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_not_kept_is_refused() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.create_app(app(name)).await;
    }
    let revision = server.objects.store().revision().await.unwrap();
    server.objects.store().compact(revision).await.unwrap();
    for from in [0, revision.0 - 1, revision.0 + 1] {
        let path = format!("/v1/apps?watch=true&resourceVersion={from}");
        server.refused("GET", &path, Value::Null, 409, ErrorCode::Stale).await;
    }
}

#[tokio::test]
async fn a_watch_sees_its_namespace_and_app_alone() {
    let server = Server::start().await;
    let mut apps = server.lines("/v1/apps?namespace=team&watch=true").await;
    let mut replicas = server.lines("/v1/replicas?namespace=default&app=web&watch=true").await;
    apps.expect("bookmark", "").await;
    replicas.expect("bookmark", "").await;
    server.create_app(app("a")).await;
    server.send("POST", "/v1/namespaces/team/apps", app("b")).await;
    apps.expect("added", "b").await;
    server.create_replica("other", "other-abcde").await;
    server.create_replica("web", "web-abcde").await;
    replicas.expect("added", "web-abcde").await;
}

#[tokio::test]
async fn every_kind_can_be_watched() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for plural in ["services", "volumes", "nodes", "replicas", "apps"] {
        let mut watch = server.lines(&format!("/v1/{plural}?watch=true")).await;
        watch.expect("bookmark", "").await;
        watches.push(watch);
    }
    server.create_app(app("web")).await;
    server.create_node().await;
    let volume = json!({"metadata": {"name": "data"}, "spec": {"node": "n1"}});
    assert_eq!(server.send("POST", "/v1/namespaces/default/volumes", volume).await.0, 201);
    server.create_replica("web", "web-abcde").await;
    for (watch, name) in watches.iter_mut().zip(["web", "data", "n1", "web-abcde", "web"]) {
        watch.expect("added", name).await;
    }
}

#[tokio::test]
async fn a_silent_watch_shows_that_it_lives() {
    let server = Server::start_with(Duration::from_millis(20), "10.204.0.0/16").await;
    let mut watch = server.lines("/v1/apps?watch=true").await;
    watch.expect("bookmark", "").await;
    for _ in 0..3 {
        assert_eq!(watch.line().await.unwrap(), "");
    }
    server.create_app(app("web")).await;
    loop {
        match watch.line().await.unwrap().as_str() {
            "" => {}
            line => break assert!(line.contains("\"added\""), "{line}"),
        }
    }
}

#[tokio::test]
async fn browsers_get_events_that_they_can_take_up_again() {
    let server = Server::start_with(Duration::from_millis(20), "10.204.0.0/16").await;
    server.create_app(app("a")).await;
    let sse = ("accept", "text/event-stream");
    let mut watch = server.lines_with("/v1/apps?watch=true", &[sse]).await;
    assert_eq!(watch.content_type, "text/event-stream");
    assert_eq!(watch.said().await.unwrap(), "event: added");
    assert!(watch.line().await.unwrap().starts_with("data: {\"type\":\"added\""));
    assert_eq!(watch.line().await.unwrap(), "");
    assert_eq!(watch.line().await.unwrap(), "event: bookmark");
    let id = watch.line().await.unwrap();
    assert!(watch.line().await.unwrap().starts_with("data: "));
    assert_eq!(watch.line().await.unwrap(), "");
    assert_eq!(watch.line().await.unwrap(), ":", "a comment keeps it alive");
    drop(watch);
    server.create_app(app("b")).await;
    let last = ("last-event-id", id.strip_prefix("id: ").unwrap());
    let mut watch = server.lines_with("/v1/apps?watch=true", &[sse, last]).await;
    assert_eq!(watch.said().await.unwrap(), "event: added");
    assert!(watch.line().await.unwrap().starts_with("id: "));
    assert!(watch.line().await.unwrap().contains("\"name\":\"b\""));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_the_difference_and_never_a_gap() {
    const CHANGES: u32 = 40;
    let server = Server::start().await;
    for name in ["busy", "gone"] {
        server.create_app(app(name)).await;
    }
    let mut watch = server.lines("/v1/apps?watch=true").await;
    watch.expect("added", "busy").await;
    watch.expect("added", "gone").await;
    watch.expect("bookmark", "").await;
    // Far more than the buffers of a socket hold, while nobody reads.
    for i in 1..=CHANGES {
        let change = |app: &mut App| {
            app.spec.replicas = i;
            app.metadata.annotations.insert("note".into(), "x".repeat(256 << 10));
            Ok(())
        };
        server.objects.update_with("default", "busy", change).await.unwrap();
    }
    let gone = server.objects.get::<App>("default", "gone").await.unwrap();
    server.objects.delete(&gone).await.unwrap();
    server.create_app(app("new")).await;
    let now = server.objects.store().revision().await.unwrap();
    server.objects.store().compact(now).await.unwrap();

    let (mut last, mut told_changes, mut rest) = (0, 0, Vec::new());
    while rest.len() < 2 {
        let line = watch.json().await;
        let name = line["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        if name == "busy" {
            let replicas = line["object"]["spec"]["replicas"].as_u64().unwrap();
            assert!(replicas > last, "{replicas} after {last}");
            (last, told_changes) = (replicas, told_changes + 1);
        } else {
            rest.push((line["type"].as_str().unwrap().to_owned(), name));
        }
    }
    rest.sort();
    assert_eq!(rest, [("added".into(), "new".to_owned()), ("deleted".into(), "gone".to_owned())]);
    assert!(told_changes < CHANGES, "all changes were told: the reader was not slow at all");
    if last < u64::from(CHANGES) {
        assert_eq!(watch.json().await["object"]["spec"]["replicas"], CHANGES);
    }
    server.create_app(app("later")).await;
    watch.expect("added", "later").await;
}

#[tokio::test]
async fn a_stopping_server_ends_its_watches_cleanly() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/apps?watch=true").await;
    watch.expect("bookmark", "").await;
    server.shutdown.cancel();
    assert_eq!(watch.said().await, None);
    tokio::time::timeout(Duration::from_secs(4), server.task).await.expect("it waits for something").unwrap();
}

#[tokio::test]
async fn a_watch_says_why_when_the_store_fails_under_it() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/apps?watch=true").await;
    watch.expect("bookmark", "").await;
    server.objects.store().close().await.unwrap();
    let line = watch.json().await;
    assert_eq!((&line["type"], &line["error"]["code"]), (&json!("error"), &json!("HM0508")));
    assert_eq!(watch.said().await, None);
}

#[tokio::test]
async fn several_kinds_are_watched_over_one_connection() {
    let server = Server::start().await;
    server.create_app(app("a")).await;
    let mut watch = server.lines("/v1/watch?kinds=apps,replicas").await;
    assert_eq!(watch.content_type, "application/x-ndjson");
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(watch.json().await);
    }
    let added = first.iter().find(|line| line["line"]["type"] == "added").unwrap();
    assert_eq!((&added["kind"], &added["line"]["object"]["metadata"]["name"]), (&json!("apps"), &json!("a")));
    let marked =
        |kind: &str| first.iter().any(|line| line["kind"] == kind && line["line"]["type"] == "bookmark");
    assert!(marked("apps") && marked("replicas"), "{first:?}");

    server.create_replica("a", "a-abcde").await;
    let line = watch.json().await;
    assert_eq!((&line["kind"], &line["line"]["type"]), (&json!("replicas"), &json!("added")));
    server.send("PUT", &format!("{APPS}/a/scale"), json!({"replicas": 3})).await;
    let line = watch.json().await;
    assert_eq!((&line["kind"], &line["line"]["type"]), (&json!("apps"), &json!("modified")));

    let error =
        server.refused("GET", "/v1/watch?kinds=apps,pods", Value::Null, 400, ErrorCode::OutOfRange).await;
    assert_eq!(error.field.as_deref(), Some("kinds"));
    assert!(error.hint.contains("networkpolicies"), "{}", error.hint);
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_given_up_and_says_so_when_it_is_read_again() {
    let change = |api: hivemind_api::Api| api.with_watch_patience(Duration::from_millis(300));
    let server = Server::start_changed(Duration::from_secs(15), "10.204.0.0/16", change).await;
    server.create_app(app("busy")).await;
    let mut watch = server.lines("/v1/apps?watch=true").await;
    watch.expect("added", "busy").await;
    watch.expect("bookmark", "").await;
    let mut i = 0;
    // Until the buffers of the socket are full and the next line has waited for its time.
    while server.api.statistics().watches_given_up == 0 {
        i += 1;
        let change = |app: &mut App| {
            app.spec.replicas = 1 + i % 2;
            app.metadata.annotations.insert("note".into(), "x".repeat(256 << 10));
            Ok(())
        };
        server.objects.update_with("default", "busy", change).await.unwrap();
        assert!(i < 10_000, "the watch is kept although nobody reads it");
    }
    assert_eq!(server.api.statistics().watches, 0, "its place is free while nobody has read on");
    let last = loop {
        let line = watch.json().await;
        if line["type"] != "modified" {
            break line;
        }
    };
    assert_eq!((&last["type"], &last["error"]["code"]), (&json!("error"), &json!("HM0701")), "{last}");
    assert_eq!(watch.said().await, None);
}

#[tokio::test]
async fn a_flood_of_watches_is_refused_beyond_the_limit_and_places_come_free() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for _ in 0..hivemind_api::WATCHES_MAX {
        let mut watch = server.lines("/v1/apps?watch=true").await;
        watch.expect("bookmark", "").await;
        watches.push(watch);
    }
    for path in ["/v1/apps?watch=true", "/v1/nodes?watch=true", "/v1/flows?follow=true"] {
        let error = server.refused("GET", path, Value::Null, 503, ErrorCode::Busy).await;
        assert!(error.message.contains(&hivemind_api::WATCHES_MAX.to_string()), "{error:?}");
    }
    assert_eq!(server.get("/v1/apps").await.0, 200, "lists go on");
    assert_eq!(server.api.statistics().watches, hivemind_api::WATCHES_MAX as u64);
    drop(watches.pop());
    // The place comes free when the server has seen that the reader is gone.
    tokio::time::timeout(crate::harness::PATIENCE, async {
        while server.get("/v1/apps?watch=true&resourceVersion=99999").await.1["code"] == "HM0513" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no place came free");
    server.lines("/v1/apps?watch=true").await.expect("bookmark", "").await;
}
