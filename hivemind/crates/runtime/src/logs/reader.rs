//! Reading a container's log, from its end or its beginning, and following it through rotation.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    LogError,
    file::generations,
    line::{LINE_BYTES_MAX, Record},
};
use crate::ContainerId;

const QUEUE_LINES: usize = 64;
/// A follower that has read everything looks again after this long.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
const BLOCK_BYTES: u64 = 64 << 10;
/// JSON may write a byte as six (`\u0000`), and adds its frame.
const RECORD_BYTES_MAX: u64 = 6 * LINE_BYTES_MAX as u64 + 256;

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the collector read it.
    pub time: Timestamp,
    /// Where the container wrote it.
    pub stream: LogStream,
    /// The line, without its newline; what is not UTF-8 is replaced.
    pub message: String,
    /// The line was longer than 64 KiB and goes on in the stream's next one.
    pub partial: bool,
}

/// Lines of a log, a bounded number of them read ahead. Reading stops when it is dropped.
pub struct LogReader {
    lines: mpsc::Receiver<Result<LogLine, LogError>>,
}

impl LogReader {
    /// The next line. `None` at the end, which a follower reaches only when the log is removed.
    pub async fn next(&mut self) -> Option<Result<LogLine, LogError>> {
        self.lines.recv().await
    }
}

impl Stream for LogReader {
    type Item = Result<LogLine, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.poll_recv(context)
    }
}

/// Reads the log of `id` below `log_dir` on a blocking thread of the executor.
pub(crate) fn read(log_dir: &Path, id: &ContainerId, tail: Option<usize>, follow: bool) -> LogReader {
    let (send, lines) = mpsc::channel(QUEUE_LINES);
    let paths = generations(log_dir, id.as_str());
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pump(&paths, tail, follow, &send) {
            let what = format!("read {}", paths[0].display());
            let _ = send.blocking_send(Err(LogError::io(what, error)));
        }
    });
    LogReader { lines }
}

type Sender = mpsc::Sender<Result<LogLine, LogError>>;

/// A place in one of the files.
struct Cursor {
    reader: BufReader<File>,
    inode: u64,
    /// A record whose end is not written yet.
    unfinished: Vec<u8>,
}

fn pump(paths: &[PathBuf], tail: Option<usize>, follow: bool, lines: &Sender) -> io::Result<()> {
    let mut cursor = loop {
        match start(paths, tail)? {
            Some(cursor) => break cursor,
            // A container that was just created may not have its log yet.
            None if follow && !lines.is_closed() => std::thread::sleep(FOLLOW_INTERVAL),
            None => return Ok(()),
        }
    };
    loop {
        // Asked before reading on: what is written to a file after it was replaced is nothing.
        let next = successor(paths, cursor.inode)?;
        if !cursor.drain(lines)? {
            return Ok(());
        }
        match next {
            Successor::File(file) => cursor = file,
            Successor::None if follow && !lines.is_closed() => std::thread::sleep(FOLLOW_INTERVAL),
            Successor::None | Successor::Removed => return Ok(()),
        }
    }
}

enum Successor {
    /// The file is the newest.
    None,
    File(Cursor),
    /// The log is gone.
    Removed,
}

/// The file that was begun when the one with `inode` was full.
fn successor(paths: &[PathBuf], inode: u64) -> io::Result<Successor> {
    let mut newer = None;
    for path in paths {
        let Some(file) = open(path)? else { continue };
        if file.inode == inode {
            return Ok(newer.map_or(Successor::None, Successor::File));
        }
        newer = Some(file);
    }
    // Rotated out while it was read: go on with the oldest that is kept.
    Ok(newer.map_or(Successor::Removed, Successor::File))
}

fn open(path: &Path) -> io::Result<Option<Cursor>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Cursor { reader: BufReader::new(file), inode, unfinished: Vec::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The place where the last `tail` lines begin, or the beginning of the oldest file.
fn start(paths: &[PathBuf], tail: Option<usize>) -> io::Result<Option<Cursor>> {
    let mut wanted = tail.unwrap_or(usize::MAX);
    let mut oldest = None;
    for path in paths {
        let Some(mut file) = open(path)? else { continue };
        if tail.is_some() {
            let (offset, found) = last_lines(file.reader.get_mut(), wanted)?;
            file.reader.seek(SeekFrom::Start(offset))?;
            wanted -= found;
            if wanted == 0 {
                return Ok(Some(file));
            }
        }
        oldest = Some(file);
    }
    Ok(oldest)
}

/// Where the last `wanted` lines of a file begin, and how many there are, at most that many.
fn last_lines(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut end = size;
    let mut newlines = 0;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        file.by_ref().take(end - begin).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline that ends the line before the wanted ones.
            if newlines == wanted {
                return Ok((begin + index as u64 + 1, wanted));
            }
            newlines += 1;
        }
        end = begin;
    }
    Ok((0, newlines.min(wanted)))
}

impl Cursor {
    /// Sends every whole record up to the end of the file. False if nobody listens any more.
    fn drain(&mut self, lines: &Sender) -> io::Result<bool> {
        loop {
            let room = RECORD_BYTES_MAX.saturating_sub(self.unfinished.len() as u64);
            let length = (&mut self.reader).take(room).read_until(b'\n', &mut self.unfinished)?;
            if self.unfinished.last() != Some(&b'\n') {
                if length == 0 && room > 0 {
                    return Ok(!lines.is_closed());
                }
                if room == 0 {
                    // No record is this long: skip to the next newline.
                    self.unfinished.clear();
                }
                continue;
            }
            let line = parse(&self.unfinished);
            self.unfinished.clear();
            if let Some(line) = line
                && lines.blocking_send(Ok(line)).is_err()
            {
                return Ok(false);
            }
        }
    }
}

/// `None` for what a crash left behind.
fn parse(record: &[u8]) -> Option<LogLine> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let stream = match &*record.stream {
        "stdout" => LogStream::Stdout,
        "stderr" => LogStream::Stderr,
        _ => return None,
    };
    Some(LogLine { time: record.time, stream, message: record.message.into_owned(), partial: record.partial })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::logs::file::LogFile;

    fn record(number: usize) -> String {
        format!("{{\"t\":\"2026-01-01T00:00:00Z\",\"s\":\"stdout\",\"m\":\"line {number}\"}}\n")
    }

    fn numbers(lines: &[LogLine]) -> Vec<usize> {
        lines.iter().map(|line| line.message["line ".len()..].parse().unwrap()).collect()
    }

    async fn collect(mut reader: LogReader, count: usize) -> Vec<LogLine> {
        let mut lines = Vec::new();
        while lines.len() < count {
            match reader.next().await {
                Some(line) => lines.push(line.unwrap()),
                None => break,
            }
        }
        lines
    }

    #[tokio::test]
    async fn a_tail_reaches_back_over_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "c".parse().unwrap();
        let size = record(10).len() as u64;
        let mut log = LogFile::open(dir.path(), "c", 4 * size).unwrap();
        for number in 10..20 {
            log.append(record(number).as_bytes()).unwrap();
        }
        for tail in [0, 1, 2, 3, 5, 6, 7, 10] {
            let lines = collect(read(dir.path(), &id, Some(tail), false), usize::MAX).await;
            assert_eq!(numbers(&lines), (20 - tail..20).collect::<Vec<_>>(), "the last {tail}");
        }
        let all = collect(read(dir.path(), &id, None, false), usize::MAX).await;
        assert_eq!(numbers(&all), (10..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_follower_misses_no_line_while_files_rotate() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "c".parse().unwrap();
        let mut log = LogFile::open(dir.path(), "c", 4096).unwrap();
        let mut reader = read(dir.path(), &id, None, true);
        for burst in 0..40 {
            for number in burst * 50..(burst + 1) * 50 {
                log.append(record(number).as_bytes()).unwrap();
            }
            for number in burst * 50..(burst + 1) * 50 {
                let line = reader.next().await.unwrap().unwrap();
                assert_eq!(line.message, format!("line {number}"));
            }
        }
    }

    #[tokio::test]
    async fn a_follower_ends_when_the_log_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "c".parse().unwrap();
        let mut log = LogFile::open(dir.path(), "c", 4096).unwrap();
        log.append(record(1).as_bytes()).unwrap();
        let mut reader = read(dir.path(), &id, None, true);
        assert!(reader.next().await.is_some());
        fs::remove_file(dir.path().join("c.log")).unwrap();
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn what_is_no_record_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "c".parse().unwrap();
        let noise = format!("{}{{\"t\":\"20\n{}\n{}", record(1), "x".repeat(500_000), record(2));
        fs::write(dir.path().join("c.log"), noise).unwrap();
        assert_eq!(numbers(&collect(read(dir.path(), &id, None, false), usize::MAX).await), [1, 2]);
    }
}
