//! `namespace`: what names are unique within, and what policies select by labels.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, Subcommand};
use hivemind_model::{ErrorCode, NAMESPACE_NAME_LABEL, Namespace, Problems, check_label, check_name};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome},
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

/// Labels to set, and with `None` to remove.
type Changes = BTreeMap<String, Option<String>>;

/// The changes that `words` mean; all that is wrong with them at once.
fn changes(flag: &str, words: &[String], may_remove: bool, problems: &mut Problems) -> Changes {
    let mut changes = Changes::new();
    for word in words {
        let field = if flag.is_empty() { word.clone() } else { format!("{flag} {word}") };
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value)),
            (None, Some(key)) if may_remove => (key, None),
            (None, _) => {
                let hint = match may_remove {
                    true => "write KEY=VALUE to set a label, KEY- to remove it",
                    false => "write KEY=VALUE, for example team=front",
                };
                problems.add(ErrorCode::InvalidLabel, field, format!("{word:?} has no value"), hint);
                continue;
            }
        };
        check_label(&field, key, value.unwrap_or_default(), problems);
        if key == NAMESPACE_NAME_LABEL {
            let message = format!("the label {key} is always there, and is the namespace's name");
            problems.add(ErrorCode::InvalidLabel, field, message, "choose another key");
            continue;
        }
        if changes.insert(key.to_owned(), value.map(str::to_owned)).is_some() {
            let message = format!("the label {key:?} is given twice");
            problems.add(ErrorCode::Repeated, field, message, "give it once");
        }
    }
    changes
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let name = args.name.get();
    let mut problems = Problems::default();
    check_name("--name", name, 63, &mut problems);
    let changes = changes("--label", &args.labels, false, &mut problems);
    problems.into_result()?;
    let mut wanted = Namespace::new(name);
    wanted.metadata.labels.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    let namespace = session.client.create_namespace(&wanted).await?;
    let told = || format!("namespace/{name} created\n");
    output::print(&output::object(&namespace, args.output.format, told)?)
}

async fn label(session: &Session, args: &LabelArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    let changes = changes("", &args.changes, true, &mut problems);
    problems.into_result()?;
    let found = session.find_all::<Namespace>(None, &[&args.name]).await?;
    for mut namespace in found {
        let before = namespace.clone();
        for (key, value) in &changes {
            match value {
                Some(value) => drop(namespace.metadata.labels.insert(key.clone(), value.clone())),
                None => drop(namespace.metadata.labels.remove(key)),
            }
        }
        let changed = namespace.metadata.labels != before.metadata.labels;
        if changed {
            namespace = session.client.replace_namespace(&namespace).await?;
        }
        let told = || {
            let done = if changed { "labelled" } else { "unchanged" };
            format!("namespace/{} {done}: {}\n", namespace.metadata.name, labels(&namespace))
        };
        output::print(&output::object(&namespace, args.output.format, told)?)?;
    }
    Ok(())
}

fn labels(namespace: &Namespace) -> String {
    let labels = namespace.labels().iter().map(|(key, value)| format!("{key}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

impl Row for Namespace {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "LABELS", "AGE"];
        header.extend(wide.then_some("ID"));
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells =
            vec![self.metadata.name.clone(), labels(self), age(self.metadata.creation_timestamp, now)];
        cells.extend(wide.then(|| self.metadata.id.clone()));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], may_remove: bool) -> Result<Changes, Vec<(String, &'static str)>> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let mut problems = Problems::default();
        let changes = changes("", &words, may_remove, &mut problems);
        match problems.into_result() {
            Ok(()) => Ok(changes),
            Err(e) if e.problems.is_empty() => Err(vec![(e.field.unwrap_or_default(), e.code.as_str())]),
            Err(e) => Err(e.problems.into_iter().map(|p| (p.field, p.code.as_str())).collect()),
        }
    }

    #[test]
    fn labels_are_set_and_removed() {
        let changes = read(&["team=front", "stage-", "empty=", "a-b=c"], true).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(changes["team"], some("front"));
        assert_eq!(changes["stage"], None);
        assert_eq!(changes["empty"], some(""));
        assert_eq!(changes["a-b"], some("c"));
    }

    #[test]
    fn all_wrong_labels_are_told_at_once() {
        assert_eq!(
            read(&["team", "_x=1", "a=1", "a-"], true).unwrap_err(),
            [("team".into(), "HM0106"), ("_x=1".into(), "HM0106"), ("a-".into(), "HM0107")]
        );
        assert_eq!(read(&["team-"], false).unwrap_err(), [("team-".into(), "HM0106")]);
    }
}
