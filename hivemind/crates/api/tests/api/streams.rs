//! Log streams.

use std::time::Duration;

use hivemind_model::{ApiError, ErrorCode};
use serde_json::{Value, json};

use crate::{harness::Server, node::line};

const LOGS: &str = "/v1/namespaces/default/replicas/web-abcde/logs";

#[tokio::test]
async fn logs_are_the_last_lines_and_end() {
    let server = Server::start().await;
    server.create_replica("web", "web-abcde").await;
    for (query, expected) in [("", &["one", "two", "three"][..]), ("?tail=1", &["three"]), ("?tail=0", &[])] {
        let mut lines = server.lines(&format!("{LOGS}{query}")).await;
        assert_eq!(lines.content_type, "application/x-ndjson");
        for message in expected {
            assert_eq!(lines.json().await["message"], *message);
        }
        assert_eq!(lines.said().await, None);
    }
    let missing = "/v1/namespaces/default/replicas/none/logs";
    server.refused("GET", missing, Value::Null, 404, ErrorCode::ReplicaNotFound).await;
    server.refused("GET", &format!("{LOGS}?tail=x"), Value::Null, 400, ErrorCode::Malformed).await;
}

#[tokio::test]
async fn logs_that_are_followed_go_on_until_an_error_which_is_told() {
    let server = Server::start_with(Duration::from_millis(20), "10.204.0.0/16").await;
    server.create_replica("web", "web-abcde").await;
    let mut lines = server.lines(&format!("{LOGS}?tail=0&follow=true")).await;
    assert_eq!(lines.line().await.unwrap(), "", "a sign of life");
    server.node.lines.send(Ok(line("web-abcde", "live"))).unwrap();
    let mut next = async || {
        loop {
            match lines.line().await {
                Some(line) if line.is_empty() => {}
                line => break line,
            }
        }
    };
    assert_eq!(serde_json::from_str::<Value>(&next().await.unwrap()).unwrap()["message"], "live");
    server.node.lines.send(Err(ApiError::new(ErrorCode::FileFailed, "the log is gone", ""))).unwrap();
    let last: Value = serde_json::from_str(&next().await.unwrap()).unwrap();
    assert_eq!((&last["type"], &last["error"]["code"]), (&json!("error"), &json!("HM0509")));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_stopping_server_ends_logs_that_are_followed() {
    let server = Server::start().await;
    server.create_replica("web", "web-abcde").await;
    let mut lines = server.lines(&format!("{LOGS}?tail=1&follow=true")).await;
    assert_eq!(lines.json().await["message"], "three");
    server.shutdown.cancel();
    assert_eq!(lines.said().await, None);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_stream_at_the_node() {
    let server = Server::start_with(Duration::from_millis(20), "10.204.0.0/16").await;
    server.create_replica("web", "web-abcde").await;
    let mut lines = server.lines(&format!("{LOGS}?tail=1&follow=true")).await;
    lines.line().await;
    assert_eq!(server.node.lines.receiver_count(), 1);
    drop(lines);
    tokio::time::timeout(Duration::from_secs(10), server.node.lines.closed())
        .await
        .expect("it still follows");
}
