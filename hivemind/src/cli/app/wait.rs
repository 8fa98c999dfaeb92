//! Waiting until several apps are up.

use std::time::Duration;

use hivemind_model::App;
use tokio::time::Instant;

use super::{
    deploy::{gone_meanwhile, interrupted, why_not},
    follow::{End, until_up},
    paint::Painter,
    progress::Replicas,
};
use crate::cli::{
    Session,
    fault::Failure,
    output::{self, Format, note},
};

/// An app that is not up at the deadline is looked at this long all the same, so that it can be said why.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until all of `apps` are up, each with whether it was made just now; shows what their replicas do.
///
/// # Errors
/// Why the first of them that does not come up does not.
pub(crate) async fn until_all_up(
    session: &Session,
    apps: &[(App, bool)],
    deadline: Instant,
    format: Format,
) -> Result<(), Failure> {
    let client = &session.client;
    for (index, (app, is_new)) in apps.iter().enumerate() {
        let limit = deadline.saturating_duration_since(Instant::now()).max(LOOK);
        let replicas = if *is_new { Replicas::AllNew } else { Replicas::SomeOld };
        let mut painter = Painter::for_stderr(format);
        let ended = until_up(client, app, replicas, limit, &mut painter).await;
        painter.finish();
        let (end, progress) = ended?;
        let failure = match end {
            End::Up => {
                tell_up(progress.app().unwrap_or(app), format)?;
                continue;
            }
            End::Interrupted => interrupted(app),
            End::Gone => gone_meanwhile(app),
            End::Failed(_) | End::TimedOut(_) => why_not(client, app, end, limit).await,
        };
        let others: Vec<String> =
            apps[index + 1..].iter().map(|(app, _)| format!("app/{}", app.metadata.name)).collect();
        if !others.is_empty() {
            note(&format!("{} not waited for: see hivemind app ls -A", others.join(", ")));
        }
        return Err(failure);
    }
    Ok(())
}

fn tell_up(app: &App, format: Format) -> Result<(), Failure> {
    if format.is_for_programs() {
        return Ok(());
    }
    output::print(&format!("{}\n", up_line(app)))
}

/// `app/web is up with 2 replicas`, or that it has done its work.
pub(super) fn up_line(app: &App) -> String {
    let name = &app.metadata.name;
    let count = app.spec.replicas;
    let noun = if count == 1 { "replica" } else { "replicas" };
    match app.status.succeeded_replicas == count && count > 0 {
        true => format!("app/{name} has completed with {count} {noun}"),
        false => format!("app/{name} is up with {count} {noun}"),
    }
}
