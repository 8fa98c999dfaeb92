//! `node drain`: move what is on a node elsewhere, and wait until that is done.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use hivemind_client::{Selection, WatchItem};
use hivemind_model::{ErrorCode, Node, Problem, Problems, Replica, WatchKind};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::change::change;
use crate::cli::{
    NameArgs, Session,
    app::{next_item, timeout},
    fault::{Failure, fault},
    output::{self, note},
};

/// Between two tries to reach a daemon that went away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How many replicas an error names.
const NAMES_MAX: usize = 5;

/// Flags of `node drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Do not wait until no replica is there
    #[arg(long)]
    no_wait: bool,
    /// How long to wait until no replica is there, for example 90s or 1h
    #[arg(long, value_name = "TIME", default_value = "10m", allow_hyphen_values = true)]
    timeout: String,
}

/// How the waiting ended, if neither by time nor by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No replica is there.
    Empty,
    /// Somebody ended the draining.
    Uncordoned,
    /// The node is not in the cluster any more.
    Removed,
}

pub(super) async fn run(session: &Session, args: &DrainArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(told)?;
    let set = |node: &mut Node| (node.spec.cordoned, node.spec.draining) = (true, true);
    let (node, _) = change(session, args.name.get(), set).await?;
    let name = &node.metadata.name;
    if args.no_wait {
        return output::print(&format!("node/{name} is being drained\n"));
    }
    let mut left = Left::default();
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            note(&format!(
                "node/{name} goes on being drained.\n  look at it:  hivemind node info {name}\n  end it:      hivemind node uncordon {name}"
            ));
            return Err(Failure::Interrupted);
        }
        ended = until_empty(session, &node, &mut left, Instant::now() + limit) => ended,
    };
    match ended? {
        Some(End::Empty) => output::print(&format!("node/{name} drained\n")),
        Some(End::Uncordoned) => Err(fault(
            ErrorCode::Stale,
            format!("node {name:?} was uncordoned before it was drained"),
            "somebody else did that; drain it again",
        )),
        Some(End::Removed) => Err(fault(
            ErrorCode::NodeNotFound,
            format!("node {name:?} was removed before it was drained"),
            "its replicas are started on other nodes: hivemind app ls",
        )),
        None => Err(fault(
            ErrorCode::TimedOut,
            format!("still on {name} after {} s: {}", limit.as_secs(), left.names()),
            format!(
                "it goes on in the background; why one stays: hivemind scheduler explain APP; to end it: hivemind node uncordon {name}"
            ),
        )),
    }
}

fn told(problem: Problem) -> Failure {
    let Problem { code, field, message, hint } = problem;
    let mut problems = Problems::default();
    problems.add(code, field, message, hint);
    problems.into_result().err().map_or(Failure::Interrupted, Failure::from)
}

/// Waits until no replica is on `node`; `None` if that is not so at the deadline. A daemon that is started again meanwhile
/// is found again.
async fn until_empty(
    session: &Session,
    node: &Node,
    left: &mut Left,
    deadline: Instant,
) -> Result<Option<End>, Failure> {
    let mut is_lost = false;
    loop {
        let again = match timeout_at(deadline, watch_once(session, node, left)).await {
            Err(_) => return Ok(None),
            Ok(Ok(end)) => return Ok(Some(end)),
            Ok(Err(Failure::Told(told)))
                if matches!(told.error.code, ErrorCode::DaemonUnreachable | ErrorCode::TimedOut) =>
            {
                Failure::Told(told)
            }
            Ok(Err(failure)) => return Err(failure),
        };
        if Instant::now() + RETRY_AFTER > deadline {
            return Err(again);
        }
        if !std::mem::replace(&mut is_lost, true) {
            note("the daemon went away; waiting for it to come back");
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn watch_once(session: &Session, node: &Node, left: &mut Left) -> Result<End, Failure> {
    let mut nodes = session.client.watch::<Node>(&Selection::default()).await?;
    let mut replicas = session.client.watch::<Replica>(&Selection::default()).await?;
    left.begin();
    loop {
        tokio::select! {
            item = next_item(&mut replicas) => {
                let news = match item? {
                    WatchItem::Event(event) => left.note(event.kind, &event.object, &node.metadata.name),
                    WatchItem::Synced { .. } => left.settle(),
                };
                news.iter().for_each(|line| note(line));
                if left.is_empty() {
                    return Ok(End::Empty);
                }
            }
            item = next_item(&mut nodes) => {
                if let WatchItem::Event(event) = item?
                    && event.object.metadata.uid == node.metadata.uid
                {
                    match event.kind {
                        WatchKind::Deleted => return Ok(End::Removed),
                        _ if !event.object.spec.draining => return Ok(End::Uncordoned),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The replicas that are still on a node, and what there is to tell of them.
#[derive(Debug, Default)]
struct Left {
    there: BTreeMap<Uuid, String>,
    /// What a new watch has told so far.
    found: Option<BTreeMap<Uuid, String>>,
    /// Whether it was told how many there are.
    told: bool,
}

impl Left {
    /// A new watch tells everything from the beginning.
    fn begin(&mut self) {
        self.found = Some(BTreeMap::new());
    }

    fn note(&mut self, kind: WatchKind, replica: &Replica, node: &str) -> Option<String> {
        let metadata = &replica.metadata;
        let is_there = kind != WatchKind::Deleted && replica.spec.node == node;
        let known = self.found.as_mut().unwrap_or(&mut self.there);
        if is_there {
            known.insert(metadata.uid, format!("{}/{}", metadata.namespace, metadata.name));
            return None;
        }
        let gone = known.remove(&metadata.uid)?;
        self.found.is_none().then(|| self.gone(&gone))
    }

    /// All that is there has been told.
    fn settle(&mut self) -> Option<String> {
        self.there = self.found.take()?;
        let first = !std::mem::replace(&mut self.told, true);
        let many = match self.there.len() {
            0 => return None,
            1 => "1 replica is".to_owned(),
            count => format!("{count} replicas are"),
        };
        Some(if first { format!("{many} to be moved") } else { format!("{many} left") })
    }

    fn gone(&self, name: &str) -> String {
        format!("{name} is gone, {} left", self.there.len())
    }

    fn is_empty(&self) -> bool {
        self.found.is_none() && self.there.is_empty()
    }

    /// The first of them.
    fn names(&self) -> String {
        let names: Vec<&str> = self.there.values().map(String::as_str).take(NAMES_MAX).collect();
        match self.there.len().saturating_sub(NAMES_MAX) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, ReplicaSpec, ReplicaStatus, Template};

    use super::*;

    fn replica(number: u128, node: &str) -> Replica {
        let mut metadata = Metadata::new("default", format!("web-{number}"));
        metadata.uid = Uuid::from_u128(number);
        let spec = ReplicaSpec {
            app: "web".into(),
            node: node.into(),
            identity: 0,
            template_hash: String::new(),
            template: Template::default(),
        };
        Replica { metadata, spec, status: ReplicaStatus::default() }
    }

    #[test]
    fn it_is_told_how_many_are_there_and_each_that_goes() {
        let mut left = Left::default();
        left.begin();
        for number in 1..=2 {
            assert_eq!(left.note(WatchKind::Added, &replica(number, "b"), "b"), None);
        }
        assert_eq!(left.note(WatchKind::Added, &replica(3, "a"), "b"), None);
        assert!(!left.is_empty(), "not all has been told");
        assert_eq!(left.settle().as_deref(), Some("2 replicas are to be moved"));
        assert_eq!(left.note(WatchKind::Modified, &replica(1, "b"), "b"), None);
        assert_eq!(left.note(WatchKind::Added, &replica(4, "a"), "b"), None);
        let gone = left.note(WatchKind::Deleted, &replica(1, "b"), "b");
        assert_eq!(gone.as_deref(), Some("default/web-1 is gone, 1 left"));
        assert_eq!(left.note(WatchKind::Deleted, &replica(3, "a"), "b"), None);
        assert_eq!(left.names(), "default/web-2");
        left.note(WatchKind::Deleted, &replica(2, "b"), "b");
        assert!(left.is_empty());
    }

    #[test]
    fn what_went_while_the_daemon_was_away_is_not_waited_for() {
        let mut left = Left::default();
        left.begin();
        (1..=8).for_each(|number| drop(left.note(WatchKind::Added, &replica(number, "b"), "b")));
        left.settle();
        assert!(left.names().ends_with("default/web-5 and 3 more"));
        left.begin();
        left.note(WatchKind::Added, &replica(8, "b"), "b");
        assert_eq!(left.settle().as_deref(), Some("1 replica is left"));
        left.begin();
        assert!(!left.is_empty());
        assert_eq!(left.settle(), None);
        assert!(left.is_empty());
    }
}
