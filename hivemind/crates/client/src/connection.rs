//! One HTTP/1.1 connection, for one request.

use std::io;

use bytes::{Buf, Bytes};
use hivemind_model::{ApiError, ErrorCode};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::{REQUEST_TIMEOUT, way::Way};

/// The most bytes that an answer which is not a stream may have.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The most bytes of an answer that is not of the API which are shown.
const EXCERPT_BYTES_MAX: usize = 200;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body without content.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body with `value` as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Body, ApiError> {
    let text = serde_json::to_vec(value)
        .map_err(|e| ApiError::new(ErrorCode::Internal, format!("a request cannot be written: {e}"), ""))?;
    Ok(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync())
}

/// A successful answer whose body is still to be read. Dropping it closes the connection.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) driver: AbortOnDropHandle<()>,
}

impl Answer {
    /// Reads the whole body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let body = read_whole(self.response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|e| unreadable(&e))
    }
}

/// Connects, sends `request` and waits for the head of the answer.
///
/// # Errors
/// The daemon's own error if it answered with one; `DaemonUnreachable` or `TimedOut` if it did not.
pub(crate) async fn send(way: &Way, mut request: Request<Body>) -> Result<Answer, ApiError> {
    way.address(&mut request);
    let (mut sender, driver) = connect(way).await?;
    let response = sender.send_request(request).await.map_err(|e| unsent(&e))?;
    if response.status().is_success() || response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer { response, driver });
    }
    Err(error_of(response).await)
}

/// As [`send`], with a limit of [`REQUEST_TIMEOUT`].
pub(crate) async fn send_in_time(way: &Way, request: Request<Body>) -> Result<Answer, ApiError> {
    in_time(send(way, request)).await
}

/// `request` as JSON within [`REQUEST_TIMEOUT`].
pub(crate) async fn fetch<T: DeserializeOwned>(way: &Way, request: Request<Body>) -> Result<T, ApiError> {
    in_time(async { send(way, request).await?.json().await }).await
}

/// As [`fetch`], of an answer that is text.
pub(crate) async fn fetch_text(way: &Way, request: Request<Body>) -> Result<String, ApiError> {
    let body = in_time(async { read_whole(send(way, request).await?.response.into_body()).await }).await?;
    String::from_utf8(body.into()).map_err(|e| unreadable(&e))
}

async fn in_time<T>(work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    timeout(REQUEST_TIMEOUT, work).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            ErrorCode::TimedOut,
            format!("the daemon did not answer within {} s", REQUEST_TIMEOUT.as_secs()),
            "see what it is doing: journalctl -u hivemind",
        ))
    })
}

type Connection = (http1::SendRequest<Body>, AbortOnDropHandle<()>);

async fn connect(way: &Way) -> Result<Connection, ApiError> {
    let stream = way.connect().await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    // The end of the connection is seen by whoever reads the answer; the driver has nothing to add.
    let driver = tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok((sender, AbortOnDropHandle::new(driver)))
}

/// The request did not get through: either the connection broke off, or its body could not be read on this side.
fn unsent(error: &hyper::Error) -> ApiError {
    if !error.is_user() {
        return broken(error);
    }
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    ApiError::new(
        ErrorCode::FileFailed,
        format!("what was to be sent cannot be read: {cause}"),
        "check the file and the disk that it is on",
    )
}

/// The connection ended before the answer did.
pub(crate) fn broken(error: &dyn std::error::Error) -> ApiError {
    let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        format!("the connection to the daemon broke off ({error}{cause})"),
        "see whether it still runs: systemctl status hivemind",
    )
}

/// The answer is not what the API promises.
pub(crate) fn unreadable(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(
        ErrorCode::Internal,
        format!("the daemon's answer cannot be read: {error}"),
        "use a command line and a daemon of the same version: hivemind --version, hivemind status",
    )
}

async fn read_whole(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => Err(broken(error.as_ref())),
    }
}

async fn error_of(response: Response<Incoming>) -> ApiError {
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    let body = match read_whole(response.into_body()).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    if let Ok(error) = serde_json::from_slice::<ApiError>(&body) {
        return error;
    }
    let excerpt =
        String::from_utf8_lossy(&body.chunk()[..body.len().min(EXCERPT_BYTES_MAX)]).trim().to_owned();
    let what = if is_json { "an error of an unknown form" } else { "something that is not of the API" };
    ApiError::new(
        ErrorCode::Internal,
        format!("the daemon answered {status} with {what}: {excerpt:?}"),
        "use a command line and a daemon of the same version, and the right --socket or --context",
    )
}
