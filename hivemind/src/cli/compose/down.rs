//! `down`: a project with all that is its own, gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use hivemind_client::Selection;
use hivemind_model::{App, ErrorCode, ErrorKind, Metadata, NetworkPolicy};

use super::{EXTERNAL_VOLUMES, PROJECT, ProjectArgs, name_of, within};
use crate::cli::{
    Session,
    app::{timeout, until_gone},
    fault::{Failure, fault},
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
    let Some(project) = name_of(session, &args.project)? else {
        let message = "no project is named, and there is no Compose file here or above";
        return Err(fault(ErrorCode::Malformed, message, "name it with -p, or its file with -f"));
    };
    let session = within(session, &project);
    let client = &session.client;
    let all = Selection::namespace(&session.namespace);
    let is_ours = |metadata: &Metadata| metadata.annotations.get(PROJECT) == Some(&project);
    let apps: Vec<App> =
        client.list::<App>(&all).await?.items.into_iter().filter(|app| is_ours(&app.metadata)).collect();
    let volumes = own_volumes(&apps);
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
    namespace(&session, is_ours).await?;
    if apps.is_empty() {
        note(&format!("no app of project {project:?} was in namespace {:?}", session.namespace));
    }
    Ok(())
}

/// The volumes that apps mount, save for those that are not their project's own.
fn own_volumes(apps: &[App]) -> BTreeSet<String> {
    let said = apps.iter().filter_map(|app| app.metadata.annotations.get(EXTERNAL_VOLUMES));
    let external: BTreeSet<&str> = said.flat_map(|names| names.split(',')).collect();
    let mounts =
        apps.iter().flat_map(|app| app.spec.template.all_containers()).flat_map(|c| &c.volume_mounts);
    let is_own = |name: &&String| !external.contains(name.as_str());
    mounts.map(|mount| &mount.volume).filter(is_own).cloned().collect()
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
async fn namespace(session: &Session, is_ours: impl Fn(&Metadata) -> bool) -> Result<(), Failure> {
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
