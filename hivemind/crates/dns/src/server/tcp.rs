//! Queries over TCP (RFC 7766): a task for each connection, of which there are only so many; the queries of one are
//! answered one after another.

mod connections;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, timeout};
use tracing::{debug, warn};

use super::Context;
use super::bind::Protocol;
use super::room::Room;
use crate::limits::{
    CONNECTION_IDLE, CONNECTION_LIFETIME, QUERY_BYTES_MAX, WAITING_PER_SOCKET_MAX, WAITING_RESERVE,
};
use crate::losses::Loss;
use crate::responder::Step;
pub(super) use connections::Connections;
use connections::Registration;

/// How long nothing is accepted after the process ran out of descriptors or memory.
const EXHAUSTION_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Answers connections to `listener` until `stopped` says so, then closes those that are open.
/// Never fails (the result is what serving UDP has): while no connection can be accepted, it is told once and tried again.
pub(super) async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let room = Room::new(WAITING_PER_SOCKET_MAX, WAITING_RESERVE);
    let mut open = JoinSet::new();
    let mut is_refused = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                is_refused = false;
                admit(stream, client, &context, &room, &mut open);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !is_refused {
                    warn!(%error, "The DNS server accepts no TCP connections for now; it goes on trying.");
                }
                is_refused = true;
                tokio::select! {
                    _ = stopped.changed() => break,
                    () = time::sleep(EXHAUSTION_PAUSE) => {}
                }
            }
        }
    }
    open.shutdown().await;
    Ok(())
}

/// Whether only the connection failed that was to be accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}

/// Starts a task for a connection, for which another one may have to go.
fn admit(
    stream: TcpStream,
    client: SocketAddr,
    context: &Arc<Context>,
    room: &Arc<Room>,
    open: &mut JoinSet<()>,
) {
    let admission = context.connections.admit(client.ip());
    context.responder.losses.count(Loss::Connections, admission.closed);
    let Some(registration) = admission.registration else { return };
    let (context, room) = (Arc::clone(context), Arc::clone(room));
    open.spawn(async move {
        let conversation = converse(stream, client, &context, &room, &registration);
        tokio::select! {
            () = registration.evicted() => {}
            ended = timeout(CONNECTION_LIFETIME + CONNECTION_IDLE, conversation) => {
                if let Ok(Err(error)) = ended {
                    debug!(%error, %client, "A DNS connection has ended.");
                }
            }
        }
    });
}

/// Answers one query after another, until the client closes the connection or its time is over.
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    context: &Context,
    room: &Arc<Room>,
    registration: &Registration,
) -> io::Result<()> {
    let begun = time::Instant::now();
    let mut query = Vec::new();
    let mut reply = Vec::new();
    while begun.elapsed() < CONNECTION_LIFETIME {
        let deadline = time::Instant::now() + CONNECTION_IDLE;
        time::timeout_at(deadline, read_query(&mut stream, &mut query)).await??;
        registration.set_busy(true);
        // The length of the reply goes before it.
        reply.clear();
        reply.extend_from_slice(&[0; 2]);
        let now = Instant::now();
        match context.responder.receive(&query, Protocol::Tcp, now, &mut reply) {
            Step::Reply => context.responder.count_at_once(now, 1),
            Step::Nothing => {
                registration.set_busy(false);
                continue;
            }
            Step::Forward(pending) => {
                let waited = match room.enter(client.ip()) {
                    Some(place) => context.responder.forward(&pending, place.is_modest).await,
                    None => context.responder.overload(&pending),
                };
                reply.extend_from_slice(&waited);
            }
        }
        let length = u16::try_from(reply.len() - 2).map_err(io::Error::other)?;
        reply[..2].copy_from_slice(&length.to_be_bytes());
        registration.set_busy(false);
        timeout(CONNECTION_IDLE, stream.write_all(&reply)).await??;
    }
    Ok(())
}

/// Reads one query. Of one that is too long, one byte more than the limit is kept, by which it is known, and the rest
/// thrown away.
async fn read_query(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    query.clear();
    query.resize(length.min(QUERY_BYTES_MAX + 1), 0);
    stream.read_exact(query).await?;
    let rest = (length - query.len()) as u64;
    let skipped = tokio::io::copy(&mut stream.take(rest), &mut tokio::io::sink()).await?;
    if skipped < rest { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
