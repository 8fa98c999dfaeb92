//! Streams as bodies: NDJSON for programs, Server-Sent Events for browsers.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use hivemind_model::{ApiError, ErrorCode, List, WatchEvent, WatchKind};
use hivemind_store::{Object, ObjectWatch};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{api::Serving, caller::Ending, watches::WatchPlace};

/// How long a stream that begins may be silent before it shows that it lives.
const FIRST_SIGN: Duration = Duration::from_millis(100);

/// One line of a watch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum WatchLine<T> {
    /// The object is there and was not, as far as this watch has told.
    Added {
        /// The object.
        object: T,
    },
    /// The object changed.
    Modified {
        /// The object.
        object: T,
    },
    /// The object is gone.
    Deleted {
        /// The object as it last was; its `resourceVersion` is the revision that deleted it.
        object: T,
    },
    /// All that existed when the watch began has been told.
    Bookmark {
        /// The revision of which that is true.
        #[serde(rename = "resourceVersion")]
        resource_version: u64,
    },
    /// The watch cannot go on; the last line.
    Error {
        /// Why.
        error: ApiError,
    },
}

impl<T> WatchLine<T> {
    /// The object that it is about, if it is about one.
    pub(crate) fn object(&self) -> Option<&T> {
        match self {
            WatchLine::Added { object } | WatchLine::Modified { object } | WatchLine::Deleted { object } => {
                Some(object)
            }
            WatchLine::Bookmark { .. } | WatchLine::Error { .. } => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            WatchLine::Added { .. } => "added",
            WatchLine::Modified { .. } => "modified",
            WatchLine::Deleted { .. } => "deleted",
            WatchLine::Bookmark { .. } => "bookmark",
            WatchLine::Error { .. } => "error",
        }
    }
}

impl<T> From<WatchEvent<T>> for WatchLine<T> {
    fn from(WatchEvent { kind, object }: WatchEvent<T>) -> Self {
        match kind {
            WatchKind::Added => WatchLine::Added { object },
            WatchKind::Modified => WatchLine::Modified { object },
            WatchKind::Deleted => WatchLine::Deleted { object },
        }
    }
}

/// A line, and the revision from which the watch can be taken up after it.
pub(crate) type Told<T> = (WatchLine<T>, Option<u64>);

/// The lines of a watch that begins with what is there.
pub(crate) fn watch_from_list<T: Object>(
    list: List<T>,
    watch: ObjectWatch<T>,
) -> impl Stream<Item = Told<T>> + Send + 'static {
    let revision = list.resource_version;
    let there = stream::iter(list.items).map(|object| (WatchLine::Added { object }, None));
    let bookmark = (WatchLine::Bookmark { resource_version: revision }, Some(revision));
    there.chain(stream::iter([bookmark])).chain(watch_on(watch))
}

/// The lines of a watch that goes on.
pub(crate) fn watch_on<T: Object>(watch: ObjectWatch<T>) -> impl Stream<Item = Told<T>> + Send + 'static {
    stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(event) => Some(((event.into(), watch.told_up_to()), Some(watch))),
            Err(error) => Some(((WatchLine::Error { error }, None), None)),
        }
    })
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ndjson,
    ServerSentEvents,
}

impl Format {
    /// What `Accept` asks for; NDJSON if it says nothing of the two.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT);
        let sse =
            accepts.iter().filter_map(|value| value.to_str().ok()).any(|v| v.contains("text/event-stream"));
        if sse { Format::ServerSentEvents } else { Format::Ndjson }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Ndjson => "application/x-ndjson",
            Format::ServerSentEvents => "text/event-stream",
        })
    }

    /// What keeps the connection alive and says nothing.
    fn silence(self) -> Bytes {
        match self {
            Format::Ndjson => Bytes::from_static(b"\n"),
            Format::ServerSentEvents => Bytes::from_static(b":\n\n"),
        }
    }

    fn watch_line<T: Serialize>(self, (line, revision): &Told<T>) -> Bytes {
        let json = json(line);
        let text = match (self, revision) {
            (Format::Ndjson, _) => format!("{json}\n"),
            (Format::ServerSentEvents, Some(id)) => {
                format!("event: {}\nid: {id}\ndata: {json}\n\n", line.name())
            }
            (Format::ServerSentEvents, None) => format!("event: {}\ndata: {json}\n\n", line.name()),
        };
        text.into()
    }
}

/// A value as JSON; if it has none, the error line that says so.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        let fault = ApiError::new(ErrorCode::Internal, format!("an object cannot be written: {error}"), "");
        serde_json::json!({"type": "error", "error": fault}).to_string()
    })
}

/// A watch as a response. It is told no faster than it is read, and given up if it is not read at all.
pub(crate) fn watch_response<T: Object>(
    lines: impl Stream<Item = Told<T>> + Send + 'static,
    format: Format,
    place: WatchPlace,
    serving: &Serving,
    ending: Ending,
) -> Response {
    let lines = lines.map(move |told| format.watch_line(&told)).boxed();
    let lines = place.hold(lines, format, serving);
    respond(lines, format, serving.api.keep_alive, ending)
}

/// The last line of a stream that failed.
#[derive(Serialize)]
struct ErrorLine {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ApiError,
}

impl Format {
    /// The last line of a stream that ends with `error`.
    pub(crate) fn error_line(self, error: ApiError) -> Bytes {
        self.line("error", &json(&ErrorLine { kind: "error", error }))
    }

    fn line(self, event: &str, json: &str) -> Bytes {
        match self {
            Format::Ndjson => format!("{json}\n").into(),
            Format::ServerSentEvents => format!("event: {event}\ndata: {json}\n\n").into(),
        }
    }
}

/// Values as a response; `event` names them for browsers. An error becomes the last line.
pub(crate) fn stream_response<T: Serialize + Send + 'static>(
    values: BoxStream<'static, Result<T, ApiError>>,
    format: Format,
    event: fn(&T) -> &'static str,
    keep_alive: Duration,
    ending: Ending,
) -> Response {
    respond(value_lines(values, format, event), format, keep_alive, ending)
}

/// As [`stream_response`], of a watch: given up if it is not read.
pub(crate) fn held_response<T: Serialize + Send + 'static>(
    values: BoxStream<'static, Result<T, ApiError>>,
    format: Format,
    event: fn(&T) -> &'static str,
    place: WatchPlace,
    serving: &Serving,
    ending: Ending,
) -> Response {
    let lines = place.hold(value_lines(values, format, event), format, serving);
    respond(lines, format, serving.api.keep_alive, ending)
}

fn value_lines<T: Serialize + Send + 'static>(
    values: BoxStream<'static, Result<T, ApiError>>,
    format: Format,
    event: fn(&T) -> &'static str,
) -> BoxStream<'static, Bytes> {
    let lines = stream::unfold(Some(values), move |values| async move {
        let mut values = values?;
        match values.next().await? {
            Ok(value) => Some((format.line(event(&value), &json(&value)), Some(values))),
            Err(error) => Some((format.error_line(error), None)),
        }
    });
    lines.boxed()
}

fn respond(
    pieces: BoxStream<'static, Bytes>,
    format: Format,
    keep_alive: Duration,
    ending: Ending,
) -> Response {
    // Browsers tell a page of a response with its first byte, so a stream that has nothing to tell yet says that it lives.
    let pieces =
        stream::unfold((pieces, FIRST_SIGN.min(keep_alive)), move |(mut pieces, patience)| async move {
            match tokio::time::timeout(patience, pieces.next()).await {
                Ok(piece) => Some((piece?, (pieces, keep_alive))),
                Err(_) => Some((format.silence(), (pieces, keep_alive))),
            }
        });
    let state = Some((pieces.boxed(), ending.reached().boxed()));
    let pieces = stream::unfold(state, move |state| async move {
        let (mut pieces, mut ended) = state?;
        tokio::select! {
            biased;
            told = &mut ended => Some((format.error_line(told?), None)),
            piece = pieces.next() => Some((piece?, Some((pieces, ended)))),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>))).into_response()
}
