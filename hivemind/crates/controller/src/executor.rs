//! Carrying plans out.

use std::{sync::Arc, time::Duration};

use hivemind_model::{ApiError, App, ErrorCode, NetworkPolicy, Replica, Service, short_id};
use hivemind_scheduler::Decision;
use hivemind_store::{Changes, Objects};
use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    identity_counter,
    plan::{Action, placement, plan},
    signals,
    snapshot::{Measured, Snapshot},
};

/// How long after a failure the controller looks again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How often it is looked again while time alone changes what is to be done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a controller goes by, besides objects.
#[derive(Clone)]
pub struct ControllerConfig {
    /// How long a node may be dead until its replicas are taken to be lost, and others are started.
    pub grace: Duration,
    /// What is measured of the network, now.
    pub measured: Arc<dyn Fn() -> Measured + Send + Sync>,
}

/// A running controller. Dropping it does not end it; [`Controller::stop`] does.
#[derive(Debug)]
pub struct Controller {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Controller {
    /// Begins to plan and act on what `objects` holds, now and at every change.
    pub fn start(objects: Objects, config: ControllerConfig) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(run(objects, config, token));
        Controller { stop, task }
    }

    /// Ends it between two actions, and waits for that.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "The controller failed");
        }
    }
}

/// One signal is enough however many changes there were: a plan is made of everything. Once `stop` is cancelled, the action
/// that is under way is carried out to its end: one that was given up might come true later, unseen by whoever plans next.
async fn run(objects: Objects, config: ControllerConfig, stop: CancellationToken) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let work = async {
        let mut waits = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.recv() => {}
                () = tokio::time::sleep(LOOK_EVERY), if waits => {}
            }
            waits = loop {
                match reconcile(&objects, &config, &stop).await {
                    Ok(waits) => break waits,
                    Err(error) => warn!(%error, "A plan could not be carried out; trying again"),
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                }
            };
        }
    };
    tokio::select! {
        () = signals::give(&objects, &changed) => {}
        () = work => {}
    }
}

async fn look(objects: &Objects, measured: Measured, grace: Duration) -> Result<Snapshot, ApiError> {
    Ok(Snapshot {
        apps: objects.list(None).await?.items,
        replicas: objects.list(None).await?.items,
        services: objects.list(None).await?.items,
        volumes: objects.list(None).await?.items,
        nodes: objects.list(None).await?.items,
        namespaces: objects.list(None).await?.items,
        identities: objects.list(None).await?.items,
        policies: objects.list(None).await?.items,
        last_identity: identity_counter::last(objects).await?,
        now: Timestamp::now(),
        grace,
        measured,
    })
}

/// Where the next replica of `app` would be put, and why. Nothing is changed.
///
/// # Errors
/// What the store says.
pub async fn explain(objects: &Objects, measured: &Measured, app: &App) -> Result<Decision, ApiError> {
    let snapshot = look(objects, measured.clone(), Duration::MAX).await?;
    let next = placement::pending(app, format!("{}-…", app.metadata.name));
    Ok(hivemind_scheduler::explain(&placement::snapshot_of(&snapshot), &next))
}

/// Plans and acts until nothing is left to do, or `stop` is cancelled. Returns whether time alone will change what is to be
/// done.
async fn reconcile(
    objects: &Objects,
    config: &ControllerConfig,
    stop: &CancellationToken,
) -> Result<bool, ApiError> {
    loop {
        let snapshot = look(objects, (config.measured)(), config.grace).await?;
        let actions = plan(&snapshot, || short_id("").trim_start_matches('-').to_owned());
        if actions.is_empty() {
            return Ok(snapshot.waits());
        }
        for action in actions {
            if stop.is_cancelled() {
                return Ok(false);
            }
            debug!(?action, "Acting");
            let others_need_it = matches!(action, Action::CreateIdentity(_));
            match act(objects, action).await {
                // Somebody else was faster: the next plan knows.
                Err(error) if is_outdated(&error) => {
                    debug!(%error, "An action came too late");
                    if others_need_it {
                        break;
                    }
                }
                done => done?,
            }
        }
    }
}

fn is_outdated(error: &ApiError) -> bool {
    use ErrorCode::{
        AppNotFound, NamespaceExists, PathNotFound, PolicyNotFound, ReplicaNotFound, ServiceNotFound, Stale,
        VolumeNotFound,
    };
    let missing = matches!(
        error.code,
        AppNotFound | PolicyNotFound | ReplicaNotFound | ServiceNotFound | VolumeNotFound | PathNotFound
    );
    missing || matches!(error.code, Stale | NamespaceExists)
}

async fn act(objects: &Objects, action: Action) -> Result<(), ApiError> {
    match action {
        Action::CreateNamespace(namespace) => objects.create(&*namespace).await.map(drop),
        Action::CreateIdentity(identity) => {
            // Counted first: whatever happens then, the number is not given a second time.
            identity_counter::advance(objects, identity.spec.number).await?;
            objects.create(&*identity).await.map(drop)
        }
        Action::SetReplicaIdentity { namespace, name, identity } => {
            info!(replica = name, identity, "A replica is given its identity");
            let set = |replica: &mut Replica| {
                replica.spec.identity = identity;
                Ok(())
            };
            objects.update_with(&namespace, &name, set).await.map(drop)
        }
        Action::CutIdentity(identity) => {
            info!(identity = identity.spec.number, "An identity tells replicas apart by more labels");
            objects.update(&*identity).await.map(drop)
        }
        Action::RemoveIdentity(identity) => objects.delete(&*identity).await,
        Action::CreateReplica(replica) => {
            info!(replica = replica.metadata.name, node = replica.spec.node, "A replica is made");
            objects.create(&*replica).await.map(drop)
        }
        Action::StopReplica { namespace, name } => {
            info!(replica = name, "A replica is told to stop");
            let stop = |replica: &mut Replica| {
                replica.metadata.deletion_timestamp.get_or_insert_with(Timestamp::now);
                Ok(())
            };
            objects.update_with(&namespace, &name, stop).await.map(drop)
        }
        Action::ForgetReplica(replica) => {
            let Replica { metadata, spec, .. } = &*replica;
            info!(replica = metadata.name, node = spec.node, "A replica is lost with its node");
            objects.delete(&*replica).await
        }
        Action::ForgetNodesOfService { namespace, name, nodes } => {
            let forget = |service: &mut Service| {
                service.status.retain_nodes(|node| !nodes.iter().any(|away| away == node));
                Ok(())
            };
            objects.update_with(&namespace, &name, forget).await.map(drop)
        }
        Action::ForgetNodesOfPolicy { namespace, name, nodes } => {
            let forget = |policy: &mut NetworkPolicy| {
                policy.status.retain_nodes(|node| !nodes.iter().any(|away| away == node));
                Ok(())
            };
            objects.update_with(&namespace, &name, forget).await.map(drop)
        }
        Action::CreateVolume(volume) => objects.create(&*volume).await.map(drop),
        Action::SetEndpoints { namespace, name, endpoints } => {
            let set = |service: &mut Service| {
                service.status.endpoints.clone_from(&endpoints);
                Ok(())
            };
            objects.update_with(&namespace, &name, set).await.map(drop)
        }
        Action::SetService { namespace, name, spec } => {
            let set = |service: &mut Service| {
                service.spec.clone_from(&spec);
                Ok(())
            };
            objects.update_with(&namespace, &name, set).await.map(drop)
        }
        Action::SetAppStatus { namespace, name, status } => {
            let set = |app: &mut App| {
                app.status = (*status).clone();
                Ok(())
            };
            objects.update_with(&namespace, &name, set).await.map(drop)
        }
        Action::RemoveApp(app) => remove_app(objects, &app).await,
    }
}

/// Removes an app with its service, in one step, so that its names and ports are free at the moment it is gone.
async fn remove_app(objects: &Objects, app: &App) -> Result<(), ApiError> {
    let mut changes = Changes::new();
    match objects.get::<Service>(&app.metadata.namespace, &app.metadata.name).await {
        Ok(service) => changes.delete(&service)?,
        Err(error) if error.code == ErrorCode::ServiceNotFound => {}
        Err(error) => return Err(error),
    }
    changes.delete(app)?;
    objects.transact(changes).await?;
    info!(app = app.metadata.name, namespace = app.metadata.namespace, "An app is gone");
    Ok(())
}
