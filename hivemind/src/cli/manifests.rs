//! Manifests: objects of all kinds, as files say them. They are read whole, compared with the cluster, checked by the daemon, and
//! only then applied.

pub(crate) mod apply;
mod claims;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod document;
pub(crate) mod explain;
mod fields;
pub(crate) mod plan;
mod preview;

use std::path::PathBuf;

use clap::Args;
use hivemind_manifest::{Manifests, Options, Source};
use hivemind_model::{ApplyAction, DEFAULT_NAMESPACE, ErrorCode, NetworkPolicy, Problem};

use super::{
    Session,
    fault::{Failure, fault},
    files,
    output::note,
    policy,
};

pub(crate) use preview::{DIFFERENT, PreviewArgs, run as preview, told as told_previews, told_as};

/// The files that a command reads.
#[derive(Args, Debug)]
pub(crate) struct FilesArgs {
    /// A file, a folder, or - for the standard input; may be repeated
    #[arg(long = "file", visible_alias = "filename", short = 'f', value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Reads all documents of some sources; see [`hivemind_manifest::read`].
type Reader = fn(&[Source], Options<'_>, &dyn Fn(&NetworkPolicy) -> Vec<Problem>) -> Manifests;

/// What the files hold, and how they are called; all faults of all of them at once.
pub(crate) fn read_by(
    reader: Reader,
    session: &Session,
    names: &[PathBuf],
) -> Result<(Manifests, Vec<String>), Failure> {
    let (sources, unread) = files::read(names);
    let options = Options { namespace: &session.namespace, only_this_namespace: session.namespace_given };
    let mut read = reader(&sources, options, &policy::apply::check);
    if read.more_faults > 0 {
        note(&format!("{} more faults are not shown", read.more_faults));
    }
    let faults = std::mem::take(&mut read.faults);
    if !faults.is_empty() || !unread.is_empty() {
        return Err(Failure::of_files(unread, faults));
    }
    Ok((read, sources.iter().map(|source| source.name().to_owned()).collect()))
}

/// Objects of all kinds; there is at least one.
fn read(session: &Session, args: &FilesArgs) -> Result<Manifests, Failure> {
    let (read, files) = read_by(hivemind_manifest::read_all, session, &args.files)?;
    let Manifests { namespaces, volumes, policies, apps, .. } = &read;
    if namespaces.is_empty() && volumes.is_empty() && policies.is_empty() && apps.is_empty() {
        return Err(fault(
            ErrorCode::Malformed,
            format!("{}: there is nothing to apply", files.join(", ")),
            "write documents of kind App, NetworkPolicy, Namespace, …: see hivemind explain app",
        ));
    }
    Ok(read)
}

/// What was done to an object, or would be.
pub(crate) fn done(action: ApplyAction, dry_run: bool) -> &'static str {
    match (action, dry_run) {
        (ApplyAction::Created, false) => "created",
        (ApplyAction::Created, true) => "would be created",
        (ApplyAction::Changed, false) => "changed",
        (ApplyAction::Changed, true) => "would be changed",
        (ApplyAction::Unchanged, false) => "unchanged",
        (ApplyAction::Unchanged, true) => "would stay as it is",
    }
}

/// Where an object is, if that is not where most are.
pub(crate) fn place(namespace: &str) -> String {
    match namespace {
        DEFAULT_NAMESPACE => String::new(),
        other => format!(" in namespace {other}"),
    }
}
