//! Exec sessions.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hivemind_model::{ErrorCode, ExecChannel, ExecExit};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use crate::harness::{PATIENCE, Server};

type Socket = WebSocketStream<UnixStream>;

async fn open(server: &Server, query: &str) -> Result<Socket, Box<Error>> {
    let stream = UnixStream::connect(&server.socket).await.unwrap();
    let url = format!("ws://localhost/v1/namespaces/default/replicas/web-abcde/exec?{query}");
    client_async(url, stream).await.map(|(socket, _)| socket).map_err(Box::new)
}

async fn send(socket: &mut Socket, channel: ExecChannel, data: &[u8]) {
    let message = [&[channel as u8], data].concat();
    socket.send(Message::Binary(message.into())).await.unwrap();
}

/// What the process wrote, and how the session ended.
async fn finish(mut socket: Socket) -> (Vec<u8>, Vec<u8>, ExecExit) {
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("nothing came");
        match message.expect("it broke off").unwrap() {
            Message::Binary(data) => {
                assert!(exit.is_none(), "nothing comes after the exit");
                match ExecChannel::from_byte(data[0]) {
                    Some(ExecChannel::Stdout) => out.extend_from_slice(&data[1..]),
                    Some(ExecChannel::Stderr) => err.extend_from_slice(&data[1..]),
                    Some(ExecChannel::Exit) => exit = Some(serde_json::from_slice(&data[1..]).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
            Message::Close(_) => return (out, err, exit.expect("it closed without an exit")),
            other => panic!("{other:?}"),
        }
    }
}

async fn server() -> Server {
    let server = Server::start().await;
    server.create_replica("web", "web-abcde").await;
    server
}

async fn sessions_end(server: &Server) {
    let mut sessions = server.node.sessions.subscribe();
    tokio::time::timeout(PATIENCE, sessions.wait_for(|count| *count == 0))
        .await
        .expect("it runs on")
        .unwrap();
}

#[tokio::test]
async fn a_command_runs_with_its_outputs_apart_and_its_exit_code() {
    let server = server().await;
    let query =
        "command=sh&command=-c&command=echo%20out;%20echo%20err%20%3E%262;%20exit%203&tty=false&user=app";
    let (out, err, exit) = finish(open(&server, query).await.unwrap()).await;
    assert_eq!(
        (&out[..], &err[..], exit),
        (&b"out\n"[..], &b"err\n"[..], ExecExit { code: Some(3), error: None })
    );
    let request = server.node.last_exec.lock().unwrap().clone().unwrap();
    assert_eq!((request.tty, request.user.as_deref()), (false, Some("app")));
}

#[tokio::test]
async fn input_reaches_the_process_until_it_is_ended() {
    let server = server().await;
    let mut socket = open(&server, "command=cat&tty=true").await.unwrap();
    send(&mut socket, ExecChannel::Resize, br#"{"rows":24,"columns":80}"#).await;
    send(&mut socket, ExecChannel::Stdin, b"hello ").await;
    send(&mut socket, ExecChannel::Stdin, b"world").await;
    send(&mut socket, ExecChannel::StdinEnd, b"").await;
    let (out, _, exit) = finish(socket).await;
    assert_eq!((&out[..], exit.code), (&b"hello world"[..], Some(0)));
    assert_eq!(*server.node.resizes.borrow(), [(24, 80)]);
    sessions_end(&server).await;
}

#[tokio::test]
async fn much_data_passes_in_both_directions_at_once() {
    let server = server().await;
    let socket = open(&server, "command=cat").await.unwrap();
    let (mut sink, mut source) = socket.split();
    let sent: Vec<u8> = (0..4 << 20).map(|i| (i % 251) as u8).collect();
    let send = async {
        for piece in sent.chunks(100_000) {
            let message: Bytes = [&[ExecChannel::Stdin as u8], piece].concat().into();
            sink.send(Message::Binary(message)).await.unwrap();
        }
        sink.send(Message::Binary(vec![ExecChannel::StdinEnd as u8].into())).await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        while let Some(Ok(Message::Binary(data))) = source.next().await {
            if data[0] == ExecChannel::Stdout as u8 {
                received.extend_from_slice(&data[1..]);
            }
        }
        received
    };
    let both = futures::future::join(send, receive);
    let ((), received) = tokio::time::timeout(PATIENCE, both).await.expect("it hangs");
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[tokio::test]
async fn what_cannot_run_is_refused_before_the_session_opens() {
    let server = server().await;
    for (query, status, code) in [
        ("command=/no/such/program", 422, ErrorCode::CommandFailed),
        ("tty=true", 400, ErrorCode::Malformed),
        ("command=", 400, ErrorCode::Malformed),
        ("command=ls&tty=perhaps", 400, ErrorCode::Malformed),
        ("command=ls&comand=x", 400, ErrorCode::Malformed),
    ] {
        match *open(&server, query).await.unwrap_err() {
            Error::Http(response) => {
                let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
                assert_eq!(
                    (response.status().as_u16(), &body["code"]),
                    (status, &code.as_str().into()),
                    "{query}"
                );
            }
            other => panic!("{other}"),
        }
    }
    let path = "/v1/namespaces/default/replicas/web-abcde/exec?command=ls";
    server.refused("GET", path, Value::Null, 400, ErrorCode::Malformed).await;
    assert_eq!(*server.node.sessions.borrow(), 0);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_process_along() {
    let server = server().await;
    let socket = open(&server, "command=sleep&command=1000").await.unwrap();
    assert_eq!(*server.node.sessions.borrow(), 1);
    drop(socket);
    sessions_end(&server).await;
    // Nothing of the session is left at the server either.
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), server.task).await.expect("it waits for something").unwrap();
}

#[tokio::test]
async fn a_caller_that_breaks_the_rules_is_told_and_put_out() {
    let server = server().await;
    for message in [
        Message::Text("hello".into()),
        Message::Binary(vec![].into()),
        Message::Binary(vec![1, 2].into()),
        Message::Binary(vec![99].into()),
        Message::Binary(vec![4, b'x'].into()),
    ] {
        let mut socket = open(&server, "command=sleep&command=1000").await.unwrap();
        socket.send(message.clone()).await.unwrap();
        let (_, _, exit) = finish(socket).await;
        assert_eq!(exit.error.map(|e| e.code), Some(ErrorCode::Malformed), "{message:?}");
    }
    sessions_end(&server).await;
}

#[tokio::test]
async fn a_stopping_server_ends_sessions_and_waits_for_them() {
    let server = server().await;
    let socket = open(&server, "command=sleep&command=1000").await.unwrap();
    server.shutdown.cancel();
    let (_, _, exit) = finish(socket).await;
    assert_eq!(exit.error.map(|e| e.code), Some(ErrorCode::DaemonUnreachable));
    sessions_end(&server).await;
    tokio::time::timeout(Duration::from_secs(4), server.task).await.expect("it waits for something").unwrap();
}
