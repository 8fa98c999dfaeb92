//! What a worker tells of its replica.

use hivemind_health::{Failing, Health};
use hivemind_model::{ErrorCode, LastExit, Memory, Phase, Problem};
use jiff::Timestamp;
use tracing::warn;

use super::Worker;
use crate::{
    fault::problem,
    lifecycle::{Container, End},
};

impl Worker {
    /// The endpoint has this identity, or is gone.
    pub(super) fn now_identified(&mut self, identity: Option<u32>) {
        self.identity = identity;
        self.status.update(|status| status.identity = identity);
    }

    /// Tells what is of the containers.
    pub(super) fn tell_members(&self) {
        let one_by_one = || self.members.iter().map(super::Member::status).collect();
        let containers = if self.members.len() > 1 { one_by_one() } else { Vec::new() };
        let restarts = self.members.iter().fold(0, |sum: u32, member| sum.saturating_add(member.restarts));
        let pid = self.members.get(self.init).and_then(|member| member.pid);
        let last_exit =
            self.members.iter().filter_map(|member| member.last_exit.clone()).max_by_key(|e| e.at);
        self.status.update(|status| {
            status.containers = containers;
            status.restarts = restarts;
            status.pid = pid;
            status.last_exit = last_exit;
        });
    }

    /// A container was started; the replica is not in its service yet.
    pub(super) fn now_started(&self) {
        let addresses = self.addresses;
        let main = &self.members[self.init..];
        let is_all = main.iter().all(|m| m.seen.end.is_some() || m.seen.container == Container::Running);
        self.status.update(|status| {
            status.phase = if is_all { Phase::Running } else { Phase::Starting };
            status.pull = None;
            status.ipv4 = addresses.map(|a| a.0);
            status.ipv6 = addresses.map(|a| a.1);
            status.started_at = Some(Timestamp::now());
        });
        self.tell_members();
    }

    /// All containers take connections: the replica may be in its service.
    pub(super) async fn admit(&mut self) {
        self.admitted = true;
        if let Some(addresses) = self.addresses {
            self.shared.services.admit(self.service(), addresses).await;
        }
        for member in &mut self.members {
            member.problem = None;
        }
        self.status.update(|status| {
            status.phase = Phase::Running;
            status.ready = true;
            status.problem = None;
        });
        self.tell_members();
    }

    /// Not all containers take connections: the replica leaves its service.
    pub(super) async fn withdraw(&mut self) {
        self.admitted = false;
        if let Some((ipv4, _)) = self.addresses {
            self.shared.services.withdraw(self.service(), ipv4).await;
        }
        self.status.update(|status| status.ready = false);
    }

    /// Takes in what the checks of the containers found.
    pub(super) fn take_health(&mut self) {
        for i in 0..self.members.len() {
            let Some(health) = self.members[i].take_health() else { continue };
            if let Some(failing) = &health.failing {
                self.note_failing(i, &health, failing);
            }
        }
        self.tell_members();
    }

    fn note_failing(&mut self, i: usize, health: &Health, failing: &Failing) {
        let found = unhealthy(failing, health.is_lost);
        warn!(container = %self.members[i].id, problem = %found.message, "A container is not well");
        self.members[i].problem = Some(found.clone());
        self.status.update(|status| status.problem = Some(found));
    }

    /// Notes how a container ended that is started again, and when it may be.
    pub(super) fn note_exit(&mut self, i: usize, exit: LastExit) {
        let member = &mut self.members[i];
        let was_lost = member.problem.take().filter(|_| member.seen.lost);
        let ran = member.started.take().map(|started| started.elapsed()).unwrap_or_default();
        let wait = member.backoff.ended(ran);
        member.seen.not_before = Some(std::time::Instant::now() + wait);
        member.restarts = member.restarts.saturating_add(1);
        tracing::info!(container = %member.id, code = exit.code, out_of_memory = exit.out_of_memory, again_in_s = wait.as_secs(), "A container ended; it is started again");
        let failures = member.backoff.failures();
        let why =
            was_lost.unwrap_or_else(|| why_it_ended(&exit, failures, member.container.resources.memory));
        member.problem = Some(why.clone());
        member.last_exit = Some(exit);
        self.status.update(|status| {
            status.phase = Phase::Backoff;
            status.problem = Some(why);
        });
        self.tell_members();
    }

    /// Notes how a container ended that is not started again.
    pub(super) fn note_end(&mut self, i: usize, exit: LastExit, end: End) {
        let member = &mut self.members[i];
        tracing::info!(container = %member.id, code = exit.code, out_of_memory = exit.out_of_memory, "A container ended");
        let was_lost = member.problem.take().filter(|_| member.seen.lost);
        member.problem = (end == End::Failed).then(|| {
            let why = why_it_ended(&exit, 1, member.container.resources.memory);
            // It does not have to keep running.
            was_lost.unwrap_or(Problem { hint: "see `hivemind app logs`".into(), ..why })
        });
        member.last_exit = Some(exit);
        member.seen.end = Some(end);
        if let Some(end) = self.seen().end() {
            let why = self.members.iter().find_map(|member| member.problem.clone());
            self.status.update(|status| {
                status.phase = if end == End::Well { Phase::Succeeded } else { Phase::Failed };
                status.ready = false;
                status.problem = why;
            });
        }
        self.tell_members();
    }
}

fn unhealthy(Failing { probe, error, times }: &Failing, is_lost: bool) -> Problem {
    let row = if *times > 1 { format!(" {times} times in a row") } else { String::new() };
    let what = if is_lost { "; the container is restarted" } else { "" };
    problem(
        ErrorCode::Unhealthy,
        format!("its {} probe failed{row}: {error}{what}", probe.as_str()),
        "see `hivemind app logs`, or give it more time with the probe's periodSeconds, timeoutSeconds and failureThreshold",
    )
}

/// What a user should know of an exit: ended containers are told as a problem from the first restart on.
fn why_it_ended(exit: &LastExit, failures: u32, limit: Option<Memory>) -> Problem {
    if exit.out_of_memory {
        let limit = limit.map_or("the machine's memory".to_owned(), |m| format!("its limit of {m}"));
        return problem(
            ErrorCode::OutOfMemory,
            format!("the container needs more memory than {limit}"),
            "raise --memory",
        );
    }
    let times = if failures > 1 { format!(", {failures} times in a row") } else { String::new() };
    let message = match exit.code {
        0 => format!("the container's process ended by itself{times}"),
        code if code > 128 => format!("the container was ended by signal {}{times}", code - 128),
        code => format!("the container ended with code {code}{times}"),
    };
    problem(ErrorCode::CrashLoop, message, "see `hivemind app logs`; a container has to keep running")
}
