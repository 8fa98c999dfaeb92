//! `policy`: rules of who may speak to whom.

pub(crate) mod apply;
mod check;
mod commented;
mod describe;
mod diff;
pub(crate) mod document;
pub(crate) mod enforced;
mod matrix;
mod record;
mod simulate;
mod suggest;
mod words;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::{ApiError, Metadata, NetworkPolicy};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Colours, Failure, Outcome},
    near,
    output::{self, Format, FormatArgs, ListArgs},
};

/// Commands on network policies.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyCommand {
    /// Apply the policies of files: all of them, or none if one is at fault
    Apply(apply::ApplyArgs),
    /// Show what applying the policies of files would change
    Diff(diff::DiffArgs),
    /// List the policies: whom they select, and what they allow; those of the whole cluster always
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  hivemind policy ls -A
  hivemind policy ls -o yaml > policies.yaml        what policy apply takes again"
    )]
    Ls(ListArgs),
    /// Show a policy with its rules
    #[command(
        visible_alias = "info",
        after_help = "Examples:
  hivemind policy get only-client
  hivemind policy get guard                         one of the whole cluster, from any namespace
  hivemind policy get only-client -o yaml           what policy apply takes again"
    )]
    Get(GetArgs),
    /// Tell whether policies allow a connection, and why
    Check(check::CheckArgs),
    /// Tell what policies would change for the flows that were recorded
    Simulate(simulate::SimulateArgs),
    /// Tell who may speak to whom, beside who does: what is open and never used, and what is tried and denied
    Matrix(matrix::MatrixArgs),
    /// Print the least policies that allow what was seen, with what speaks for each rule
    Suggest(suggest::SuggestArgs),
    /// Delete policies; what they alone refused is allowed at once
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  hivemind policy delete only-client
  hivemind policy delete -n shop $(hivemind policy ls -n shop -o name)"
    )]
    Delete(NamesArgs),
}

/// Flags of `policy get`.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    output: FormatArgs,
}

impl PolicyCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            PolicyCommand::Apply(args) => args.output.format,
            PolicyCommand::Ls(args) => args.output.format,
            PolicyCommand::Get(args) => args.output.format,
            PolicyCommand::Check(args) => args.output.format,
            PolicyCommand::Simulate(args) => args.output.format,
            PolicyCommand::Matrix(args) => args.output.format,
            PolicyCommand::Suggest(args) => args.output.format,
            PolicyCommand::Delete(_) | PolicyCommand::Diff(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            PolicyCommand::Apply(args) => apply::run(session, args).await?,
            PolicyCommand::Ls(args) => list(session, *args).await?,
            PolicyCommand::Get(args) => get(session, args).await?,
            PolicyCommand::Check(args) => {
                if !check::run(session, args).await? {
                    return Ok(ExitCode::from(check::DENIED));
                }
            }
            PolicyCommand::Matrix(args) => matrix::run(session, args).await?,
            PolicyCommand::Suggest(args) => suggest::run(session, args).await?,
            PolicyCommand::Delete(names) => delete(session, names).await?,
            PolicyCommand::Diff(args) => return diff::run(session, args).await,
            PolicyCommand::Simulate(args) => return simulate::run(session, args).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The API's parameters are words and flags here.
fn at_flag(mut error: ApiError) -> ApiError {
    let flag = |field: &str| match field {
        "app" => "APP".to_owned(),
        "since" | "until" | "namespace" => format!("--{field}"),
        other => other.to_owned(),
    };
    error.field = error.field.as_deref().map(flag);
    error.problems.iter_mut().for_each(|problem| problem.field = flag(&problem.field));
    error
}

/// Whether a policy concerns the replicas of a namespace: those of the whole cluster concern all.
fn concerns(policy: &NetworkPolicy, namespace: &str) -> bool {
    policy.spec.kind().is_cluster_wide() || policy.metadata.namespace == namespace
}

async fn list(session: &Session, args: ListArgs) -> Result<(), Failure> {
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let format = args.output.format;
    let wanted = |policy: &NetworkPolicy| namespace.is_none_or(|namespace| concerns(policy, namespace));
    if args.watch {
        return session.print_watch(&Selection::default(), format, args.all_namespaces, wanted).await;
    }
    let mut found = session.client.list::<NetworkPolicy>(&Selection::default()).await?;
    found.items.retain(wanted);
    match format {
        Format::Yaml => output::print(&output::yaml(&document::list(&found.items)?)?),
        _ => output::print_found(&found, namespace, format, args.all_namespaces),
    }
}

/// The policies that are called so, in the session's namespace, or else of the whole cluster.
async fn find(session: &Session, words: &[&str]) -> Result<Vec<NetworkPolicy>, Failure> {
    let namespace = session.namespace.as_str();
    let mut all = session.client.list::<NetworkPolicy>(&Selection::default()).await?.items;
    all.retain(|policy| concerns(policy, namespace));
    all.sort_by_key(|policy| policy.metadata.namespace != namespace);
    words.iter().map(|word| near::find(Some(namespace), word, &all)).collect()
}

async fn get(session: &Session, args: &GetArgs) -> Result<(), Failure> {
    for policy in &find(session, &[args.name.get()]).await? {
        output::print(&match args.output.format {
            Format::Json => output::json(&document::of(policy)?)?,
            Format::Yaml => output::yaml(&document::of(policy)?)?,
            Format::Name => output::name_line(policy),
            Format::Table | Format::Wide => {
                describe::describe(policy, Timestamp::now(), Colours::for_stdout())
            }
        })?;
    }
    Ok(())
}

async fn delete(session: &Session, names: &NamesArgs) -> Result<(), Failure> {
    // All names are looked up first: one that is wrong keeps the others from being deleted.
    for policy in find(session, &names.get()).await? {
        let Metadata { namespace, name, .. } = &policy.metadata;
        session.client.delete_policy(namespace, name).await?;
        output::print(&format!("policy/{name} deleted\n"))?;
    }
    Ok(())
}
