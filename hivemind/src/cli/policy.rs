//! `policy`: rules of who may speak to whom.

pub(crate) mod apply;
mod check;
mod describe;
mod enforced;
mod files;
mod words;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::NetworkPolicy;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Colours, Failure, Outcome},
    output::{self, Format, FormatArgs, ListArgs},
};

/// Commands on network policies.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyCommand {
    /// Apply the policies of files: all of them, or none if one is at fault
    Apply(apply::ApplyArgs),
    /// List the policies: whom they select, and what they allow
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
  hivemind policy get only-client -o yaml           what policy apply takes again"
    )]
    Get(GetArgs),
    /// Tell whether policies allow a connection, and why
    Check(check::CheckArgs),
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

/// A policy as `policy apply` takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    #[serde(flatten)]
    policy: &'a NetworkPolicy,
}

/// Several of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Documents<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Document<'a>>,
}

const API_VERSION: &str = "networking.k8s.io/v1";

impl<'a> Document<'a> {
    fn of(policy: &'a NetworkPolicy) -> Self {
        Document { api_version: policy.spec.kind().api_version(), policy }
    }
}

impl PolicyCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            PolicyCommand::Apply(args) => args.output.format,
            PolicyCommand::Ls(args) => args.output.format,
            PolicyCommand::Get(args) => args.output.format,
            PolicyCommand::Check(args) => args.output.format,
            PolicyCommand::Delete(_) => Format::Table,
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
            PolicyCommand::Delete(names) => delete(session, names).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(session: &Session, args: ListArgs) -> Result<(), Failure> {
    if args.watch || args.output.format != Format::Yaml {
        return session.print_list::<NetworkPolicy>(args).await;
    }
    let namespace = (!args.all_namespaces).then(|| session.namespace.clone());
    let found = session.client.list::<NetworkPolicy>(&Selection { namespace, app: None }).await?;
    let items = found.items.iter().map(Document::of).collect();
    output::print(&output::yaml(&Documents { api_version: API_VERSION, kind: "NetworkPolicyList", items })?)
}

async fn get(session: &Session, args: &GetArgs) -> Result<(), Failure> {
    let namespace = Some(session.namespace.as_str());
    let found = session.find_all::<NetworkPolicy>(namespace, &[args.name.get()]).await?;
    for policy in &found {
        output::print(&match args.output.format {
            Format::Json => output::json(&Document::of(policy))?,
            Format::Yaml => output::yaml(&Document::of(policy))?,
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
    let namespace = session.namespace.as_str();
    for policy in session.find_all::<NetworkPolicy>(Some(namespace), &names.get()).await? {
        let name = &policy.metadata.name;
        session.client.delete_policy(namespace, name).await?;
        output::print(&format!("policy/{name} deleted\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};

    use super::*;

    #[test]
    fn what_is_printed_can_be_applied_again() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, annotations: {v: '1.10'}}\nspec:\n  podSelector: {matchLabels: {version: '2', on: 'true', none: 'null'}}\n  ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: '::/0'}}], ports: [{port: 80, endPort: 90}]}]\n  egress: [{}]\n";
        let options = Options { namespace: "shop", only_this_namespace: false };
        let from = |text: &str| read(&[Source::new("x", text.into())], options, &|_| Vec::new());
        let first = from(text);
        assert_eq!(first.faults, []);
        let policy = &first.policies[0].policy;
        let list = Documents {
            api_version: API_VERSION,
            kind: "NetworkPolicyList",
            items: vec![Document::of(policy)],
        };
        for again in
            [output::yaml(&Document::of(policy)), output::json(&Document::of(policy)), output::yaml(&list)]
        {
            let again = again.unwrap();
            let second = from(&again);
            assert_eq!(second.faults, [], "{again}");
            assert_eq!(second.policies[0].policy, *policy);
        }
    }
}
