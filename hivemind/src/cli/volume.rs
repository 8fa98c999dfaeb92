//! `volume`: directories that outlive replicas.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::{Metadata, Problems, Volume, VolumeSpec, VolumeStatus, check_name};

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome},
    output::{self, Format, FormatArgs, ListArgs},
};

/// Commands on volumes.
#[derive(Subcommand, Debug)]
pub(crate) enum VolumeCommand {
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Make a volume; an app that names one that does not exist makes it too
    #[command(after_help = "Example:
  hivemind volume create grafana-data
  hivemind app deploy grafana --image grafana/grafana --volume grafana-data:/var/lib/grafana")]
    Create(CreateArgs),
    /// Delete volumes and what is in them
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

/// Flags of `volume create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The machine that holds it [default: the one whose daemon is asked]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    output: FormatArgs,
}

impl VolumeCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            VolumeCommand::Ls(args) => args.output.format,
            VolumeCommand::Create(args) => args.output.format,
            VolumeCommand::Delete(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            VolumeCommand::Ls(args) => session.print_list::<Volume>(*args).await?,
            VolumeCommand::Create(args) => create(session, args).await?,
            VolumeCommand::Delete(names) => {
                for name in names.get() {
                    session.client.delete_volume(&session.namespace, name).await?;
                    output::print(&format!("volume/{name} deleted\n"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let name = args.name.get();
    let mut problems = Problems::default();
    check_name("--name", name, 63, &mut problems);
    check_name("--namespace", &session.namespace, 63, &mut problems);
    problems.into_result()?;
    let node = match &args.node {
        Some(node) => node.clone(),
        None => session.client.status().await?.node,
    };
    let metadata = Metadata::new(&session.namespace, name);
    let wanted = Volume { metadata, spec: VolumeSpec { node }, status: VolumeStatus::default() };
    let volume = session.client.create_volume(&wanted).await?;
    let told = || format!("volume/{} created on {}\n", volume.metadata.name, volume.spec.node);
    output::print(&output::object(&volume, args.output.format, told)?)
}
