//! Writing: appending to the newest segment, beginning others, removing the oldest.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use hivemind_model::FlowMinute;
use jiff::Timestamp;

use crate::{
    block::{Block, Damage},
    mark::{Epoch, Mark, Marks},
    segment::{self, HEADER_BYTES},
};

/// The smallest size that a log may be given.
pub const SIZE_MIN_BYTES: u64 = 1 << 20;

/// How many records are written at once at most.
pub const RECORDS_MAX: usize = 256;

/// A log is about so many segments, so that about one in so many parts of it goes at a time.
const SEGMENTS: u64 = 16;

/// The most that a segment is meant to take.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// What was cut off at the end of a log, since it was not written to its end or is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// How many bytes.
    pub bytes: u64,
    /// What was wrong.
    pub reason: String,
}

/// A log that is written. There must be one writer at a time.
#[derive(Debug)]
pub struct FlowLog {
    directory: PathBuf,
    size_max_bytes: u64,
    /// Number and bytes, oldest first; the last is the one that is written, if `file` is.
    segments: VecDeque<(u64, u64)>,
    file: Option<File>,
    marks: Option<Marks>,
    /// The minute of the oldest record, and the segment that it is in.
    oldest: Option<(u64, Timestamp)>,
}

impl FlowLog {
    /// Opens the log in `directory`, which is made if there is none, and cuts off what a crash left half-written.
    ///
    /// # Errors
    /// What the file system refused; nothing but what is no part of a whole block was changed.
    pub fn open(directory: &Path, size_max_bytes: u64) -> io::Result<(Self, Vec<Cut>)> {
        fs::create_dir_all(directory)?;
        let mut segments = VecDeque::new();
        for number in segment::list(directory)? {
            segments.push_back((number, fs::metadata(segment::path(directory, number))?.len()));
        }
        let size_max_bytes = size_max_bytes.max(SIZE_MIN_BYTES);
        let mut log = FlowLog {
            directory: directory.to_owned(),
            size_max_bytes,
            segments,
            file: None,
            marks: None,
            oldest: None,
        };
        let mut cuts = Vec::new();
        while let Some((number, bytes)) = log.segments.back().copied() {
            let (marks, whole_bytes, reason) = log.recover(number)?;
            let path = segment::path(directory, number);
            if let Some(reason) = reason {
                cuts.push(Cut { path: path.clone(), bytes: bytes.saturating_sub(whole_bytes), reason });
            }
            if marks.is_some() {
                let file = OpenOptions::new().append(true).open(&path)?;
                if whole_bytes < bytes {
                    file.set_len(whole_bytes)?;
                    file.sync_all()?;
                }
                log.segments.back_mut().into_iter().for_each(|last| last.1 = whole_bytes);
                (log.file, log.marks) = (Some(file), marks);
                break;
            }
            fs::remove_file(&path)?;
            log.segments.pop_back();
        }
        Ok((log, cuts))
    }

    /// Up to where counters were told, if anything was ever.
    pub fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    /// How many bytes the log takes; at most the size that it was given.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The minute of the oldest record, by its beginning; `None` if there is none that can be read. Reads what is oldest again only if
    /// some of it went.
    pub fn oldest(&mut self) -> Option<Timestamp> {
        let (first, _) = self.segments.front().copied()?;
        // A segment before it has no records: they are only ever appended to the last one.
        if self.oldest.is_none_or(|(number, _)| number < first) {
            let numbers = self.segments.iter().map(|(number, _)| *number);
            self.oldest = numbers
                .filter_map(|number| first_minute(&self.directory, number).map(|minute| (number, minute)))
                .next();
        }
        self.oldest.map(|(_, minute)| minute)
    }

    /// Begins to count anew: from these marks, in a segment of its own.
    ///
    /// # Errors
    /// As [`FlowLog::append`].
    pub fn begin(&mut self, marks: Marks) -> io::Result<()> {
        self.begin_segment(&marks, 0)?;
        self.marks = Some(marks);
        Ok(())
    }

    /// Appends records, [`RECORDS_MAX`] at most, with the marks up to which they tell: all of that or nothing. With the last of what the
    /// counters said goes when they were read, `counted_ms` after the boot. It is safe on disk after [`FlowLog::sync`].
    ///
    /// # Errors
    /// What the file system refused; a full disk is `StorageFull`. The log is as it was before, and may be tried again.
    pub fn append(
        &mut self,
        flows: Vec<FlowMinute>,
        marks: Vec<Mark>,
        counted_ms: Option<u64>,
    ) -> io::Result<()> {
        let before = self.marks.clone().unwrap_or_default();
        let (epoch, drops) = (before.epoch.text(), before.epoch.drops);
        let block = Block { epoch, drops, counted_ms, is_whole: false, marks, flows };
        self.write(&block.encode()?, &before)?;
        let known = self.marks.get_or_insert(before);
        known.said.extend(block.marks.iter().map(|Mark(counter, said)| (*counter, *said)));
        known.counted_ms = counted_ms.or(known.counted_ms);
        Ok(())
    }

    /// Takes note that the counters were read, `counted_ms` after the boot, and had nothing to say. It reaches the disk with what is
    /// appended next.
    pub fn note_counted(&mut self, counted_ms: u64) {
        self.marks.iter_mut().for_each(|marks| marks.counted_ms = Some(counted_ms));
    }

    /// Forgets the marks of counters that are no more, so that they are not written any more.
    pub fn retain_marks(&mut self, exists: impl Fn(&crate::Counter) -> bool) {
        self.marks.iter_mut().for_each(|marks| marks.said.retain(|counter, _| exists(counter)));
    }

    /// Waits until what was appended is on disk.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Writes an encoded block to the newest segment, or to a new one that begins with `marks`.
    fn write(&mut self, block: &[u8], marks: &Marks) -> io::Result<()> {
        let segment_max_bytes = (self.size_max_bytes / SEGMENTS).min(SEGMENT_BYTES_MAX);
        let is_full =
            self.segments.back().is_none_or(|(_, bytes)| bytes + block.len() as u64 > segment_max_bytes);
        if self.file.is_none() || is_full {
            self.begin_segment(marks, block.len() as u64)?;
        }
        self.make_room(block.len() as u64)?;
        let (Some(file), Some((_, bytes))) = (&mut self.file, self.segments.back_mut()) else {
            return Err(io::Error::other("there is no segment"));
        };
        if let Err(error) = file.write_all(block) {
            // What is half-written would hide what comes after it.
            if file.set_len(*bytes).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        *bytes += block.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self, marks: &Marks, needed: u64) -> io::Result<()> {
        let number = self.segments.back().map_or(1, |(number, _)| number + 1);
        let beginning = [&segment::header()[..], &whole(marks).encode()?].concat();
        self.sync()?;
        self.make_room(beginning.len() as u64 + needed)?;
        let path = segment::path(&self.directory, number);
        let made = OpenOptions::new().create_new(true).append(true).open(&path).and_then(|mut file| {
            file.write_all(&beginning)?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.file = Some(file);
                self.segments.push_back((number, beginning.len() as u64));
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Removes the oldest segments until `bytes` more fit; never the newest, which has the marks.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.size_bytes() + bytes > self.size_max_bytes && self.segments.len() > 1 {
            let Some((number, _)) = self.segments.front().copied() else { break };
            match fs::remove_file(segment::path(&self.directory, number)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => self.segments.pop_front(),
            };
        }
        if self.size_bytes() + bytes > self.size_max_bytes {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the log of flows is too small for what it has to hold",
            ));
        }
        Ok(())
    }

    /// What a segment has: the marks at its end, none if it does not even begin as one; the bytes of its whole blocks; and what is
    /// wrong behind them.
    fn recover(&self, number: u64) -> io::Result<(Option<Marks>, u64, Option<String>)> {
        let Some(mut from) = segment::open(&self.directory, number)? else { return Ok((None, 0, None)) };
        if !segment::check_header(&mut from)? {
            return Ok((None, 0, Some("it does not begin as a segment".into())));
        }
        let (mut marks, mut bytes) = (None, HEADER_BYTES as u64);
        loop {
            match Block::decode(&mut from) {
                Ok(Some((block, size))) => {
                    follow(&mut marks, block);
                    bytes += size;
                }
                Ok(None) => {
                    let reason = marks.is_none().then(|| "it ends before its first block".to_owned());
                    return Ok((marks, bytes, reason));
                }
                Err(Damage::Io(error)) => return Err(error),
                Err(damage) => return Ok((marks, bytes, Some(damage.to_string()))),
            }
        }
    }
}

/// The minute of a segment's first record.
fn first_minute(directory: &Path, number: u64) -> Option<Timestamp> {
    let mut from = segment::open(directory, number).ok()??;
    if !segment::check_header(&mut from).ok()? {
        return None;
    }
    loop {
        let (block, _) = Block::decode(&mut from).ok()??;
        if let Some(flows) = block.flows.first() {
            return Some(flows.minute);
        }
    }
}

/// The block of all marks.
fn whole(marks: &Marks) -> Block {
    let said = marks.said.iter().map(|(counter, said)| Mark(*counter, *said)).collect();
    let (epoch, drops) = (marks.epoch.text(), marks.epoch.drops);
    Block { epoch, drops, counted_ms: marks.counted_ms, is_whole: true, marks: said, flows: Vec::new() }
}

/// Takes the marks of the next block.
fn follow(marks: &mut Option<Marks>, block: Block) {
    let said = block.marks.iter().map(|Mark(counter, said)| (*counter, *said));
    match marks {
        Some(marks) if !block.is_whole => {
            marks.said.extend(said);
            marks.counted_ms = block.counted_ms.or(marks.counted_ms);
        }
        _ if block.is_whole => {
            let (epoch, said) = (Epoch::read(&block.epoch, block.drops), said.collect());
            *marks = Some(Marks { epoch, counted_ms: block.counted_ms, said });
        }
        // A segment begins with all marks.
        _ => {}
    }
}
