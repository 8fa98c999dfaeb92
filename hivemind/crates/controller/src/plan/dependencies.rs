//! Apps that wait for others.

use hivemind_model::{App, Dependency, DependencyCondition, ErrorCode, Phase, Problem};

use super::Generations;
use crate::snapshot::Snapshot;

/// What `app` waits for before its first replica is made; nothing once it has one.
pub(super) fn missing(snapshot: &Snapshot, app: &App) -> Option<Problem> {
    if app.spec.depends_on.is_empty() || snapshot.replicas_of(app).next().is_some() {
        return None;
    }
    let waits: Vec<String> = app.spec.depends_on.iter().filter_map(|on| why_not(snapshot, app, on)).collect();
    (!waits.is_empty()).then(|| Problem {
        code: ErrorCode::Waiting,
        field: String::new(),
        message: format!("it waits for {}", waits.join(", and for ")),
        hint: "it starts by itself; see `hivemind app ls` for what keeps the others".into(),
    })
}

fn why_not(snapshot: &Snapshot, app: &App, on: &Dependency) -> Option<String> {
    let is_meant =
        |other: &&App| other.metadata.name == on.app && other.metadata.namespace == app.metadata.namespace;
    let Some(other) = snapshot.apps.iter().find(is_meant) else {
        return Some(format!("{}, which does not exist", on.app));
    };
    let generations = Generations::of(snapshot, other);
    let wanted = other.spec.replicas as usize;
    let is_met = match on.condition {
        DependencyCondition::Started => snapshot.replicas_of(other).any(|r| r.status.started_at.is_some()),
        DependencyCondition::Ready => generations.ready() >= wanted,
        DependencyCondition::Completed => generations.of_phase(Phase::Succeeded) >= wanted,
    };
    (!is_met).then(|| match generations.of_phase(Phase::Failed) {
        0 => format!("{} to be {}", on.app, on.condition.as_str()),
        _ => format!("{} to be {}, which has failed", on.app, on.condition.as_str()),
    })
}
