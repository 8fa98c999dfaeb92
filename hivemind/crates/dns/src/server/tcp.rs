//! Connections: messages with their length before them, answered one after another (RFC 7766).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error};

use crate::limits::{CONNECTION_IDLE, CONNECTIONS_PER_SOCKET_MAX, QUERY_BYTES_MAX};
use crate::request::Transport;
use crate::responder::{Responder, Step};

/// A pause after the kernel failed to give a connection, as it does without free file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `stopped` says so, then closes its connections.
pub(super) async fn serve(
    listener: TcpListener,
    responder: Arc<Responder>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(result) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = result {
                    error!(%error, "A DNS connection's task failed.");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_PER_SOCKET_MAX => match accepted {
                Ok((stream, client)) => {
                    let responder = Arc::clone(&responder);
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &responder).await {
                            debug!(%error, %client, "A DNS connection ended early.");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "A DNS connection could not be accepted.");
                    tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Answers queries until the client closes, is silent for too long, or sends what is not a query.
async fn converse(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut packet = Vec::new();
    loop {
        match timeout(CONNECTION_IDLE, read_message(&mut stream, &mut packet)).await {
            Ok(read) => {
                if !read? {
                    return Ok(());
                }
            }
            Err(_) => return Ok(()),
        }
        let reply = match responder.receive(&packet, Transport::Tcp) {
            Step::Reply(reply) => reply,
            Step::Forward(request) => responder.forward(&request).await,
            Step::Ignore => return Ok(()),
        };
        timeout(CONNECTION_IDLE, write_message(&mut stream, &reply)).await??;
    }
}

/// Reads one message into `packet`; false if the client has closed instead.
async fn read_message(stream: &mut TcpStream, packet: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > QUERY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a query is longer than any can be"));
    }
    packet.resize(length, 0);
    stream.read_exact(packet).await?;
    Ok(true)
}

async fn write_message(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    let length =
        u16::try_from(reply.len()).map_err(|_| io::Error::other("a reply is longer than TCP carries"))?;
    let mut framed = Vec::with_capacity(2 + reply.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(reply);
    stream.write_all(&framed).await
}
