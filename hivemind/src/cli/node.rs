//! `node`: the machines.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::Node;
use jiff::Timestamp;

use super::{
    NameArgs, Session,
    fault::Outcome,
    output::{self, Format, FormatArgs, ListArgs},
    table::fields,
    units::{age, size},
};

/// Commands on nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// List the machines
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show one machine
    Info(NodeInfoArgs),
}

/// Flags of `node info`.
#[derive(Args, Debug)]
pub(crate) struct NodeInfoArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    output: FormatArgs,
    /// Go on and print every change as it comes, until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
}

impl NodeCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            NodeCommand::Ls(args) => args.output.format,
            NodeCommand::Info(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NodeCommand::Ls(args) => session.print_list::<Node>(*args).await?,
            NodeCommand::Info(args) => {
                let node: Node = session.client.find(None, args.name.get()).await?;
                let format = args.output.format;
                if args.watch {
                    let same = |other: &Node| other.metadata.uid == node.metadata.uid;
                    session.print_watch(&Selection::default(), format, false, same).await?;
                }
                output::print(&output::object(&node, format, || describe(&node, Timestamp::now()))?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(node: &Node, now: Timestamp) -> String {
    fields(&[
        ("Name", node.metadata.name.clone()),
        ("Id", node.metadata.id.clone()),
        ("Version", node.status.version.clone()),
        ("Kernel", node.status.kernel.clone()),
        ("Containerd", node.status.containerd.clone()),
        ("Cpus", node.status.cpus.to_string()),
        ("Memory", size(node.status.memory_bytes)),
        ("Replicas", format!("{}, {}", node.spec.replica_range_v4, node.spec.replica_range_v6)),
        ("Age", age(node.metadata.creation_timestamp, now)),
    ])
}
