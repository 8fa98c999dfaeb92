//! Compose files: a project is a namespace, its services are apps.
//!
//! What a project comes to is put into manifests, and goes the way of [`super::manifests`]: compared with the cluster, checked by the
//! daemon, applied. Here is what only projects have: how they are found, what is theirs, and which of it is shown.

mod build;
pub(crate) mod config;
mod disk;
pub(crate) mod down;
pub(crate) mod services;
pub(crate) mod up;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use hivemind_client::Selection;
use hivemind_compose::{Fault, Plan, Planned, Project, Reading, Request};
use hivemind_model::{App, ErrorCode};

use self::disk::Disk;
use super::{
    Session,
    fault::{Colours, Failure, fault},
    output::note,
    place,
};

/// The annotation of what belongs to a project, with its name.
const PROJECT: &str = "compose.hivemind/project";

/// The annotation of an app that mounts volumes which are not the project's own, with their names.
const EXTERNAL_VOLUMES: &str = "compose.hivemind/external-volumes";

/// Which project is meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ProjectArgs {
    /// A Compose file; may be repeated, later ones are merged over earlier ones [default: compose.yaml here or above]
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) said: SaidArgs,
}

/// What is said of a project besides its files.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SaidArgs {
    /// The project's name, which is also its namespace [default: what the file or its directory says]
    #[arg(long = "project-name", short = 'p', value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What relative paths begin at [default: the directory of the first file]
    #[arg(long, value_name = "DIRECTORY")]
    project_directory: Option<PathBuf>,
    /// A profile whose services are part of it; may be repeated; '*' for all
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// A file of variables in place of .env; may be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
}

/// Reads the project; what its author may not have meant is told. `services` are part of it whatever their profiles.
///
/// # Errors
/// All faults of all files at once.
fn read(files: &[PathBuf], said: &SaidArgs, services: &[String]) -> Result<Project, Failure> {
    let directory = std::env::current_dir().map_err(|error| {
        let hint = "change to a directory that is there";
        fault(ErrorCode::FileFailed, format!("the directory cannot be found out: {error}"), hint)
    })?;
    let environment: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let request = Request {
        directory,
        files: files.to_vec(),
        project_directory: said.project_directory.clone(),
        env_files: said.env_files.clone(),
        name: said.name.clone(),
        profiles: said.profiles.clone(),
        services: services.to_vec(),
        environment,
    };
    let Reading { project, faults, more_faults, warnings } = hivemind_compose::read(&request, &Disk);
    warn(&warnings);
    let Some(project) = project else { return Err(refused(faults, more_faults)) };
    let unknown: Vec<&str> =
        services.iter().map(String::as_str).filter(|name| !project.services.contains_key(*name)).collect();
    match unknown.as_slice() {
        [] => Ok(project),
        names => {
            let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
            let message = format!("the project has no service {}", names.join(", "));
            Err(fault(ErrorCode::AppNotFound, message, format!("it has {}", known.join(", "))))
        }
    }
}

/// What the project comes to; what of it is not done as it is asked for is told.
fn planned(project: &Project) -> Result<Plan, Failure> {
    let Planned { plan, faults, more_faults, warnings } = hivemind_compose::plan(project);
    warn(&warnings);
    plan.ok_or_else(|| refused(faults, more_faults))
}

fn refused(faults: Vec<Fault>, more_faults: usize) -> Failure {
    if more_faults > 0 {
        note(&format!("{more_faults} more faults are not shown"));
    }
    faults.into()
}

fn warn(warnings: &[Fault]) {
    let colours = Colours::for_stderr();
    for warning in warnings {
        note(place::render(warning, "warning", "1;33", colours).trim_end());
    }
}

/// The name of the project that a command speaks of; none where there is neither a name nor a file.
fn name_of(session: &Session, args: &ProjectArgs) -> Result<Option<String>, Failure> {
    match &args.said.name {
        Some(name) => Ok(Some(name.clone())),
        None if args.files.is_empty() && (session.namespace_given || !is_here()) => Ok(None),
        None => Ok(Some(read(&args.files, &args.said, &[])?.name.value)),
    }
}

/// Where the services are that a command speaks of: the project's namespace, or without one, the one that other commands speak of.
fn session_of(session: &Session, args: &ProjectArgs) -> Result<Session, Failure> {
    Ok(match name_of(session, args)? {
        Some(name) => within(session, &name),
        None => session.clone(),
    })
}

/// In the namespace of a project.
fn within(session: &Session, project: &str) -> Session {
    Session { namespace: hivemind_compose::namespace_of(project), ..session.clone() }
}

/// Whether there is a Compose file here or above, or one is named by the environment.
fn is_here() -> bool {
    let usual = std::env::current_dir().map(|here| hivemind_compose::usual_files(&here, &Disk));
    usual.is_ok_and(|files| !files.is_empty()) || std::env::var_os("COMPOSE_FILE").is_some()
}

/// The apps of the namespace, or those of them that are named, in the order of their names.
async fn apps(session: &Session, names: &[String]) -> Result<Vec<App>, Failure> {
    let mut apps = session.client.list::<App>(&Selection::namespace(&session.namespace)).await?.items;
    let is_there = |name: &&String| !apps.iter().any(|app| app.metadata.name == **name);
    if let Some(name) = names.iter().find(is_there) {
        let message = format!("there is no app {name:?} in namespace {:?}", session.namespace);
        return Err(fault(ErrorCode::AppNotFound, message, "see hivemind ps, or start it: hivemind up"));
    }
    if apps.is_empty() {
        let message = format!("there is no app in namespace {:?}", session.namespace);
        return Err(fault(ErrorCode::AppNotFound, message, "start the project: hivemind up"));
    }
    apps.retain(|app| names.is_empty() || names.contains(&app.metadata.name));
    Ok(apps)
}
