//! The worker of one replica: it carries out the steps that [`crate::lifecycle`] says are due.

mod readiness;
mod steps;
mod volumes;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use hivemind_model::{LastExit, Phase, Problem, Replica};
use hivemind_runtime::{ContainerId, ContainerState, ContainerStatus};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::{
    agent::Shared,
    fault,
    lifecycle::{Backoff, Container, Seen, Step, Wanted, next_step},
    status::StatusWriter,
};

/// What one replica's worker knows.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    id: ContainerId,
    /// The replica as the store last had it; its deletion is what changes.
    replica: watch::Receiver<Replica>,
    /// Something happened to the container, or may have.
    news: Arc<Notify>,
    out_of_memory: watch::Receiver<u32>,
    seen: Seen,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    /// The identity of its endpoint, if that is there.
    identity: Option<u32>,
    backoff: Backoff,
    not_before: Option<Instant>,
    started: Option<Instant>,
    status: StatusWriter,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ContainerId,
        replica: watch::Receiver<Replica>,
        news: Arc<Notify>,
        out_of_memory: watch::Receiver<u32>,
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
            seen: Seen::NOTHING,
            addresses: None,
            identity: None,
            backoff: Backoff::default(),
            not_before: None,
            started: None,
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
            self.seen.identified = !self.is_misidentified();
            match next_step(self.wanted(), self.seen, self.not_before, Instant::now()) {
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

    /// Whether the endpoint is judged and told as another identity than the replica has by now.
    fn is_misidentified(&self) -> bool {
        let wanted = self.replica.borrow().spec.identity;
        wanted != 0 && self.identity.is_some_and(|identity| identity != wanted)
    }

    /// Finds out what is there already.
    async fn adopt(&mut self) {
        let endpoint = self.shared.datapath.endpoints().into_iter().find(|e| e.spec.id == self.id.as_str());
        if let Some(endpoint) = endpoint {
            self.seen.network = true;
            self.addresses = Some((endpoint.spec.ipv4, endpoint.spec.ipv6));
            self.now_identified(Some(endpoint.spec.identity));
        }
        self.look().await;
        match self.seen.container {
            Container::Running if self.wanted() == Wanted::Up => {
                info!(replica = %self.id, "A running replica is adopted");
                self.started = Some(Instant::now());
                // It was in its service before: asking again whether it is ready would take it out.
                if self.replica.borrow().status.ready {
                    self.now_ready().await;
                }
            }
            _ => self.now_down().await,
        }
    }

    async fn container_status(&self) -> Result<Option<ContainerStatus>, hivemind_runtime::Error> {
        let containers = self.shared.runtime.list().await?;
        Ok(containers.into_iter().find(|c| c.id == self.id))
    }

    /// Asks containerd how the container is, until it answers.
    async fn look(&mut self) {
        loop {
            match self.container_status().await {
                Ok(found) => {
                    self.seen.container = match found.map(|c| c.state) {
                        None => Container::Absent,
                        Some(ContainerState::Running { .. }) => Container::Running,
                        Some(_) => Container::Ended,
                    };
                    return;
                }
                Err(error) => {
                    debug!(replica = %self.id, error = fault::with_causes(&error), "containerd does not tell; asking again");
                    self.cannot_look(&error);
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }

    /// Tells why a replica that does not run is not started. Of one that runs nothing is known, so nothing is said.
    fn cannot_look(&self, error: &hivemind_runtime::Error) {
        self.status.update(|status| {
            if status.phase != Phase::Running {
                status.phase = Phase::Backoff;
                status.problem = Some(fault::of_runtime(error));
            }
        });
    }

    /// Looks at a container that may have ended.
    async fn look_again(&mut self) {
        let before = self.seen.container;
        self.look().await;
        if before == Container::Running && self.seen.container != Container::Running {
            self.now_down().await;
        }
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.news.notified() => {
                self.look_again().await;
            }
            changed = self.replica.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = timer => {}
        }
    }

    /// Carries `step` out; a failure is told and puts off the next attempt. Being told to go down interrupts what brings up.
    async fn attempt(&mut self, step: Step) {
        let mut told = self.replica.clone();
        let goes_down = async move {
            while !told.borrow_and_update().metadata.is_deleting() {
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await;
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
            let wait = self.backoff.failed();
            warn!(replica = %self.id, problem = %problem.message, code = %problem.code, again_in_s = wait.as_secs(), "A step failed");
            self.not_before = Some(Instant::now() + wait);
            if step == Step::Identify {
                // It runs, and is judged as it was until now.
                self.status.update(|status| status.problem = Some(problem));
                return;
            }
            self.status.update(|status| {
                status.phase = Phase::Backoff;
                status.ready = false;
                status.pull = None;
                status.problem = Some(problem);
                status.restarts = status.restarts.saturating_add(u32::from(step == Step::Run));
            });
            if self.wanted() == Wanted::Down {
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Problem> {
        match step {
            Step::Pull => self.pull().await,
            Step::MakeNetwork => self.make_network().await,
            Step::Identify => self.identify().await,
            Step::Run => self.run_container().await,
            Step::AwaitReady => {
                self.await_ready().await;
                Ok(())
            }
            Step::Clear => self.clear().await,
            Step::Stop => self.stop_container().await,
            Step::RemoveNetwork => self.remove_network().await,
            Step::Wait(_) | Step::Forget => Ok(()),
        }
    }

    fn service(&self) -> (String, String) {
        let replica = self.replica.borrow();
        (replica.metadata.namespace.clone(), replica.spec.app.clone())
    }

    /// The endpoint has this identity, or is gone.
    fn now_identified(&mut self, identity: Option<u32>) {
        self.identity = identity;
        self.status.update(|status| status.identity = identity);
    }

    /// The container runs; it is not in its service yet.
    fn now_started(&self, pid: u32) {
        let addresses = self.addresses;
        self.status.update(|status| {
            status.phase = Phase::Running;
            status.ready = false;
            status.pull = None;
            status.ipv4 = addresses.map(|a| a.0);
            status.ipv6 = addresses.map(|a| a.1);
            status.pid = Some(pid);
            status.started_at = Some(Timestamp::now());
        });
    }

    /// The container takes connections: the replica may be in its service.
    async fn now_ready(&mut self) {
        self.seen.ready = true;
        if let Some(addresses) = self.addresses {
            self.shared.services.admit(self.service(), addresses).await;
        }
        self.status.update(|status| {
            status.phase = Phase::Running;
            status.ready = true;
            status.problem = None;
        });
    }

    /// The container does not run: the replica leaves its service.
    async fn now_down(&mut self) {
        self.seen.ready = false;
        if let Some((ipv4, _)) = self.addresses {
            self.shared.services.withdraw(self.service(), ipv4).await;
        }
        self.status.update(|status| {
            status.ready = false;
            status.pid = None;
        });
    }

    /// Notes how the container ended, and when the next one may start.
    fn note_exit(&mut self, exit: LastExit) {
        let ran = self.started.take().map(|s| s.elapsed()).unwrap_or_default();
        let wait = self.backoff.ended(ran);
        self.not_before = Some(Instant::now() + wait);
        let failures = self.backoff.failures();
        let limit = self.replica.borrow().spec.template.containers.first().and_then(|c| c.resources.memory);
        info!(replica = %self.id, code = exit.code, out_of_memory = exit.out_of_memory, again_in_s = wait.as_secs(), "A container ended; it is started again");
        self.status.update(|status| {
            status.phase = Phase::Backoff;
            status.restarts = status.restarts.saturating_add(1);
            status.problem = Some(steps::why_it_ended(&exit, failures, limit));
            status.last_exit = Some(exit);
        });
    }

    /// Removes the object; true when that is done.
    async fn forget(&mut self) -> bool {
        let replica = self.replica.borrow().clone();
        let directory = self.shared.config.run_dir.join(self.id.as_str());
        let _ = tokio::fs::remove_dir_all(&directory).await;
        match self.delete_object(&replica).await {
            Ok(()) => {
                info!(replica = %self.id, "A replica is gone");
                true
            }
            Err(error) => {
                warn!(replica = %self.id, %error, "A replica's object could not be removed; trying again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                false
            }
        }
    }
}

impl Worker {
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
