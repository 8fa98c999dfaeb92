//! `node`: the machines.

mod change;
mod drain;
mod leave;
mod show;
mod taint;
mod token;

pub(crate) use show::role_name;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::Node;
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Colours, Outcome},
    output::{self, Format, FormatArgs, ListArgs},
};

/// Commands on nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// List the machines
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show one machine
    Info(NodeInfoArgs),
    /// Make, list and delete what lets machines join the cluster
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Set and remove labels of a node, by which apps select nodes
    #[command(after_help = "KEY=VALUE sets a label, KEY- removes it. All of it is done, or nothing.

Examples:
  hivemind node label node-2 zone=west disk=ssd
  hivemind node label node-2 disk-")]
    Label(change::LabelArgs),
    /// Set and remove taints of a node, which keep replicas away that do not tolerate them
    #[command(
        after_help = "KEY:EFFECT or KEY=VALUE:EFFECT sets a taint, KEY:EFFECT- removes it, KEY- removes it with whatever effect. All of it \
is done, or nothing. Replicas that are there stay.

NoSchedule: new replicas are not put there. PreferNoSchedule: new replicas are put elsewhere if they can be.

Examples:
  hivemind node taint node-2 gpu=true:NoSchedule
  hivemind node taint node-2 old:PreferNoSchedule gpu-
  hivemind app deploy train --image train:1 --toleration gpu"
    )]
    Taint(change::TaintArgs),
    /// Put no new replicas on nodes; those that are there stay
    Cordon(NamesArgs),
    /// Put replicas on nodes again; also ends their draining
    Uncordon(NamesArgs),
    /// Move a node's replicas to other nodes, and put no new ones there
    #[command(
        after_help = "The command waits until no replica is on the node. It goes on without the command, until it is done or the node is \
uncordoned. A replica that fits on no other node stays: hivemind scheduler explain APP says why.

Examples:
  hivemind node drain node-2
  hivemind node drain node-2 --timeout 1h
  hivemind node uncordon node-2"
    )]
    Drain(drain::DrainArgs),
    /// Take this machine out of its cluster
    #[command(
        after_help = "Its replicas are moved to other nodes first, however long that takes; then it forgets that it was a member, and its \
daemon ends. With --force the replicas are not waited for. A server cannot leave.

Examples:
  sudo hivemind node leave
  sudo hivemind node leave --force"
    )]
    Leave(leave::LeaveArgs),
    /// Remove a node from the cluster, for example one that is lost
    #[command(
        visible_alias = "rm",
        after_help = "It is not let in any more, whatever it has kept; its replicas are started on other nodes. One that is up and runs replicas \
is removed only with --force: drain it first, or have it leave by itself.

Examples:
  hivemind node remove node-2
  hivemind node remove node-2 --force"
    )]
    Remove(leave::RemoveArgs),
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
            NodeCommand::Token(command) => command.format(),
            NodeCommand::Label(args) => args.output.format,
            NodeCommand::Taint(args) => args.output.format,
            NodeCommand::Cordon(_)
            | NodeCommand::Uncordon(_)
            | NodeCommand::Drain(_)
            | NodeCommand::Leave(_)
            | NodeCommand::Remove(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NodeCommand::Ls(args) => session.print_list::<Node>(*args).await?,
            NodeCommand::Info(args) => {
                let node: Node = session.client.find(None, args.name.get()).await?;
                let format = args.output.format;
                let describe = |node| show::describe(node, Timestamp::now(), Colours::for_stdout());
                if args.watch {
                    let same = |other: &Node| other.metadata.uid == node.metadata.uid;
                    session.print_watch(&Selection::default(), format, false, same).await?;
                }
                output::print(&output::object(&node, format, || describe(&node))?)?;
            }
            NodeCommand::Token(command) => command.run(session).await?,
            NodeCommand::Label(args) => change::label(session, args).await?,
            NodeCommand::Taint(args) => change::taint(session, args).await?,
            NodeCommand::Cordon(names) => change::cordon(session, &names.get()).await?,
            NodeCommand::Uncordon(names) => change::uncordon(session, &names.get()).await?,
            NodeCommand::Drain(args) => drain::run(session, args).await?,
            NodeCommand::Leave(args) => leave::leave(session, args).await?,
            NodeCommand::Remove(args) => leave::remove(session, args).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
