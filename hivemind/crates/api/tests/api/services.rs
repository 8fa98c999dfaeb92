//! Services: how apps ask for theirs, and those for names outside.

use std::collections::HashSet;

use hivemind_model::{ErrorCode, Service};
use serde_json::{Value, json};

use crate::harness::{Server, app};

const APPS: &str = "/v1/namespaces/default/apps";
const SERVICES: &str = "/v1/namespaces/default/services";
const NOTHING: Value = Value::Null;

fn external(name: &str, target: &str, hostnames: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"externalName": target, "hostnames": hostnames}})
}

#[tokio::test]
async fn a_headless_app_has_a_service_without_addresses_for_life() {
    let server = Server::start().await;
    let mut body = app("db");
    body["spec"]["service"] = json!({"headless": true});
    let made = server.create_app(body).await;
    let service: Service = server.objects.get("default", "db").await.unwrap();
    assert!(service.spec.is_headless());
    let shown = server.get(&format!("{SERVICES}/db")).await.1;
    assert_eq!(shown["spec"], json!({}));
    // Others are not kept from any address by it.
    let mut second = app("db2");
    second["spec"]["service"] = json!({"headless": true});
    server.create_app(second).await;
    server.create_app(app("web")).await;
    let mut other = made.clone();
    other["spec"]["service"] = json!({});
    let error = server.refused("PUT", &format!("{APPS}/db"), other, 400, ErrorCode::Unsupported).await;
    assert_eq!(error.field.as_deref(), Some("spec.service.headless"));
}

#[tokio::test]
async fn an_apps_service_remembers_clients_as_it_says() {
    let server = Server::start().await;
    let mut body = app("web");
    body["spec"]["service"] = json!({"sessionAffinity": {}});
    let mut made = server.create_app(body).await;
    assert_eq!(made["spec"]["service"]["sessionAffinity"]["timeoutSeconds"], 10_800);
    let shown = server.get(&format!("{SERVICES}/web")).await.1;
    assert_eq!(shown["spec"]["sessionAffinity"]["timeoutSeconds"], 10_800);
    made["spec"]["service"]["sessionAffinity"]["timeoutSeconds"] = json!(60);
    let (status, changed) = server.send("PUT", &format!("{APPS}/web"), made).await;
    let timeout = &changed["spec"]["service"]["sessionAffinity"]["timeoutSeconds"];
    assert_eq!((status.as_u16(), timeout), (200, &json!(60)));
    for wrong in [0, 86_401] {
        let mut body = app("other");
        body["spec"]["service"] = json!({"sessionAffinity": {"timeoutSeconds": wrong}});
        let error = server.refused("POST", APPS, body, 400, ErrorCode::OutOfRange).await;
        assert_eq!(error.field.as_deref(), Some("spec.service.sessionAffinity.timeoutSeconds"));
    }
    let mut body = app("other");
    body["spec"]["service"] = json!({"sticky": true});
    server.refused("POST", APPS, body, 400, ErrorCode::Malformed).await;
}

#[tokio::test]
async fn a_service_for_a_name_outside_is_made_tried_and_deleted() {
    let server = Server::start().await;
    let body = external("db", "DB.Example.com.", &["Db.Local"]);
    let (status, tried) = server.send("POST", &format!("{SERVICES}?dryRun=true"), body.clone()).await;
    assert_eq!((status.as_u16(), &tried["spec"]["externalName"]), (201, &json!("db.example.com")));
    server.refused("GET", &format!("{SERVICES}/db"), NOTHING, 404, ErrorCode::ServiceNotFound).await;
    let (status, made) = server.send("POST", SERVICES, body.clone()).await;
    assert_eq!((status.as_u16(), &made["spec"]["hostnames"]), (201, &json!(["db.local"])));
    server.refused("POST", SERVICES, body, 409, ErrorCode::ServiceNameTaken).await;
    // Its names are nobody else's.
    let taken = external("other", "other.example.com", &["db.local"]);
    server.refused("POST", SERVICES, taken, 409, ErrorCode::ServiceNameTaken).await;
    server.refused("POST", APPS, app("db"), 409, ErrorCode::ServiceNameTaken).await;
    let one = format!("{SERVICES}/db");
    assert_eq!(server.send("DELETE", &one, NOTHING).await.0, 200);
    server.refused("DELETE", &one, NOTHING, 404, ErrorCode::ServiceNotFound).await;
    server.create_app(app("db")).await;
    let error = server.refused("DELETE", &one, NOTHING, 400, ErrorCode::Unsupported).await;
    assert!(error.hint.contains("delete the app"), "{error:?}");
}

#[tokio::test]
async fn all_faults_of_a_service_are_told_at_once() {
    let server = Server::start().await;
    let mut body = external("Db", "10.0.0.1", &["x.hivemind.internal", "a b"]);
    body["spec"]["ipv4"] = json!("10.204.0.9");
    let error = server.refused("POST", SERVICES, body, 400, ErrorCode::InvalidName).await;
    let fields: HashSet<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
    let expected =
        ["metadata.name", "spec.externalName", "spec.hostnames[0]", "spec.hostnames[1]", "spec.ipv4"];
    assert_eq!(fields, HashSet::from(expected));
    let itself = external("db", "db.default.svc.hivemind.internal", &[]);
    let error = server.refused("POST", SERVICES, itself, 400, ErrorCode::InvalidName).await;
    assert_eq!(error.field.as_deref(), Some("spec.externalName"));
    assert_eq!(server.get("/v1/services").await.1["items"], json!([]));
}

#[tokio::test]
async fn a_namespace_with_a_service_for_a_name_outside_stays() {
    let server = Server::start().await;
    let body = external("db", "db.example.com", &[]);
    assert_eq!(server.send("POST", "/v1/namespaces/team/services", body).await.0, 201);
    let path = "/v1/namespaces/team";
    let error = server.refused("DELETE", path, NOTHING, 409, ErrorCode::NamespaceInUse).await;
    assert!(error.message.contains("service db"), "{error:?}");
    assert_eq!(server.send("DELETE", &format!("{path}/services/db"), NOTHING).await.0, 200);
    assert_eq!(server.send("DELETE", path, NOTHING).await.0, 200);
}
