//! `config`: the project as it is understood.

use clap::Args;

use super::{ProjectArgs, read};
use crate::cli::{fault::Failure, output};

/// Flags of `config`.
#[derive(Args, Debug)]
#[command(
    after_help = "The files are merged, with variables filled in and with what they include and extend, and printed as one file in one form. No \
daemon is asked.

Examples:
  hivemind config
  hivemind config -f compose.yaml -f compose.prod.yaml --services"
)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only check it
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Only the names of the services
    #[arg(long, conflicts_with = "quiet")]
    services: bool,
}

pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let project = read(&args.project.files, &args.project.said, &[])?;
    match (args.quiet, args.services) {
        (true, _) => Ok(()),
        (false, true) => {
            output::print(&project.services.keys().map(|name| format!("{name}\n")).collect::<String>())
        }
        (false, false) => output::print(&project.to_yaml()),
    }
}
