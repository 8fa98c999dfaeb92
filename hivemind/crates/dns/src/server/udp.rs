//! Datagrams: what is known is answered by the socket's own task, what is not by a task for each query.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::limits::{QUERY_BYTES_MAX, WAITING_PER_SOCKET_MAX};
use crate::request::Transport;
use crate::responder::{Responder, Step};

/// A pause after the kernel failed to give a datagram, so that a lasting failure does not take a core.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves `socket` until `stopped` says so, then gives up what waits.
pub(super) async fn serve(socket: UdpSocket, responder: Arc<Responder>, mut stopped: watch::Receiver<bool>) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(result) = waiting.join_next(), if !waiting.is_empty() => {
                if let Err(error) = result {
                    error!(%error, "A DNS query's task failed.");
                }
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, client)) => {
                    handle(&socket, &responder, &mut waiting, &buffer[..length], client).await;
                }
                Err(error) => {
                    debug!(%error, "A DNS query could not be received.");
                    tokio::time::sleep(RECEIVE_ERROR_PAUSE).await;
                }
            },
        }
    }
    waiting.shutdown().await;
}

async fn handle(
    socket: &Arc<UdpSocket>,
    responder: &Arc<Responder>,
    waiting: &mut JoinSet<()>,
    packet: &[u8],
    client: SocketAddr,
) {
    match responder.receive(packet, Transport::Udp) {
        Step::Reply(reply) => send(socket, &reply, client).await,
        Step::Forward(request) if waiting.len() >= WAITING_PER_SOCKET_MAX => {
            send(socket, &responder.overload(&request), client).await;
        }
        Step::Forward(request) => {
            let (socket, responder) = (Arc::clone(socket), Arc::clone(responder));
            waiting.spawn(async move {
                let reply = responder.forward(&request).await;
                send(&socket, &reply, client).await;
            });
        }
        Step::Ignore => {}
    }
}

/// A reply that cannot be sent is lost, as any datagram may be; the client asks again.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        debug!(%error, %client, "A DNS reply could not be sent.");
    }
}
