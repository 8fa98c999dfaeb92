//! `explain`: what can be written in manifests.

use std::process::ExitCode;

use clap::Args;
use hivemind_manifest::{ExplainedField, Explanation};
use hivemind_model::{ApiError, Problem};

use crate::cli::{
    fault::{Failure, Outcome},
    output::{self, Format, FormatArgs},
    table::{Table, fields},
};

/// The kinds, where none is named.
const KINDS: [&str; 6] = ["app", "namespace", "volume", "networkpolicy", "clusternetworkpolicy", "policy"];

/// Flags of `explain`.
#[derive(Args, Debug)]
#[command(
    after_help = "A path begins with the kind: app, namespace, volume, networkpolicy, clusternetworkpolicy or policy. The word spec may be \
left out. No daemon is asked.

Examples:
  hivemind explain app
  hivemind explain app.template.containers.resources
  hivemind explain policy.ingress --recursive"
)]
pub(crate) struct ExplainArgs {
    /// The field, such as app.spec.template.containers; left out: the kinds
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// The whole tree of fields below it
    #[arg(long, short = 'r')]
    recursive: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

impl ExplainArgs {
    pub(crate) fn run(&self) -> Outcome {
        let text = match &self.path {
            Some(path) => self.told(&explained(path, self.recursive)?)?,
            None => kinds()?,
        };
        output::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn told(&self, explanation: &Explanation) -> Result<String, Failure> {
        match self.output.format {
            Format::Json => output::json(explanation),
            Format::Yaml => output::yaml(explanation),
            Format::Name => {
                let names = explanation.field.fields.iter();
                Ok(names.map(|field| format!("{}.{}\n", explanation.path, field.name)).collect())
            }
            Format::Table | Format::Wide => Ok(described(explanation)),
        }
    }
}

fn explained(path: &str, recursive: bool) -> Result<Explanation, Failure> {
    hivemind_manifest::explain(path, recursive)
        .map_err(|Problem { code, field, message, hint }| ApiError::new(code, message, hint).at(field).into())
}

fn kinds() -> Result<String, Failure> {
    let mut table = Table::new(["KIND", "VERSION", "WHAT IT IS"]);
    for word in KINDS {
        let Explanation { kind, api_version, field, .. } = explained(word, false)?;
        table.row(vec![kind.to_owned(), api_version.to_owned(), first_line(&field.doc).to_owned()]);
    }
    Ok(table.render())
}

fn described(explanation: &Explanation) -> String {
    let Explanation { kind, api_version, path, field } = explanation;
    let mut pairs = vec![
        ("Field", path.clone()),
        ("Type", field.type_name.clone()),
        ("Of", format!("{kind} ({api_version})")),
        ("Needed", said(field)),
    ];
    pairs.extend(field.default.iter().map(|default| ("Default", default.clone())));
    pairs.extend(field.example.iter().map(|example| ("Example", example.clone())));
    let mut text = fields(&pairs);
    if !field.doc.is_empty() {
        text.push_str(&format!("\n{}\n", field.doc));
    }
    if !field.fields.is_empty() {
        let mut table = Table::new(["FIELD", "TYPE", "DEFAULT", "WHAT IT IS"]);
        rows(&field.fields, 0, &mut table);
        text.push_str(&format!("\n{}", table.render()));
    }
    text
}

fn said(field: &ExplainedField) -> String {
    match (field.read_only, field.required) {
        (true, _) => "the server writes it",
        (false, true) => "yes",
        (false, false) => "no",
    }
    .to_owned()
}

fn rows(fields: &[ExplainedField], depth: usize, table: &mut Table) {
    for field in fields {
        let default = match &field.default {
            _ if field.read_only => "the server's".to_owned(),
            _ if field.required => "needed".to_owned(),
            Some(default) => default.clone(),
            None => String::new(),
        };
        table.row(vec![
            format!("{}{}", "  ".repeat(depth), field.name),
            field.type_name.clone(),
            default,
            first_line(&field.doc).to_owned(),
        ]);
        rows(&field.fields, depth + 1, table);
    }
}

fn first_line(doc: &str) -> &str {
    doc.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_told_with_those_below_it() {
        let text = described(&explained("app.template.containers.ports", false).unwrap());
        for line in [
            "Field:   app.spec.template.containers.ports",
            "Type:    list of Port",
            "Of:      App (hivemind/v1)",
            "Needed:  no",
            "Ports published on the host.",
            "hostPort        whole number   needed    The port on the host, 1 to 65535.",
            "protocol        tcp | udp      tcp       TCP unless said otherwise.",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
        let tree = described(&explained("app", true).unwrap());
        assert!(tree.lines().any(|line| line.starts_with("        hostPort ")), "{tree}");
    }

    #[test]
    fn every_kind_is_told() {
        let text = kinds().unwrap();
        assert_eq!(text.lines().count(), KINDS.len() + 1, "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("App ") && line.contains("What a user deploys")),
            "{text}"
        );
    }
}
