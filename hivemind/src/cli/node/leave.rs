//! `node leave` and `node remove`: nodes that are no members any more.

use clap::Args;
use hivemind_model::{ErrorCode, Node};

use crate::cli::{
    NamesArgs, Session,
    fault::{Failure, fault},
    output::{self, note},
};

/// Flags of `node leave`.
#[derive(Args, Debug)]
pub(crate) struct LeaveArgs {
    /// Do not wait until its replicas are on other nodes
    #[arg(long)]
    force: bool,
}

/// Flags of `node remove`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    names: NamesArgs,
    /// Also one that is up and runs replicas
    #[arg(long)]
    force: bool,
}

pub(super) async fn leave(session: &Session, args: &LeaveArgs) -> Result<(), Failure> {
    // "This machine" must never turn out to be another.
    if session.remote {
        return Err(fault(
            ErrorCode::Unsupported,
            format!("the daemon at {} is not the one of this machine", session.client.server()),
            "for this machine: hivemind --context local node leave; for another: hivemind node drain NAME, then hivemind node remove NAME",
        ));
    }
    let name = session.client.status().await?.node;
    if !args.force {
        note(&format!("node/{name} is being drained, and leaves once no replica is there"));
    }
    session.client.leave_cluster(args.force).await?;
    output::print(&format!("node/{name} left its cluster\n"))
}

pub(super) async fn remove(session: &Session, args: &RemoveArgs) -> Result<(), Failure> {
    for node in session.find_all::<Node>(None, &args.names.get()).await? {
        let name = &node.metadata.name;
        session.client.remove_node(name, args.force).await?;
        output::print(&format!("node/{name} removed\n"))?;
    }
    Ok(())
}
