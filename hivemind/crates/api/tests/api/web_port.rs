//! A server on a TCP port, beside the one on a Unix socket.

use hivemind_api::{Web, serve_web};
use hivemind_model::{ApiError, ErrorCode};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{Lines, PATIENCE, Server};

pub(crate) struct WebPort {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl WebPort {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub(crate) async fn start_on(address: &str) -> Self {
        let server = Server::start().await;
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let web = Web { hosts: vec!["node-1.example".to_owned()], tls: None };
        let task = tokio::spawn(serve_web(listener, web, server.api.clone(), shutdown.clone()));
        WebPort { server, port, shutdown, task }
    }

    /// Sends a request head as it is and gives status, head and body of the answer.
    pub(crate) async fn ask(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("no answer").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost:{}", self.port)).await
    }

    /// Sends a request with headers, and a body if there is one.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Response<Incoming> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let mut request =
            Request::builder().method(method).uri(path).header("host", format!("localhost:{}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("no answer").unwrap()
    }

    /// As [`WebPort::send`], for the status and the JSON of the answer.
    pub(crate) async fn send_json(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value) {
        let response = self.send(method, path, headers, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Sends a request that has to fail, with this status and code.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
        status: u16,
        code: ErrorCode,
    ) -> ApiError {
        let (got, value) = self.send_json(method, path, headers, body).await;
        let error: ApiError = serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("{value}"));
        assert_eq!((got, error.code), (status, code), "{method} {path} {headers:?}: {value}");
        error
    }

    /// Opens a stream of lines.
    pub(crate) async fn lines(&self, path: &str, headers: &[(&str, &str)]) -> Lines {
        let response = self.send("GET", path, headers, Value::Null).await;
        assert_eq!(response.status(), 200, "{path}");
        Lines::new(response)
    }

    /// Begins a session by a new code; gives the header of its cookie.
    pub(crate) async fn log_in(&self) -> String {
        let (status, code) = self.server.send("POST", "/v1/login-codes", Value::Null).await;
        assert_eq!(status, 201, "{code}");
        let login = serde_json::json!({"code": code["code"]});
        let response = self.send("POST", "/v1/login", &[], login).await;
        assert_eq!(response.status(), 200);
        cookie(&response)
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://localhost:{}", self.port)
    }
}

/// What a browser sends back of the cookie that was set.
pub(crate) fn cookie(response: &Response<Incoming>) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

pub(crate) fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}
