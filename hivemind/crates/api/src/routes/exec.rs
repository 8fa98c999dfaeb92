//! Sessions with a process in a replica.

use std::time::Duration;

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{BoxStream, SplitSink, SplitStream},
};
use hivemind_model::{ApiError, ErrorCode, ExecChannel, ExecExit, Replica};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    api::Serving,
    caller::{Caller, Ending},
    fault::{Fault, Outcome},
    node_access::{ExecInput, ExecOutput, ExecStreams},
    request::{ExecParams, ExecQuery, Place},
    serve::Permit,
};

/// The most bytes of one message in either direction.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How long a caller may take to read the last messages.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a process in a replica
///
/// A WebSocket of binary messages, the first byte of each a channel: 0 standard input, 1 standard output, 2 standard
/// error, 3 the exit as JSON (the last message, then the socket closes), 4 the terminal's size as JSON, 5 the end of
/// the input.
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/replicas/{replica}/exec", tag = "replicas", operation_id = "exec",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("replica" = String, Path, description = "The replica's name, short id or uid"),
        ExecParams,
    ),
    responses(
        (status = 101, description = "The session is open; its last message is this", body = ExecExit),
        (status = 400, description = "There is no command, or this is no WebSocket handshake", body = ApiError),
        (status = 404, description = "There is no such replica or container, or it does not run", body = ApiError),
        (status = 422, description = "The command cannot be started", body = ApiError),
        (status = 503, description = "containerd does not answer, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn exec(
    State(serving): State<Serving>,
    Extension(permit): Extension<Permit>,
    caller: Caller,
    Place((namespace, word)): Place<(String, String)>,
    ExecQuery(request): ExecQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Outcome<Response> {
    let upgrade = upgrade.map_err(|rejection| {
        Fault::malformed(rejection.body_text(), "open a WebSocket: `hivemind app exec` does")
    })?;
    let replica: Replica = serving.objects().find(&namespace, &word).await?;
    let streams = serving.node().exec(&replica, request).await?;
    let name = replica.metadata.name;
    tracing::info!(replica = name, namespace, "Exec session was opened.");
    let tracked = serving.sessions.token();
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    let failed = move |error: axum::Error| {
        tracing::debug!(replica = name, %error, "Exec session was not taken up.");
    };
    Ok(upgrade.on_failed_upgrade(failed).on_upgrade(move |socket| async move {
        // The session counts as a connection, and the server waits for it when it stops.
        let _held = (permit, tracked);
        run(socket, streams, caller.ending(&serving)).await;
    }))
}

/// Connects a socket to a process until the process ends, the socket closes, the caller's token is revoked or the daemon
/// stops.
async fn run(socket: WebSocket, streams: ExecStreams, ending: Ending) {
    let (mut sink, source) = socket.split();
    let ExecStreams { input, output } = streams;
    let error = tokio::select! {
        biased;
        done = write_output(&mut sink, output) => match done {
            Ok(()) => None,
            // Nobody listens any more.
            Err(_) => return,
        },
        refused = read_input(source, input) => match refused {
            Some(error) => Some(error),
            None => return,
        },
        told = ending.reached() => Some(told.unwrap_or_else(|| ApiError::new(
            ErrorCode::DaemonUnreachable,
            "the daemon is stopping",
            "open the session again once it runs",
        ))),
    };
    let farewell = async {
        if let Some(error) = error {
            send_exit(&mut sink, &ExecExit { code: None, error: Some(error) }).await?;
        }
        let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        sink.send(Message::Close(Some(close))).await
    };
    // Whether a caller that reads no more hears of it is its own affair.
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}

/// Sends what the process writes, up to its exit.
async fn write_output(
    sink: &mut SplitSink<WebSocket, Message>,
    mut output: BoxStream<'static, ExecOutput>,
) -> Result<(), axum::Error> {
    while let Some(piece) = output.next().await {
        match piece {
            ExecOutput::Stdout(data) => send(sink, ExecChannel::Stdout, &data).await?,
            ExecOutput::Stderr(data) => send(sink, ExecChannel::Stderr, &data).await?,
            ExecOutput::Exit(exit) => return send_exit(sink, &exit).await,
        }
    }
    let error = ApiError::new(ErrorCode::Internal, "the process was lost sight of before it ended", "");
    send_exit(sink, &ExecExit { code: None, error: Some(error) }).await
}

async fn send_exit(sink: &mut SplitSink<WebSocket, Message>, exit: &ExecExit) -> Result<(), axum::Error> {
    let json = serde_json::to_vec(exit).map_err(axum::Error::new)?;
    send(sink, ExecChannel::Exit, &json).await
}

async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    channel: ExecChannel,
    data: &[u8],
) -> Result<(), axum::Error> {
    for piece in data.chunks(MESSAGE_BYTES_MAX / 2) {
        let mut message = BytesMut::with_capacity(piece.len() + 1);
        message.put_u8(channel as u8);
        message.put_slice(piece);
        sink.send(Message::Binary(message.freeze())).await?;
    }
    Ok(())
}

/// Hands on what comes from the caller. Returns what it did wrong, or nothing once it is gone; goes on without an end
/// as long as the caller is there.
async fn read_input(mut source: SplitStream<WebSocket>, input: mpsc::Sender<ExecInput>) -> Option<ApiError> {
    let mut input = Some(input);
    while let Some(Ok(message)) = source.next().await {
        let piece = match message {
            Message::Binary(data) => match parse(data) {
                Ok(piece) => piece,
                Err(error) => return Some(error),
            },
            Message::Text(_) => return Some(wrong("messages of a session are binary")),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some(open) = &input else { continue };
        // A process that has closed its input, or is gone, is no fault: its exit will tell.
        if open.send(piece).await.is_err() {
            input = None;
        }
    }
    None
}

fn parse(mut data: Bytes) -> Result<ExecInput, ApiError> {
    if data.is_empty() {
        return Err(wrong("a message of a session begins with its channel"));
    }
    let channel = data.split_to(1)[0];
    match ExecChannel::from_byte(channel) {
        Some(ExecChannel::Stdin) => Ok(ExecInput::Stdin(data)),
        Some(ExecChannel::StdinEnd) => Ok(ExecInput::StdinEnd),
        Some(ExecChannel::Resize) => serde_json::from_slice(&data)
            .map(ExecInput::Resize)
            .map_err(|error| wrong(&format!("the terminal's size cannot be read: {error}"))),
        Some(ExecChannel::Stdout | ExecChannel::Stderr | ExecChannel::Exit) | None => {
            Err(wrong(&format!("channel {channel} does not go to a process")))
        }
    }
}

fn wrong(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Malformed, what, "use a command line and a daemon of the same version")
}
