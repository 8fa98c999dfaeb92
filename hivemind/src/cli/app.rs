//! `app`: deploy, look at, change and delete apps.

pub(crate) mod delete;
pub(crate) mod deploy;
pub(crate) mod exec;
mod flags;
mod follow;
pub(crate) mod info;
pub(crate) mod logs;
mod merge;
mod paint;
mod progress;
pub(crate) mod scale;
mod wait;

pub(crate) use flags::timeout;
pub(crate) use follow::{next as next_item, until_gone};
pub(crate) use wait::until_all_up;

use std::process::ExitCode;

use clap::Subcommand;
use hivemind_model::App;

use super::{
    Session,
    fault::Outcome,
    output::{Format, ListArgs},
};

/// Commands on apps.
#[derive(Subcommand, Debug)]
pub(crate) enum AppCommand {
    /// Deploy an app and wait until it is up
    Deploy(Box<flags::DeployArgs>),
    /// Change how many replicas an app has, and wait until they are up
    Scale(scale::ScaleArgs),
    /// Show an app with its replicas
    Info(info::InfoArgs),
    /// List the apps
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Print what an app's replicas wrote
    Logs(logs::LogsArgs),
    /// Run a command in one of an app's replicas
    Exec(exec::ExecArgs),
    /// Replace an app's replicas one after the other
    Restart(scale::RestartArgs),
    /// Delete apps, and wait until all that belongs to them is gone
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
}

impl AppCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            AppCommand::Deploy(args) => args.output.format,
            AppCommand::Scale(args) => args.wait.output.format,
            AppCommand::Info(args) => args.output.format,
            AppCommand::Ls(args) => args.output.format,
            AppCommand::Logs(args) => args.output.format,
            AppCommand::Restart(args) => args.wait.output.format,
            AppCommand::Exec(_) | AppCommand::Delete(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            AppCommand::Deploy(args) => deploy::run(session, args).await?,
            AppCommand::Scale(args) => scale::scale(session, args).await?,
            AppCommand::Info(args) => info::run(session, args).await?,
            AppCommand::Ls(args) => session.print_list::<App>(*args).await?,
            AppCommand::Logs(args) => logs::run(session, args).await?,
            AppCommand::Exec(args) => return exec::run(session, args).await,
            AppCommand::Restart(args) => scale::restart(session, args).await?,
            AppCommand::Delete(args) => delete::run(session, args).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
