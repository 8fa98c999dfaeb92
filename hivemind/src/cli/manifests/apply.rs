//! `apply`: all objects of some files, or, if one is at fault, none of them.

use clap::Args;
use hivemind_manifest::Manifests;
use hivemind_model::{ApiError, App, AppliedPolicies, ApplyAction, Problem, Resource};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    FilesArgs,
    document::{self, Document},
    plan::{self, Plan, Planned, at_place},
    preview::Preview,
};
use crate::cli::{
    Session,
    app::{timeout, until_all_up},
    fault::Failure,
    output::{self, Format, FormatArgs},
    policy,
};

/// Flags of `apply`.
#[derive(Args, Debug)]
#[command(
    after_help = "The files are YAML or JSON with documents of App, Namespace, Volume and Policy (hivemind/v1), of NetworkPolicy and \
ClusterNetworkPolicy as Kubernetes has them, and Lists of these; at most 1,000. hivemind explain tells what can be written.

Every fault of every file is told with its line and column, and the daemon is asked about all of them; if there is one, nothing \
is applied. Namespaces are made first, then volumes, policies and apps. What is as it should be is left alone. An app's number of \
replicas stays as it is where the file does not say it.

Examples:
  hivemind apply -f shop.yaml
  hivemind apply -f shop.yaml --dry-run          check, and show what would be done
  hivemind apply -f shop/ -n shop                all .yaml, .yml and .json files of a folder
  hivemind app ls -o yaml | hivemind apply -f -

Exit codes: 0 up and in force, 2 a fault in a file, 4 a name or port is taken, 5 image or container at fault, 6 the machine \
lacks something, 7 no daemon, 8 not up in time."
)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// Check it all, with what the daemon knows, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until apps are up and policies in force
    #[arg(long, short = 'd')]
    detach: bool,
    /// How long to wait for all of it, for example 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", allow_hyphen_values = true)]
    timeout: String,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// What was done to one object.
#[derive(Debug, Serialize)]
struct Applied {
    action: ApplyAction,
    object: Value,
}

pub(crate) async fn run(session: &Session, args: &ApplyArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(error_of)?;
    let format = args.output.format;
    let read = super::read(session, &args.files)?;
    let plan = Plan::make(session, &read, format).await?;
    if args.dry_run {
        return Told { format, dry_run: true, items: Vec::new() }.all(&plan)?.finish();
    }
    carry_out(session, &plan, &read, args.detach, limit, format).await
}

/// Does what is planned of `read`, and waits until all of it is up and in force, unless `detach`.
pub(crate) async fn carry_out(
    session: &Session,
    plan: &Plan,
    read: &Manifests,
    detach: bool,
    limit: std::time::Duration,
    format: Format,
) -> Result<(), Failure> {
    let mut told = Told { format, dry_run: false, items: Vec::new() };
    let deadline = Instant::now() + limit;
    namespaces(session, plan, read, &mut told).await?;
    volumes(session, plan, read, &mut told).await?;
    let mut policies = apply_policies(session, plan, read).await?;
    // Apps come up behind the policies of the same files, not before them.
    let in_force = match detach {
        true => Ok(()),
        false => policy::enforced::wait(session, &mut policies, limit).await,
    };
    told.policies(&policies)?;
    in_force?;
    let apps = apps(session, plan, read, &mut told).await?;
    if !detach {
        until_all_up(session, &apps, deadline, format).await?;
    }
    told.finish()
}

pub(crate) fn error_of(Problem { code, field, message, hint }: Problem) -> Failure {
    ApiError::new(code, message, hint).at(field).into()
}

/// Tells what is done: people at once, programs at the end.
struct Told {
    format: Format,
    dry_run: bool,
    items: Vec<Applied>,
}

impl Told {
    fn one<T: Document>(&mut self, planned: &Planned<T>, object: &T, value: Value) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => output::print(&Preview::of(planned)?.line(self.dry_run)),
            Format::Name => output::print(&output::name_line(object)),
            Format::Json | Format::Yaml => {
                self.items.push(Applied { action: planned.action, object: value });
                Ok(())
            }
        }
    }

    fn object<T: Document>(&mut self, planned: &Planned<T>, object: &T) -> Result<(), Failure> {
        self.one(planned, object, document::of(object)?)
    }

    fn policies(&mut self, applied: &AppliedPolicies) -> Result<(), Failure> {
        for item in &applied.items {
            match self.format {
                Format::Table | Format::Wide => output::print(&policy::apply::line(item, self.dry_run))?,
                Format::Name => output::print(&output::name_line(&item.policy))?,
                Format::Json | Format::Yaml => {
                    let object = policy::document::of(&item.policy)?;
                    self.items.push(Applied { action: item.action, object });
                }
            }
        }
        Ok(())
    }

    /// What a dry run tells.
    fn all(mut self, plan: &Plan) -> Result<Self, Failure> {
        for planned in &plan.namespaces {
            self.object(planned, &planned.object)?;
        }
        for planned in &plan.volumes {
            self.object(planned, &planned.object)?;
        }
        for planned in &plan.policies {
            self.one(planned, &planned.object, policy::document::of(&planned.object)?)?;
        }
        for planned in &plan.apps {
            self.object(planned, &planned.object)?;
        }
        Ok(self)
    }

    fn finish(self) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Items {
            items: Vec<Applied>,
        }
        let items = Items { items: self.items };
        match self.format {
            Format::Json => output::print(&output::json(&items)?),
            Format::Yaml => output::print(&output::yaml(&items)?),
            Format::Table | Format::Wide | Format::Name => Ok(()),
        }
    }
}

async fn namespaces(
    session: &Session,
    plan: &Plan,
    read: &Manifests,
    told: &mut Told,
) -> Result<(), Failure> {
    for (planned, document) in plan.namespaces.iter().zip(&read.namespaces) {
        let sent = match planned.action {
            ApplyAction::Created => session.client.create_namespace(&planned.object).await,
            ApplyAction::Changed => session.client.replace_namespace(&planned.object).await,
            ApplyAction::Unchanged => Ok(as_it_is(planned)),
        };
        let namespace = sent.map_err(|error| at_place(|problem| document.fault(problem), error))?;
        told.object(planned, &namespace)?;
    }
    Ok(())
}

async fn volumes(session: &Session, plan: &Plan, read: &Manifests, told: &mut Told) -> Result<(), Failure> {
    for (planned, document) in plan.volumes.iter().zip(&read.volumes) {
        let sent = match planned.action {
            ApplyAction::Created => session.client.create_volume(&planned.object).await,
            ApplyAction::Changed | ApplyAction::Unchanged => Ok(as_it_is(planned)),
        };
        let volume = sent.map_err(|error| at_place(|problem| document.fault(problem), error))?;
        told.object(planned, &volume)?;
    }
    Ok(())
}

async fn apply_policies(
    session: &Session,
    plan: &Plan,
    read: &Manifests,
) -> Result<AppliedPolicies, Failure> {
    if plan.policies.is_empty() {
        return Ok(AppliedPolicies::default());
    }
    let sent = session.client.apply_policies(&plan::wanted(&read.policies)).await;
    sent.map_err(|error| policy::apply::at_places(error, &read.policies))
}

/// Makes and changes the apps; those of them that have to come up are given back, with whether they are new.
async fn apps(
    session: &Session,
    plan: &Plan,
    read: &Manifests,
    told: &mut Told,
) -> Result<Vec<(App, bool)>, Failure> {
    let mut to_wait_for = Vec::new();
    for (planned, document) in plan.apps.iter().zip(&read.apps) {
        let sent = match planned.action {
            ApplyAction::Created => session.client.create_app(&planned.object).await,
            ApplyAction::Changed => session.client.replace_app(&planned.object).await,
            ApplyAction::Unchanged => Ok(as_it_is(planned)),
        };
        let app = sent.map_err(|error| at_place(|problem| document.fault(problem), error))?;
        told.object(planned, &app)?;
        if planned.action != ApplyAction::Unchanged {
            to_wait_for.push((app, planned.action == ApplyAction::Created));
        }
    }
    Ok(to_wait_for)
}

/// What is there, of an object that is left alone.
fn as_it_is<T: Resource>(planned: &Planned<T>) -> T {
    planned.there.as_ref().unwrap_or(&planned.object).clone()
}
