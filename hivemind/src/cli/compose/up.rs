//! `up`: a project as it should be, and `plan` of one.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use clap::Args;
use hivemind_client::Selection;
use hivemind_compose::{ErrorCode, Project};
use hivemind_manifest::{Manifests, Options, Source};
use hivemind_model::{App, ApplyAction, ErrorKind, Metadata, Namespace, Volume};
use tokio::time::Instant;

use super::{EXTERNAL_VOLUMES, PROJECT, ProjectArgs, SaidArgs, build, down, planned, read};
use crate::cli::{
    Session,
    app::{timeout, until_all_up},
    fault::{Colours, Failure, Outcome, fault},
    manifests::{self, apply, document, plan::Plan},
    output::{self, Format, FormatArgs, note},
    policy,
};

/// Flags of `up`.
#[derive(Args, Debug)]
#[command(
    after_help = "The project is a namespace, and each of its services an app: others reach it by its name, as web or web.NAMESPACE. What \
would be done is printed first; then it is done, and the command ends when all services are up and well. What is as it should be \
is left alone. Every key that cannot be honoured is told with its place: as an error if it would make a difference.

Images with build: are built by docker or buildah, if one is in the PATH, when the daemon does not have them.

What a file asks for beyond what all apps may have, such as directories of the machine, is permitted to the namespace when up makes \
it; later that is for hivemind namespace permit.

Examples:
  hivemind up
  hivemind up -f compose.yaml -f compose.prod.yaml -p shop
  hivemind up web --profile debug
  hivemind plan                          only print what would be done

Exit codes: 0 all up, 2 a fault in a file, 4 a name or port is taken, 5 image or container at fault, 7 no daemon, 8 not up in time."
)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only these services and those that they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not wait until all are up
    #[arg(long, short = 'd')]
    detach: bool,
    /// How long to wait until all are up, for example 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", allow_hyphen_values = true)]
    timeout: String,
    /// Build images although they are there
    #[arg(long)]
    build: bool,
    /// Delete apps of the project whose services are not in its files any more
    #[arg(long)]
    remove_orphans: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// A project that is about to be brought up.
struct Prepared {
    session: Session,
    project: Project,
    /// What it comes to.
    said: hivemind_compose::Plan,
    read: Manifests,
    plan: Plan,
    orphans: Vec<App>,
}

pub(crate) async fn run(session: &Session, args: &UpArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(apply::error_of)?;
    let format = args.output.format;
    let prepared = prepare(session, &args.project.files, &args.project.said, &args.services).await?;
    let Prepared { session, project, said, read, plan, orphans } = prepared;
    let missing = build::missing(&session, &project, &said, args.build).await?;
    if !format.is_for_programs() {
        note(manifests::told_previews(&plan.previews()?, Colours::for_stderr()).trim_end());
        note("");
    }
    build::build(&session, &missing).await?;
    let deadline = Instant::now() + limit;
    apply::carry_out(&session, &plan, &read, args.detach, limit, format).await?;
    if args.remove_orphans {
        down::delete(&session, &orphans, limit).await?;
    } else if !orphans.is_empty() {
        let names: Vec<&str> = orphans.iter().map(|app| app.metadata.name.as_str()).collect();
        note(&format!("{} not in the files any more: see up --remove-orphans", names.join(", ")));
    }
    if args.detach {
        return Ok(());
    }
    let others = plan.apps.iter().filter(|planned| planned.action == ApplyAction::Unchanged);
    let others: Vec<(App, bool)> = others
        .map(|planned| (planned.there.clone().unwrap_or_else(|| planned.object.clone()), false))
        .collect();
    until_all_up(&session, &others, deadline, format).await
}

/// What bringing a project up would do.
pub(crate) async fn preview(
    session: &Session,
    files: &[PathBuf],
    said: &SaidArgs,
    format: Format,
) -> Outcome {
    let Prepared { plan, .. } = prepare(session, files, said, &[]).await?;
    let previews = plan.previews()?;
    output::print(&manifests::told_as(&previews, format)?)?;
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(manifests::DIFFERENT) })
}

async fn prepare(
    session: &Session,
    files: &[PathBuf],
    said: &SaidArgs,
    services: &[String],
) -> Result<Prepared, Failure> {
    let project = read(files, said, services)?;
    let mut plan = planned(&project)?;
    let session = Session { namespace: plan.namespace.clone(), ..session.clone() };
    let there = session.client.list::<App>(&Selection::namespace(&session.namespace)).await?.items;
    let orphans = there.iter().filter(|app| {
        is_of(&app.metadata, &project) && !project.all_services().any(|(name, _)| *name == app.metadata.name)
    });
    let orphans = orphans.cloned().collect();
    check_strangers(&there, &plan.apps, &project)?;
    check_volumes(&session, &project, &plan).await?;
    if !services.is_empty() {
        let wanted = with_dependencies(&plan.apps, services);
        plan.apps.retain(|app| wanted.contains(&app.metadata.name));
        plan.builds.retain(|name, _| wanted.contains(name));
    }
    let read = manifests_of(&session, &project, plan.clone()).await?;
    // Without warnings of policies: what they select is only about to be made.
    let planned = Plan::make(&session, &read, Format::Json).await?;
    Ok(Prepared { session, project, said: plan, read, plan: planned, orphans })
}

fn is_of(metadata: &Metadata, project: &Project) -> bool {
    metadata.annotations.get(PROJECT) == Some(&project.name.value)
}

/// Apps of these names that something else has made are not taken over, nor is the namespace of another project: policies of both
/// would have the same names.
fn check_strangers(there: &[App], apps: &[App], project: &Project) -> Result<(), Failure> {
    let other = there
        .iter()
        .find_map(|app| app.metadata.annotations.get(PROJECT).filter(|name| **name != project.name.value));
    if let Some(other) = other {
        let message =
            format!("the namespace of project {:?} is that of project {other:?}", project.name.value);
        return Err(fault(ErrorCode::NamespaceInUse, message, "give the project another name with -p"));
    }
    let is_planned = |app: &&App| apps.iter().any(|planned| planned.metadata.name == app.metadata.name);
    let strangers: Vec<&str> = there
        .iter()
        .filter(is_planned)
        .filter(|app| !is_of(&app.metadata, project))
        .map(|app| app.metadata.name.as_str())
        .collect();
    if strangers.is_empty() {
        return Ok(());
    }
    let message = format!(
        "in namespace {:?} there is an app {} that is not of project {:?}",
        project.name.value,
        strangers.join(", "),
        project.name.value
    );
    Err(fault(ErrorCode::AppExists, message, "give the project another name with -p, or delete the app"))
}

/// Volumes that have to be there already.
async fn check_volumes(
    session: &Session,
    project: &Project,
    plan: &hivemind_compose::Plan,
) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for volume in plan.volumes.iter().filter(|volume| volume.is_external) {
        match session.client.find::<Volume>(Some(&session.namespace), &volume.name).await {
            Err(error) if error.code.kind() == ErrorKind::NotFound => {
                let message =
                    format!("there is no volume {:?} in namespace {:?}", volume.name, session.namespace);
                let hint =
                    format!("make it: hivemind volume create -n {} {}", session.namespace, volume.name);
                faults.push(project.sources.fault(&volume.spot, ErrorCode::VolumeNotFound, message, hint));
            }
            found => drop(found?),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
}

/// `services` and all that they wait for, directly or not.
fn with_dependencies(apps: &[App], services: &[String]) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    let mut open: Vec<String> = services.to_vec();
    while let Some(name) = open.pop() {
        if let Some(app) = apps.iter().find(|app| app.metadata.name == name)
            && wanted.insert(name)
        {
            open.extend(app.spec.depends_on.iter().map(|on| on.app.clone()));
        }
    }
    wanted
}

/// What the project comes to, as manifests say it. Its namespace is among them if it is not there yet.
async fn manifests_of(
    session: &Session,
    project: &Project,
    plan: hivemind_compose::Plan,
) -> Result<Manifests, Failure> {
    let of_project = |metadata: &mut Metadata| {
        metadata.annotations.insert(PROJECT.to_owned(), project.name.value.clone());
    };
    let mut items = Vec::new();
    match session.client.namespace(&plan.namespace).await {
        Err(error) if error.code.kind() == ErrorKind::NotFound => {
            let mut namespace = Namespace::new(&plan.namespace);
            namespace.spec = plan.permits;
            of_project(&mut namespace.metadata);
            items.push(document::of(&namespace)?);
        }
        found => drop(found?),
    }
    for mut policy in plan.policies {
        of_project(&mut policy.metadata);
        items.push(policy::document::of(&policy)?);
    }
    let external: Vec<String> =
        plan.volumes.into_iter().filter(|volume| volume.is_external).map(|volume| volume.name).collect();
    for mut app in plan.apps {
        of_project(&mut app.metadata);
        if !external.is_empty() {
            // So that taking the project down spares them, also without its files.
            app.metadata.annotations.insert(EXTERNAL_VOLUMES.to_owned(), external.join(","));
        }
        items.push(document::of(&app)?);
    }
    let text = output::yaml(&document::list(items, 0))?;
    let source = Source::new("what the project comes to", text.into_bytes());
    let options = Options { namespace: &plan.namespace, only_this_namespace: false };
    let mut read = hivemind_manifest::read_all(&[source], options, &policy::apply::check);
    let faults = std::mem::take(&mut read.faults);
    if faults.is_empty() { Ok(read) } else { Err(faults.into()) }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{AppService, AppSpec, AppStatus, Dependency, DependencyCondition, Template};

    use super::*;

    fn app(name: &str, on: &[&str]) -> App {
        let depends_on =
            on.iter().map(|on| Dependency { app: (*on).to_owned(), condition: DependencyCondition::Started });
        let spec = AppSpec {
            replicas: 1,
            hostnames: Vec::new(),
            service: AppService::default(),
            depends_on: depends_on.collect(),
            template: Template::default(),
        };
        App { metadata: Metadata::new("shop", name), spec, status: AppStatus::default() }
    }

    #[test]
    fn a_service_comes_with_all_that_it_depends_on() {
        let apps =
            [app("web", &["api"]), app("api", &["db", "gone"]), app("db", &[]), app("other", &["web"])];
        let wanted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            with_dependencies(&apps, &names).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(wanted(&["web"]), ["api", "db", "web"]);
        assert_eq!(wanted(&["db"]), ["db"]);
    }
}
