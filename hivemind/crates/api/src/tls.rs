//! TLS on the web port.

use std::{io, time::Duration};

use hivemind_model::{ApiError, ErrorCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::serve::Connection;

/// What a TLS record with a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// How much of a request without TLS is read before its connection is closed, so that the answer gets through.
const REST_BYTES_MAX: u64 = 64 << 10;

/// Makes a connection of what was accepted: within TLS, if there is an `acceptor`, which has to be agreed on in `limit`.
pub(crate) async fn open(
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    limit: Duration,
) -> Option<Connection> {
    // What is written is written whole: a keystroke is not to wait for the answer to the one before.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return Some(Box::new(stream)) };
    let agreeing = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] != HANDSHAKE {
            refuse(&mut stream).await?;
            return Ok(None);
        }
        acceptor.accept(stream).await.map(Some)
    };
    match timeout(limit, agreeing).await {
        Ok(Ok(stream)) => Some(Box::new(stream?)),
        Ok(Err(error)) => {
            // Certificates that are not trusted, scanners, peers that hang up: everyday life.
            tracing::debug!(%error, "TLS was not agreed on.");
            None
        }
        Err(_) => {
            tracing::debug!("TLS was not agreed on in time.");
            None
        }
    }
}

/// Answers a request without TLS.
async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    let error = ApiError::new(
        ErrorCode::Malformed,
        "this port speaks TLS, and the request is without",
        "use https:// in the place of http://",
    );
    let body = serde_json::to_string(&error).map_err(io::Error::other)?;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // To close while something is unread would reset the connection and take the answer away from the peer.
    tokio::io::copy(&mut stream.take(REST_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
}
