//! Flows and metrics.

use hivemind_api::{FlowsRequest, serve_metrics};
use hivemind_model::{ApiError, ErrorCode, FlowFilter, FlowSelection, FlowVerdict};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{harness::Server, node::lost};

#[tokio::test]
async fn flows_are_told_as_the_node_is_asked_for_them() {
    let server = Server::start().await;
    let mut flows = server
        .lines(
            "/v1/flows?from=team/web&to=10.0.0.1/8&verdict=denied&port=80/tcp&reason=no_policy&protocol=17\
         &since=2026-01-31T12:00:00Z&tail=7",
        )
        .await;
    assert_eq!(flows.content_type, "application/x-ndjson");
    assert_eq!(flows.json().await, json!({"type": "lost", "object": {"events": 1, "place": "kernel"}}));
    assert_eq!(flows.said().await, None);
    let asked = server.node.last_flows.lock().unwrap().take();
    let selection = FlowSelection {
        from: Some(FlowFilter::App { namespace: Some("team".into()), app: "web".into() }),
        to: Some(FlowFilter::Net("10.0.0.0/8".parse().unwrap())),
        ports: Some("80/tcp".parse().unwrap()),
        protocol: Some("udp".into()),
        verdict: Some(FlowVerdict::Denied),
        reason: Some("no_policy"),
        since: Some("2026-01-31T12:00:00Z".parse().unwrap()),
        until: None,
    };
    let expected = FlowsRequest { selection, follow: false, tail: 7 };
    assert_eq!(asked, Some(expected));
    server.lines("/v1/flows").await;
    let asked = server.node.last_flows.lock().unwrap().take();
    assert_eq!(asked, Some(FlowsRequest { tail: 100, ..FlowsRequest::default() }));
}

#[tokio::test]
async fn history_is_told_as_the_node_is_asked_for_it() {
    let server = Server::start().await;
    let path = "/v1/flows/history?since=2026-01-31T12:00:00Z&until=2026-01-31T13:00:00Z&to=team/*";
    let mut flows = server.lines(path).await;
    assert_eq!(flows.json().await, json!({"type": "lost", "object": {"events": 7, "place": "log"}}));
    assert_eq!(flows.said().await, None);
    let expected = FlowSelection {
        to: Some(FlowFilter::Namespace("team".into())),
        since: Some("2026-01-31T12:00:00Z".parse().unwrap()),
        until: Some("2026-01-31T13:00:00Z".parse().unwrap()),
        ..FlowSelection::default()
    };
    assert_eq!(server.node.last_history.lock().unwrap().take(), Some(expected));
}

#[tokio::test]
async fn flows_are_followed_and_end_with_the_nodes_error() {
    let server = Server::start().await;
    let mut flows = server.lines_with("/v1/flows?follow=true", &[("accept", "text/event-stream")]).await;
    for events in [1, 2] {
        assert_eq!(flows.said().await.unwrap(), "event: lost");
        let data = flows.line().await.unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["object"]["events"], events);
        assert_eq!(flows.line().await.unwrap(), "");
        assert_eq!(server.api.statistics().watches, 1);
        server.node.flows.send(Ok(lost(events + 1))).unwrap();
    }
    let mut rest = Vec::new();
    server.node.flows.send(Err(ApiError::new(ErrorCode::Internal, "it broke", ""))).unwrap();
    while let Some(line) = flows.line().await {
        rest.push(line);
    }
    assert!(rest.contains(&"event: error".to_owned()), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("it broke")), "{rest:?}");
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_told_with_all_others() {
    let server = Server::start().await;
    let wrong = "from=a/b/c&to=192.0.2.1/40&port=http&protocol=x&reason=x&since=x";
    for (path, last) in [("/v1/flows?tail=5000&", "tail"), ("/v1/flows/history?until=x&", "until")] {
        let path = format!("{path}{wrong}");
        let error = server.refused("GET", &path, Value::Null, 400, ErrorCode::Malformed).await;
        let fields: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["from", "to", "port", "protocol", "reason", "since", last]);
    }
    for query in ["verdict=maybe", "form=web"] {
        server.refused("GET", &format!("/v1/flows?{query}"), Value::Null, 400, ErrorCode::Malformed).await;
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for_and_alone_on_their_own_port() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_metrics(listener, server.api.clone(), server.shutdown.clone()));
    let ask = async |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = format!("GET {head}\r\nhost: prometheus.example\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ask("/healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    // The node is told what the API has counted until then.
    let accept = "accept: text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9";
    let text = ask(&format!("/metrics HTTP/1.1\r\n{accept}")).await;
    assert!(
        text.contains("text/plain; version=0.0.4") && text.ends_with("\r\n\r\nhivemind_up 1\n"),
        "{text}"
    );
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    for wanted in ["/metrics HTTP/1.1".to_owned(), format!("/metrics HTTP/1.1\r\n{accept}")] {
        let open = ask(&wanted).await;
        assert!(
            open.contains("application/openmetrics-text; version=1.0.0; charset=utf-8")
                && open.ends_with("# EOF\n"),
            "{wanted}: {open}"
        );
    }
    for path in ["/", "/v1/apps", "/v1/status", "/openapi.json", "/v1/login"] {
        assert!(ask(&format!("{path} HTTP/1.1")).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn a_stream_shows_at_once_that_it_lives_though_there_is_nothing_to_tell() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/apps?watch=true&resourceVersion=0").await;
    // The next sign would come after 15 s only.
    let sign = tokio::time::timeout(std::time::Duration::from_secs(10), watch.line()).await;
    assert_eq!(sign.expect("no sign of life").unwrap(), "");
}
