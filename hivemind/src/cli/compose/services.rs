//! `ps`, `logs`, `exec` and `restart`: the services of a project, or of a namespace.

use std::{io::IsTerminal, process::ExitCode};

use clap::Args;
use hivemind_client::{ExecRequest, Selection};
use hivemind_model::{ErrorCode, List, Replica};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{ProjectArgs, apps, session_of};
use crate::cli::{
    Session,
    app::{exec, logs, timeout, until_all_up},
    fault::{Failure, Outcome, fault},
    manifests::apply,
    output::{self, Format, FormatArgs},
    rows::{joined, replica_state, yes_no},
    table::Table,
    units::age,
};

/// Flags of `ps`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a project (no -p, no -f and no Compose file here or above) it is the namespace that -n names.

Examples:
  hivemind ps
  hivemind ps -p shop -o json"
)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// Flags of `logs`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a project (no -p, no -f and no Compose file here or above) it is the namespace that -n names.

Examples:
  hivemind logs --follow
  hivemind logs web db --tail 20 --timestamps"
)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on with new lines as they come, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Of what is there already, only the last N lines of each replica
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Print when each line was written
    #[arg(long, short = 't')]
    timestamps: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// Flags of `exec`.
#[derive(Args, Debug)]
#[command(after_help = "The process gets a terminal if this command has one. The exit code is the process's.

Examples:
  hivemind exec web nginx -v
  hivemind exec db psql -U postgres
  hivemind exec -T db pg_dump -U postgres > dump.sql")]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Give the process no terminal
    #[arg(long, short = 'T')]
    no_tty: bool,
    /// As this user of the container
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// In this replica [default: one that runs]
    #[arg(long, value_name = "REPLICA")]
    replica: Option<String>,
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Flags of `restart`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind restart
  hivemind restart web")]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not wait until they are up
    #[arg(long, short = 'd')]
    detach: bool,
    /// How long to wait until they are up
    #[arg(long, value_name = "TIME", default_value = "5m", allow_hyphen_values = true)]
    timeout: String,
}

pub(crate) async fn ps(session: &Session, args: &PsArgs) -> Result<(), Failure> {
    let session = session_of(session, &args.project)?;
    let apps = apps(&session, &args.services).await?;
    let found = session.client.list::<Replica>(&Selection::namespace(&session.namespace)).await?;
    let is_of = |replica: &Replica| apps.iter().any(|app| app.metadata.name == replica.spec.app);
    let replicas = List { items: found.items.into_iter().filter(is_of).collect(), ..found };
    match args.output.format {
        Format::Table | Format::Wide => {}
        format => return output::print(&output::list(&replicas, format, false, Timestamp::now())?),
    }
    let now = Timestamp::now();
    let mut table = Table::new(["SERVICE", "REPLICA", "IMAGE", "STATE", "READY", "RESTARTS", "PORTS", "AGE"]);
    for app in &apps {
        let ports = joined(
            app.published().map(|p| format!("{}->{}/{}", p.host_port, p.container_port, p.protocol.as_str())),
        );
        let image = app.container().map(|container| container.image.clone()).unwrap_or_default();
        for replica in replicas.items.iter().filter(|replica| replica.spec.app == app.metadata.name) {
            table.row(vec![
                app.metadata.name.clone(),
                replica.metadata.name.clone(),
                image.clone(),
                replica_state(replica),
                yes_no(replica.status.ready),
                replica.status.restarts.to_string(),
                ports.clone(),
                age(replica.metadata.creation_timestamp, now),
            ]);
        }
    }
    output::print(&table.render())
}

pub(crate) async fn logs(session: &Session, args: &LogsArgs) -> Result<(), Failure> {
    let session = session_of(session, &args.project)?;
    let apps = apps(&session, &args.services).await?;
    let wanted = logs::Wanted {
        follow: args.follow,
        tail: args.tail,
        timestamps: args.timestamps,
        format: args.output.format,
        ..logs::Wanted::default()
    };
    logs::print(&session, &apps, &wanted).await
}

pub(crate) async fn exec(session: &Session, args: &ExecArgs) -> Outcome {
    let session = session_of(session, &args.project)?;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let request = ExecRequest {
        command: args.command.clone(),
        tty: has_terminal && !args.no_tty,
        user: args.user.clone(),
        container: None,
    };
    exec::run_in(&session, &args.service, args.replica.as_deref(), &request, true).await
}

pub(crate) async fn restart(session: &Session, args: &RestartArgs) -> Outcome {
    let limit = timeout(&args.timeout).map_err(apply::error_of)?;
    let session = session_of(session, &args.project)?;
    let deadline = Instant::now() + limit;
    let mut restarted = Vec::new();
    for app in apps(&session, &args.services).await? {
        let app = session.client.restart_app(&session.namespace, &app.metadata.name).await?;
        output::print(&format!("app/{} restarted\n", app.metadata.name))?;
        restarted.push((app, false));
    }
    if !args.detach {
        until_all_up(&session, &restarted, deadline, Format::Table).await?;
    }
    match restarted.is_empty() {
        true => Err(fault(ErrorCode::AppNotFound, "there is nothing to restart", "see hivemind ps")),
        false => Ok(ExitCode::SUCCESS),
    }
}
