//! A container's checks, from its start to its end.

use std::{sync::Arc, time::Instant};

use hivemind_model::{Container, Probe, ProbeKind};
use tokio::{sync::watch, time::sleep_until};

use crate::{
    check::{CheckError, Target, check},
    course::{Course, Verdict},
};

/// How a container is, as far as its probes tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes connections.
    pub ready: bool,
    /// Whether it has to be restarted. Nothing is checked from then on.
    pub is_lost: bool,
    /// The probe that fails, if one does.
    pub failing: Option<Failing>,
}

/// A probe that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Which one.
    pub probe: ProbeKind,
    /// How it failed last.
    pub error: CheckError,
    /// How many checks in a row failed, at least.
    pub times: u32,
}

/// Makes the checks of `container` and tells what comes of them through `health`, until it is lost or this future is dropped. Of a
/// container without a readiness probe it is `target` that knows when it takes connections, see [`Target::settled`]. One
/// that `was_ready` before is so until a check says otherwise.
pub async fn follow(
    container: &Container,
    target: &Arc<dyn Target>,
    was_ready: bool,
    health: &watch::Sender<Health>,
) {
    let started = Instant::now();
    if let Some(probe) = container.startup_probe.as_ref().filter(|_| !was_ready) {
        let mut course = Course::new(ProbeKind::Startup, probe, started, false);
        loop {
            let (verdict, outcome) = next(&mut course, probe, target).await;
            match verdict {
                Verdict::Unchanged => {}
                Verdict::Passed => break,
                Verdict::Failed => return lost(health, ProbeKind::Startup, probe, outcome),
            }
        }
    }
    let started = Instant::now();
    tokio::select! {
        () = follow_readiness(container, target, started, was_ready, health) => {}
        () = follow_liveness(container, target, started, health) => {}
    }
}

async fn follow_readiness(
    container: &Container,
    target: &Arc<dyn Target>,
    started: Instant,
    was_ready: bool,
    health: &watch::Sender<Health>,
) {
    let Some(probe) = &container.readiness_probe else {
        // What has a startup probe has said already that it takes connections.
        if !was_ready && container.startup_probe.is_none() {
            target.settled().await;
        }
        health.send_modify(|health| health.ready = true);
        return std::future::pending().await;
    };
    let mut course = Course::new(ProbeKind::Readiness, probe, started, was_ready);
    if was_ready {
        health.send_modify(|health| health.ready = true);
    }
    loop {
        let (verdict, outcome) = next(&mut course, probe, target).await;
        match verdict {
            Verdict::Unchanged => {}
            Verdict::Passed => {
                health.send_modify(|health| *health = Health { ready: true, ..Health::default() });
            }
            Verdict::Failed => health.send_modify(|health| {
                health.ready = false;
                health.failing = outcome.err().map(|error| failing(ProbeKind::Readiness, probe, error));
            }),
        }
    }
}

async fn follow_liveness(
    container: &Container,
    target: &Arc<dyn Target>,
    started: Instant,
    health: &watch::Sender<Health>,
) {
    let Some(probe) = &container.liveness_probe else { return std::future::pending().await };
    let mut course = Course::new(ProbeKind::Liveness, probe, started, false);
    loop {
        let (verdict, outcome) = next(&mut course, probe, target).await;
        if verdict == Verdict::Failed {
            return lost(health, ProbeKind::Liveness, probe, outcome);
        }
    }
}

/// Makes the next check when it is due.
async fn next(
    course: &mut Course,
    probe: &Probe,
    target: &Arc<dyn Target>,
) -> (Verdict, Result<(), CheckError>) {
    sleep_until(course.next_at().into()).await;
    let began = tokio::time::Instant::now().into_std();
    let outcome = check(probe, target.as_ref()).await;
    (course.observe(began, outcome.is_ok()), outcome)
}

fn failing(kind: ProbeKind, probe: &Probe, error: CheckError) -> Failing {
    Failing { probe: kind, error, times: probe.failures() }
}

fn lost(health: &watch::Sender<Health>, kind: ProbeKind, probe: &Probe, outcome: Result<(), CheckError>) {
    let failing = outcome.err().map(|error| failing(kind, probe, error));
    health.send_modify(|health| *health = Health { ready: false, is_lost: true, failing });
}
