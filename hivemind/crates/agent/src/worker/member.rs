//! One container of a replica, as its worker knows it.

use std::{sync::Arc, time::Instant};

use hivemind_health::{Health, Target, follow};
use hivemind_model::{ContainerState, ContainerStatus, LastExit, Problem, Replica, Template};
use hivemind_runtime::ContainerId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::lifecycle::{self, Backoff, Container, End};

/// What a worker knows of one container.
pub(super) struct Member {
    pub(super) id: ContainerId,
    pub(super) container: hivemind_model::Container,
    pub(super) seen: lifecycle::Member,
    pub(super) started: Option<Instant>,
    pub(super) backoff: Backoff,
    pub(super) restarts: u32,
    pub(super) pid: Option<u32>,
    pub(super) last_exit: Option<LastExit>,
    pub(super) problem: Option<Problem>,
    /// How often the kernel had killed processes of it for want of memory when it started.
    pub(super) out_of_memory_before: u32,
    checks: Option<Checks>,
}

/// The checks of a container that runs; they end with this.
struct Checks {
    health: watch::Receiver<Health>,
    /// Kept, so that waiting for health never ends because the checks have.
    _sender: Arc<watch::Sender<Health>>,
    _task: AbortOnDropHandle<()>,
}

/// The id of a container: the replica's own for the first of those that go on, since that is what a replica had when it had but
/// one; the others have their names behind it.
pub(crate) fn container_id(replica: &ContainerId, template: &Template, name: &str) -> ContainerId {
    if name.is_empty() || template.containers.first().is_some_and(|first| first.name == name) {
        return replica.clone();
    }
    format!("{replica}.{name}").parse().expect("names of containers are letters, digits and single '-'")
}

/// The id of the replica that a container belongs to.
pub(crate) fn replica_of(container: &ContainerId) -> &str {
    container.as_str().split('.').next().unwrap_or_default()
}

/// The members of a replica as it was told last: those that run first before the others.
pub(super) fn members(id: &ContainerId, replica: &Replica, has_network: bool) -> Vec<Member> {
    let template = &replica.spec.template;
    let status = &replica.status;
    let init = template.init_containers.len();
    let member = |(i, container): (usize, &hivemind_model::Container)| {
        let told = status.containers.get(i).filter(|told| told.name == container.name);
        let is_only = template.all_containers().count() == 1;
        let last_exit =
            told.map_or_else(|| status.last_exit.clone().filter(|_| is_only), |told| told.last_exit.clone());
        let has_ended = match told {
            // What ran first before the machine restarted has to run again.
            Some(told) => told.state == ContainerState::Ended && (i >= init || has_network),
            None => is_only && status.phase.is_final(),
        };
        let is_well = last_exit.as_ref().is_some_and(|exit| exit.code == 0);
        let end = has_ended.then_some(if is_well { End::Well } else { End::Failed });
        Member {
            id: container_id(id, template, &container.name),
            container: container.clone(),
            seen: lifecycle::Member { end, ..lifecycle::Member::default() },
            started: None,
            backoff: Backoff::default(),
            restarts: told.map_or(if is_only { status.restarts } else { 0 }, |told| told.restarts),
            pid: None,
            last_exit,
            problem: told.and_then(|told| told.problem.clone()),
            out_of_memory_before: 0,
            checks: None,
        }
    };
    template.all_containers().enumerate().map(member).collect()
}

impl Member {
    /// The container runs: its checks begin.
    pub(super) fn now_running(&mut self, pid: u32, target: Arc<dyn Target>, was_ready: bool) {
        self.seen.container = Container::Running;
        self.seen.ready = was_ready;
        self.seen.lost = false;
        self.seen.not_before = None;
        self.started = Some(Instant::now());
        self.pid = Some(pid);
        let (sender, health) = watch::channel(Health { ready: was_ready, ..Health::default() });
        let sender = Arc::new(sender);
        let (container, told) = (self.container.clone(), Arc::clone(&sender));
        let task = tokio::spawn(async move { follow(&container, &target, was_ready, &told).await });
        self.checks = Some(Checks { health, _sender: sender, _task: AbortOnDropHandle::new(task) });
    }

    /// The container does not run any more.
    pub(super) fn now_ended(&mut self) {
        self.seen.container = Container::Ended;
        self.seen.ready = false;
        self.pid = None;
        self.checks = None;
    }

    /// Returns when its health has changed; never, while it does not run.
    pub(super) async fn health_changed(&mut self) {
        match &mut self.checks {
            // It fails only without a sender, and there is one beside it.
            Some(checks) => drop(checks.health.changed().await),
            None => std::future::pending().await,
        }
    }

    /// Takes in what its checks found last; its health, if that is new.
    pub(super) fn take_health(&mut self) -> Option<Health> {
        let checks = self.checks.as_mut()?;
        let health = checks.health.borrow_and_update().clone();
        let is_new =
            (self.seen.ready, self.seen.lost) != (health.ready, health.is_lost) || health.failing.is_some();
        self.seen.ready = health.ready;
        self.seen.lost = health.is_lost;
        is_new.then_some(health)
    }

    /// As it is told in the replica's status.
    pub(super) fn status(&self) -> ContainerStatus {
        let state = match (self.seen.container, self.seen.end) {
            (Container::Running, _) => ContainerState::Running,
            (_, Some(_)) => ContainerState::Ended,
            _ => ContainerState::Waiting,
        };
        ContainerStatus {
            name: self.container.name.clone(),
            state,
            ready: self.seen.container == Container::Running && self.seen.ready,
            restarts: self.restarts,
            pid: self.pid,
            last_exit: self.last_exit.clone(),
            problem: self.problem.clone(),
        }
    }
}
