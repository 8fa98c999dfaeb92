//! Requests that wait until there is somebody to take them.

use std::{
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
};

use hivemind_api::{Web, serve_unix, serve_web};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::harness::{PATIENCE, Server, app};

/// A request to delete an app.
fn deletion(name: &str) -> String {
    format!(
        "DELETE /v1/namespaces/default/apps/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
}

/// The apps that nobody has asked to be deleted, or whose deletion was not heeded.
async fn undisturbed(server: &Server) -> Vec<String> {
    let (_, apps) = server.get("/v1/apps").await;
    let apps = apps["items"].as_array().unwrap();
    let metadata = apps.iter().map(|app| &app["metadata"]);
    let alive = metadata.filter(|metadata| metadata["deletionTimestamp"].is_null());
    alive.map(|metadata| metadata["name"].as_str().unwrap().to_owned()).collect()
}

async fn answer(stream: UnixStream) -> String {
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn who_waits_for_a_server_is_answered_and_who_has_gone_is_not_obeyed() {
    let server = Server::start().await;
    for name in ["given-up", "patient"] {
        server.create_app(app(name)).await;
    }
    let path = server.socket.with_extension("later");
    let listener = UnixListener::bind(&path).unwrap();
    let ask = |name: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(deletion(name).as_bytes()).unwrap();
        stream
    };
    drop(ask("given-up"));
    let patient = ask("patient");

    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let serving = tokio::spawn(serve_unix(listener, server.api.clone(), server.shutdown.clone()));
    let answer = answer(patient).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(undisturbed(&server).await, ["given-up"]);
    server.shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_port_is_as_patient_and_obeys_nobody_who_has_gone() {
    let server = Server::start().await;
    for name in ["given-up", "patient"] {
        server.create_app(app(name)).await;
    }
    let secret = server.create_token("waiting", "admin").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let ask = |name: &str| {
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        let host = format!("Host: {at}\r\nAuthorization: Bearer {secret}");
        stream.write_all(deletion(name).replace("Host: localhost", &host).as_bytes()).unwrap();
        stream
    };
    drop(ask("given-up"));
    let patient = ask("patient");

    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let web = Web { hosts: Vec::new(), tls: None };
    let serving = tokio::spawn(serve_web(listener, web, server.api.clone(), server.shutdown.clone()));
    patient.set_nonblocking(true).unwrap();
    let mut patient = tokio::net::TcpStream::from_std(patient).unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, patient.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(undisturbed(&server).await, ["given-up"]);
    server.shutdown.cancel();
    serving.await.unwrap().unwrap();
}
