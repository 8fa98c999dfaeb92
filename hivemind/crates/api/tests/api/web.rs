//! The web port, and connections.

use hivemind_api::CONNECTIONS_MAX;
use hivemind_model::{ApiError, ErrorCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    harness::{PATIENCE, Server},
    web_port::WebPort,
};

#[tokio::test]
async fn the_web_port_shows_what_this_is_and_no_more() {
    let web = WebPort::start().await;
    let (status, head, page) = web.get("/").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/html") && head.contains("content-security-policy"), "{head}");
    assert!(page.contains("<title>Hivemind</title>"), "{page}");
    assert_eq!(web.get("/healthz").await.2, "ok");
    let document: Value = serde_json::from_str(&web.get("/openapi.json").await.2).unwrap();
    assert_eq!(document["info"]["title"], "Hivemind");
    let (status, _, body) = web.get("/elsewhere").await;
    assert_eq!(
        (status, serde_json::from_str::<ApiError>(&body).unwrap().code),
        (404, ErrorCode::PathNotFound)
    );
    let head = format!("POST / HTTP/1.1\r\nhost: localhost:{}\r\ncontent-length: 0", web.port);
    assert_eq!(web.ask(&head).await.0, 405);
}

#[tokio::test]
async fn nothing_below_v1_is_told_on_the_web_port_to_those_who_say_nothing() {
    let web = WebPort::start().await;
    for path in [
        "/v1",
        "/v1/",
        "/metrics",
        "/v1/login-codes",
        "/v1/tokens",
        "/v1/apps",
        "/v1/status",
        "/v1/namespaces/default/apps/web",
        "/v1/no/such",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: localhost:{}\r\ncontent-length: 0", web.port);
            let (status, head, body) = web.ask(&head).await;
            let error: ApiError = serde_json::from_str(&body).unwrap();
            assert_eq!((status, error.code), (401, ErrorCode::Unauthorized), "{method} {path}");
            assert!(error.hint.contains("hivemind token create"), "{body}");
            assert!(head.contains("www-authenticate") && head.contains("no-store"), "{head}");
        }
    }
}

#[tokio::test]
async fn requests_for_other_hosts_are_refused_whatever_they_ask() {
    let web = WebPort::start().await;
    let port = web.port;
    for head in [
        "GET / HTTP/1.1\r\nhost: evil.example".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: evil.example:{port}"),
        format!("GET /healthz HTTP/1.1\r\nhost: localhost:{}", port.wrapping_add(1)),
        format!("GET http://evil.example:{port}/ HTTP/1.1\r\nhost: localhost:{port}"),
        format!("GET / HTTP/1.1\r\nhost: localhost:{port}\r\nhost: evil.example"),
        "GET / HTTP/1.0".to_owned(),
    ] {
        let (status, _, body) = web.ask(&head).await;
        let error: ApiError = serde_json::from_str(&body).unwrap();
        assert_eq!((status, error.field.as_deref()), (421, Some("Host")), "{head}");
    }
    for host in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("Node-1.example:{port}")] {
        assert_eq!(web.ask(&format!("GET /healthz HTTP/1.1\r\nhost: {host}")).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn a_stopping_web_server_does_not_wait_for_idle_connections() {
    let web = WebPort::start().await;
    let mut idle = TcpStream::connect(("127.0.0.1", web.port)).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost:{}\r\n\r\n", web.port);
    idle.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    web.shutdown.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(4), web.task)
        .await
        .expect("it waits")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut waiting = UnixStream::connect(&server.socket).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Were there a place, the answer would come within this time many times over.
    let answered = tokio::time::timeout(std::time::Duration::from_millis(300), waiting.readable()).await;
    assert!(answered.is_err(), "there were more places than the limit says");
    held.pop();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, waiting.read_exact(&mut answer))
        .await
        .expect("no place came free")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
