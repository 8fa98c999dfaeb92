//! Containers that are followed: servers of this process in their place.
#![allow(clippy::unwrap_used, reason = "everything here is test code, also what has no test attribute")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use hivemind_health::{CheckError, Exit, Failing, Health, Target, follow};
use hivemind_model::{
    Container, ExecProbe, GrpcProbe, HttpHeader, HttpProbe, HttpScheme, Probe, ProbeKind, Seconds, TcpProbe,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How long an outcome may take to show.
const LIMIT: Duration = Duration::from_secs(20);

/// Ports of this machine, and the outcomes of commands, the last of which stays.
#[derive(Default)]
struct Here {
    exits: Mutex<Vec<Result<Exit, String>>>,
    commands: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl Target for Here {
    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
    }

    async fn exec(&self, command: &[String]) -> Result<Exit, String> {
        self.commands.lock().unwrap().push(command.to_vec());
        let mut exits = self.exits.lock().unwrap();
        if exits.len() > 1 { exits.remove(0) } else { exits[0].clone() }
    }

    async fn settled(&self) {}
}

impl Here {
    fn of(codes: &[u32]) -> Arc<Here> {
        let exits = codes.iter().map(|&code| Ok(Exit { code, output: "\n  it says why\n".into() })).collect();
        Arc::new(Here { exits: Mutex::new(exits), ..Here::default() })
    }
}

fn quick(probe: Probe) -> Probe {
    let period_seconds = Some(Seconds::from_millis(100));
    Probe { period_seconds, failure_threshold: Some(2), ..probe }
}

fn exec() -> Probe {
    quick(Probe { exec: Some(ExecProbe { command: vec!["check".into(), "me".into()] }), ..Probe::default() })
}

/// The first health that `is_meant`.
async fn until(
    container: Container,
    target: Arc<dyn Target>,
    was_ready: bool,
    is_meant: impl Fn(&Health) -> bool,
) -> Health {
    let (sender, mut health) = watch::channel(Health::default());
    let following = async { follow(&container, &target, was_ready, &sender).await };
    let seen = async {
        tokio::select! {
            found = health.wait_for(|health| is_meant(health)) => found.unwrap().clone(),
            () = async { following.await; std::future::pending().await } => unreachable!(),
        }
    };
    tokio::time::timeout(LIMIT, seen).await.expect("it shows in time")
}

/// What comes of a readiness probe: ready, or why not.
async fn outcome(probe: Probe) -> Result<(), CheckError> {
    let container = Container { readiness_probe: Some(quick(probe)), ..Container::default() };
    let health = until(container, Here::of(&[0]), false, |h| h.ready || h.failing.is_some()).await;
    health.failing.map_or(Ok(()), |failing| {
        assert_eq!((failing.probe, failing.times), (ProbeKind::Readiness, 2));
        Err(failing.error)
    })
}

fn http(port: u16) -> HttpProbe {
    HttpProbe { path: "/".into(), port, scheme: HttpScheme::Http, host: None, headers: Vec::new() }
}

fn of_http(http: HttpProbe) -> Probe {
    Probe { http: Some(http), ..Probe::default() }
}

/// A server that answers each connection with `answer` once a head has come; the heads that came.
async fn server(answer: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            seen.lock().unwrap().push(String::from_utf8(head).unwrap());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, heads)
}

/// A port on which nobody listens.
async fn closed() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_server_is_well_that_answers_with_200_to_399() {
    for answer in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"]
    {
        let (port, _) = server(answer).await;
        assert_eq!(outcome(of_http(http(port))).await, Ok(()), "{answer}");
    }
    let (port, _) = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let error = outcome(of_http(HttpProbe { path: "/healthz".into(), ..http(port) })).await.unwrap_err();
    assert_eq!(error.to_string(), "GET /healthz answered 503 Service Unavailable");
}

#[tokio::test]
async fn what_is_no_http_is_told_as_such() {
    for answer in ["220 smtp.example.org\r\n", ""] {
        let (port, _) = server(answer).await;
        let error = outcome(of_http(http(port))).await.unwrap_err();
        assert!(matches!(error, CheckError::NotUnderstood { .. }), "{error:?}");
    }
    let port = closed().await;
    let error = outcome(of_http(http(port))).await.unwrap_err();
    assert_eq!(error.to_string(), format!("port {port} cannot be connected to: connection refused"));
}

#[tokio::test]
async fn a_request_says_what_the_probe_says() {
    let (port, heads) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let header = |name: &str, value: &str| HttpHeader { name: name.into(), value: value.into() };
    let headers = vec![header("X-Probe", "1"), header("user-agent", "me")];
    let probe = HttpProbe { path: "/a?b=c".into(), host: Some("web.local".into()), headers, ..http(port) };
    assert_eq!(outcome(of_http(probe)).await, Ok(()));
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    for line in ["host: web.local\r\n", "x-probe: 1\r\n", "user-agent: me\r\n", "connection: close\r\n"] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    let (port, heads) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(outcome(of_http(http(port))).await, Ok(()));
    assert!(heads.lock().unwrap()[0].contains(&format!("host: 127.0.0.1:{port}\r\n")));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeout_seconds = Some(Seconds::from_millis(150));
    let probe = Probe { timeout_seconds, ..of_http(http(port)) };
    assert_eq!(outcome(probe).await.unwrap_err().to_string(), "no answer within 0.15 s");
    assert_eq!(outcome(Probe { tcp: Some(TcpProbe { port }), ..Probe::default() }).await, Ok(()));
}

#[tokio::test]
async fn a_server_may_have_any_certificate() {
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let secure = |host: Option<&str>| HttpProbe {
        scheme: HttpScheme::Https,
        host: host.map(str::to_owned),
        ..http(port)
    };
    assert_eq!(outcome(of_http(secure(None))).await, Ok(()));
    assert_eq!(outcome(of_http(secure(Some("web.local:8443")))).await, Ok(()));
    let (plain, _) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    let error = outcome(of_http(HttpProbe { port: plain, ..secure(None) })).await;
    assert!(error.is_err(), "plain HTTP is no TLS");
}

/// A server of gRPC's health checking protocol, made of HTTP/2 alone: it is well as a whole, `shop.Cart` is not.
async fn grpc_server() -> u16 {
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Response, body::Bytes, body::Incoming, header::HeaderMap};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let (status, grpc_status): (u8, &str) = match &asked[..] {
            // No message's fields: the server as a whole.
            [0, 0, 0, 0, 0] => (1, "0"),
            [.., b'C', b'a', b'r', b't'] => (2, "0"),
            _ => (0, "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", grpc_status.parse().unwrap());
        trailers.insert("grpc-message", "never heard of it".parse().unwrap());
        let message = if grpc_status == "0" { vec![0, 0, 0, 0, 2, 8, status] } else { Vec::new() };
        let body = Full::new(Bytes::from(message)).with_trailers(async move { Some(Ok(trailers)) });
        let response = Response::builder().header("content-type", "application/grpc").body(body);
        Ok::<_, std::convert::Infallible>(response.unwrap())
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let connection = hyper::server::conn::http2::Builder::new(executor)
                .serve_connection(io, hyper::service::service_fn(answer));
            tokio::spawn(connection);
        }
    });
    port
}

#[tokio::test]
async fn a_server_says_by_grpc_whether_it_and_its_services_are_well() {
    let port = grpc_server().await;
    let probe = |service: &str| Probe {
        grpc: Some(GrpcProbe { port, service: service.into() }),
        timeout_seconds: Some(Seconds::from_millis(5_000)),
        ..Probe::default()
    };
    assert_eq!(outcome(probe("")).await, Ok(()));
    let error = outcome(probe("shop.Cart")).await.unwrap_err();
    assert_eq!(error.to_string(), "gRPC's health check of shop.Cart answered NOT_SERVING");
    let error = outcome(probe("shop.Till")).await.unwrap_err();
    assert_eq!(error.to_string(), "gRPC's health check of shop.Till answered NotFound: never heard of it");
    let (port, _) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let http = Probe { grpc: Some(GrpcProbe { port, service: String::new() }), ..probe("") };
    assert!(matches!(outcome(http).await, Err(CheckError::NotUnderstood { .. })));
}

#[tokio::test]
async fn a_command_is_well_that_ends_with_0() {
    let target = Here::of(&[2, 2, 2, 0]);
    let container = Container { readiness_probe: Some(exec()), ..Container::default() };
    let health = until(container.clone(), target.clone(), false, |h| h.failing.is_some()).await;
    let Some(Failing { error, .. }) = health.failing else { unreachable!() };
    assert_eq!(error.to_string(), "check ended with code 2: it says why");
    assert_eq!(target.commands.lock().unwrap()[0], ["check", "me"]);
    let health = until(container, target, false, |h| h.ready).await;
    assert_eq!(health, Health { ready: true, ..Health::default() });
}

#[tokio::test]
async fn nothing_else_is_asked_before_a_container_has_started() {
    let target = Here::of(&[1, 1, 0, 7]);
    let container = Container {
        startup_probe: Some(Probe { failure_threshold: Some(100), ..exec() }),
        liveness_probe: Some(exec()),
        ..Container::default()
    };
    let health = until(container.clone(), target, false, |h| h.is_lost).await;
    assert_eq!(health.failing.map(|failing| failing.probe), Some(ProbeKind::Liveness));
    let never = Here::of(&[1]);
    let container = Container { startup_probe: Some(exec()), ..container };
    let health = until(container, never, false, |h| h.ready || h.is_lost).await;
    assert_eq!((health.ready, health.is_lost), (false, true));
    assert_eq!(health.failing.map(|failing| failing.probe), Some(ProbeKind::Startup));
}

#[tokio::test]
async fn what_was_ready_stays_so_until_a_check_fails() {
    let target = Here::of(&[0, 0, 1]);
    let container = Container {
        // Not asked again: it has started.
        startup_probe: Some(quick(Probe {
            tcp: Some(TcpProbe { port: closed().await }),
            ..Probe::default()
        })),
        readiness_probe: Some(exec()),
        ..Container::default()
    };
    let (sender, mut health) = watch::channel(Health::default());
    let target: Arc<dyn Target> = target;
    let following = tokio::spawn(async move { follow(&container, &target, true, &sender).await });
    let first = health.wait_for(|health| *health != Health::default()).await.unwrap().clone();
    assert_eq!(first, Health { ready: true, ..Health::default() });
    let then = tokio::time::timeout(LIMIT, health.wait_for(|health| !health.ready)).await;
    assert!(then.unwrap().unwrap().failing.is_some());
    following.abort();
}

#[tokio::test]
async fn a_container_without_probes_is_ready_when_it_has_settled() {
    let health = until(Container::default(), Here::of(&[0]), false, |h| h.ready).await;
    assert_eq!(health, Health { ready: true, ..Health::default() });
}
