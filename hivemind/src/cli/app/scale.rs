//! `app scale` and `app restart`: change an app that is there, and wait until it is up again.

use clap::Args;
use hivemind_model::{App, Problem, Problems, REPLICAS_MAX, Scale};

use super::{
    deploy::{gone_meanwhile, interrupted, tell_up, why_not},
    flags,
    follow::{End, until_up},
    paint::Painter,
    progress::Replicas,
};
use crate::cli::{
    NameArgs, Session,
    fault::Failure,
    output::{self, FormatArgs},
};

/// Flags of commands that wait for an app.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// How long to wait until it is up, for example 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", allow_hyphen_values = true)]
    timeout: String,
    /// Do not wait until it is up
    #[arg(long, short = 'd')]
    detach: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// Flags of `app scale`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind app scale --name web-app --replicas 3
  hivemind app scale web-app --replicas 0")]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How many replicas, 0 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    replicas: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `app restart`.
#[derive(Args, Debug)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

pub(crate) async fn scale(session: &Session, args: &ScaleArgs) -> Result<(), Failure> {
    let (timeout, replicas) = read(&args.wait.timeout, Some(&args.replicas))?;
    let name = session.app(args.name.get()).await?.metadata.name;
    let scale = Scale { replicas };
    let app = session.client.scale_app(&session.namespace, &name, scale).await.map_err(at_flag)?;
    wait(session, &app, timeout, &args.wait, "scaled").await
}

pub(crate) async fn restart(session: &Session, args: &RestartArgs) -> Result<(), Failure> {
    let (timeout, _) = read(&args.wait.timeout, None)?;
    let name = session.app(args.name.get()).await?.metadata.name;
    let app = session.client.restart_app(&session.namespace, &name).await?;
    wait(session, &app, timeout, &args.wait, "restarted").await
}

fn at_flag(mut error: hivemind_model::ApiError) -> Failure {
    if error.field.as_deref().is_some_and(|f| f.ends_with("replicas")) {
        error.field = Some("--replicas".to_owned());
    }
    error.into()
}

/// The time to wait and the number of replicas, all that is wrong with them at once.
fn read(timeout: &str, replicas: Option<&str>) -> Result<(std::time::Duration, u32), Failure> {
    let mut problems = Problems::default();
    let mut add = |Problem { code, field, message, hint }: Problem| problems.add(code, field, message, hint);
    let timeout = flags::timeout(timeout).map_err(&mut add);
    let replicas = flags::replicas(replicas.unwrap_or("0")).map_err(&mut add).unwrap_or_default();
    if replicas > REPLICAS_MAX {
        let code = hivemind_model::ErrorCode::OutOfRange;
        let message = format!("{replicas} replicas are too many");
        let hint = format!("an app may have 0 to {REPLICAS_MAX} replicas");
        add(Problem { code, field: "--replicas".to_owned(), message, hint });
    }
    problems.into_result()?;
    Ok((timeout.unwrap_or_default(), replicas))
}

async fn wait(
    session: &Session,
    app: &App,
    timeout: std::time::Duration,
    args: &WaitArgs,
    done: &str,
) -> Result<(), Failure> {
    let client = &session.client;
    let format = args.output.format;
    if args.detach {
        let told = || format!("app/{} {done}\n", app.metadata.name);
        return output::print(&output::object(app, format, told)?);
    }
    let mut painter = Painter::for_stderr(format);
    let ended = until_up(client, app, Replicas::SomeOld, timeout, &mut painter).await;
    painter.finish();
    let (end, progress) = ended?;
    match end {
        End::Up => tell_up(client, app, &progress, format).await,
        End::Interrupted => Err(interrupted(app)),
        End::Gone => Err(gone_meanwhile(app)),
        End::Failed(_) | End::TimedOut(_) => Err(why_not(client, app, end, timeout).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bad_values_are_told_at_once() {
        let Err(Failure::Told(told)) = read("soon", Some("many")) else { panic!("taken for good") };
        let flags: Vec<_> = told.error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(flags, ["--timeout", "--replicas"]);
        assert!(matches!(read("5m", Some("1001")), Err(Failure::Told(_))));
        assert_eq!(read("5m", Some("3")).unwrap().1, 3);
    }
}
