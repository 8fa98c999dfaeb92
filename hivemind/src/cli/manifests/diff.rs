//! `diff`: what applying some files would change, line by line.

use std::process::ExitCode;

use clap::Args;
use hivemind_model::ApplyAction;

use super::{
    FilesArgs,
    plan::Plan,
    preview::{DIFFERENT, Preview},
};
use crate::cli::{
    Session,
    fault::{Colours, Failure, Outcome},
    lines,
    output::{self, Format},
};

/// Flags of `diff`.
#[derive(Args, Debug)]
#[command(
    after_help = "Each object is told as unchanged, as one that would be created, or with its changed fields as a unified diff of its \
YAML. Nothing is changed. Faults and warnings are those of apply; hivemind plan tells the same field by field.

Examples:
  hivemind diff -f shop.yaml
  hivemind diff -f shop/ && echo 'nothing to do'

Exit codes: 0 no difference, 1 there are differences, 2 a fault in a file, 4 a name or port is taken, 7 no daemon."
)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    files: FilesArgs,
}

pub(crate) async fn run(session: &Session, args: &DiffArgs) -> Outcome {
    let read = super::read(session, &args.files)?;
    let plan = Plan::make(session, &read, Format::Table).await?;
    let mut text = String::new();
    for preview in plan.previews()? {
        text.push_str(&preview.line(true));
        if preview.action != ApplyAction::Unchanged {
            text.push_str(&difference(&preview, Colours::for_stdout())?);
        }
    }
    output::print(&text)?;
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn difference(preview: &Preview, colours: Colours) -> Result<String, Failure> {
    let (before, after) = &preview.documents;
    let old = before.as_ref().map(output::yaml).transpose()?;
    Ok(lines::difference(old.as_deref(), &output::yaml(after)?, &preview.position, colours))
}
