//! Answers that are streams of lines of JSON (NDJSON).

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use hivemind_model::{ApiError, ErrorCode, LogLine};
use hyper::body::{Body as _, Incoming};
use serde::{Deserialize, de::DeserializeOwned};
use tokio_util::task::AbortOnDropHandle;

use crate::connection::{Answer, broken, unreadable};

/// The most bytes that one line may have; an object with all its limits used stays far below.
const LINE_BYTES_MAX: usize = 8 << 20;

/// The lines that containers wrote, as they come. It ends when the replica has no more, and is dropped to stop it.
pub type LogStream = JsonLines<LogLine>;

/// A stream of `T`s, one a line. Blank lines keep the connection alive and are passed over. After an error it is over.
pub struct JsonLines<T> {
    lines: Lines,
    values: PhantomData<fn() -> T>,
}

impl<T> JsonLines<T> {
    pub(crate) fn new(answer: Answer) -> Self {
        JsonLines { lines: Lines::new(answer), values: PhantomData }
    }
}

impl<T: DeserializeOwned> Stream for JsonLines<T> {
    type Item = Result<T, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = ready!(self.lines.poll_line(context));
        Poll::Ready(line.map(|line| {
            let line = line?;
            serde_json::from_slice(&line).map_err(|e| told_error(&line).unwrap_or_else(|_| unreadable(&e)))
        }))
    }
}

/// The last line of a stream that the daemon could not go on with: `{"type": "error", "error": …}`.
#[derive(Deserialize)]
struct ErrorLine {
    error: ApiError,
}

/// The daemon's error in `line`, if it is one.
pub(crate) fn told_error(line: &[u8]) -> Result<ApiError, serde_json::Error> {
    serde_json::from_slice::<ErrorLine>(line).map(|line| line.error)
}

/// Cuts a body into lines.
pub(crate) struct Lines {
    /// `None` once it is over.
    body: Option<Incoming>,
    buffer: LineBuffer,
    _driver: AbortOnDropHandle<()>,
}

impl Lines {
    pub(crate) fn new(answer: Answer) -> Self {
        Lines {
            body: Some(answer.response.into_body()),
            buffer: LineBuffer::default(),
            _driver: answer.driver,
        }
    }

    /// The next line that is not blank; `None` at the end.
    pub(crate) fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ApiError>>> {
        loop {
            if let Some(line) = self.buffer.next_line() {
                return Poll::Ready(Some(Ok(line)));
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(self.buffer.rest().map(Ok));
            };
            let fault = match ready!(Pin::new(body).poll_frame(context)) {
                None => {
                    self.body = None;
                    continue;
                }
                Some(Err(error)) => broken(&error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.buffer.add(&data) => continue,
                    Ok(_) => too_long(),
                    // Trailers say nothing in this API.
                    Err(_) => continue,
                },
            };
            self.body = None;
            self.buffer = LineBuffer::default();
            return Poll::Ready(Some(Err(fault)));
        }
    }
}

fn too_long() -> ApiError {
    ApiError::new(
        ErrorCode::Internal,
        format!("the daemon sent a line of more than {LINE_BYTES_MAX} bytes"),
        "use a command line and a daemon of the same version",
    )
}

/// Bytes that have come and are not yet whole lines.
#[derive(Default)]
struct LineBuffer {
    bytes: BytesMut,
    /// No line ends before this place.
    searched: usize,
}

impl LineBuffer {
    /// Takes `data`; false if the line that is being read becomes too long by it.
    fn add(&mut self, data: &[u8]) -> bool {
        self.bytes.extend_from_slice(data);
        self.bytes.len() <= LINE_BYTES_MAX || self.bytes[self.searched..].contains(&b'\n')
    }

    fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let Some(end) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let line = self.bytes.split_to(self.searched + end).freeze();
            self.bytes.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    fn rest(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let rest = self.bytes.split().freeze();
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_wherever_the_network_cuts_them() {
        let text = b"one\n\n  \ntwo\r\nthree";
        for cut in 1..text.len() {
            let mut buffer = LineBuffer::default();
            let mut lines = Vec::new();
            for piece in text.chunks(cut) {
                assert!(buffer.add(piece));
                lines.extend(std::iter::from_fn(|| buffer.next_line()));
            }
            lines.extend(buffer.rest());
            assert_eq!(lines, [&b"one"[..], b"two\r", b"three"], "cut every {cut}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut buffer = LineBuffer::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];
        assert!(buffer.add(&piece));
        assert_eq!(buffer.next_line(), None);
        assert!(!buffer.add(b"x"));
    }
}
