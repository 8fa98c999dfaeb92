//! What was found, path by path.

use std::{
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use hivemind_datapath::{DropReason, FlowEvents, FlowItem, FlowKind};
use hivemind_model::{Identity, NetOutcome, NetProbe};
use jiff::Timestamp;
use tokio::time::timeout;

/// How long one path may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long it is waited for what the data path tells of a path that failed: longer than its reader rests.
const NEWS: Duration = Duration::from_millis(100);

/// What is known so far.
pub(super) struct Report {
    probes: Vec<NetProbe>,
    events: FlowEvents,
}

impl Report {
    /// Nothing yet; `events` tell what the data path does from now on.
    pub(super) fn new(events: FlowEvents) -> Self {
        Report { probes: Vec::new(), events }
    }

    /// All that was found.
    pub(super) fn into_probes(self) -> Vec<NetProbe> {
        self.probes
    }

    /// Walks a path. If it fails, `look` says what may be the matter where the data path knows nothing of it.
    pub(super) async fn walk(
        &mut self,
        name: &str,
        look: &str,
        path: impl Future<Output = Result<(), String>>,
    ) {
        let (began, since) = (Instant::now(), Timestamp::now());
        let found = timeout(DEADLINE, path).await;
        let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let found =
            found.unwrap_or_else(|_| Err(format!("nothing came back within {} s", DEADLINE.as_secs())));
        let (outcome, explanation) = match found {
            Ok(()) => (NetOutcome::Passed, String::new()),
            Err(what) => {
                let why = match self.refused(since).await {
                    Some(why) => format!("the data path dropped a packet of it: {why}"),
                    None => format!("the data path dropped no packet of it; {look}"),
                };
                (NetOutcome::Failed, format!("{what}: {why}"))
            }
        };
        self.probes.push(NetProbe { name: name.to_owned(), outcome, duration_us, explanation });
    }

    /// Notes that a path must be refused, and whether it was: a packet to `to` that the data path dropped because it is guarded,
    /// while `path` tries to get there.
    pub(super) async fn refuse(&mut self, name: &str, to: IpAddr, path: impl Future<Output = ()>) {
        let began = Instant::now();
        let events = &mut self.events;
        let guarded = async {
            loop {
                match events.next().await {
                    Some(FlowItem::Event(event))
                        if event.kind == FlowKind::Dropped(DropReason::Guarded)
                            && event.destination.address == Some(to) =>
                    {
                        return;
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        let found = timeout(DEADLINE, async {
            tokio::select! {
                biased;
                () = guarded => Ok(()),
                () = path => Err("it is reached, though no policy names its address"),
            }
        });
        let found =
            found.await.unwrap_or(Err("nothing came back, but it was not the data path that refused it"));
        let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (outcome, explanation) = match found {
            Ok(()) => (NetOutcome::Passed, String::new()),
            Err(what) => {
                let look = "see whether the daemon's log tells of tables that could not be written";
                (NetOutcome::Failed, format!("{what}: {look}"))
            }
        };
        self.probes.push(NetProbe { name: name.to_owned(), outcome, duration_us, explanation });
    }

    /// Notes that a path was not walked.
    pub(super) fn skip(&mut self, name: &str, why: &str) {
        let (name, explanation) = (name.to_owned(), why.to_owned());
        self.probes.push(NetProbe { name, outcome: NetOutcome::Skipped, duration_us: 0, explanation });
    }

    /// Why the data path dropped a packet of the ends since then, if it did.
    async fn refused(&mut self, since: Timestamp) -> Option<String> {
        let events = &mut self.events;
        let first = async {
            loop {
                match events.next().await {
                    Some(FlowItem::Event(event)) if event.time >= since => {
                        if let FlowKind::Dropped(reason) = event.kind
                            && [event.source.identity, event.destination.identity].contains(&Identity::CHECK)
                            && reason != DropReason::NotUnicast
                        {
                            return reason.meaning().to_owned();
                        }
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        timeout(NEWS, first).await.ok()
    }
}
