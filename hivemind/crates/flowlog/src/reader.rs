//! Reading, block by block, also while the log is written.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    io::BufReader,
    path::{Path, PathBuf},
};

use hivemind_model::FlowMinute;
use jiff::{SignedDuration, Timestamp};

use crate::{
    block::{Block, Damage},
    segment,
};

/// Why some of the records cannot be read. Those of other segments still can: go on with the next item.
#[derive(Debug, thiserror::Error)]
#[error("the segment {number} of the log of flows cannot be read to its end")]
pub struct ReadError {
    /// The segment's number.
    pub number: u64,
    /// What is wrong.
    #[source]
    pub damage: Damage,
}

/// Records in the order in which they were written: that of time, unless the clock was set back.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    segments: VecDeque<u64>,
    current: Option<(u64, BufReader<File>)>,
    waiting: VecDeque<FlowMinute>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// The records of minutes of which something lies at or after `since` and before `until`. Holds a block in memory at a time.
///
/// # Errors
/// When the directory cannot be read; one that does not exist holds nothing.
pub fn read(directory: &Path, since: Option<Timestamp>, until: Option<Timestamp>) -> io::Result<Reader> {
    let segments = match segment::list(directory) {
        Ok(segments) => segments.into(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
        Err(error) => return Err(error),
    };
    Ok(Reader {
        directory: directory.to_owned(),
        segments,
        current: None,
        waiting: VecDeque::new(),
        since,
        until,
    })
}

impl Iterator for Reader {
    type Item = Result<FlowMinute, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(flows) = self.waiting.pop_front() {
                return Some(Ok(flows));
            }
            let (number, from) = match &mut self.current {
                Some((number, from)) => (*number, from),
                None => match self.open_next()? {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                },
            };
            match Block::decode(from) {
                Ok(Some((block, _))) => {
                    let (since, until) = (self.since, self.until);
                    let wanted =
                        block.flows.into_iter().filter(|flows| is_within(flows.minute, since, until));
                    self.waiting.extend(wanted);
                }
                Ok(None) => self.current = None,
                Err(damage) => {
                    self.current = None;
                    // The newest one is being written.
                    if !(matches!(damage, Damage::Torn) && self.segments.is_empty()) {
                        return Some(Err(ReadError { number, damage }));
                    }
                }
            }
        }
    }
}

impl Reader {
    /// Opens the next segment that is still there; `None` if there is no further one.
    fn open_next(&mut self) -> Option<Result<(), ReadError>> {
        loop {
            let number = self.segments.pop_front()?;
            let failed = |damage| Some(Err(ReadError { number, damage }));
            match segment::open(&self.directory, number) {
                Ok(Some(mut from)) => match segment::check_header(&mut from) {
                    Ok(true) => {
                        self.current = Some((number, from));
                        return Some(Ok(()));
                    }
                    Ok(false) if self.segments.is_empty() => {}
                    Ok(false) => return failed(Damage::Content("it has another format".into())),
                    Err(error) => return failed(error.into()),
                },
                Ok(None) => {}
                Err(error) => return failed(error.into()),
            }
        }
    }
}

fn is_within(minute: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let end = minute.checked_add(SignedDuration::from_mins(1)).unwrap_or(minute);
    since.is_none_or(|since| since < end) && until.is_none_or(|until| minute < until)
}
