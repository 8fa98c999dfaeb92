//! `namespace`: what names are unique within, and what policies select by labels.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::{NAMESPACE_NAME_LABEL, Namespace, Problems, check_name};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome},
    labels,
    output::{self, Format, FormatArgs, ListArgs, Row},
    units::age,
};

/// Commands on namespaces.
#[derive(Subcommand, Debug)]
pub(crate) enum NamespaceCommand {
    /// Make a namespace; an app that is deployed into one that does not exist makes it too
    #[command(after_help = "Examples:
  hivemind namespace create shop
  hivemind namespace create shop --label team=front")]
    Create(CreateArgs),
    /// List the namespaces
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Set and remove labels of a namespace, by which policies select it
    #[command(after_help = "KEY=VALUE sets a label, KEY- removes it. All of it is done, or nothing.

Examples:
  hivemind namespace label shop team=front
  hivemind namespace label shop team- stage=test")]
    Label(LabelArgs),
    /// Delete namespaces in which nothing is
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

/// Flags of `namespace create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// A label; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    output: FormatArgs,
}

/// Flags of `namespace label`.
#[derive(Args, Debug)]
pub(crate) struct LabelArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    name: String,
    /// Labels to set and to remove
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    output: FormatArgs,
}

impl NamespaceCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            NamespaceCommand::Create(args) => args.output.format,
            NamespaceCommand::Ls(args) => args.output.format,
            NamespaceCommand::Label(args) => args.output.format,
            NamespaceCommand::Delete(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NamespaceCommand::Create(args) => create(session, args).await?,
            NamespaceCommand::Ls(args) => session.print_list::<Namespace>(*args).await?,
            NamespaceCommand::Label(args) => label(session, args).await?,
            NamespaceCommand::Delete(names) => {
                for namespace in session.find_all::<Namespace>(None, &names.get()).await? {
                    let name = &namespace.metadata.name;
                    session.client.delete_namespace(name).await?;
                    output::print(&format!("namespace/{name} deleted\n"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The label by which policies select a namespace by its name.
fn reserved(key: &str) -> Option<String> {
    (key == NAMESPACE_NAME_LABEL)
        .then(|| format!("the label {key} is always there, and is the namespace's name"))
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let name = args.name.get();
    let mut problems = Problems::default();
    check_name("--name", name, 63, &mut problems);
    let changes = labels::changes("--label", &args.labels, false, reserved, &mut problems);
    problems.into_result()?;
    let mut wanted = Namespace::new(name);
    wanted.metadata.labels.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    let namespace = session.client.create_namespace(&wanted).await?;
    let told = || format!("namespace/{name} created\n");
    output::print(&output::object(&namespace, args.output.format, told)?)
}

async fn label(session: &Session, args: &LabelArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    let changes = labels::changes("", &args.changes, true, reserved, &mut problems);
    problems.into_result()?;
    let found = session.find_all::<Namespace>(None, &[&args.name]).await?;
    for mut namespace in found {
        let before = namespace.clone();
        labels::apply(&changes, &mut namespace.metadata.labels);
        let changed = namespace.metadata.labels != before.metadata.labels;
        if changed {
            namespace = session.client.replace_namespace(&namespace).await?;
        }
        let told = || {
            let done = if changed { "labelled" } else { "unchanged" };
            format!("namespace/{} {done}: {}\n", namespace.metadata.name, labels::text(namespace.labels()))
        };
        output::print(&output::object(&namespace, args.output.format, told)?)?;
    }
    Ok(())
}

impl Row for Namespace {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "LABELS", "AGE"];
        header.extend(wide.then_some("ID"));
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            labels::text(self.labels()),
            age(self.metadata.creation_timestamp, now),
        ];
        cells.extend(wide.then(|| self.metadata.id.clone()));
        cells
    }
}
