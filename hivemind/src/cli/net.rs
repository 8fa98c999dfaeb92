//! `net`: the node's network.

mod drops;

use clap::Subcommand;

use super::{Session, fault::Outcome, output::Format};

/// Commands on the node's network.
#[derive(Subcommand, Debug)]
pub(crate) enum NetCommand {
    /// Show whose packets were dropped, and why
    Drops(drops::DropsArgs),
}

impl NetCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            NetCommand::Drops(args) => args.format(),
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NetCommand::Drops(args) => args.run(session).await,
        }
    }
}
