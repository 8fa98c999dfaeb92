//! The client against a small server on a Unix socket that speaks the API's contract.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, Request,
        ws::{Message, WebSocketUpgrade},
    },
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use futures::{StreamExt, stream};
use hivemind_client::{Client, ExecEvent, ExecRequest, LogOptions, Selection, WatchItem};
use hivemind_model::{
    ApiError, App, AppService, AppSpec, AppStatus, Container, ErrorCode, ExecChannel, ExecExit, List,
    Metadata, Replica, Scale, Template, TerminalSize, WatchEvent, WatchKind,
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

struct Server {
    client: Client,
    socket: PathBuf,
    _task: AbortOnDropHandle<()>,
    _directory: TempDir,
}

fn serve(router: Router) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server {
        client: Client::unix(&socket),
        socket,
        _task: AbortOnDropHandle::new(task),
        _directory: directory,
    }
}

fn app(name: &str) -> App {
    App {
        metadata: Metadata::new("default", name),
        spec: AppSpec {
            replicas: 1,
            hostnames: Vec::new(),
            service: AppService::default(),
            depends_on: Vec::new(),
            template: Template {
                containers: vec![Container { image: "nginx:latest".into(), ..Container::default() }],
                ..Template::default()
            },
        },
        status: AppStatus::default(),
    }
}

fn refuse(error: ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.kind().http_status()).unwrap();
    (status, Json(error)).into_response()
}

#[tokio::test]
async fn an_app_is_made_read_scaled_and_deleted_at_its_paths() {
    let router = Router::new()
        .route(
            "/v1/namespaces/{ns}/apps",
            post(|Path(ns): Path<String>, uri: Uri, Json(mut app): Json<App>| async move {
                assert_eq!(ns, "default");
                app.metadata.generation = if uri.query() == Some("dryRun=true") { 0 } else { 1 };
                (StatusCode::CREATED, Json(app))
            }),
        )
        .route(
            "/v1/namespaces/{ns}/apps/{name}",
            get(|Path((_, name)): Path<(String, String)>| async move { Json(app(&name)) })
                .put(
                    |Path((ns, name)): Path<(String, String)>, uri: Uri, Json(mut app): Json<App>| async move {
                        assert_eq!((ns.as_str(), &name), ("default", &app.metadata.name));
                        app.metadata.generation = if uri.query() == Some("dryRun=true") { 0 } else { 1 };
                        Json(app)
                    },
                )
                .delete(|| async { StatusCode::NO_CONTENT }),
        )
        .route(
            "/v1/namespaces/{ns}/apps/{name}/scale",
            axum::routing::put(
                |Path((_, name)): Path<(String, String)>, Json(scale): Json<Scale>| async move {
                    let mut app = app(&name);
                    app.spec.replicas = scale.replicas;
                    Json(app)
                },
            ),
        )
        .route(
            "/v1/namespaces/{ns}/apps/{name}/restart",
            post(|Path((_, name)): Path<(String, String)>| async move { Json(app(&name)) }),
        );
    let server = serve(router);
    let client = &server.client;
    assert_eq!(client.create_app(&app("web")).await.unwrap().metadata.generation, 1);
    assert_eq!(client.try_app(&app("web")).await.unwrap().metadata.generation, 0);
    assert_eq!(client.app("default", "web").await.unwrap(), app("web"));
    assert_eq!(client.replace_app(&app("web")).await.unwrap().metadata.generation, 1);
    assert_eq!(client.try_replace_app(&app("web")).await.unwrap().metadata.generation, 0);
    assert_eq!(client.scale_app("default", "web", Scale { replicas: 3 }).await.unwrap().spec.replicas, 3);
    assert_eq!(client.restart_app("default", "web").await.unwrap().metadata.name, "web");
    client.delete_app("default", "web").await.unwrap();
}

#[tokio::test]
async fn a_list_asks_for_what_was_selected_and_find_takes_names_and_ids() {
    let router = Router::new().route(
        "/v1/apps",
        get(|Query(query): Query<Vec<(String, String)>>| async move {
            assert_eq!(query, [("namespace".to_owned(), "default".to_owned())]);
            let mut web = app("web");
            web.metadata.id = "app-k3f9q".into();
            Json(List { resource_version: 7, items: vec![app("other"), web] })
        }),
    );
    let server = serve(router);
    let list = server.client.list::<App>(&Selection::namespace("default")).await.unwrap();
    assert_eq!((list.resource_version, list.items.len()), (7, 2));
    for word in ["web", "app-k3f9q"] {
        assert_eq!(server.client.find::<App>(Some("default"), word).await.unwrap().metadata.name, "web");
    }
    let error = server.client.find::<App>(Some("default"), "nope").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AppNotFound);
}

#[tokio::test]
async fn the_daemons_own_errors_come_through_whole() {
    let router = Router::new().route(
        "/v1/namespaces/{ns}/apps/{name}",
        delete(|| async {
            refuse(
                ApiError::new(ErrorCode::AppNotFound, "no app named \"web\"", "see `hivemind app ls`")
                    .at("name"),
            )
        }),
    );
    let server = serve(router);
    let error = server.client.delete_app("default", "web").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AppNotFound);
    assert_eq!(error.field.as_deref(), Some("name"));
    assert_eq!(error.hint, "see `hivemind app ls`");
}

#[tokio::test]
async fn an_answer_that_is_not_of_the_api_is_told_as_such() {
    let server = serve(Router::new().fallback(|| async { (StatusCode::BAD_GATEWAY, "some proxy") }));
    let error = server.client.status().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("502") && error.message.contains("some proxy"), "{}", error.message);
}

#[tokio::test]
async fn without_a_socket_the_error_says_how_to_start_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::unix(directory.path().join("none.sock")).health().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable);
    assert!(error.hint.contains("systemctl start hivemind"), "{}", error.hint);

    let abandoned = directory.path().join("old.sock");
    drop(std::os::unix::net::UnixListener::bind(&abandoned).unwrap());
    let error = Client::unix(abandoned).health().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable);
    assert!(error.message.contains("nobody listens"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_answers_is_given_up_after_the_time_allowed() {
    let server = serve(Router::new().fallback(|| async { std::future::pending::<()>().await }));
    let error = server.client.status().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TimedOut);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_then_the_bookmark_then_changes() {
    let (changes, receiver) = mpsc::channel::<String>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let router = Router::new().route(
        "/v1/replicas",
        get(move |uri: Uri| async move {
            assert_eq!(uri.query(), Some("namespace=default&app=web&watch=true"));
            let mut receiver = receiver.lock().unwrap().take().unwrap();
            Body::from_stream(stream::poll_fn(move |cx| {
                receiver.poll_recv(cx).map(|line| line.map(Ok::<_, io::Error>))
            }))
            .into_response()
        }),
    );
    let server = serve(router);
    let selection = Selection::app("default", "web");
    let watching = server.client.watch::<Replica>(&selection);
    changes.send("\n".into()).await.unwrap();
    let mut watch = watching.await.unwrap();
    changes.send("{\"type\":\"bookmark\",\"resourceVersion\":12}\n{\"type\":\"add".into()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchItem::Synced { resource_version: 12 });
    let replica = Replica {
        metadata: Metadata::new("default", "web-k3f9q"),
        spec: hivemind_model::ReplicaSpec {
            app: "web".into(),
            node: "n".into(),
            identity: 0,
            template_hash: String::new(),
            template: Template::default(),
        },
        status: hivemind_model::ReplicaStatus::default(),
    };
    let event = WatchEvent { kind: WatchKind::Added, object: replica };
    let json = serde_json::to_string(&event).unwrap();
    let rest = json.strip_prefix("{\"type\":\"add").unwrap();
    changes.send(format!("{rest}\n")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchItem::Event(event));
    drop(changes);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error() {
    let (pieces, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let router = Router::new().route(
        "/v1/namespaces/{ns}/replicas/{name}/logs",
        get(move |uri: Uri| async move {
            assert_eq!(uri.query(), Some("tail=10&follow=true"));
            let mut receiver = receiver.lock().unwrap().take().unwrap();
            Body::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx))).into_response()
        }),
    );
    let server = serve(router);
    let line = r#"{"replica":"web-1","time":"2026-01-01T00:00:00Z","stream":"stdout","message":"hello"}"#;
    pieces.send(Ok(Bytes::from(format!("{line}\n")))).await.unwrap();
    let options = LogOptions { container: None, tail: Some(10), follow: true };
    let mut logs = server.client.logs("default", "web-1", options).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().message, "hello");
    pieces.send(Err(io::Error::other("the daemon died"))).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap_err().code, ErrorCode::DaemonUnreachable);
    assert!(logs.next().await.is_none());
}

#[tokio::test]
async fn an_error_that_ends_a_stream_is_the_daemons_own() {
    let line = || {
        let error = ApiError::new(ErrorCode::StoreFailed, "the watch fell too far behind", "watch again");
        format!("{}\n", serde_json::json!({ "type": "error", "error": error }))
    };
    let router = Router::new()
        .route("/v1/apps", get(move || async move { line() }))
        .route("/v1/namespaces/{ns}/replicas/{name}/logs", get(move || async move { line() }));
    let server = serve(router);
    let mut watch = server.client.watch::<App>(&Selection::default()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap_err().code, ErrorCode::StoreFailed);
    let mut logs = server.client.logs("default", "web-1", LogOptions::default()).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap_err().code, ErrorCode::StoreFailed);
}

async fn echo_until_end(upgrade: WebSocketUpgrade, uri: Uri) -> Response {
    if !uri.query().unwrap_or_default().contains("command=cat&command=a%20b&tty=true&user=nobody") {
        return refuse(ApiError::new(ErrorCode::NothingRunning, format!("{uri}"), ""));
    }
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(Message::Binary(data))) = socket.recv().await {
            let reply =
                |channel: ExecChannel, data: &[u8]| Message::Binary([&[channel as u8], data].concat().into());
            match ExecChannel::from_byte(data[0]).unwrap() {
                ExecChannel::Stdin => socket.send(reply(ExecChannel::Stdout, &data[1..])).await.unwrap(),
                ExecChannel::Resize => socket.send(reply(ExecChannel::Stderr, &data[1..])).await.unwrap(),
                ExecChannel::StdinEnd => {
                    let exit = serde_json::to_vec(&ExecExit { code: Some(7), error: None }).unwrap();
                    socket.send(reply(ExecChannel::Exit, &exit)).await.unwrap();
                    return;
                }
                other => panic!("{other:?} is not for the server"),
            }
        }
    })
}

#[tokio::test]
async fn a_session_carries_input_output_size_end_and_exit_code() {
    let router = Router::new().route("/v1/namespaces/{ns}/replicas/{name}/exec", any(echo_until_end));
    let server = serve(router);
    let request = ExecRequest {
        command: vec!["cat".into(), "a b".into()],
        tty: true,
        user: Some("nobody".into()),
        container: None,
    };
    let (mut input, mut output) = server.client.exec("default", "web-1", &request).await.unwrap();
    input.write(b"hello").await.unwrap();
    assert_eq!(output.next().await.unwrap(), ExecEvent::Stdout(Bytes::from_static(b"hello")));
    input.resize(TerminalSize { rows: 24, columns: 80 }).await.unwrap();
    let ExecEvent::Stderr(size) = output.next().await.unwrap() else { panic!("no size") };
    assert_eq!(serde_json::from_slice::<TerminalSize>(&size).unwrap().columns, 80);
    input.end().await.unwrap();
    assert_eq!(output.next().await.unwrap(), ExecEvent::Exit(ExecExit { code: Some(7), error: None }));
    assert!(output.next().await.is_err());
}

#[tokio::test]
async fn a_session_that_is_refused_tells_the_daemons_error() {
    let router = Router::new().route("/v1/namespaces/{ns}/replicas/{name}/exec", any(echo_until_end));
    let server = serve(router);
    let Err(error) = server.client.exec("default", "web-1", &ExecRequest::default()).await else {
        panic!("the session was opened")
    };
    assert_eq!(error.code, ErrorCode::NothingRunning);
}

#[tokio::test]
async fn an_archive_is_sent_whole_and_without_a_time_limit_of_its_own() {
    let router = Router::new().route(
        "/v1/images/import",
        post(|request: Request| async move {
            let mut pieces = request.into_body().into_data_stream();
            let mut length = 0;
            while let Some(piece) = pieces.next().await {
                length += piece.unwrap().len();
            }
            Json(serde_json::json!({ "references": [format!("bytes:{length}")] }))
        }),
    );
    let server = serve(router);
    let archive = std::io::Cursor::new(vec![7_u8; 3 << 20]);
    assert_eq!(server.client.import(archive).await.unwrap().references, ["bytes:3145728"]);
}

struct BrokenDisk;

impl tokio::io::AsyncRead for BrokenDisk {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("bad sector")))
    }
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_is_not_blamed_on_the_daemon() {
    let router = Router::new().route("/v1/images/import", post(|_: Bytes| async { StatusCode::OK }));
    let server = serve(router);
    let error = server.client.import(BrokenDisk).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::FileFailed);
    assert!(error.message.contains("bad sector"), "{}", error.message);
}

#[tokio::test]
async fn a_client_outlives_a_daemon_that_is_started_again() {
    let ok = || Router::new().route("/healthz", get(|| async { "ok" }));
    let server = serve(ok());
    server.client.health().await.unwrap();
    let (client, socket) = (server.client.clone(), server.socket.clone());
    server._task.abort();
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(client.health().await.unwrap_err().code, ErrorCode::DaemonUnreachable);
    let listener = UnixListener::bind(&socket).unwrap();
    let _again = AbortOnDropHandle::new(tokio::spawn(async move {
        axum::serve(listener, ok()).await.unwrap();
    }));
    tokio::time::timeout(Duration::from_secs(5), client.health()).await.unwrap().unwrap();
}
