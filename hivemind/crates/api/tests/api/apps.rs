//! Apps: made, changed, deleted, refused.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use hivemind_model::{App, ErrorCode, Service};
use serde_json::{Value, json};

use crate::harness::{Server, app, app_with};

const APPS: &str = "/v1/namespaces/default/apps";

#[tokio::test]
async fn an_app_is_made_with_its_service_in_one_revision() {
    let server = Server::start().await;
    let made = server.create_app(app_with("web", &["Web.Local."], &[8080])).await;
    let app: App = serde_json::from_value(made.clone()).unwrap();
    assert_eq!(app.spec.hostnames, ["web.local"]);
    assert_eq!(app.spec.template.labels["app"], "web");
    assert_eq!(app.metadata.generation, 1);
    let service: Service = server.objects.get("default", "web").await.unwrap();
    assert_eq!(service.metadata.resource_version, app.metadata.resource_version);
    assert_eq!(service.spec.hostnames, ["web.local"]);
    assert_eq!((service.spec.published[0].host_port, service.spec.published[0].container_port), (8080, 80));
    assert!(service.spec.number > 0 && service.spec.ipv4.unwrap().octets()[..2] == [10, 204]);
    for word in ["web", &app.metadata.id, &app.metadata.uid.to_string()] {
        let (status, found) = server.get(&format!("{APPS}/{word}")).await;
        assert_eq!((status.as_u16(), found), (200, made.clone()));
    }
}

#[tokio::test]
async fn all_faults_of_an_app_are_told_at_once() {
    let server = Server::start().await;
    let mut body = app_with("Web", &["10.0.0.1", "x.hivemind.internal"], &[80, 80]);
    body["spec"]["replicas"] = json!(1001);
    let error = server.refused("POST", APPS, body, 400, ErrorCode::InvalidName).await;
    let fields: HashSet<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
    let expected = [
        "metadata.name",
        "spec.replicas",
        "spec.hostnames[0]",
        "spec.hostnames[1]",
        "spec.template.containers[0].ports[1]",
    ];
    assert_eq!(fields, HashSet::from(expected));
    assert_eq!(server.get("/v1/apps").await.1["items"], json!([]));
}

#[tokio::test]
async fn conflicts_are_told_with_their_owner_and_nothing_is_made() {
    let server = Server::start().await;
    server.create_app(app_with("web", &["web.local"], &[8080])).await;
    server.refused("POST", APPS, app("web"), 409, ErrorCode::AppExists).await;
    let body = app_with("other", &["WEB.local"], &[]);
    let error = server.refused("POST", APPS, body, 409, ErrorCode::ServiceNameTaken).await;
    assert!(error.message.contains("default/web"), "{error:?}");
    assert_eq!(error.field.as_deref(), Some("spec.hostnames[0]"));
    let body = app_with("other", &[], &[8080]);
    let error = server.refused("POST", APPS, body, 409, ErrorCode::PortPublished).await;
    assert!(error.message.contains("default/web"), "{error:?}");
    server
        .refused("GET", "/v1/namespaces/default/apps/other", Value::Null, 404, ErrorCode::AppNotFound)
        .await;
    assert_eq!(server.get("/v1/services").await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_port_that_another_program_has_is_refused_before_anything_is_made() {
    let server = Server::start().await;
    *server.node.taken_ports.lock().unwrap() = vec![8081];
    let place = "spec.template.containers[0].ports[1]";
    for path in [APPS, &format!("{APPS}?dryRun=true")] {
        let body = app_with("web", &[], &[8080, 8081]);
        let error = server.refused("POST", path, body, 409, ErrorCode::PortTaken).await;
        assert_eq!(error.field.as_deref(), Some(place));
    }
    assert_eq!(server.get("/v1/apps").await.1["items"], json!([]));
    server.create_app(app_with("web", &[], &[8080])).await;
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_changes_nothing() {
    let server = Server::start().await;
    let path = format!("{APPS}?dryRun=true");
    let before = server.objects.store().revision().await.unwrap();
    let (status, made) = server.send("POST", &path, app_with("web", &["web.local"], &[])).await;
    assert_eq!((status.as_u16(), &made["spec"]["replicas"]), (201, &json!(1)));
    assert_eq!(server.objects.store().revision().await.unwrap(), before);
    server.create_app(app_with("web", &["web.local"], &[])).await;
    server.refused("POST", &path, app("web"), 409, ErrorCode::AppExists).await;
    let taken = app_with("other", &["web.local"], &[]);
    server.refused("POST", &path, taken, 409, ErrorCode::ServiceNameTaken).await;
    server.refused("POST", &path, app("Web"), 400, ErrorCode::InvalidName).await;
}

#[tokio::test]
async fn of_many_that_want_the_same_exactly_one_wins() {
    let server = Server::start().await;
    for (what, body) in [
        ("name", (|_| app("same")) as fn(usize) -> Value),
        ("hostname", |i| app_with(&format!("h{i}"), &["same.local"], &[])),
        ("port", |i| app_with(&format!("p{i}"), &[], &[8080])),
    ] {
        let outcomes = join_all((0..24).map(|i| server.send("POST", APPS, body(i)))).await;
        let won = outcomes.iter().filter(|(status, _)| *status == 201).count();
        let lost = outcomes.iter().filter(|(status, _)| *status == 409).count();
        assert_eq!((won, lost), (1, 23), "{what}: {outcomes:?}");
    }
}

#[tokio::test]
async fn many_apps_made_at_once_all_get_addresses_of_their_own() {
    // 48 contenders for the 51 usable addresses of a /26: they do run into one another.
    let server = Server::start_with(Duration::from_secs(15), "10.204.0.0/26").await;
    let outcomes = join_all((0..48).map(|i| server.send("POST", APPS, app(&format!("app-{i}"))))).await;
    assert!(outcomes.iter().all(|(status, _)| *status == 201), "{outcomes:?}");
    let services = server.objects.list::<Service>(None).await.unwrap().items;
    let v4: HashSet<_> = services.iter().map(|s| s.spec.ipv4).collect();
    let v6: HashSet<_> = services.iter().map(|s| s.spec.ipv6).collect();
    let numbers: HashSet<_> = services.iter().map(|s| s.spec.number).collect();
    assert_eq!((v4.len(), v6.len(), numbers.len()), (48, 48, 48));
}

#[tokio::test]
async fn without_free_addresses_an_app_is_refused() {
    let server = Server::start_with(Duration::from_secs(15), "10.204.0.0/28").await;
    for i in 0..4 {
        server.create_app(app(&format!("app-{i}"))).await;
    }
    server.refused("POST", APPS, app("one-more"), 503, ErrorCode::AddressesExhausted).await;
    server.refused("GET", &format!("{APPS}/one-more"), Value::Null, 404, ErrorCode::AppNotFound).await;
}

#[tokio::test]
async fn the_namespace_of_the_path_counts() {
    let server = Server::start().await;
    let (status, made) = server.send("POST", "/v1/namespaces/team/apps", app("web")).await;
    assert_eq!((status.as_u16(), &made["metadata"]["namespace"]), (201, &json!("team")));
    let mut contradicts = app("web");
    contradicts["metadata"]["namespace"] = json!("other");
    server.refused("POST", "/v1/namespaces/team/apps", contradicts, 400, ErrorCode::InvalidName).await;
    server.refused("POST", "/v1/namespaces/Team/apps", app("web"), 400, ErrorCode::InvalidName).await;
    server.refused("GET", "/v1/namespaces/default/apps/web", Value::Null, 404, ErrorCode::AppNotFound).await;
    // An encoded slash does not lead into another namespace.
    server.refused("GET", "/v1/namespaces/team%2Fweb/apps/x", Value::Null, 404, ErrorCode::AppNotFound).await;
    server
        .refused(
            "GET",
            "/v1/namespaces/default/apps/..%2Fteam%2Fweb",
            Value::Null,
            404,
            ErrorCode::AppNotFound,
        )
        .await;
}

#[tokio::test]
async fn what_the_server_owns_cannot_be_written() {
    let server = Server::start().await;
    let mut body = app("web");
    body["metadata"]["generation"] = json!(9);
    body["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    body["metadata"]["labels"] = json!({"team": "a"});
    body["status"] = json!({"readyReplicas": 7});
    let made = server.create_app(body).await;
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["metadata"].get("deletionTimestamp"), None);
    assert_eq!(made["metadata"]["labels"]["team"], "a");
    assert_eq!(made["status"]["readyReplicas"], 0);
}

#[tokio::test]
async fn scaling_changes_the_number_alone() {
    let server = Server::start().await;
    let made = server.create_app(app("web")).await;
    let path = format!("{APPS}/{}/scale", made["metadata"]["id"].as_str().unwrap());
    let (status, scaled) = server.send("PUT", &path, json!({"replicas": 5})).await;
    assert_eq!((status.as_u16(), &scaled["spec"]["replicas"]), (200, &json!(5)));
    assert_eq!(scaled["metadata"]["generation"], 2);
    assert_eq!(scaled["spec"]["template"], made["spec"]["template"]);
    server.refused("PUT", &path, json!({"replicas": 1001}), 400, ErrorCode::OutOfRange).await;
    server.refused("PUT", &path, json!({"replicas": -1}), 400, ErrorCode::Malformed).await;
    server.refused("PUT", &path, json!({"replica": 1}), 400, ErrorCode::Malformed).await;
    let none = format!("{APPS}/none/scale");
    server.refused("PUT", &none, json!({"replicas": 1}), 404, ErrorCode::AppNotFound).await;
}

#[tokio::test]
async fn concurrent_scalings_are_all_counted() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let path = format!("{APPS}/web/scale");
    let outcomes = join_all((0..16).map(|i| server.send("PUT", &path, json!({"replicas": 10 + i})))).await;
    assert!(outcomes.iter().all(|(status, _)| *status == 200), "{outcomes:?}");
    assert_eq!(server.get(&format!("{APPS}/web")).await.1["metadata"]["generation"], 17);
}

#[tokio::test]
async fn a_restart_changes_the_template() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let path = format!("{APPS}/web/restart");
    let (status, first) = server.send("POST", &path, Value::Null).await;
    let (_, second) = server.send("POST", &path, Value::Null).await;
    let at = |app: &Value| app["spec"]["template"]["restartedAt"].as_str().unwrap().to_owned();
    assert_eq!(status, 200);
    assert!(at(&first) < at(&second));
    server.refused("POST", &format!("{APPS}/none/restart"), Value::Null, 404, ErrorCode::AppNotFound).await;
}

#[tokio::test]
async fn deletion_is_marked_once_and_then_only_waited_for() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let path = format!("{APPS}/web");
    let (status, first) = server.send("DELETE", &path, Value::Null).await;
    assert_eq!(status, 202);
    assert!(first["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.send("DELETE", &path, Value::Null).await, (status, first.clone()));
    server.refused("POST", APPS, app("web"), 409, ErrorCode::Deleting).await;
    let scale = json!({"replicas": 2});
    server.refused("PUT", &format!("{path}/scale"), scale, 409, ErrorCode::Deleting).await;
    server.refused("POST", &format!("{path}/restart"), Value::Null, 409, ErrorCode::Deleting).await;
    server.refused("PUT", &path, first, 409, ErrorCode::Deleting).await;
    server.refused("DELETE", &format!("{APPS}/none"), Value::Null, 404, ErrorCode::AppNotFound).await;
}

#[tokio::test]
async fn a_replacement_needs_the_version_that_it_replaces() {
    let server = Server::start().await;
    let made = server.create_app(app_with("web", &["web.local"], &[8080])).await;
    let path = format!("{APPS}/web");
    let mut wanted = made.clone();
    wanted["spec"]["template"]["containers"][0]["image"] = json!("nginx:1.27");
    wanted["metadata"]["labels"] = json!({"team": "a"});
    let (status, replaced) = server.send("PUT", &path, wanted.clone()).await;
    assert_eq!(status, 200, "{replaced}");
    assert_eq!(replaced["spec"]["template"]["containers"][0]["image"], "nginx:1.27");
    assert_eq!(
        (&replaced["metadata"]["generation"], &replaced["metadata"]["labels"]["team"]),
        (&json!(2), &json!("a"))
    );
    wanted["spec"]["replicas"] = json!(3);
    server.refused("PUT", &path, wanted.clone(), 409, ErrorCode::Stale).await;
    let dry = format!("{path}?dryRun=true");
    server.refused("PUT", &dry, wanted.clone(), 409, ErrorCode::Stale).await;
    wanted["metadata"]["resourceVersion"] = replaced["metadata"]["resourceVersion"].clone();
    let before = server.objects.store().revision().await.unwrap();
    let (status, tried) = server.send("PUT", &dry, wanted.clone()).await;
    assert_eq!(
        (status.as_u16(), &tried["spec"]["replicas"], &tried["metadata"]["generation"]),
        (200, &json!(3), &json!(3))
    );
    wanted["spec"]["service"] = json!({"headless": true});
    server.refused("PUT", &dry, wanted, 400, ErrorCode::Unsupported).await;
    assert_eq!(server.objects.store().revision().await.unwrap(), before);
    server.refused("PUT", &path, app("web"), 400, ErrorCode::OutOfRange).await;
    let mut other = replaced.clone();
    other["metadata"]["name"] = json!("other");
    server.refused("PUT", &path, other, 400, ErrorCode::InvalidName).await;
    let mut invalid = replaced.clone();
    invalid["spec"]["replicas"] = json!(1001);
    server.refused("PUT", &path, invalid, 400, ErrorCode::OutOfRange).await;
    server.refused("PUT", &format!("{APPS}/none"), replaced, 404, ErrorCode::AppNotFound).await;
}

#[tokio::test]
async fn an_app_gets_other_hostnames_and_ports_if_nobody_else_has_them() {
    let server = Server::start().await;
    let made = server.create_app(app_with("web", &["web.local"], &[8080])).await;
    server.create_app(app_with("other", &["other.local"], &[9090])).await;
    let path = format!("{APPS}/web");
    let with = |name: &str, port: u16| {
        let mut wanted = made.clone();
        wanted["spec"]["hostnames"] = json!([name]);
        wanted["spec"]["template"]["containers"][0]["ports"][0]["hostPort"] = json!(port);
        wanted
    };
    let error =
        server.refused("PUT", &path, with("other.local", 9090), 409, ErrorCode::ServiceNameTaken).await;
    let places: Vec<_> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(places, ["spec.hostnames[0]", "spec.template.containers[0].ports[0]"]);
    assert_eq!(server.get(&path).await.1, made);
    let (status, changed) = server.send("PUT", &path, with("web2.local", 8081)).await;
    assert_eq!((status.as_u16(), &changed["spec"]["hostnames"]), (200, &json!(["web2.local"])));
    // What it had is free.
    server.create_app(app_with("third", &["web.local"], &[8080])).await;
    let mut headless = changed;
    headless["spec"]["service"] = json!({ "headless": true });
    headless["spec"]["template"]["containers"][0]["ports"] = json!([]);
    server.refused("PUT", &path, headless, 400, ErrorCode::Unsupported).await;
}

#[tokio::test]
async fn more_names_and_ports_than_one_transaction_takes_are_refused() {
    let server = Server::start().await;
    let ports: Vec<u16> = (1..=101).collect();
    server.refused("POST", APPS, app_with("web", &[], &ports), 400, ErrorCode::OutOfRange).await;
    server.create_app(app_with("web", &[], &ports[..100])).await;
}

#[tokio::test]
async fn lists_are_of_one_namespace_or_of_all() {
    let server = Server::start().await;
    server.create_app(app("a")).await;
    server.send("POST", "/v1/namespaces/team/apps", app("b")).await;
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&server.get("/v1/apps").await.1), ["a", "b"]);
    assert_eq!(names(&server.get("/v1/apps?namespace=team").await.1), ["b"]);
    let list = server.get("/v1/apps?namespace=none").await.1;
    assert_eq!(list["resourceVersion"], server.objects.store().revision().await.unwrap().0);
    assert_eq!(names(&list), [""; 0]);
    server.refused("GET", "/v1/apps?namespace=a/b", Value::Null, 400, ErrorCode::InvalidName).await;
}
