//! Who may speak to whom, beside who does.

use hivemind_model::{ErrorCode, FlowMinute, FlowVerdict, MatrixRange, PolicyCheckVerdict, PolicyMatrix};
use serde_json::{Value, json};

use crate::{
    harness::Server,
    simulation::{minute, policy, server_with},
};

const MATRIX: &str = "/v1/networkpolicies/matrix";
const NOTHING: Value = Value::Null;

async fn matrix(server: &Server, query: &str) -> PolicyMatrix {
    let (status, matrix) = server.get(&format!("{MATRIX}{query}")).await;
    assert_eq!(status, 200, "{matrix}");
    serde_json::from_value(matrix).unwrap()
}

#[tokio::test]
async fn what_is_used_open_and_denied_is_told_and_nothing_is_written() {
    let server = server_with(&["web", "client", "other"]).await;
    let body = json!({"items": [policy("only-client", "web", "client")]});
    assert_eq!(server.send("POST", "/v1/networkpolicies/apply", body).await.0, 200);
    *server.node.recorded.lock().unwrap() = vec![
        minute("n1", "client", "web", 5),
        FlowMinute { verdict: FlowVerdict::Denied, ..minute("n1", "other", "web", 7) },
        minute("n1", "forgotten", "web", 2),
    ];
    let revision = server.objects.store().revision().await.unwrap();
    let made = matrix(&server, "?namespace=default").await;
    assert_eq!(server.objects.store().revision().await.unwrap(), revision, "something was written");
    let [other, client] = made.pairs.as_slice() else { panic!("{made:?}") };
    assert_eq!((&*other.source, &*other.destination), ("default/other", "default/web"));
    let denied = &other.denied[0];
    assert_eq!(
        (denied.port, denied.connections.most, denied.now),
        (Some(80), 7, Some(PolicyCheckVerdict::Denied))
    );
    assert!(other.judged && other.allowed.is_empty() && other.unused.is_empty() && other.used.is_empty());
    assert_eq!((&*client.source, client.used[0].connections.most), ("default/client", 5));
    assert_eq!(client.used[0].now, Some(PolicyCheckVerdict::Allowed));
    assert_eq!((client.used[0].bytes_sent.most, client.used[0].bytes_received.most), (10, 20));
    assert_eq!((denied.bytes_sent.most, denied.bytes_received.most), (0, 0));
    let any = MatrixRange { protocol: "any".to_owned(), first: None, last: None };
    assert_eq!(client.allowed.ranges, [any]);
    assert!(client.unused.ranges.len() > 1, "{client:?}");
    assert_eq!(made.open_from_all, ["default/client", "default/other"]);
    assert_eq!(made.open_to_all, ["default/client", "default/other", "default/web"]);
    assert_eq!((made.apps, made.gone, made.missing), (3, 1, vec!["log".to_owned()]));
    assert_eq!(made.open, [], "something else is open");
}

#[tokio::test]
async fn another_namespace_has_no_pairs_and_faults_are_told_at_once() {
    let server = server_with(&["web", "client"]).await;
    *server.node.recorded.lock().unwrap() = vec![minute("n1", "client", "web", 5)];
    let namespace = json!({"metadata": {"name": "empty"}});
    assert_eq!(server.send("POST", "/v1/namespaces", namespace).await.0, 201);
    let made = matrix(&server, "?namespace=empty").await;
    assert_eq!((made.apps, made.pairs.len(), made.open_from_all.len()), (0, 0, 0));
    assert_eq!(matrix(&server, "").await.pairs.len(), 1, "without a namespace all are meant");
    server
        .refused("GET", &format!("{MATRIX}?namespace=nowhere"), NOTHING, 404, ErrorCode::NamespaceNotFound)
        .await;
    let bad = format!("{MATRIX}?namespace=Bad_Name&since=soon&until=later");
    let error = server.refused("GET", &bad, NOTHING, 400, ErrorCode::InvalidName).await;
    let fields: Vec<_> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["namespace", "since", "until"], "{error:?}");
    let agent = Server::start_as_agent().await;
    agent.refused("GET", MATRIX, NOTHING, 409, ErrorCode::NotServer).await;
}
