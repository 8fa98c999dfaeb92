//! `delete`: the objects that some files name.

use std::collections::BTreeMap;

use clap::Args;
use hivemind_client::Selection;
use hivemind_manifest::Manifests;
use hivemind_model::{ApiError, App, ErrorKind, Metadata, Problem};
use uuid::Uuid;

use super::{FilesArgs, place};
use crate::cli::{
    Session,
    app::{timeout, until_gone},
    fault::Failure,
    output,
};

/// Flags of `delete`.
#[derive(Args, Debug)]
#[command(
    after_help = "The files have to be free of faults; of each document only the kind, the namespace and the name matter. Apps go first, then policies, volumes with what is \
in them, and namespaces, in which nothing else may be. What is not there is passed over.

Examples:
  hivemind delete -f shop.yaml
  hivemind delete -f shop/ -n shop

Exit codes: 0 gone, 2 a fault in a file, 4 something is in use, 7 no daemon, 8 not gone in time."
)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// How long to wait until apps are gone
    #[arg(long, value_name = "TIME", default_value = "2m", allow_hyphen_values = true)]
    timeout: String,
}

pub(crate) async fn run(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(|Problem { code, field, message, hint }| {
        Failure::from(ApiError::new(code, message, hint).at(field))
    })?;
    let Manifests { namespaces, volumes, policies, apps, .. } = super::read(session, &args.files)?;
    let mut left: BTreeMap<String, BTreeMap<Uuid, String>> = BTreeMap::new();
    if !apps.is_empty() {
        let there = session.client.list::<App>(&Selection::default()).await?.items;
        for document in &apps {
            let metadata = &document.app.metadata;
            let is_it = |app: &&App| {
                (&app.metadata.namespace, &app.metadata.name) == (&metadata.namespace, &metadata.name)
            };
            let found = there.iter().find(is_it);
            let sent = session.client.delete_app(&metadata.namespace, &metadata.name).await;
            match (is_there(sent)?, found) {
                (true, Some(app)) => {
                    left.entry(metadata.namespace.clone())
                        .or_default()
                        .insert(app.metadata.uid, metadata.name.clone());
                }
                _ => tell("app", metadata, true, false)?,
            }
        }
    }
    for (namespace, apps) in left {
        let told = |name: &str| output::print(&format!("app/{name} deleted{}\n", place(&namespace)));
        until_gone(&session.client, &namespace, apps, limit, told).await?;
    }
    for document in &policies {
        let metadata = &document.policy.metadata;
        let sent = session.client.delete_policy(&metadata.namespace, &metadata.name).await;
        tell("policy", metadata, !document.policy.spec.kind().is_cluster_wide(), is_there(sent)?)?;
    }
    for document in &volumes {
        let metadata = &document.volume.metadata;
        let sent = session.client.delete_volume(&metadata.namespace, &metadata.name).await;
        tell("volume", metadata, true, is_there(sent)?)?;
    }
    for document in &namespaces {
        let metadata = &document.namespace.metadata;
        let sent = session.client.delete_namespace(&metadata.name).await;
        tell("namespace", metadata, false, is_there(sent)?)?;
    }
    Ok(())
}

/// Whether there was something to delete.
fn is_there(sent: Result<(), ApiError>) -> Result<bool, Failure> {
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.code.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn tell(word: &str, metadata: &Metadata, in_namespace: bool, was_there: bool) -> Result<(), Failure> {
    let place = if in_namespace { place(&metadata.namespace) } else { String::new() };
    let done = if was_there { "deleted" } else { "is not there" };
    output::print(&format!("{word}/{} {done}{place}\n", metadata.name))
}
