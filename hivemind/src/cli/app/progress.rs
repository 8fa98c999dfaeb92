//! What a person who waits for an app is told, and when the waiting is over: a fold over what the watches tell.
//!
//! No I/O and no clock: [`Progress::observe`] takes one observation and says what to print and how it stands.

use std::collections::BTreeMap;

use hivemind_client::WatchItem;
use hivemind_model::{App, ErrorCode, Phase, Problem, Replica, WatchKind};
use uuid::Uuid;

use crate::cli::units;

/// One thing that was seen.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// From the watch of apps.
    App(Box<WatchItem<App>>),
    /// From the watch of the app's replicas.
    Replica(Box<WatchItem<Replica>>),
    /// Both watches begin anew: what they tell before they are synced is the whole.
    Resync,
}

/// What to tell of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its name.
    pub(crate) replica: String,
    /// What it does.
    pub(crate) text: String,
    /// Whether this is a new step, or the last one gone a little further.
    pub(crate) is_new: bool,
    /// Whether the replica is gone, and nothing more will come of it.
    pub(crate) is_last: bool,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on waiting.
    Waiting,
    /// All that the app wants is up.
    Up,
    /// The app was deleted.
    Gone,
    /// It will not come up by itself.
    Failed(Blame),
}

/// Whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blame {
    /// The replica, if it is one's.
    pub(crate) replica: Option<String>,
    /// Whether a container of it ran, so that it may have written something.
    pub(crate) ran: bool,
    /// What is wrong.
    pub(crate) problem: Problem,
}

/// Whether restarts from before count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// All replicas were made by what is being waited for.
    AllNew,
    /// There may be replicas from before, with restarts and problems of their own.
    SomeOld,
}

/// What has been seen so far of an app that is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    uid: Uuid,
    generation: u64,
    replicas_are: Replicas,
    app: Option<App>,
    app_is_stale: bool,
    replicas: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    replica: Replica,
    restarts_before: u32,
    tries: u32,
    pulled_quarters: u64,
    text: String,
    is_stale: bool,
}

impl Progress {
    /// Waits for `app`, as the daemon answered it, to be up.
    pub(crate) fn new(app: &App, replicas_are: Replicas) -> Self {
        Progress {
            uid: app.metadata.uid,
            generation: app.metadata.generation,
            replicas_are,
            app: None,
            app_is_stale: true,
            replicas: BTreeMap::new(),
        }
    }

    /// The app as it was seen last.
    pub(crate) fn app(&self) -> Option<&App> {
        self.app.as_ref()
    }

    /// The replicas that were seen last.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values().map(|seen| &seen.replica)
    }

    /// What keeps the app from being up now, if anything is known.
    pub(crate) fn blame(&self) -> Option<Blame> {
        let of_replicas = self.replicas.values().find_map(Seen::blame);
        of_replicas.or_else(|| self.app.as_ref().and_then(app_blame))
    }

    /// Takes an observation in; says what to tell and how it stands now.
    pub(crate) fn observe(&mut self, observation: Observation) -> (Vec<Step>, Verdict) {
        let steps = match observation {
            Observation::App(item) => return (Vec::new(), self.observe_app(*item)),
            Observation::Replica(item) => self.observe_replica(*item),
            Observation::Resync => {
                self.app_is_stale = true;
                self.replicas.values_mut().for_each(|seen| seen.is_stale = true);
                Vec::new()
            }
        };
        (steps, self.verdict())
    }

    fn observe_app(&mut self, item: WatchItem<App>) -> Verdict {
        match item {
            WatchItem::Event(event) if event.object.metadata.uid == self.uid => {
                if event.kind == WatchKind::Deleted {
                    return Verdict::Gone;
                }
                self.app_is_stale = false;
                self.app = Some(event.object);
            }
            WatchItem::Event(_) => {}
            WatchItem::Synced { .. } if self.app_is_stale => return Verdict::Gone,
            WatchItem::Synced { .. } => {}
        }
        self.verdict()
    }

    fn observe_replica(&mut self, item: WatchItem<Replica>) -> Vec<Step> {
        match item {
            WatchItem::Event(event) if event.kind == WatchKind::Deleted => {
                let name = event.object.metadata.name;
                self.replicas.remove(&name).map(|_| gone(name)).into_iter().collect()
            }
            WatchItem::Event(event) => self.see(event.object).into_iter().collect(),
            WatchItem::Synced { .. } => {
                self.replicas.extract_if(.., |_, seen| seen.is_stale).map(|(name, _)| gone(name)).collect()
            }
        }
    }

    fn see(&mut self, replica: Replica) -> Option<Step> {
        let name = replica.metadata.name.clone();
        let before = self.replicas.remove(&name);
        let seen = Seen::after(before.as_ref(), replica, self.replicas_are);
        let is_new = before.as_ref().is_none_or(|b| seen.is_new_step_after(b));
        let changed = before.is_none_or(|b| b.text != seen.text);
        let text = seen.text.clone();
        self.replicas.insert(name.clone(), seen);
        changed.then_some(Step { replica: name, text, is_new, is_last: false })
    }

    fn verdict(&self) -> Verdict {
        if let Some(blame) = self.replicas.values().find(|seen| seen.will_not_mend()).and_then(Seen::blame) {
            return Verdict::Failed(blame);
        }
        let Some(app) = &self.app else { return Verdict::Waiting };
        if let Some(blame) = app_blame(app).filter(|b| patience(b.problem.code) == Patience::None) {
            return Verdict::Failed(blame);
        }
        // Both watches tell of the same change, one after the other; the addresses come with the replicas.
        let is_well = |r: &&Replica| r.status.ready || r.status.phase == Phase::Succeeded;
        let ready = self.replicas().filter(|r| is_well(r) && !r.metadata.is_deleting()).count();
        let is_up = app.metadata.generation >= self.generation && app.status.is_up(app);
        if is_up && ready >= app.spec.replicas as usize { Verdict::Up } else { Verdict::Waiting }
    }
}

fn app_blame(app: &App) -> Option<Blame> {
    let current = app.status.observed_generation == app.metadata.generation;
    let problem = app.status.problem.clone().filter(|_| current)?;
    Some(Blame { replica: None, ran: false, problem })
}

fn gone(replica: String) -> Step {
    Step { replica, text: "gone".to_owned(), is_new: true, is_last: true }
}

impl Seen {
    fn after(before: Option<&Seen>, replica: Replica, replicas_are: Replicas) -> Self {
        let status = &replica.status;
        let is_backoff = |phase: Phase| phase == Phase::Backoff;
        let enters_backoff =
            is_backoff(status.phase) && before.is_none_or(|b| !is_backoff(b.replica.status.phase));
        let first_restarts = if replicas_are == Replicas::SomeOld { status.restarts } else { 0 };
        Seen {
            restarts_before: before.map_or(first_restarts, |b| b.restarts_before),
            tries: before.map_or(0, |b| b.tries) + u32::from(enters_backoff),
            pulled_quarters: status
                .pull
                .map_or(0, |p| (p.done_bytes * 4).checked_div(p.total_bytes).unwrap_or(0)),
            text: text(&replica),
            is_stale: false,
            replica,
        }
    }

    /// A pull that went on is the same step until another quarter is there.
    fn is_new_step_after(&self, before: &Seen) -> bool {
        let pulling = |seen: &Seen| seen.replica.status.phase == Phase::Pulling;
        if pulling(self) && pulling(before) {
            let total = |seen: &Seen| seen.replica.status.pull.map_or(0, |p| p.total_bytes);
            return self.pulled_quarters != before.pulled_quarters || (total(before) == 0 && total(self) > 0);
        }
        self.text != before.text
    }

    fn blame(&self) -> Option<Blame> {
        let status = &self.replica.status;
        let problem = status.problem.clone().filter(|_| !status.ready)?;
        let ran = status.restarts > 0 || status.started_at.is_some() || status.last_exit.is_some();
        Some(Blame { replica: Some(self.replica.metadata.name.clone()), ran, problem })
    }

    fn will_not_mend(&self) -> bool {
        let Some(blame) = self.blame() else { return false };
        match self.replica.status.phase {
            Phase::Running => return false,
            Phase::Failed => return true,
            _ => {}
        }
        let restarts = self.replica.status.restarts.saturating_sub(self.restarts_before);
        match patience(blame.problem.code) {
            Patience::None => true,
            Patience::Restarts(most) => restarts >= most,
            Patience::Tries(most) => restarts.max(self.tries) >= most,
            Patience::UntilTimeout => false,
        }
    }
}

/// How long a problem may last before it is taken as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    None,
    /// Of the container.
    Restarts(u32),
    /// Of getting the container to run at all.
    Tries(u32),
    UntilTimeout,
}

fn patience(code: ErrorCode) -> Patience {
    use ErrorCode as E;
    match code {
        E::ImageNotFound
        | E::ImageUnauthorized
        | E::ImagePlatform
        | E::ImageCorrupt
        | E::CommandFailed
        | E::InvalidImage
        | E::InvalidMount
        | E::NotPermitted
        | E::PortTaken
        // A pull asks several times by itself before it says so.
        | E::RegistryUnreachable => Patience::None,
        E::CrashLoop | E::Unhealthy => Patience::Restarts(3),
        E::OutOfMemory => Patience::Restarts(2),
        E::ContainerFailed => Patience::Tries(3),
        _ => Patience::UntilTimeout,
    }
}

/// What a replica does, in words.
fn text(replica: &Replica) -> String {
    let status = &replica.status;
    if replica.metadata.is_deleting() || status.phase == Phase::Stopping {
        return "stopping".to_owned();
    }
    let address = status.ipv4.map(|a| format!(" {a}")).unwrap_or_default();
    match status.phase {
        Phase::Pending => "waiting for its node".to_owned(),
        Phase::Pulling => match status.pull {
            Some(pull) if pull.total_bytes > 0 => {
                format!("pulling {}", units::progress(pull.done_bytes, pull.total_bytes))
            }
            _ => "pulling".to_owned(),
        },
        Phase::Starting => "starting".to_owned(),
        Phase::Running if status.ready => format!("running{address}"),
        Phase::Running => match &status.problem {
            Some(problem) => format!("started{address}; {} ({})", problem.message, problem.code),
            None => format!("started{address}"),
        },
        Phase::Succeeded => "has ended well".to_owned(),
        Phase::Failed => match &status.problem {
            Some(problem) => format!("has failed: {} ({})", problem.message, problem.code),
            None => "has failed".to_owned(),
        },
        Phase::Backoff | Phase::Stopping => match &status.problem {
            Some(problem) => format!("{} ({}), will be tried again", problem.message, problem.code),
            None => "ended, will be started again".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
