//! Sessions of a process inside a replica, over a WebSocket.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hivemind_model::{ApiError, ErrorCode, ExecChannel, ExecExit, TerminalSize};
use hyper::{Request, header, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::task::AbortOnDropHandle;

use crate::connection::{Answer, Body, broken, unreadable};

/// The most bytes of one message in either direction.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What to run in a replica, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// Whether it gets a terminal; its two outputs are one then.
    pub tty: bool,
    /// As which user, as the image's USER would say it; `None`: as the container's.
    pub user: Option<String>,
    /// In its container of this name; `None`: in its first one.
    pub container: Option<String>,
}

/// What comes from the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// It wrote this to its standard output, or to its terminal.
    Stdout(Bytes),
    /// It wrote this to its standard error.
    Stderr(Bytes),
    /// It ended, or could not be started; nothing comes after it.
    Exit(ExecExit),
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The way to the process. Dropping it does not end the process; dropping both halves closes the session.
pub struct ExecInput {
    socket: SplitSink<Socket, Message>,
}

/// The way from the process.
pub struct ExecOutput {
    socket: SplitStream<Socket>,
    _driver: AbortOnDropHandle<()>,
}

/// `request` as a WebSocket handshake (RFC 6455, section 4.1), and the accept key that has to come back.
pub(crate) fn handshake(request: hyper::http::request::Builder) -> (hyper::http::request::Builder, String) {
    let key = generate_key();
    let expected = derive_accept_key(key.as_bytes());
    let request = request
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key);
    (request, expected)
}

/// Makes a session of the answer to a [`handshake`].
pub(crate) async fn open(answer: Answer, expected_key: &str) -> Result<(ExecInput, ExecOutput), ApiError> {
    let accepted = answer.response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|key| key.as_bytes() != expected_key.as_bytes()) {
        return Err(ApiError::new(
            ErrorCode::Internal,
            "the daemon did not open a WebSocket for the session",
            "use a command line and a daemon of the same version",
        ));
    }
    let upgraded = hyper::upgrade::on(answer.response).await.map_err(|e| broken(&e))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    let (sink, stream) = socket.split();
    Ok((ExecInput { socket: sink }, ExecOutput { socket: stream, _driver: answer.driver }))
}

impl ExecInput {
    /// Sends `data` to the process's standard input; waits while the daemon cannot take more.
    ///
    /// # Errors
    /// `DaemonUnreachable` when the session is over.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), ApiError> {
        for piece in data.chunks(MESSAGE_BYTES_MAX / 2) {
            self.send(ExecChannel::Stdin, piece).await?;
        }
        Ok(())
    }

    /// Says that no more input will come.
    ///
    /// # Errors
    /// `DaemonUnreachable` when the session is over.
    pub async fn end(&mut self) -> Result<(), ApiError> {
        self.send(ExecChannel::StdinEnd, &[]).await
    }

    /// Tells the size of the terminal that the process is shown in.
    ///
    /// # Errors
    /// `DaemonUnreachable` when the session is over.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), ApiError> {
        let json = serde_json::to_vec(&size).expect("two numbers are always JSON");
        self.send(ExecChannel::Resize, &json).await
    }

    async fn send(&mut self, channel: ExecChannel, data: &[u8]) -> Result<(), ApiError> {
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.put_u8(channel as u8);
        message.put_slice(data);
        self.socket.send(Message::Binary(message.freeze())).await.map_err(|e| broken(&e))
    }
}

impl ExecOutput {
    /// What comes next. May be dropped and called again without losing anything.
    ///
    /// # Errors
    /// `DaemonUnreachable` when the session broke off before the process ended: it may still run then.
    pub async fn next(&mut self) -> Result<ExecEvent, ApiError> {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(cut()),
            };
            match message {
                Message::Binary(data) => {
                    if let Some(event) = read(data)? {
                        return Ok(event);
                    }
                }
                Message::Close(_) => return Err(cut()),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn cut() -> ApiError {
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        "the session was closed before the process ended",
        "see whether the daemon still runs: systemctl status hivemind",
    )
}

/// What a message means; `None` for channels that are of no interest to this side.
fn read(mut data: Bytes) -> Result<Option<ExecEvent>, ApiError> {
    if data.is_empty() {
        return Ok(None);
    }
    let channel = data.split_to(1)[0];
    Ok(match ExecChannel::from_byte(channel) {
        Some(ExecChannel::Stdout) => Some(ExecEvent::Stdout(data)),
        Some(ExecChannel::Stderr) => Some(ExecEvent::Stderr(data)),
        Some(ExecChannel::Exit) => {
            Some(ExecEvent::Exit(serde_json::from_slice(&data).map_err(|e| unreadable(&e))?))
        }
        Some(ExecChannel::Stdin | ExecChannel::Resize | ExecChannel::StdinEnd) | None => None,
    })
}

/// A request without a body, as all handshakes are.
pub(crate) fn bodiless(request: hyper::http::request::Builder) -> Result<Request<Body>, hyper::http::Error> {
    request.body(crate::connection::empty())
}
