//! Flows by minute, for the log on disk.
//!
//! At the end of each minute the kernel's counters are read: of pairs of identities with protocol, port and verdict, of what found no
//! pair, and of dropped packets by reason. What they say beyond their marks in the log is exact; marks and records reach the disk
//! together, so that it is told once, whatever happens to the daemon. Which addresses outside, reasons and rules there were is known
//! from events only, which are lost under load: [`shares`] collects those, and a record says how many of its connections are in no
//! share.

mod records;
mod shares;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt};
use hivemind_datapath::{Datapath, FlowEvent, FlowItem, Statistics};
use hivemind_flowlog::{Epoch, FlowLog, Mark, Marks, RECORDS_MAX, read};
use hivemind_model::{ApiError, ErrorCode, FlowLine, FlowLoss, FlowMinute, FlowSelection};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    records::{Told, Turn},
    shares::{About, Known, Shares},
};
use super::{
    names::Names,
    round_trips::{ByPair, RoundTrips, by_pair},
    told,
};
use crate::fault;

/// How long after the end of a minute its last events are waited for.
const SETTLE: Duration = Duration::from_millis(200);

/// How many records wait for a reader that is busy.
const WAITING_MAX: usize = 64;

/// Where the log is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogConfig {
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes on disk; zero: nothing is kept.
    pub size_max_bytes: u64,
}

/// How the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLogStatistics {
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Records that were written since the daemon began.
    pub records: u64,
    /// Attempts to write that failed since then.
    pub failures: u64,
    /// Whether the last one failed.
    pub is_failing: bool,
    /// The minute of the oldest record, by its beginning.
    pub oldest: Option<Timestamp>,
}

/// Who keeps the log.
pub(crate) struct Minutes {
    config: FlowLogConfig,
    datapath: Arc<Datapath>,
    names: Arc<Mutex<Names>>,
    round_trips: Arc<RoundTrips>,
    node: String,
    /// Of the minute that goes on, and of the one that ended and is not written yet.
    shares: Mutex<Shares>,
    statistics: Mutex<FlowLogStatistics>,
    /// Held while a minute is written.
    turn: tokio::sync::Mutex<Keeping>,
}

/// What is known between two minutes.
#[derive(Default)]
struct Keeping {
    log: Option<FlowLog>,
    round_trips: ByPair,
}

impl Minutes {
    pub(crate) fn new(
        config: FlowLogConfig,
        datapath: Arc<Datapath>,
        names: Arc<Mutex<Names>>,
        round_trips: Arc<RoundTrips>,
        node: String,
    ) -> Self {
        Minutes {
            config,
            datapath,
            names,
            round_trips,
            node,
            shares: Mutex::default(),
            statistics: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn shares(&self) -> std::sync::MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the log is, if one is kept.
    pub(crate) fn statistics(&self) -> Option<FlowLogStatistics> {
        self.is_kept().then(|| *self.statistics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_kept(&self) -> bool {
        self.config.size_max_bytes > 0
    }

    /// Takes note of an event.
    pub(super) fn note(&self, item: &FlowItem) {
        if let FlowItem::Event(event) = item
            && self.is_kept()
        {
            let known = {
                let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                Known {
                    domain: told::domain(&event.destination, &names).cloned(),
                    is_audited: told::is_audited(event, &names),
                }
            };
            self.shares().take(event, &event_ends(event), known);
        }
    }

    /// Writes a record at the end of each minute, and a last one at the end.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        if !self.is_kept() {
            return;
        }
        self.count().await;
        loop {
            // By the clock, so that minutes are whole ones; one that is set back shifts at most one of them.
            let now = Timestamp::now();
            let into = now.as_millisecond().rem_euclid(60_000).unsigned_abs();
            let rest = Duration::from_millis(60_000 - into) + SETTLE;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(rest) => self.count().await,
            }
        }
        self.count().await;
    }

    /// Writes what was counted since the last time. What cannot be written now is with the next.
    pub(crate) async fn count(&self) {
        if !self.is_kept() {
            return;
        }
        let mut keeping = self.turn.lock().await;
        match self.try_count(&mut keeping).await {
            Ok((records, oldest)) => {
                let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
                statistics.records += records;
                statistics.oldest = oldest;
                statistics.size_bytes = keeping.log.as_ref().map_or(0, FlowLog::size_bytes);
                if std::mem::take(&mut statistics.is_failing) {
                    info!("Flows are kept on disk again");
                }
            }
            Err(error) => {
                let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
                statistics.failures += 1;
                if !std::mem::replace(&mut statistics.is_failing, true) {
                    warn!(%error, "Flows cannot be kept on disk; their totals are kept in the kernel and written once it goes");
                }
            }
        }
    }

    /// Returns how many records were written, and the minute of the oldest one that is there.
    async fn try_count(&self, keeping: &mut Keeping) -> Result<(u64, Option<Timestamp>), ApiError> {
        let minute = minute_that_ends(Timestamp::now());
        let read_ms = since_boot_ms().map_err(|e| failed(&e))?;
        let statistics = self.datapath.statistics().await.map_err(|error| fault::explain_datapath(&error))?;
        let boot =
            tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await.map_err(|e| failed(&e))?;
        let epoch = Epoch {
            boot: boot.trim().to_owned(),
            pairs: statistics.counters_id,
            drops: Some(statistics.drops_id),
        };
        let measured = by_pair(&statistics.round_trips);
        self.round_trips.take(measured.clone());
        let log = match keeping.log.take() {
            Some(log) => log,
            None => self.open(epoch, read_ms, &statistics).await?,
        };
        let seconds = covered_s(log.marks(), read_ms);
        let (records, written) = {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = Turn {
                minute,
                seconds,
                node: &self.node,
                names: &names,
                measured: &measured,
                measured_before: &keeping.round_trips,
            };
            let shares = self.shares();
            (turn.records(&statistics, log.marks(), &shares), shares.snapshot())
        };
        let count = records.iter().map(|told| told.flows.len() as u64).sum();
        let done = spawn_blocking(move || write(log, records, &statistics, read_ms))
            .await
            .map_err(|e| failed(&e))?;
        keeping.log = Some(done.log);
        if let Err(error) = done.result {
            self.shares().forget(&shares::only(written, &done.about));
            return Err(failed(&error));
        }
        keeping.round_trips = measured;
        self.shares().forget(&written);
        Ok((count, done.oldest))
    }

    /// Opens the log. Where nothing was ever kept, or counters were made anew, it begins with what there is to begin with.
    async fn open(&self, epoch: Epoch, read_ms: u64, statistics: &Statistics) -> Result<FlowLog, ApiError> {
        let (directory, size) = (self.config.directory.clone(), self.config.size_max_bytes);
        let now = records::counters(statistics).collect();
        spawn_blocking(move || {
            let (mut log, cuts) = FlowLog::open(&directory, size)?;
            for cut in cuts {
                let path = cut.path.display().to_string();
                warn!(
                    path,
                    bytes = cut.bytes,
                    reason = cut.reason,
                    "The end of the log of flows was cut off"
                );
            }
            match log.marks().cloned() {
                Some(marks) if marks.epoch == epoch => {}
                Some(marks) => {
                    if marks.epoch.is_made_anew(&epoch) {
                        let seconds = covered_s(Some(&marks), read_ms);
                        warn!(seconds, "Counters of flows were made anew: some of what went since they were written last is in no record");
                    }
                    log.begin(marks.in_epoch(epoch))?;
                }
                None => log.begin(Marks { epoch, counted_ms: Some(read_ms), said: now })?,
            }
            Ok(log)
        })
        .await
        .map_err(|e| failed(&e))?
        .map_err(|error: std::io::Error| failed(&error))
    }

    /// The records of the log that are wanted, oldest first.
    pub(super) fn history(&self, selection: FlowSelection) -> BoxStream<'static, Result<FlowLine, ApiError>> {
        let (sender, lines) = mpsc::channel(WAITING_MAX);
        let directory = self.config.directory.clone();
        spawn_blocking(move || tell(&directory, &selection, &sender));
        stream::unfold(lines, |mut lines| async { Some((lines.recv().await?, lines)) }).boxed()
    }
}

/// Tells what is wanted until nobody wants it any more.
fn tell(directory: &Path, selection: &FlowSelection, lines: &mpsc::Sender<Result<FlowLine, ApiError>>) {
    let reader = match read(directory, selection.since, selection.until) {
        Ok(reader) => reader,
        Err(error) => return drop(lines.blocking_send(Err(failed(&error)))),
    };
    for flows in reader {
        let line = match flows {
            Ok(flows) if selection.wants_minute(&flows) => FlowLine::Minute(Box::new(flows)),
            Ok(_) => continue,
            Err(error) => {
                warn!(%error, cause = %error.damage, "Some of the log of flows cannot be read");
                FlowLine::Lost(FlowLoss { events: 0, place: "log".into() })
            }
        };
        if lines.blocking_send(Ok(line)).is_err() {
            return;
        }
    }
}

/// What came of writing.
struct Written {
    log: FlowLog,
    /// Whose shares are in the log, also if it failed then.
    about: BTreeSet<About>,
    oldest: Option<Timestamp>,
    result: std::io::Result<()>,
}

/// Appends the records, with the marks of their counters, which were read so long after the boot, and waits until they are on disk.
fn write(mut log: FlowLog, records: Vec<Told>, statistics: &Statistics, read_ms: u64) -> Written {
    let exist: BTreeSet<_> = records::counters(statistics).map(|(counter, _)| counter).collect();
    log.retain_marks(|counter| exist.contains(counter));
    let mut about = BTreeSet::new();
    let mut blocks = blocks(records).into_iter().peekable();
    while let Some(Block { flows, marks, about: its }) = blocks.next() {
        let counted_ms = blocks.peek().is_none().then_some(read_ms);
        if let Err(error) = log.append(flows, marks, counted_ms) {
            return Written { log, about, oldest: None, result: Err(error) };
        }
        about.extend(its);
    }
    log.note_counted(read_ms);
    let (result, oldest) = (log.sync(), log.oldest());
    Written { log, about, oldest, result }
}

/// What is appended at once.
#[derive(Default)]
struct Block {
    flows: Vec<FlowMinute>,
    marks: Vec<Mark>,
    about: Vec<About>,
}

/// Blocks of [`RECORDS_MAX`] records at most, none of which has only a part of what is told of a counter.
fn blocks(records: Vec<Told>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for Told { flows, mark, about } in records {
        let fits = |block: &&mut Block| block.flows.len() + flows.len() <= RECORDS_MAX;
        let block = match blocks.last_mut().filter(fits) {
            Some(block) => block,
            None => blocks.push_mut(Block::default()),
        };
        block.flows.extend(flows);
        block.marks.push(mark);
        block.about.extend(about);
    }
    blocks
}

/// How many seconds a count covers that was read so long after the boot: those since the last one, or since the boot.
fn covered_s(marks: Option<&Marks>, read_ms: u64) -> u32 {
    let since_ms = marks.and_then(|marks| marks.counted_ms).unwrap_or(0);
    let seconds = (read_ms.saturating_sub(since_ms) + 500) / 1_000;
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// The kernel's clock that counts from the boot, also while the machine sleeps, and that nobody sets.
fn since_boot_ms() -> nix::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let ms = time.tv_sec() * 1_000 + time.tv_nsec() / 1_000_000;
    Ok(u64::try_from(ms).unwrap_or(0))
}

/// The minute that ended last, or, in its first seconds, is ending; a count in the middle of one is for that one.
fn minute_that_ends(now: Timestamp) -> Timestamp {
    let settled = now.checked_sub(jiff::SignedDuration::from_secs(2)).unwrap_or(now);
    let second = settled.as_second();
    Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(settled)
}

fn event_ends(event: &FlowEvent) -> [Option<std::net::IpAddr>; 2] {
    [event.source, event.destination].map(|peer| shares::outside(&peer))
}

fn failed(error: &dyn std::fmt::Display) -> ApiError {
    let hint = "see whether the disk with the data directory has room and works";
    ApiError::new(ErrorCode::StoreFailed, format!("the log of flows failed: {error}"), hint)
}

#[cfg(test)]
mod tests {
    use hivemind_flowlog::Counter;
    use hivemind_model::{FlowEnd, FlowVerdict};

    use super::*;

    fn told(number: u32, records: usize) -> Told {
        let counter = Counter(number, 0, 0, 0, true);
        let flows = FlowMinute {
            minute: Timestamp::UNIX_EPOCH,
            seconds: 60,
            node: "n".into(),
            verdict: FlowVerdict::Allowed,
            source: FlowEnd::default(),
            destination: FlowEnd::default(),
            protocol: "tcp".into(),
            exact: true,
            connections: 1,
            bytes_sent: 0,
            bytes_received: 0,
            packets_sent: 0,
            packets_received: 0,
            rtt_us: None,
            shares: Vec::new(),
            untold: 0,
        };
        Told { flows: vec![flows; records], mark: Mark(counter, [0; 5]), about: vec![(counter, None)] }
    }

    #[test]
    fn a_count_covers_what_passed_since_the_last_one_or_since_the_boot() {
        let marks = |counted_ms| Marks { counted_ms, ..Marks::default() };
        for (counted_ms, read_ms, seconds) in [
            (Some(1_000), 61_020, 60),
            (Some(1_000), 1_200, 1),
            (Some(1_000), 3_601_000, 3_600),
            (None, 9_600, 10),
            (Some(5_000), 4_000, 1),
            (Some(0), u64::from(u32::MAX) * 2_000, u32::MAX),
        ] {
            assert_eq!(covered_s(Some(&marks(counted_ms)), read_ms), seconds, "{counted_ms:?} to {read_ms}");
        }
        assert_eq!(covered_s(None, 9_600), 10);
    }

    #[test]
    fn what_is_told_of_a_counter_is_in_one_block_with_its_mark() {
        let blocks =
            blocks(vec![told(1, 1), told(2, RECORDS_MAX), told(3, RECORDS_MAX - 1), told(4, 1), told(5, 2)]);
        let sizes: Vec<_> = blocks.iter().map(|block| (block.flows.len(), block.marks.len())).collect();
        assert_eq!(sizes, [(1, 1), (RECORDS_MAX, 1), (RECORDS_MAX, 2), (2, 1)]);
        assert!(blocks.iter().all(|block| block.marks.len() == block.about.len()));
    }
}
