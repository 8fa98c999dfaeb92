//! `policy diff`: what applying the policies of some files would change.

use std::{collections::HashMap, path::PathBuf, process::ExitCode};

use clap::Args;
use hivemind_client::Selection;
use hivemind_manifest::PolicyDocument;
use hivemind_model::{AppliedPolicies, AppliedPolicy, ApplyAction, ApplyPolicies, NetworkPolicy};

use super::{apply, document};
use crate::cli::{
    Session,
    fault::{Colours, Failure, Outcome},
    lines,
    output::{self, Format},
};

/// The exit code if something would change, as of diff(1).
const DIFFERENT: u8 = 1;

/// Flags of `policy diff`.
#[derive(Args, Debug)]
#[command(
    after_help = "Each policy is told as unchanged, as one that would be created, or with its changed fields as a unified diff of \
its YAML. Nothing is changed. Faults and warnings are those of policy apply.

Examples:
  hivemind policy diff -f rules.yaml
  hivemind policy diff -f policies/ && echo 'nothing to do'

Exit codes: 0 no difference, 1 there are differences, 2 a fault in a file, 4 a name is taken, 7 no daemon."
)]
pub(crate) struct DiffArgs {
    /// A file, a folder, or - for the standard input; may be repeated
    #[arg(long = "file", visible_alias = "filename", short = 'f', value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: &DiffArgs) -> Outcome {
    let documents = apply::read(session, &args.files)?;
    let wanted = ApplyPolicies { items: documents.iter().map(|document| document.policy.clone()).collect() };
    let there = session.client.list::<NetworkPolicy>(&Selection::default()).await?.items;
    let sent = session.client.try_policies(&wanted).await;
    let applied = sent.map_err(|error| apply::at_places(error, &documents))?;
    apply::warn(&applied, &documents, Format::Table);
    output::print(&told(&there, &applied, &documents, Colours::for_stdout())?)?;
    let is_same = applied.items.iter().all(|item| item.action == ApplyAction::Unchanged);
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn told(
    there: &[NetworkPolicy],
    applied: &AppliedPolicies,
    documents: &[PolicyDocument],
    colours: Colours,
) -> Result<String, Failure> {
    let place = |policy: &NetworkPolicy| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
    let there: HashMap<_, _> = there.iter().map(|policy| (place(policy), policy)).collect();
    let mut text = String::new();
    for (item, document) in applied.items.iter().zip(documents) {
        text.push_str(&apply::line(item, true));
        if item.action != ApplyAction::Unchanged {
            let stored = there.get(&place(&item.policy)).copied();
            text.push_str(&difference(stored, item, &document.position(), colours)?);
        }
    }
    Ok(text)
}

fn difference(
    stored: Option<&NetworkPolicy>,
    item: &AppliedPolicy,
    position: &str,
    colours: Colours,
) -> Result<String, Failure> {
    let old = stored.map(|policy| output::yaml(&document::said(policy)?)).transpose()?;
    let new = output::yaml(&document::said(&item.policy)?)?;
    Ok(lines::difference(old.as_deref(), &new, position, colours))
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};

    use super::*;

    fn policy(port: u16) -> NetworkPolicy {
        let text = format!(
            "apiVersion: hivemind/v1\nkind: Policy\nmetadata: {{name: a, namespace: shop}}\nspec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}\n"
        );
        let options = Options { namespace: "default", only_this_namespace: false };
        read(&[Source::new("x", text.into())], options, &|_| Vec::new()).policies.remove(0).policy
    }

    #[test]
    fn what_changes_is_told_with_the_lines_around_it_and_nothing_of_what_the_server_writes() {
        let mut stored = policy(80);
        stored.metadata.generation = 7;
        stored.status.number = 9;
        let item = |policy, action| AppliedPolicy { action, policy, warnings: Vec::new() };
        let told = difference(
            Some(&stored),
            &item(policy(81), ApplyAction::Changed),
            "rules.yaml:1:1",
            Colours::Off,
        )
        .unwrap();
        assert!(told.starts_with("--- in the cluster\n+++ rules.yaml:1:1\n@@ "), "{told}");
        let changed: Vec<&str> =
            told.lines().skip(2).filter(|line| line.starts_with(['+', '-'])).map(str::trim_end).collect();
        assert_eq!(changed.len(), 2, "{told}");
        assert!(changed[0].starts_with('-') && changed[0].ends_with("port: 80"), "{told}");
        assert!(changed[1].starts_with('+') && changed[1].ends_with("port: 81"), "{told}");
        let new = difference(None, &item(policy(80), ApplyAction::Created), "x:1:1", Colours::Off).unwrap();
        assert!(new.starts_with("--- /dev/null\n+++ x:1:1\n@@ -0,0 +1,"), "{new}");
        assert!(new.lines().skip(3).all(|line| line.starts_with('+')), "{new}");
        assert!(!new.contains("uid") && !new.contains("status"), "{new}");
    }
}
