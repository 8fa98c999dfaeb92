//! Namespaces.

use hivemind_model::{App, ErrorCode, Namespace};
use serde_json::{Value, json};

use crate::harness::{Server, app};

const PATH: &str = "/v1/namespaces";
const NOTHING: Value = Value::Null;

#[tokio::test]
async fn a_namespace_is_made_labelled_and_deleted() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "team", "labels": {"tier": "front"}}});
    let (status, tried) = server.send("POST", &format!("{PATH}?dryRun=true"), body.clone()).await;
    assert_eq!((status.as_u16(), &tried["metadata"]["name"]), (201, &json!("team")));
    server.refused("GET", "/v1/namespaces/team", NOTHING, 404, ErrorCode::NamespaceNotFound).await;
    let (status, made) = server.send("POST", PATH, body.clone()).await;
    let labels = json!({"tier": "front", "kubernetes.io/metadata.name": "team"});
    assert_eq!((status.as_u16(), &made["metadata"]["labels"]), (201, &labels));
    server.refused("POST", PATH, body.clone(), 409, ErrorCode::NamespaceExists).await;
    server.refused("POST", &format!("{PATH}?dryRun=true"), body, 409, ErrorCode::NamespaceExists).await;

    let mut changed = made.clone();
    changed["metadata"]["labels"] = json!({"tier": "back"});
    let (status, changed) = server.send("PUT", "/v1/namespaces/team", changed).await;
    let labels = json!({"tier": "back", "kubernetes.io/metadata.name": "team"});
    assert_eq!((status.as_u16(), &changed["metadata"]["labels"]), (200, &labels));
    server.refused("PUT", "/v1/namespaces/team", made, 409, ErrorCode::Stale).await;
    assert_eq!(server.get("/v1/namespaces/team").await.1, changed);
    assert_eq!(server.get(PATH).await.1["items"], json!([changed]));
    assert_eq!(server.send("DELETE", "/v1/namespaces/team", NOTHING).await.0, 200);
    server.refused("DELETE", "/v1/namespaces/team", NOTHING, 404, ErrorCode::NamespaceNotFound).await;
}

#[tokio::test]
async fn all_faults_of_a_namespace_are_told_at_once() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "Team", "labels": {"a b": "c d"}}});
    let error = server.refused("POST", PATH, body, 400, ErrorCode::InvalidName).await;
    assert_eq!(error.problems.len(), 3, "{error:?}");
    let body = json!({"metadata": {"name": "team"}, "spec": {"hostPath": "/srv"}});
    server.refused("POST", PATH, body, 400, ErrorCode::Malformed).await;
    let spec = json!({"hostPaths": ["srv", "/a/../b"], "capabilities": ["FLY"]});
    let error = server
        .refused(
            "POST",
            PATH,
            json!({"metadata": {"name": "team"}, "spec": spec}),
            400,
            ErrorCode::InvalidMount,
        )
        .await;
    assert_eq!(error.problems.len(), 3, "{error:?}");
    let (_, made) = server.send("POST", PATH, json!({"metadata": {"name": "team"}})).await;
    let mut other = made.clone();
    other["metadata"]["name"] = json!("other");
    server.refused("PUT", "/v1/namespaces/team", other, 400, ErrorCode::InvalidName).await;
    let mut unread = made;
    unread["metadata"]["resourceVersion"] = json!(0);
    server.refused("PUT", "/v1/namespaces/team", unread, 400, ErrorCode::OutOfRange).await;
}

#[tokio::test]
async fn a_namespace_comes_with_the_first_app_in_it() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/namespaces?watch=true").await;
    watch.expect("bookmark", "").await;
    server.send("POST", "/v1/namespaces/team/apps?dryRun=true", app("web")).await;
    server.refused("GET", "/v1/namespaces/team", NOTHING, 404, ErrorCode::NamespaceNotFound).await;
    assert_eq!(server.send("POST", "/v1/namespaces/team/apps", app("web")).await.0, 201);
    watch.expect("added", "team").await;
    let namespace: Namespace = server.objects.get("", "team").await.unwrap();
    let app: App = server.objects.get("team", "web").await.unwrap();
    assert_eq!(namespace.metadata.resource_version, app.metadata.resource_version, "one transaction");
    assert_eq!(server.send("POST", "/v1/namespaces/team/apps", crate::harness::app("db")).await.0, 201);
    assert_eq!(server.get(PATH).await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn apps_that_come_at_once_into_a_new_namespace_all_get_there() {
    let server = Server::start().await;
    let names: Vec<_> = (0..8).map(|i| format!("app-{i}")).collect();
    let made = names.iter().map(|name| server.send("POST", "/v1/namespaces/team/apps", app(name)));
    for (status, body) in futures::future::join_all(made).await {
        assert_eq!(status, 201, "{body}");
    }
}

#[tokio::test]
async fn a_namespace_that_is_used_or_built_in_stays() {
    let server = Server::start().await;
    server.send("POST", "/v1/namespaces/team/apps", app("web")).await;
    server.send("POST", "/v1/namespaces/team/apps", app("db")).await;
    let path = "/v1/namespaces/team";
    let error = server.refused("DELETE", path, NOTHING, 409, ErrorCode::NamespaceInUse).await;
    assert!(error.message.contains("app db, web"), "{error:?}");
    server.create_app(app("web")).await;
    server.refused("DELETE", "/v1/namespaces/default", NOTHING, 400, ErrorCode::Unsupported).await;
}
