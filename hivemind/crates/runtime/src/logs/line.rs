//! Bytes of a container's output become lines, and lines become records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A longer line is written as several records.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;

/// One record of a log file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(rename = "t")]
    pub(super) time: Timestamp,
    #[serde(rename = "s", borrow)]
    pub(super) stream: std::borrow::Cow<'a, str>,
    #[serde(rename = "m", borrow)]
    pub(super) message: std::borrow::Cow<'a, str>,
    /// The line goes on in the next record of the same stream.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
}

/// Splits a stream of bytes into lines, keeping at most one unfinished line.
#[derive(Default)]
pub(super) struct LineSplitter {
    unfinished: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and gives each line that they complete, without its newline, and whether it goes on.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.unfinished.len();
            let end = bytes.iter().take(room).position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(room.min(bytes.len()));
            if self.unfinished.is_empty() && end.is_some() {
                emit(&bytes[..taken], false);
            } else {
                self.unfinished.extend_from_slice(&bytes[..taken]);
                let full = self.unfinished.len() == LINE_BYTES_MAX;
                if end.is_some() || full {
                    emit(&self.unfinished, end.is_none());
                    self.unfinished.clear();
                }
            }
            bytes = &bytes[taken + usize::from(end.is_some())..];
        }
    }

    /// Gives the unfinished line at the stream's end, if there is one.
    pub(super) fn finish(&mut self, emit: impl FnOnce(&[u8])) {
        if !self.unfinished.is_empty() {
            emit(&self.unfinished);
        }
        self.unfinished = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |line, partial| lines.push((line.to_vec(), partial)));
        }
        splitter.finish(|line| lines.push((line.to_vec(), false)));
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\nthree";
        let whole = split(&[text]);
        assert_eq!(
            whole.iter().map(|(line, _)| &line[..]).collect::<Vec<_>>(),
            [&b"one"[..], b"", b"two", b"three"]
        );
        for cut in 0..text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(split(&text.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_long_line_is_split_without_losing_a_byte() {
        for extra in [0, 1, LINE_BYTES_MAX, LINE_BYTES_MAX + 7] {
            let text = vec![b'x'; LINE_BYTES_MAX + extra];
            for size in [1000, LINE_BYTES_MAX, text.len()] {
                let lines = split(&text.chunks(size).collect::<Vec<_>>());
                assert_eq!(lines.iter().map(|(line, _)| line.len()).sum::<usize>(), text.len());
                assert!(lines.iter().all(|(line, _)| line.len() <= LINE_BYTES_MAX));
                assert!(lines[0].1, "the first part says that it goes on");
            }
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = Record {
            time: Timestamp::from_nanosecond(1_234_567_890_123_456_789).unwrap(),
            stream: "stderr".into(),
            message: "a \"quoted\" line\t\u{1f41d}".into(),
            partial: false,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains("\"p\""));
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!((back.time, back.message), (record.time, record.message));
    }
}
