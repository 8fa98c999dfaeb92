//! Ways to a daemon: the Unix socket of one on this machine, or its web port.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::{ApiError, ErrorCode};
use hyper::{
    Request,
    header::{self, HeaderValue},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use crate::{CONNECT_TIMEOUT, connection::Body, node::Linked, remote::Secured};

/// How a daemon is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Over its Unix socket.
    Socket(PathBuf),
    /// Over TCP with a token, as a rule within TLS.
    Remote(Arc<Secured>),
    /// Over TLS to the port that nodes have for one another.
    Node(Arc<Linked>),
}

/// A connection of either way.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Way {
    /// Says in `request` who is asked and who asks.
    pub(crate) fn address(&self, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        match self {
            // HTTP/1.1 wants a host; the socket has none.
            Way::Socket(_) => {
                headers.insert(header::HOST, HeaderValue::from_static("localhost"));
            }
            Way::Remote(remote) => {
                headers.insert(header::HOST, remote.host.clone());
                headers.insert(header::AUTHORIZATION, remote.authorization.clone());
            }
            Way::Node(node) => {
                headers.insert(header::HOST, node.host.clone());
            }
        }
    }

    /// Connects, within [`CONNECT_TIMEOUT`].
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ApiError> {
        let connecting = async {
            Ok(match self {
                Way::Socket(path) => {
                    Box::new(UnixStream::connect(path).await.map_err(|e| unreachable_socket(path, &e))?)
                        as Box<dyn Stream>
                }
                Way::Remote(remote) => remote.connect().await?,
                Way::Node(node) => node.connect().await?,
            })
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::DaemonUnreachable,
                format!("the daemon at {self} does not take connections"),
                match self {
                    Way::Socket(_) => "it hangs or is overloaded: see journalctl -u hivemind",
                    Way::Remote(_) | Way::Node(_) => {
                        "see whether it runs there, and whether a firewall is in between"
                    }
                },
            ))
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Socket(path) => path.display().fmt(f),
            Way::Remote(remote) => f.write_str(&remote.url),
            Way::Node(node) => node.address.fmt(f),
        }
    }
}

fn unreachable_socket(socket: &Path, error: &io::Error) -> ApiError {
    let socket = socket.display();
    let (message, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            format!("you may not use the daemon's socket {socket}"),
            "use sudo or join the group hivemind: sudo usermod -aG hivemind $USER, then log in again",
        ),
        io::ErrorKind::NotFound => (
            format!("no daemon is running: there is no socket {socket}"),
            "start it: sudo systemctl start hivemind (or sudo hivemind daemon); one with another socket: --socket PATH",
        ),
        io::ErrorKind::ConnectionRefused => (
            format!("no daemon is running: nobody listens at {socket}"),
            "start it: sudo systemctl start hivemind (or sudo hivemind daemon)",
        ),
        _ => (
            format!("the daemon cannot be reached at {socket}: {error}"),
            "start it: sudo systemctl start hivemind (or sudo hivemind daemon)",
        ),
    };
    ApiError::new(ErrorCode::DaemonUnreachable, message, hint)
}
