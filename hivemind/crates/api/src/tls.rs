//! TLS on the web port.

use std::{io, time::Duration};

use hivemind_model::{ApiError, ErrorCode};
use hivemind_pki::Peer;
use rustix::event::PollFlags;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::serve::{Connection, Opened, is_abandoned};

/// What a TLS record with a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// How much of a request without TLS is read before its connection is closed, so that the answer gets through.
const REST_BYTES_MAX: u64 = 64 << 10;

/// Makes a connection of what was accepted: within TLS, if there is an `acceptor`, which has to be agreed on in `limit`.
pub(crate) async fn open(
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    limit: Duration,
) -> Option<Opened> {
    // What is written is written whole: a keystroke is not to wait for the answer to the one before.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        let is_gone = is_abandoned(&stream, PollFlags::RDHUP);
        return (!is_gone).then(|| (Box::new(stream) as Connection).into());
    };
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
        Ok(Ok(stream)) => {
            let stream = stream?;
            let shown = stream.get_ref().1.peer_certificates();
            let peer = shown.and_then(|shown| Peer::of(shown.first()?));
            Some(Opened { io: Box::new(stream), peer })
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::{
        ServerConfig,
        crypto::ring,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };

    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_go_on_with_the_handshake_is_given_up() {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for said in [&[][..], &[HANDSHAKE], &[HANDSHAKE, 3, 1, 0, 200, 1]] {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            peer.write_all(said).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert!(open(stream, Some(acceptor.clone()), Duration::from_millis(50)).await.is_none());
            // The peer is told by the end of its connection.
            let ended = timeout(Duration::from_secs(10), peer.read(&mut [0; 8])).await.unwrap();
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        }
    }
}
