//! Waiting until policies are in force.

use std::time::Duration;

use futures::StreamExt;
use hivemind_client::{Selection, WatchItem};
use hivemind_model::{ApiError, AppliedPolicies, ErrorCode, NetworkPolicy, WatchKind};
use tokio::time::timeout;

use crate::cli::{
    Session,
    fault::{Failure, fault},
};

/// Whether a policy is in force as it is.
pub(crate) fn is(policy: &NetworkPolicy) -> bool {
    policy.status.enforced_generation >= policy.metadata.generation
}

/// Waits until all of `applied` are in force, and notes what became of them.
///
/// # Errors
/// `TimedOut` if they are not in time, or what the data path says against one of them.
pub(crate) async fn wait(
    session: &Session,
    applied: &mut AppliedPolicies,
    limit: Duration,
) -> Result<(), Failure> {
    if applied.items.iter().all(|item| is(&item.policy)) {
        return Ok(());
    }
    match timeout(limit, follow(session, applied)).await {
        Ok(ended) => ended,
        Err(_) => Err(timed_out(applied, limit)),
    }
}

async fn follow(session: &Session, applied: &mut AppliedPolicies) -> Result<(), Failure> {
    let mut watch = session.client.watch::<NetworkPolicy>(&Selection::default()).await?;
    while let Some(item) = watch.next().await {
        let WatchItem::Event(event) = item? else { continue };
        let same = |p: &NetworkPolicy| p.metadata.uid == event.object.metadata.uid;
        let Some(item) = applied.items.iter_mut().find(|item| same(&item.policy)) else { continue };
        let wanted = item.policy.metadata.generation;
        let known = item.policy.status.problem.take();
        item.policy.status = event.object.status;
        let name = &item.policy.metadata.name;
        if event.kind == WatchKind::Deleted || event.object.metadata.generation > wanted {
            let message = format!("policy {name} was changed or deleted by someone else meanwhile");
            return Err(fault(ErrorCode::Stale, message, "see how it is: hivemind policy ls"));
        }
        // What was wrong with the policy before it was changed may still be told of it for a moment.
        if let Some(problem) = &item.policy.status.problem
            && !is(&item.policy)
            && known.as_ref() != Some(problem)
        {
            let message = format!("policy {name} could not be put in force: {}", problem.message);
            return Err(ApiError::new(problem.code, message, problem.hint.clone()).into());
        }
        if applied.items.iter().all(|item| is(&item.policy)) {
            return Ok(());
        }
    }
    Err(fault(ErrorCode::DaemonUnreachable, "the daemon ended the watch", "see hivemind policy ls"))
}

fn timed_out(applied: &AppliedPolicies, limit: Duration) -> Failure {
    let late: Vec<_> = applied.items.iter().map(|item| &item.policy).filter(|policy| !is(policy)).collect();
    let names: Vec<&str> = late.iter().map(|policy| policy.metadata.name.as_str()).collect();
    let why = late.iter().find_map(|policy| policy.status.problem.as_ref());
    let why = why.map(|problem| format!(": {}", problem.message)).unwrap_or_default();
    fault(
        ErrorCode::TimedOut,
        format!("not in force after {} s: policy {}{why}", limit.as_secs(), names.join(", ")),
        "it is kept, and will be in force as soon as the node can; see hivemind status",
    )
}
