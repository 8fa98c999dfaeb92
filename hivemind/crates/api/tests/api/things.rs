//! Everything but apps: replicas, services, nodes, volumes, images, status; and requests that are not understood.

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use hivemind_model::{ApiError, ErrorCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, body::Frame, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::UnixStream};

use crate::harness::{PATIENCE, Server, app};

const APPS: &str = "/v1/namespaces/default/apps";

#[tokio::test]
async fn the_daemon_says_that_and_how_it_is() {
    let server = Server::start().await;
    let request = Request::builder().uri("/healthz").body(Full::default()).unwrap();
    let response = server.request(request).await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let (status, body) = server.get("/v1/status").await;
    assert_eq!((status.as_u16(), &body["node"]), (200, &json!("n1")));
}

#[tokio::test]
async fn replicas_services_and_nodes_are_listed_and_found() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let replica = server.create_replica("web", "web-abcde").await;
    server.create_replica("other", "other-abcde").await;
    server.create_node().await;
    let list = server.get("/v1/replicas?namespace=default&app=web").await.1;
    assert_eq!(list["items"], json!([replica]));
    assert_eq!(server.get("/v1/replicas").await.1["items"].as_array().unwrap().len(), 2);
    for (path, name) in [
        ("/v1/namespaces/default/replicas/web-abcde", "web-abcde"),
        ("/v1/namespaces/default/services/web", "web"),
        ("/v1/nodes/n1", "n1"),
    ] {
        let (status, body) = server.get(path).await;
        assert_eq!((status.as_u16(), &body["metadata"]["name"]), (200, &json!(name)), "{path}");
    }
    assert_eq!(server.get("/v1/services?namespace=default").await.1["items"][0]["metadata"]["name"], "web");
    assert_eq!(server.get("/v1/nodes").await.1["items"][0]["metadata"]["name"], "n1");
    let none = Value::Null;
    let missing = "/v1/namespaces/default/replicas/none";
    server.refused("GET", missing, none.clone(), 404, ErrorCode::ReplicaNotFound).await;
    let missing = "/v1/namespaces/default/services/none";
    server.refused("GET", missing, none.clone(), 404, ErrorCode::ServiceNotFound).await;
    server.refused("GET", "/v1/nodes/none", none, 404, ErrorCode::NodeNotFound).await;
}

#[tokio::test]
async fn a_volume_is_made_once_and_goes_when_nothing_mounts_it() {
    let server = Server::start().await;
    server.create_node().await;
    let path = "/v1/namespaces/default/volumes";
    let volume = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"node": node}});
    let (status, made) = server.send("POST", path, volume("data", "n1")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(server.get("/v1/volumes").await.1["items"], json!([made]));
    assert_eq!(server.get(&format!("{path}/data")).await.1, made);
    server.refused("POST", path, volume("data", "n1"), 409, ErrorCode::VolumeInUse).await;
    let error = server.refused("POST", path, volume("Data", "n2"), 400, ErrorCode::InvalidName).await;
    assert_eq!(error.problems.len(), 2);

    let mut mounts = app("db");
    mounts["spec"]["template"]["containers"][0]["volumeMounts"] =
        json!([{"volume": "data", "path": "/data"}]);
    server.create_app(mounts).await;
    let one = format!("{path}/data");
    let error = server.refused("DELETE", &one, Value::Null, 409, ErrorCode::VolumeInUse).await;
    assert!(error.message.contains("\"db\""), "{error:?}");
    let db = server.objects.get::<hivemind_model::App>("default", "db").await.unwrap();
    server.objects.delete(&db).await.unwrap();

    let fault = ApiError::new(ErrorCode::FileFailed, "the directory cannot be removed", "look at it");
    *server.node.volume_fault.lock().unwrap() = Some(fault);
    server.refused("DELETE", &one, Value::Null, 503, ErrorCode::FileFailed).await;
    assert_eq!(server.get(&one).await.0, 200, "what could not be removed is still there");
    *server.node.volume_fault.lock().unwrap() = None;
    assert_eq!(server.send("DELETE", &one, Value::Null).await.0, 200);
    assert_eq!(*server.node.removed_volumes.lock().unwrap(), ["data"]);
    server.refused("DELETE", &one, Value::Null, 404, ErrorCode::VolumeNotFound).await;
    server.refused("GET", &one, Value::Null, 404, ErrorCode::VolumeNotFound).await;
}

#[tokio::test]
async fn images_are_listed_in_order() {
    let server = Server::start().await;
    let (status, body) = server.get("/v1/images").await;
    let references: Vec<_> =
        body["items"].as_array().unwrap().iter().map(|i| i["reference"].as_str()).collect();
    assert_eq!(status, 200);
    assert_eq!(references, [Some("registry.local/nginx:latest"), Some("registry.local/redis:7")]);
}

#[tokio::test]
async fn an_archive_may_be_larger_than_other_bodies() {
    let server = Server::start().await;
    let archive = Bytes::from(vec![7; 5 << 20]);
    let (status, body) = server.send_bytes("POST", "/v1/images/import", archive).await;
    assert_eq!((status.as_u16(), body), (200, json!({"references": ["archive:5242880"]})));
    server.refused("POST", "/v1/images/import", Value::Null, 422, ErrorCode::ImageCorrupt).await;
}

#[tokio::test]
async fn an_archive_is_read_as_it_arrives() {
    let server = Server::start().await;
    let (mut pieces, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(0);
    let stream = UnixStream::connect(&server.socket).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/v1/images/import").body(StreamBody::new(receiver)).unwrap();
    let answer = tokio::spawn(async move { sender.send_request(request).await.unwrap().status() });
    // More than any buffer between here and there: it only passes if somebody reads at the other end.
    for _ in 0..64 {
        let piece = Frame::data(Bytes::from(vec![1; 256 << 10]));
        tokio::time::timeout(PATIENCE, pieces.send(Ok(piece))).await.expect("nobody reads").unwrap();
    }
    assert!(!answer.is_finished());
    drop(pieces);
    assert_eq!(answer.await.unwrap(), 200);
}

#[tokio::test]
async fn json_that_cannot_be_read_is_told_with_line_column_and_field() {
    let server = Server::start().await;
    let syntax = Bytes::from_static(b"{\n  \"metadata\": nope\n}");
    let (status, error) = server.send_bytes("POST", APPS, syntax).await;
    assert_eq!((status.as_u16(), &error["code"]), (400, &json!("HM0100")));
    assert!(error["message"].as_str().unwrap().contains("line 2 column"), "{error}");
    let mut body = app("web");
    body["spec"]["template"]["containers"][0]["imagee"] = json!("x");
    let error = server.refused("POST", APPS, body, 400, ErrorCode::Malformed).await;
    assert_eq!(error.field.as_deref(), Some("spec.template.containers[0].imagee"));
    assert!(error.message.contains("imagee") && error.message.contains("line 1 column"), "{error:?}");
    for body in ["", "null", "[]", "{} {}", "\u{1}"] {
        let (status, error) = server.send_bytes("POST", APPS, body.into()).await;
        assert_eq!((status.as_u16(), &error["code"]), (400, &json!("HM0100")), "{body}");
    }
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused_whether_or_not_its_length_is_said() {
    let server = Server::start().await;
    let body = Bytes::from(vec![b' '; (1 << 20) + 1]);
    let (status, error) = server.send_bytes("POST", APPS, body).await;
    assert_eq!((status.as_u16(), &error["code"]), (413, &json!("HM0103")));
    // Chunked, by hand: the server may answer before it has read all.
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!("POST {APPS} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..17 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn unknown_paths_methods_and_parameters_are_told() {
    let server = Server::start().await;
    for path in ["/", "/v2/apps", "/v1", "/v1/app", "/v1/namespaces/default/apps/a/b", "/v1/apps/"] {
        server.refused("GET", path, Value::Null, 404, ErrorCode::PathNotFound).await;
    }
    for (method, path, allow) in [
        ("POST", "/v1/apps", "GET,HEAD"),
        ("DELETE", "/healthz", "GET,HEAD"),
        ("PATCH", "/v1/namespaces/default/apps/web", "GET,HEAD,PUT,DELETE"),
        ("GET", "/v1/namespaces/default/apps/web/restart", "POST"),
    ] {
        server.refused(method, path, Value::Null, 405, ErrorCode::Unsupported).await;
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        let response = server.request(request).await;
        let mut allowed: Vec<_> = response.headers()["allow"].to_str().unwrap().split(',').collect();
        let mut expected: Vec<_> = allow.split(',').collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{path}");
    }
    for path in
        ["/v1/apps?namespce=x", "/v1/apps?watch=yes", "/v1/nodes?namespace=x", "/v1/apps?resourceVersion=1"]
    {
        server.refused("GET", path, Value::Null, 400, ErrorCode::Malformed).await;
    }
    server.refused("POST", &format!("{APPS}?dryRun=maybe"), app("web"), 400, ErrorCode::Malformed).await;
    server.refused("GET", "/v1/namespaces/%ff/apps/x", Value::Null, 400, ErrorCode::Malformed).await;
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_as_such() {
    let server = Server::start().await;
    server.objects.store().close().await.unwrap();
    server.refused("GET", "/v1/apps", Value::Null, 503, ErrorCode::StoreFailed).await;
    server.refused("POST", APPS, app("web"), 503, ErrorCode::StoreFailed).await;
    server.refused("GET", "/v1/apps?watch=true", Value::Null, 503, ErrorCode::StoreFailed).await;
}
