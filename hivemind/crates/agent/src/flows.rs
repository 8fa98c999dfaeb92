//! Flows: what the data path tells, in words.
//!
//! The data path speaks of numbers and addresses. [`names`] follows the objects that they stand for, and here is the log of the last [`LOG_MAX`] of them, for those who ask later. The log keeps
//! numbers; they become words only for whoever reads. Where events were lost, it keeps how many.

pub(crate) mod answered;
mod minutes;
pub(crate) mod names;
mod policy_log;
pub(crate) mod round_trips;
pub(crate) mod told;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::stream::{self, BoxStream, StreamExt};
use hivemind_common::drop_reason::DropReason;
use hivemind_datapath::{Datapath, FlowEvent, FlowEvents, FlowFeed, FlowItem, FlowKind, FlowPeer};
use hivemind_model::{ApiError, FlowLine, FlowLoss, FlowReach, FlowSelection};
use hivemind_store::Objects;
use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    minutes::Minutes,
    names::{Names, follow_names},
    policy_log::PolicyLog,
    round_trips::RoundTrips,
};
use crate::{Agent, ends::log_heaviest, fault};

pub use minutes::{FlowLogConfig, FlowLogStatistics};

/// How many flows are kept for those who ask later.
pub(crate) const LOG_MAX: usize = 4096;

/// How many flows wait for a reader that is busy.
const WAITING_MAX: usize = 1024;

/// Which flows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// Only these.
    pub selection: FlowSelection,
    /// Whether to go on with new ones as they come.
    pub follow: bool,
    /// At most this many of the last ones that are known already.
    pub tail: usize,
}

/// The log of flows, and what names them.
pub(crate) struct Flows {
    datapath: Arc<Datapath>,
    node: String,
    names: Arc<Mutex<Names>>,
    round_trips: Arc<RoundTrips>,
    log: Arc<Log>,
    pub(crate) minutes: Arc<Minutes>,
}

/// Flows that were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLosses {
    /// How many, since the agent was started.
    pub events: u64,
    /// When it was noticed last, at most a second or so after it happened.
    pub last: Option<Timestamp>,
}

struct Log {
    began: Timestamp,
    kept: Mutex<VecDeque<Kept>>,
    lost: Mutex<FlowLosses>,
    items: FlowFeed,
}

/// One thing that the log keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Event(FlowEvent),
    Lost(Loss),
}

impl Kept {
    fn time(&self) -> Timestamp {
        match self {
            Kept::Event(event) => event.time,
            Kept::Lost(loss) => loss.time,
        }
    }
}

/// Events that were lost before `time`, when that was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Loss {
    time: Timestamp,
    events: u64,
    place: &'static str,
}

/// The reader was too slow.
const STREAM: &str = "stream";
/// The kernel tells no more a second, or its buffer was full.
const KERNEL: &str = "kernel";

impl Flows {
    /// Begins to keep the log and to follow the names, until `stop`.
    pub(crate) fn start(
        datapath: Arc<Datapath>,
        objects: &Objects,
        node: String,
        kept: FlowLogConfig,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let log = Arc::new(Log::new(FlowFeed::new(WAITING_MAX)));
        let names = Arc::new(Mutex::new(Names::default()));
        let full = Arc::new(Notify::new());
        let round_trips = Arc::default();
        let minutes = Arc::new(Minutes::new(
            kept,
            Arc::clone(&datapath),
            Arc::clone(&names),
            Arc::clone(&round_trips),
            node.clone(),
        ));
        let policy_log = PolicyLog::new(Arc::clone(&names), node.clone());
        let keeping = Keeping {
            events: datapath.flow_events(),
            log: Arc::clone(&log),
            minutes: Arc::clone(&minutes),
            full: Arc::clone(&full),
            policy_log,
        };
        tasks.spawn(keep(keeping, stop.clone()));
        tasks.spawn(Arc::clone(&minutes).keep(stop.clone()));
        log_heaviest(Arc::clone(&datapath), objects.clone(), full, stop.clone(), tasks);
        follow_names(objects, &names, stop, tasks);
        Flows { datapath, node, names, round_trips, log, minutes }
    }

    /// The names, for the one who learns more of them.
    pub(crate) fn shared_names(&self) -> Arc<Mutex<Names>> {
        Arc::clone(&self.names)
    }

    pub(crate) fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn new(items: FlowFeed) -> Self {
        Log { began: Timestamp::now(), kept: Mutex::default(), lost: Mutex::default(), items }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, FlowLosses> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an item and hands it to those who follow, under one lock: who subscribes under it misses none and gets none
    /// twice.
    fn take(&self, item: FlowItem) {
        let mut kept = self.kept();
        let loss = |events, place| Kept::Lost(Loss { time: Timestamp::now(), events, place });
        if let FlowItem::Lost(events) | FlowItem::LostInKernel(events) = item {
            let mut lost = self.lost();
            lost.events = lost.events.saturating_add(events);
            lost.last = Some(Timestamp::now());
        }
        let new = match item {
            FlowItem::Event(event) => Kept::Event(event),
            FlowItem::Lost(events) => loss(events, STREAM),
            FlowItem::LostInKernel(events) => loss(events, KERNEL),
        };
        if kept.len() == LOG_MAX {
            kept.pop_front();
        }
        kept.push_back(new);
        self.items.send(item);
    }
}

/// What [`keep`] works with.
struct Keeping {
    events: FlowEvents,
    log: Arc<Log>,
    minutes: Arc<Minutes>,
    full: Arc<Notify>,
    policy_log: PolicyLog,
}

/// Keeps the log, tells `full` when a connection found no room, and has policies logged that want it.
async fn keep(Keeping { mut events, log, minutes, full, mut policy_log }: Keeping, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            item = events.next() => match item {
                Some(item) => {
                    if is_full(&item) {
                        full.notify_one();
                    }
                    if let FlowItem::Event(event) = &item {
                        policy_log.note(event);
                    }
                    minutes.note(&item);
                    log.take(item);
                }
                None => return,
            },
        }
    }
}

fn is_full(item: &FlowItem) -> bool {
    matches!(item, FlowItem::Event(event) if event.kind == FlowKind::Dropped(DropReason::ConntrackFull))
}

impl Agent {
    /// Flows of this node: the last ones, those that are live, and, if it is asked for, new ones as they come. A reader that
    /// is too slow is told how many it missed.
    ///
    /// # Errors
    /// When the data path cannot be read.
    pub async fn flows(
        &self,
        query: &FlowQuery,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        let wanted = query.selection.clone();
        let flows = &self.shared.flows;
        flows.round_trips.refresh(&flows.datapath).await?;
        let (kept, items) = {
            let kept = flows.log.kept();
            (kept.iter().copied().collect::<Vec<_>>(), flows.log.items.subscribe())
        };
        let reach = wanted.since.map(|since| reach(&kept, since, flows));
        if !query.follow {
            let live =
                flows.datapath.connections(LOG_MAX).await.map_err(|error| fault::explain_datapath(&error))?;
            let lines = told_last(present(kept, live).iter(), query.tail, flows, &wanted);
            return Ok(stream::iter(reach.into_iter().chain(lines).map(Ok)).boxed());
        }
        let lines = told_last(kept.iter(), query.tail, flows, &wanted);
        let reader = Reader {
            backlog: reach.into_iter().chain(lines).collect(),
            items,
            wanted,
            names: Arc::clone(&flows.names),
            round_trips: Arc::clone(&flows.round_trips),
            node: flows.node.clone(),
            stop: self.shared.stop.clone(),
        };
        Ok(stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((Ok(line), reader))
        })
        .boxed())
    }

    /// What went in past minutes, as the log on disk has it, oldest first.
    pub fn flow_history(&self, selection: FlowSelection) -> BoxStream<'static, Result<FlowLine, ApiError>> {
        self.shared.flows.minutes.history(selection)
    }

    /// How the log of flows on disk is; `None` if none is kept.
    pub fn flow_log(&self) -> Option<FlowLogStatistics> {
        self.shared.flows.minutes.statistics()
    }

    /// Flows that were not told since the agent was started.
    pub fn flow_losses(&self) -> FlowLosses {
        *self.shared.flows.log.lost()
    }

    /// Namespace and app of every identity that is in use, or was a moment ago.
    pub fn identity_names(&self) -> BTreeMap<u32, (String, String)> {
        self.shared.flows.names().identities()
    }
}

/// What is known of each connection, in the order in which it began, or in which what else is told happened: of one that
/// goes on or ended, its beginning is not told besides.
fn present(kept: Vec<Kept>, live: Vec<FlowEvent>) -> Vec<Kept> {
    let tuple = |event: &FlowEvent| {
        let end = |peer: &FlowPeer| (peer.address, peer.port);
        (event.protocol, end(&event.source), end(&event.destination))
    };
    let mut told: BTreeSet<_> = live.iter().map(tuple).collect();
    let mut all: Vec<_> = kept
        .into_iter()
        .rev()
        .filter(|kept| match kept {
            Kept::Event(event) if event.kind == FlowKind::Closed => {
                told.insert(tuple(event));
                true
            }
            // An earlier connection of the same tuple tells its own end.
            Kept::Event(event) if event.kind == FlowKind::New => !told.remove(&tuple(event)),
            Kept::Event(_) | Kept::Lost(_) => true,
        })
        .collect();
    all.extend(live.into_iter().map(Kept::Event));
    all.sort_by_key(|kept| match kept {
        Kept::Event(event) if event.kind == FlowKind::Live => event.began.unwrap_or(event.time),
        other => other.time(),
    });
    all
}

/// The last `max` flows of `kept` that are wanted, and what was lost among them: nobody knows whether that was wanted.
fn told_last<'a>(
    kept: impl DoubleEndedIterator<Item = &'a Kept>,
    max: usize,
    flows: &Flows,
    wanted: &FlowSelection,
) -> Vec<FlowLine> {
    let names = flows.names();
    let (mut lines, mut room) = (Vec::new(), max);
    for kept in kept.rev() {
        if room == 0 {
            break;
        }
        match kept {
            Kept::Event(event) => {
                let flow = told::flow(event, &names, &flows.round_trips, &flows.node);
                if wanted.wants(&flow) {
                    lines.push(FlowLine::Flow(Box::new(flow)));
                    room -= 1;
                }
            }
            Kept::Lost(Loss { events, place, .. }) => match lines.last_mut() {
                Some(FlowLine::Lost(loss)) if loss.place == *place => loss.events += events,
                _ => lines.push(lost(*events, place)),
            },
        }
    }
    lines.reverse();
    lines
}

/// How far back `kept` reaches, for somebody who wants to know what happened since then.
fn reach(kept: &[Kept], since: Timestamp, flows: &Flows) -> FlowLine {
    let oldest = kept.first().filter(|_| kept.len() == LOG_MAX).map(Kept::time);
    let known_since = oldest.unwrap_or(flows.log.began);
    let complete = known_since <= since;
    FlowLine::Reach(FlowReach { node: flows.node.clone(), since: known_since, complete })
}

/// Somebody who follows.
struct Reader {
    backlog: VecDeque<FlowLine>,
    items: FlowEvents,
    wanted: FlowSelection,
    names: Arc<Mutex<Names>>,
    round_trips: Arc<RoundTrips>,
    node: String,
    stop: CancellationToken,
}

impl Reader {
    async fn next(&mut self) -> Option<FlowLine> {
        if let Some(line) = self.backlog.pop_front() {
            return Some(line);
        }
        loop {
            let item = tokio::select! {
                () = self.stop.cancelled() => return None,
                item = self.items.next() => item?,
            };
            match item {
                FlowItem::Event(event) => {
                    let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                    let flow = told::flow(&event, &names, &self.round_trips, &self.node);
                    if self.wanted.wants(&flow) {
                        return Some(FlowLine::Flow(Box::new(flow)));
                    }
                }
                FlowItem::Lost(events) => return Some(lost(events, STREAM)),
                FlowItem::LostInKernel(events) => return Some(lost(events, KERNEL)),
            }
        }
    }
}

fn lost(events: u64, place: &str) -> FlowLine {
    FlowLine::Lost(FlowLoss { events, place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// An event of the connection from `port`, some seconds after the beginning.
    fn event(kind: FlowKind, port: u16, second: i64) -> FlowEvent {
        let end = |port| FlowPeer { address: Some([10, 200, 0, 7].into()), port, identity: 300 };
        FlowEvent {
            time: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second),
            began: None,
            kind,
            source: end(port),
            destination: end(80),
            protocol: 6,
            egress_rule: 0,
            ingress_rule: 0,
            bytes: [0; 2],
            packets: [0; 2],
            interface: 0,
        }
    }

    #[test]
    fn a_connection_is_told_once_as_what_it_is_now() {
        use FlowKind::{Closed, Live, New};
        let kept =
            [event(New, 1, 1), event(New, 2, 2), event(Closed, 1, 3), event(New, 1, 4), event(New, 3, 5)];
        let live =
            vec![FlowEvent { began: Some(event(Live, 1, 4).time), ..event(Live, 1, 9) }, event(Live, 2, 9)];
        let loss = Kept::Lost(Loss { time: event(New, 0, 4).time, events: 7, place: KERNEL });
        let kept = kept.map(Kept::Event).into_iter().chain([loss]).collect();
        let told: Vec<_> = present(kept, live)
            .iter()
            .map(|kept| match kept {
                Kept::Event(event) => Some((event.kind, event.source.port)),
                Kept::Lost(_) => None,
            })
            .collect();
        assert_eq!(told, [Some((Closed, 1)), None, Some((Live, 1)), Some((New, 3)), Some((Live, 2))]);
    }

    #[test]
    fn the_log_keeps_so_much_and_no_more_and_what_was_lost_as_well() {
        let log = Log::new(FlowFeed::new(1));
        for port in 0..LOG_MAX {
            log.take(FlowItem::Event(event(FlowKind::New, u16::try_from(port).unwrap(), 1)));
        }
        log.take(FlowItem::LostInKernel(12));
        let kept = log.kept();
        assert_eq!((kept.len(), kept[0]), (LOG_MAX, Kept::Event(event(FlowKind::New, 1, 1))));
        assert!(matches!(kept[LOG_MAX - 1], Kept::Lost(Loss { events: 12, place: KERNEL, .. })));
    }

    #[test]
    fn what_is_lost_is_counted() {
        let log = Log::new(FlowFeed::new(1));
        log.take(FlowItem::Event(event(FlowKind::New, 1, 1)));
        assert_eq!(*log.lost(), FlowLosses::default());
        log.take(FlowItem::Lost(3));
        log.take(FlowItem::LostInKernel(4));
        let lost = *log.lost();
        assert!(lost.events == 7 && lost.last.is_some(), "{lost:?}");
    }
}
