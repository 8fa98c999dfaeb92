//! The worker of one replica: it carries out the steps that [`crate::lifecycle`] says are due.

mod containers;
mod host_path;
mod member;
mod steps;
mod target;
mod told;
mod volumes;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{pending, select_all},
};
use hivemind_model::{Phase, Problem, Replica};
use hivemind_runtime::{ContainerId, ContainerState};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

pub use self::host_path::release_host_paths;
use self::member::Member;
pub(crate) use self::member::{container_id, replica_of};
use crate::{
    agent::Shared,
    fault,
    lifecycle::{Backoff, Container, Seen, Step, Wanted, next_step},
    status::StatusWriter,
};

/// How often processes of containers were killed for want of memory, as far as was told.
pub(crate) type OutOfMemory = BTreeMap<ContainerId, u32>;

/// How long until containerd is asked again that did not answer.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What one replica's worker knows.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    id: ContainerId,
    /// The replica as the store last had it; its deletion is what changes.
    replica: watch::Receiver<Replica>,
    /// Something happened to a container, or may have.
    news: Arc<Notify>,
    out_of_memory: watch::Receiver<OutOfMemory>,
    images: bool,
    network: bool,
    admitted: bool,
    members: Vec<Member>,
    /// How many members run first.
    init: usize,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    /// The identity of its endpoint, if that is there.
    identity: Option<u32>,
    backoff: Backoff,
    not_before: Option<Instant>,
    status: StatusWriter,
}

/// Why a worker does not wait any longer.
enum Woken {
    News,
    Told,
    Health,
    Time,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ContainerId,
        replica: watch::Receiver<Replica>,
        news: Arc<Notify>,
        out_of_memory: watch::Receiver<OutOfMemory>,
    ) -> Self {
        let now = replica.borrow().clone();
        let status = StatusWriter::start(
            shared.objects.clone(),
            now.metadata.namespace.clone(),
            now.metadata.name.clone(),
            now.status.clone(),
        );
        Worker {
            shared,
            id,
            replica,
            news,
            out_of_memory,
            images: false,
            network: false,
            admitted: false,
            members: Vec::new(),
            init: now.spec.template.init_containers.len(),
            addresses: None,
            identity: None,
            backoff: Backoff::default(),
            not_before: None,
            status,
        }
    }

    /// Runs until the replica is gone or the agent stops.
    pub(crate) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.live() => {}
        }
        self.status.finish().await;
    }

    async fn live(&mut self) {
        self.adopt().await;
        loop {
            match next_step(self.wanted(), &self.seen(), self.not_before, Instant::now()) {
                Step::Wait(until) => self.wait(until).await,
                Step::Forget => {
                    if self.forget().await {
                        return;
                    }
                }
                step => self.attempt(step).await,
            }
        }
    }

    fn wanted(&self) -> Wanted {
        if self.replica.borrow().metadata.is_deleting() { Wanted::Down } else { Wanted::Up }
    }

    fn seen(&self) -> Seen {
        Seen {
            images: self.images,
            network: self.network,
            identified: !self.is_misidentified(),
            admitted: self.admitted,
            members: self.members.iter().map(|member| member.seen).collect(),
            init: self.init,
        }
    }

    /// Whether the endpoint is judged and told as another identity than the replica has by now.
    fn is_misidentified(&self) -> bool {
        let wanted = self.replica.borrow().spec.identity;
        wanted != 0 && self.identity.is_some_and(|identity| identity != wanted)
    }

    /// Finds out what is there already.
    async fn adopt(&mut self) {
        let endpoint = self.shared.datapath.endpoints().into_iter().find(|e| e.spec.id == self.id.as_str());
        if let Some(endpoint) = endpoint {
            self.network = true;
            self.addresses = Some((endpoint.spec.ipv4, endpoint.spec.ipv6));
            self.now_identified(Some(endpoint.spec.identity));
        }
        let replica = self.replica.borrow().clone();
        self.members = member::members(&self.id, &replica, self.network);
        for i in 0..self.members.len() {
            match self.look(i).await {
                Some(ContainerState::Running { pid }) => {
                    let was_ready = match replica.status.containers.get(i) {
                        Some(told) => told.ready,
                        None => replica.status.ready,
                    };
                    self.now_running(i, pid, was_ready).await;
                }
                Some(_) => self.members[i].seen.container = Container::Ended,
                None => {}
            }
        }
        if self.wanted() == Wanted::Up && replica.status.ready && self.seen().is_ready() {
            info!(replica = %self.id, "A running replica is adopted");
            // It was in its service before: asking again whether it is ready would take it out.
            self.admit().await;
        } else {
            self.withdraw().await;
        }
        self.tell_members();
    }

    /// Asks containerd how a container is, until it answers.
    async fn look(&self, i: usize) -> Option<ContainerState> {
        loop {
            match self.shared.runtime.state(&self.members[i].id).await {
                Ok(found) => return found,
                Err(error) => {
                    debug!(replica = %self.id, error = fault::with_causes(&error), "containerd does not tell; asking again");
                    self.cannot_look(&error);
                }
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Tells why a replica that does not run is not started. Of one that runs nothing is known, so nothing is said.
    fn cannot_look(&self, error: &hivemind_runtime::Error) {
        self.status.update(|status| {
            if status.phase != Phase::Running && !status.phase.is_final() {
                status.phase = Phase::Backoff;
                status.problem = Some(fault::of_runtime(error));
            }
        });
    }

    /// Looks at containers that may have ended.
    async fn look_again(&mut self) {
        for i in 0..self.members.len() {
            if self.members[i].seen.container != Container::Running {
                continue;
            }
            if !matches!(self.look(i).await, Some(ContainerState::Running { .. })) {
                self.members[i].now_ended();
            }
        }
        self.tell_members();
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let woken = {
            let Worker { news, replica, members, .. } = self;
            let timer = async {
                match until {
                    Some(time) => tokio::time::sleep_until(time.into()).await,
                    None => pending().await,
                }
            };
            let told = async {
                // Without a sender the agent stops, and this worker with it.
                if replica.changed().await.is_err() {
                    pending::<()>().await;
                }
            };
            let health = members.iter_mut().map(|member| member.health_changed().boxed());
            tokio::select! {
                () = news.notified() => Woken::News,
                () = told => Woken::Told,
                _ = select_all(health.chain([pending().boxed()])) => Woken::Health,
                () = timer => Woken::Time,
            }
        };
        match woken {
            Woken::News => self.look_again().await,
            Woken::Health => self.take_health(),
            Woken::Told | Woken::Time => {}
        }
    }

    /// Carries `step` out; a failure is told and puts off the next attempt. Being told to go down interrupts what brings up.
    async fn attempt(&mut self, step: Step) {
        let mut told = self.replica.clone();
        let goes_down = async move {
            while !told.borrow_and_update().metadata.is_deleting() {
                if told.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        let interruptible = self.wanted() == Wanted::Up && step == Step::Pull;
        let done = if interruptible {
            tokio::select! {
                () = goes_down => return,
                done = self.carry_out(step) => done,
            }
        } else {
            self.carry_out(step).await
        };
        if let Err(problem) = done {
            let wait = self.failed(step, problem);
            if self.wanted() == Wanted::Down {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Notes that a step failed; how long it is waited before the next attempt.
    fn failed(&mut self, step: Step, problem: Problem) -> Duration {
        let wait = match step {
            Step::Run(i) => {
                let member = &mut self.members[i];
                let wait = member.backoff.failed();
                member.seen.not_before = Some(Instant::now() + wait);
                member.restarts = member.restarts.saturating_add(1);
                member.problem = Some(problem.clone());
                wait
            }
            _ => {
                let wait = self.backoff.failed();
                self.not_before = Some(Instant::now() + wait);
                wait
            }
        };
        warn!(replica = %self.id, problem = %problem.message, code = %problem.code, again_in_s = wait.as_secs(), "A step failed");
        self.status.update(|status| {
            status.problem = Some(problem);
            // After a failure to identify it runs, and is judged as it was until now.
            if step != Step::Identify {
                status.phase = Phase::Backoff;
                status.ready = false;
                status.pull = None;
            }
        });
        self.tell_members();
        wait
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Problem> {
        match step {
            Step::Pull => self.pull().await,
            Step::MakeNetwork => self.make_network().await,
            Step::Identify => self.identify().await,
            Step::Run(i) => self.run_container(i).await,
            Step::Restart(i) => self.restart_container(i).await,
            Step::Admit => {
                self.admit().await;
                Ok(())
            }
            Step::Withdraw => {
                self.withdraw().await;
                Ok(())
            }
            Step::Clear(i) => self.clear(i).await,
            Step::Stop => self.stop().await,
            Step::RemoveNetwork => self.remove_network().await,
            Step::Wait(_) | Step::Forget => Ok(()),
        }
    }

    fn service(&self) -> (String, String) {
        let replica = self.replica.borrow();
        (replica.metadata.namespace.clone(), replica.spec.app.clone())
    }

    /// Removes the object; true when that is done.
    async fn forget(&mut self) -> bool {
        let replica = self.replica.borrow().clone();
        for member in &self.members {
            if let Err(error) = self.shared.runtime.remove_logs(&member.id).await {
                warn!(container = %member.id, error = fault::with_causes(&error), "A container's logs could not be removed");
            }
        }
        let directory = self.shared.config.run_dir.join(self.id.as_str());
        let _ = tokio::fs::remove_dir_all(&directory).await;
        match self.delete_object(&replica).await {
            Ok(()) => {
                info!(replica = %self.id, "A replica is gone");
                true
            }
            Err(error) => {
                warn!(replica = %self.id, %error, "A replica's object could not be removed; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                false
            }
        }
    }

    async fn delete_object(&self, replica: &Replica) -> Result<(), hivemind_model::ApiError> {
        use hivemind_model::ErrorCode::{ReplicaNotFound, Stale};
        loop {
            let read =
                self.shared.objects.get::<Replica>(&replica.metadata.namespace, &replica.metadata.name).await;
            let deleted = match read {
                Ok(now) => self.shared.objects.delete(&now).await,
                Err(error) => Err(error),
            };
            match deleted {
                Err(error) if error.code == Stale => {}
                Err(error) if error.code == ReplicaNotFound => return Ok(()),
                done => return done,
            }
        }
    }
}
