//! `plan`: what applying some files would do, object by object and field by field.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use hivemind_manifest::Source;
use hivemind_model::{App, ApplyAction};
use hivemind_yaml::Faults;
use serde::Serialize;
use serde_json::Value;

use super::{
    FilesArgs,
    document::Document,
    done,
    fields::{self, Difference},
    place,
    plan::{Plan, Planned},
};
use crate::cli::{
    Session,
    compose::{SaidArgs, up},
    fault::{Colours, Failure, Outcome},
    output::{self, Format, FormatArgs},
};

/// The exit code if something would change, as of diff(1).
pub(crate) const DIFFERENT: u8 = 1;

/// The most characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 60;

/// Flags of `plan`.
#[derive(Args, Debug)]
#[command(
    after_help = "The files are manifests, or one project's Compose files; without any, it is the Compose file here or above. Every document is compared with the cluster and checked by the daemon, as apply would. Nothing is changed.

Examples:
  hivemind plan -f shop.yaml
  hivemind plan -f shop/ -o json | jq -r '.items[] | select(.action != \"unchanged\") | .name'

Exit codes: 0 nothing would change, 1 something would, 2 a fault in a file, 4 a name or port is taken, 7 no daemon."
)]
pub(crate) struct PreviewArgs {
    /// A file, a folder, or - for the standard input; may be repeated
    #[arg(long = "file", visible_alias = "filename", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    project: SaidArgs,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// What would become of one object, as it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preview {
    pub(crate) action: ApplyAction,
    /// The kind's word in commands.
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Where its document begins.
    pub(crate) position: String,
    /// What would differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Difference>,
    /// Whether its replicas would make room for others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replaces_replicas: bool,
    /// What its author says of it as it is, and as it would be.
    #[serde(skip)]
    pub(crate) documents: (Option<Value>, Value),
}

impl Preview {
    pub(crate) fn of<T: Document>(planned: &Planned<T>) -> Result<Self, Failure> {
        let after = planned.object.said()?;
        let before = planned.there.as_ref().map(Document::said).transpose()?;
        let differences = match (&before, planned.action) {
            (Some(before), ApplyAction::Changed) => fields::differences(before, &after),
            _ => Vec::new(),
        };
        let metadata = planned.object.metadata();
        Ok(Preview {
            action: planned.action,
            kind: T::ID_PREFIX,
            namespace: planned.object.is_in_namespace().then(|| metadata.namespace.clone()),
            name: metadata.name.clone(),
            position: planned.position.clone(),
            differences,
            replaces_replicas: false,
            documents: (before, after),
        })
    }

    fn of_app(planned: &Planned<App>) -> Result<Self, Failure> {
        let replaces_replicas = planned.action == ApplyAction::Changed && planned.replaces_replicas();
        Ok(Preview { replaces_replicas, ..Preview::of(planned)? })
    }

    /// `app/web would be changed in namespace shop`, or what was done.
    pub(crate) fn line(&self, dry_run: bool) -> String {
        let place = self.namespace.as_deref().map(place).unwrap_or_default();
        format!("{}/{} {}{place}\n", self.kind, self.name, done(self.action, dry_run))
    }
}

impl Plan {
    /// All that is planned, as it is told.
    pub(crate) fn previews(&self) -> Result<Vec<Preview>, Failure> {
        let mut previews = Vec::new();
        for planned in &self.namespaces {
            previews.push(Preview::of(planned)?);
        }
        for planned in &self.volumes {
            previews.push(Preview::of(planned)?);
        }
        for planned in &self.policies {
            previews.push(Preview::of(planned)?);
        }
        for planned in &self.apps {
            previews.push(Preview::of_app(planned)?);
        }
        Ok(previews)
    }
}

/// What programs read of a plan.
#[derive(Serialize)]
struct Told<'a> {
    items: &'a [Preview],
}

pub(crate) async fn run(session: &Session, args: &PreviewArgs) -> Outcome {
    let format = args.output.format;
    if args.files.iter().all(|file| is_compose(file)) {
        return up::preview(session, &args.files, &args.project, format).await;
    }
    let read = super::read(session, &FilesArgs { files: args.files.clone() })?;
    let plan = Plan::make(session, &read, format).await?;
    output::print(&told_as(&plan.previews()?, format)?)?;
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

/// Whether a file says a project rather than manifests: a map with services, and of no kind.
fn is_compose(file: &Path) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    let source = Source::new("", bytes);
    let mut faults = Faults::default();
    let options = hivemind_yaml::Options { tags: &["!reset", "!override"], merge_keys: true };
    let documents = hivemind_yaml::documents_with(&source, options, &mut faults);
    let first = documents.first();
    first.is_some_and(|document| document.get("services").is_some() && document.get("kind").is_none())
}

/// In `format`.
pub(crate) fn told_as(previews: &[Preview], format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => output::json(&Told { items: previews }),
        Format::Yaml => output::yaml(&Told { items: previews }),
        Format::Name => Ok(previews.iter().map(|p| format!("{}/{}\n", p.kind, p.name)).collect()),
        Format::Table | Format::Wide => Ok(told(previews, Colours::for_stdout())),
    }
}

pub(crate) fn told(previews: &[Preview], colours: Colours) -> String {
    let mut text = String::new();
    for preview in previews {
        let (sign, colour) = match preview.action {
            ApplyAction::Created => ("+", "32"),
            ApplyAction::Changed => ("~", "33"),
            ApplyAction::Unchanged => (" ", ""),
        };
        let sign = if colour.is_empty() { sign.to_owned() } else { colours.paint(colour, sign) };
        text.push_str(&format!("{sign} {}", preview.line(true)));
        for Difference { field, from, to } in &preview.differences {
            text.push_str(&format!("    {field}: {} -> {}\n", shown(from.as_ref()), shown(to.as_ref())));
        }
        if preview.replaces_replicas {
            text.push_str("    its replicas would be replaced one after the other\n");
        }
    }
    let count = |action| previews.iter().filter(|preview| preview.action == action).count();
    text.push_str(&format!(
        "\n{} to create, {} to change, {} unchanged\n",
        count(ApplyAction::Created),
        count(ApplyAction::Changed),
        count(ApplyAction::Unchanged)
    ));
    text
}

/// A value in one line, not longer than it can be read.
fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "(nothing)".to_owned(), Value::to_string);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, Volume, VolumeSpec, VolumeStatus};

    use super::*;

    fn volume(node: &str) -> Volume {
        let spec = VolumeSpec { node: node.into() };
        Volume { metadata: Metadata::new("shop", "data"), spec, status: VolumeStatus::default() }
    }

    #[test]
    fn a_plan_tells_what_would_become_of_each_object_and_of_its_fields() {
        let planned = |action, there: Option<Volume>| {
            Preview::of(&Planned { action, object: volume("n2"), there, position: "x:1:1".into() }).unwrap()
        };
        let mut changed = planned(ApplyAction::Changed, Some(volume("n1")));
        changed.replaces_replicas = true;
        let all = [
            planned(ApplyAction::Created, None),
            changed,
            planned(ApplyAction::Unchanged, Some(volume("n2"))),
        ];
        assert_eq!(
            told(&all, Colours::Off),
            "+ volume/data would be created in namespace shop\n\
             ~ volume/data would be changed in namespace shop\n    \
                 spec.node: \"n1\" -> \"n2\"\n    \
                 its replicas would be replaced one after the other\n  \
               volume/data would stay as it is in namespace shop\n\
             \n1 to create, 1 to change, 1 unchanged\n"
        );
    }

    #[test]
    fn values_are_shown_in_a_line() {
        assert_eq!(
            (shown(None), shown(Some(&Value::from("a\nb")))),
            ("(nothing)".into(), "\"a\\nb\"".into())
        );
        assert_eq!(shown(Some(&Value::from("é".repeat(99)))).chars().count(), VALUE_CHARS_MAX + 1);
    }
}
