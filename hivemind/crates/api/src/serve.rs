//! Listeners, connections and their end.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use axum::{Router, body::Body, middleware, serve::Listener};
use hivemind_pki::Peer;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    api::{Api, Serving},
    routes, statistics, tls, web,
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

/// How long TLS may take to be agreed on.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The web port's particulars.
pub struct Web {
    /// Names and addresses without a port under which it may be asked, besides `localhost`, loopback addresses and the
    /// listener's own address.
    pub hosts: Vec<String>,
    /// The TLS to speak; `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Serves the whole API on a Unix socket, to whoever may connect to it: its owner and group, by the modes of the file.
/// Returns once `shutdown` is cancelled and all connections have ended, at the latest after 5 s.
pub async fn serve_unix(listener: UnixListener, api: Api, shutdown: CancellationToken) {
    let serving = Serving::new(api, &shutdown);
    let router = routes::router(serving.clone());
    let open = |stream| async {
        // One that only says no more waits for its answer.
        let is_gone = is_abandoned(&stream, PollFlags::empty());
        (!is_gone).then(|| Opened::from(Box::new(stream) as Connection))
    };
    serve(listener, open, router, serving).await;
}

/// Serves the dashboard to everyone, and the API to those who have a token or a session. Only requests to the names that
/// [`Web::hosts`] says are answered, against DNS rebinding, and none of other sites' pages. Returns as [`serve_unix`]
/// does.
///
/// # Errors
/// The listener has no address.
pub async fn serve_web(
    listener: TcpListener,
    web: Web,
    api: Api,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let serving = Serving::new(api, &shutdown);
    let names = web::Names::new(listener.local_addr()?, web.hosts, web.tls.is_some());
    let router = web::router(names, serving.clone());
    let acceptor = web.tls.map(TlsAcceptor::from);
    let open = move |stream| tls::open(stream, acceptor.clone(), HANDSHAKE_TIMEOUT);
    let access = serving.api.access.clone();
    tokio::join!(serve(listener, open, router, serving), access.follow(&shutdown));
    Ok(())
}

/// Serves metrics, to everyone who may connect: `/metrics` and `/healthz`, nothing else. Returns as [`serve_unix`] does.
pub async fn serve_metrics(listener: TcpListener, api: Api, shutdown: CancellationToken) {
    let serving = Serving::new(api, &shutdown);
    let router = routes::metrics_router(serving.clone());
    serve(listener, |stream| tls::open(stream, None, HANDSHAKE_TIMEOUT), router, serving).await;
}

/// Whether who connected has hung up. They may have waited for a daemon that was away, and given up: what they asked is not to
/// be done any more. Of a Unix socket the kernel tells that always, of another one by `sign`.
pub(crate) fn is_abandoned(stream: &impl AsFd, sign: PollFlags) -> bool {
    let mut polled = [PollFd::new(stream, sign)];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1..))
}

/// A connection over which requests come.
pub(crate) type Connection = Box<dyn Stream>;

/// What a connection is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, and who is at its other end if that was shown by a certificate of the cluster.
pub(crate) struct Opened {
    pub(crate) io: Connection,
    pub(crate) peer: Option<Peer>,
}

impl From<Connection> for Opened {
    fn from(io: Connection) -> Self {
        Opened { io, peer: None }
    }
}

/// Serves `router` on what `open` makes of each connection.
pub(crate) async fn serve<L: Listener, F>(
    mut listener: L,
    open: impl Fn(L::Io) -> F,
    router: Router,
    serving: Serving,
) where
    F: Future<Output = Option<Opened>> + Send + 'static,
{
    let Serving { api, shutdown, sessions } = serving;
    let router = router.layer(middleware::from_fn_with_state(api.counters.clone(), statistics::count));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let next = async {
            let permit = places.clone().acquire_owned().await;
            (permit.expect("the semaphore is never closed"), listener.accept().await.0)
        };
        // Who comes later waits for the next server.
        let (permit, io) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let (opened, router, permit) = (open(io), router.clone(), Arc::new(permit));
        let (abort, shutdown) = (abort.clone(), shutdown.clone());
        connections.spawn(async move {
            let serving = async {
                // What has been asked by now is answered.
                let opened = tokio::select! {
                    biased;
                    opened = opened => opened,
                    () = shutdown.cancelled() => None,
                };
                if let Some(io) = opened {
                    connection(io, router, permit, shutdown).await;
                }
            };
            tokio::select! {
                () = serving => {}
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
async fn connection(opened: Opened, router: Router, permit: Permit, shutdown: CancellationToken) {
    let Opened { io, peer } = opened;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(permit.clone());
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
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
        biased;
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
