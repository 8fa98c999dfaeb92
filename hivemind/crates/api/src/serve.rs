//! Listeners, connections and their end.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    api::{Api, Serving},
    routes, web,
};

/// The most connections of one listener at a time, exec sessions included; others wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 512;

/// How long the head of a request may take, and a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head, and of what is buffered of a body.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// How long requests in progress may go on once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// A connection's place among [`CONNECTIONS_MAX`], held by all that goes on over it.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// Serves the whole API on a Unix socket, to whoever may connect to it: its owner and group, by the modes of the file.
/// Returns once `shutdown` is cancelled and all connections have ended, at the latest after 5 s.
pub async fn serve_unix(listener: UnixListener, api: Api, shutdown: CancellationToken) {
    let sessions = TaskTracker::new();
    let serving = Serving { api, shutdown: shutdown.clone(), sessions: sessions.clone() };
    serve(listener, routes::router(serving), sessions, shutdown).await;
}

/// Serves what may be seen without a token: the dashboard's files, `/healthz` and `/openapi.json`; everything under `/v1` is
/// refused. Only requests to `localhost`, to a loopback address, to the listener's own address or to one of `hosts`
/// (names or addresses without a port) are answered, against DNS rebinding. Returns as [`serve_unix`] does.
///
/// # Errors
/// The listener has no address.
pub async fn serve_tcp(
    listener: TcpListener,
    hosts: impl IntoIterator<Item = String>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let names = web::Names::new(listener.local_addr()?, hosts);
    serve(listener, web::router(names), TaskTracker::new(), shutdown).await;
    Ok(())
}

async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    sessions: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let next = async {
            let permit = places.clone().acquire_owned().await;
            (permit.expect("the semaphore is never closed"), listener.accept().await.0)
        };
        let (permit, io) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let connection = connection(io, router.clone(), Arc::new(permit), shutdown.clone());
        let abort = abort.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = abort.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    sessions.close();
    let ended = async {
        connections.wait().await;
        sessions.wait().await;
    };
    if timeout(GRACE, ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            sessions = sessions.len(),
            "Connections were cut off."
        );
        abort.cancel();
        connections.wait().await;
    }
}

/// Serves one connection until it ends, or until the request in progress has ended once `shutdown` is cancelled.
async fn connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    permit: Permit,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(permit.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Peers that hang up are everyday life.
        tracing::debug!(%error, "Connection ended early.");
    }
}
