//! Queries over UDP: read several at a time, answered at once where that can be, and sent several at a time.
//!
//! A datagram that has not been looked at yet stands in the kernel's buffer, which is bounded, and what does not fit there
//! is counted. What has to wait for upstreams gets a task, of which there are only so many.

mod batch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tracing::debug;

use super::Context;
use super::room::Room;
use crate::limits::{WAITING_PER_SOCKET_MAX, WAITING_RESERVE};
use crate::losses::Loss;
use crate::responder::Pending;
use batch::Batch;

/// Answers on `socket` until `stopped` says so, then abandons what waits. What was dropped of a socket that is adopted is
/// not counted once more.
///
/// # Errors
/// The socket fails.
pub(super) async fn serve(
    socket: UdpSocket,
    is_adopted: bool,
    context: Arc<Context>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let room = Room::new(WAITING_PER_SOCKET_MAX, WAITING_RESERVE);
    let mut batch = Batch::new(is_adopted);
    let mut waiting = JoinSet::new();
    let ended = loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break Ok(()),
            Some(_) = waiting.join_next() => {}
            ready = socket.readable() => {
                if let Err(error) = ready {
                    break Err(error);
                }
                let pending = match batch.receive(&socket, &context) {
                    Ok(pending) => pending,
                    Err(error) if is_passing(&error) => continue,
                    Err(error) => break Err(error),
                };
                batch.send(&socket, &context).await;
                for (client, pending) in pending {
                    wait(&socket, &context, &room, client, pending, &mut waiting);
                }
                // However many there are, others get their turn.
                yield_now().await;
            }
        }
    };
    waiting.shutdown().await;
    ended
}

/// Whether the socket goes on after this: it was an earlier reply that did not reach its client.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::Interrupted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::OutOfMemory
    )
}

/// Lets a query wait for upstreams, if there is room.
fn wait(
    socket: &Arc<UdpSocket>,
    context: &Arc<Context>,
    room: &Arc<Room>,
    client: SocketAddr,
    pending: Box<Pending>,
    waiting: &mut JoinSet<()>,
) {
    let Some(place) = room.enter(client.ip()) else {
        let reply = context.responder.overload(&pending);
        // There is no waiting here; a reply that is not taken is lost as any datagram may be.
        if socket.try_send_to(&reply, client).is_err() {
            context.responder.losses.count(Loss::Replies, 1);
        }
        return;
    };
    let (socket, context) = (Arc::clone(socket), Arc::clone(context));
    waiting.spawn(async move {
        let reply = context.responder.forward(&pending, place.is_modest).await;
        if let Err(error) = socket.send_to(&reply, client).await {
            // The client asks again.
            debug!(%error, %client, "A DNS reply could not be sent.");
        }
        drop(place);
    });
}
