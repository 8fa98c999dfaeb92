//! `down`: a project with all that is its own, gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use hivemind_client::Selection;
use hivemind_model::{App, ErrorCode, ErrorKind, Metadata, NetworkPolicy};

use super::{PROJECT, ProjectArgs, session_of};
use crate::cli::{
    Session,
    app::{timeout, until_gone},
    fault::Failure,
    manifests::apply,
    output::{self, note},
};

/// Flags of `down`.
#[derive(Args, Debug)]
#[command(
    after_help = "Apps and policies that up made for the project go, and its namespace if nothing else is in it. Volumes stay, unless --volumes \
is given.

Examples:
  hivemind down
  hivemind down -p shop --volumes"
)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Delete the volumes of its apps, too, with all that is in them
    #[arg(long, short = 'v')]
    volumes: bool,
    /// How long to wait until all is gone
    #[arg(long, value_name = "TIME", default_value = "2m", allow_hyphen_values = true)]
    timeout: String,
}

pub(crate) async fn run(session: &Session, args: &DownArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(apply::error_of)?;
    let session = session_of(session, &args.project)?;
    let client = &session.client;
    let all = Selection::namespace(&session.namespace);
    let apps: Vec<App> =
        client.list::<App>(&all).await?.items.into_iter().filter(|app| is_ours(&app.metadata)).collect();
    let mounts =
        apps.iter().flat_map(|app| app.spec.template.all_containers()).flat_map(|c| &c.volume_mounts);
    let volumes: BTreeSet<String> = mounts.map(|mount| mount.volume.clone()).collect();
    delete(&session, &apps, limit).await?;
    let policies = client.list::<NetworkPolicy>(&all).await?.items;
    for policy in policies.iter().filter(|policy| is_ours(&policy.metadata)) {
        let name = &policy.metadata.name;
        client.delete_policy(&session.namespace, name).await?;
        output::print(&format!("policy/{name} deleted\n"))?;
    }
    for volume in volumes.iter().filter(|_| args.volumes) {
        match client.delete_volume(&session.namespace, volume).await {
            Err(error) if error.code.kind() == ErrorKind::NotFound => {}
            done => {
                done?;
                output::print(&format!("volume/{volume} deleted\n"))?;
            }
        }
    }
    namespace(&session).await?;
    if apps.is_empty() {
        note(&format!("no app of a project was in namespace {:?}", session.namespace));
    }
    Ok(())
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.annotations.contains_key(PROJECT)
}

/// Deletes apps, and waits until they are gone.
pub(super) async fn delete(session: &Session, apps: &[App], limit: Duration) -> Result<(), Failure> {
    for app in apps {
        match session.client.delete_app(&session.namespace, &app.metadata.name).await {
            Err(error) if error.code == ErrorCode::AppNotFound => {}
            done => done?,
        }
    }
    let left: BTreeMap<_, _> = apps.iter().map(|app| (app.metadata.uid, app.metadata.name.clone())).collect();
    let tell = |name: &str| output::print(&format!("app/{name} deleted\n"));
    until_gone(&session.client, &session.namespace, left, limit, tell).await
}

/// Deletes the namespace, if it was made for the project and nothing is in it any more.
async fn namespace(session: &Session) -> Result<(), Failure> {
    let found = session.client.namespace(&session.namespace).await;
    if !found.is_ok_and(|namespace| is_ours(&namespace.metadata)) {
        return Ok(());
    }
    match session.client.delete_namespace(&session.namespace).await {
        Ok(()) => output::print(&format!("namespace/{} deleted\n", session.namespace)),
        Err(error) if error.code == ErrorCode::NamespaceInUse => Ok(()),
        Err(error) => Err(error.into()),
    }
}
