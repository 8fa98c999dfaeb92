//! Tracing and checking.

use hivemind_api::{TraceFrom, TraceTo};
use hivemind_model::{ErrorCode, Protocol};
use serde_json::Value;

use crate::harness::{Server, app};

#[tokio::test]
async fn names_become_replicas_and_addresses_before_a_node_is_asked() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let replica = server.create_replica("web", "web-abcde").await;
    let service = server.get("/v1/namespaces/default/services/web").await.1;
    let address = service["spec"]["ipv4"].as_str().unwrap();
    for (to, wanted) in [("web", address), ("192.0.2.1", "192.0.2.1")] {
        let path = format!("/v1/net/trace?from=host&to={to}&port=80&protocol=udp&sourcePort=7&node=n1");
        let (status, trace) = server.get(&path).await;
        assert_eq!(status, 200, "{trace}");
        assert_eq!(trace["destination"], format!("{wanted}:80"));
        let asked = server.node.last_trace.lock().unwrap().take().unwrap();
        assert!(matches!(asked.from, TraceFrom::Host));
        assert_eq!(asked.to, TraceTo::Address(wanted.parse().unwrap()));
        assert_eq!(
            (asked.protocol, asked.source_port, asked.node),
            (Protocol::Udp, Some(7), Some("n1".into()))
        );
    }
    let (status, _) = server.get("/v1/net/trace?from=web/web-abcde&to=192.0.2.1&port=80").await;
    assert_eq!(status, 200);
    let asked = server.node.last_trace.lock().unwrap().take().unwrap();
    assert!(matches!(asked.from, TraceFrom::Replica(found) if found.metadata.name == replica.metadata.name));
    assert_eq!((asked.protocol, asked.source_port), (Protocol::Tcp, None));
}

#[tokio::test]
async fn what_cannot_be_traced_is_told_with_its_parameter() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    for (query, status, code) in [
        ("from=none&to=host&port=80", 404, ErrorCode::AppNotFound),
        ("from=host&to=none&port=80", 404, ErrorCode::AppNotFound),
        ("from=web&to=host&port=80", 404, ErrorCode::NothingRunning),
        ("from=web/none&to=host&port=80", 404, ErrorCode::ReplicaNotFound),
        ("from=host&to=web&port=0", 400, ErrorCode::OutOfRange),
        ("from=host&to=web&port=80&sourcePort=0", 400, ErrorCode::OutOfRange),
        ("from=host&to=web&port=80&protocol=sctp", 400, ErrorCode::Malformed),
        ("from=host&to=web", 400, ErrorCode::Malformed),
    ] {
        server.refused("GET", &format!("/v1/net/trace?{query}"), Value::Null, status, code).await;
    }
}

#[tokio::test]
async fn a_check_is_of_the_node_that_is_named_and_tells_each_path() {
    let server = Server::start().await;
    let (status, check) =
        server.send("POST", "/v1/net/check?node=n2&outside=192.0.2.1:443", Value::Null).await;
    assert_eq!(status, 200, "{check}");
    assert_eq!((&check["node"], &check["probes"][0]["name"]), (&"n2".into(), &"192.0.2.1:443".into()));
    server.refused("POST", "/v1/net/check?outside=nowhere", Value::Null, 400, ErrorCode::Malformed).await;
}
