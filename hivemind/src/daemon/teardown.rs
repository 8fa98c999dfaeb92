//! Removing all that a daemon made on the machine, but for its data directory.

use std::{path::Path, sync::Arc};

use hivemind_datapath::Datapath;
use hivemind_model::ApiError;
use hivemind_runtime::Runtime;
use hivemind_store::Store;
use tracing::{info, warn};

use super::{
    cluster::{
        facts::Cluster,
        membership::{MIRROR, Membership},
    },
    config::Config,
    parts::{HOST_PATHS, Ranges, cgroup_parent, datapath_config, open_store, runtime_config},
    sockets::{Inherited, let_go},
};

/// Stops the containers and removes networks, maps, links, rules, sockets and the private containerd. The store, volumes and
/// pulled images stay in the data directory: a daemon that is started there again brings the apps back.
///
/// # Errors
/// When a daemon still runs on the data directory (nothing was done), or a part cannot be removed (the rest is).
pub(crate) async fn run(config: Config, inherited: Inherited) -> Result<(), ApiError> {
    let mut first_error = None;
    let mut keep = |error: ApiError| {
        warn!(%error, "A part could not be removed");
        first_error.get_or_insert(error);
    };
    let mut config = config;
    let member = Membership::load(&config.data_dir)?.map(|(member, _)| member);
    if let Some(member) = &member {
        member.apply(&mut config)?;
    }
    let store = open_existing_store(&config, member.is_some()).await?;
    let facts = match (&member, &store) {
        (Some(member), _) => member.facts.clone(),
        (None, Some(store)) => Cluster::load_or_make(store, &config).await?.facts,
        (None, None) => {
            info!("There is no store in the data directory; removing what is found by its name");
            Cluster::draw(&config).facts
        }
    };
    if let Some(store) = store {
        let _ = store.close().await;
    }
    let ranges = Ranges::of(&facts, member.map_or(1, |member| member.number))?;
    if let Err(error) = remove_containers(&config).await {
        keep(error);
    }
    if let Err(error) = Datapath::teardown(&datapath_config(&config, &ranges)).await {
        keep(hivemind_agent::explain_datapath(&error));
    }
    remove_cgroups(&cgroup_parent(&config));
    tokio::task::block_in_place(|| let_go(inherited));
    for leftover in ["replicas", "netns", "containerd", "runtime"] {
        let _ = std::fs::remove_dir_all(config.run_dir.join(leftover));
    }
    // Never with what is in it, which would be the user's.
    let host_paths = config.run_dir.join(HOST_PATHS);
    if let Err(error) = hivemind_agent::release_host_paths(&host_paths) {
        tracing::warn!(%error, "What containers had mounted of the machine could not be let go");
    }
    let _ = std::fs::remove_dir(&host_paths);
    // The log process's lock outlives it.
    for file in [config.socket.clone(), config.run_dir.join("log.lock")] {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_dir(&config.run_dir);
    match first_error {
        None => {
            info!("All is removed but the data directory");
            Ok(())
        }
        Some(error) => Err(error),
    }
}

/// Removes our containers, if containerd answers or a private one can be started to ask it, and ends the log process and the
/// private containerd.
async fn remove_containers(config: &Config) -> Result<(), ApiError> {
    let runtime = match Runtime::connect(runtime_config(config)?).await {
        Ok(runtime) => runtime,
        Err(error) => return Err(hivemind_agent::explain_runtime(&error)),
    };
    remove_all(&runtime).await.map_err(|e| hivemind_agent::explain_runtime(&e))
}

async fn remove_all(runtime: &Runtime) -> Result<(), hivemind_runtime::Error> {
    for container in runtime.list().await? {
        info!(container = %container.id, "Removing a container");
        runtime.delete(&container.id).await?;
        runtime.remove_logs(&container.id).await?;
    }
    runtime.stop_log_collector().await?;
    runtime.stop_private().await
}

/// The store, if there is one. Its lock is what shows that no daemon runs.
async fn open_existing_store(config: &Config, is_member: bool) -> Result<Option<Arc<dyn Store>>, ApiError> {
    if !config.data_dir.join(if is_member { MIRROR } else { "store.redb" }).exists() {
        return Ok(None);
    }
    let store: Arc<dyn Store> = Arc::new(open_store(config, is_member).await?);
    Ok(Some(store))
}

/// Removes our containers' cgroup, which is empty by now, from every hierarchy that is mounted.
fn remove_cgroups(parent: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (_, Some(mount), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        if kind == "cgroup" || kind == "cgroup2" {
            remove_empty(&Path::new(mount).join(parent.trim_start_matches('/')));
        }
    }
}

/// Removes a cgroup and those below it, deepest first. One that holds a process stays.
fn remove_empty(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}
