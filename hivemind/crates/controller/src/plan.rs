//! From what is to what should be.

mod dependencies;
mod identities;
mod namespaces;
mod nodes;
pub(crate) mod placement;

use hivemind_model::{
    App, AppStatus, Endpoint, Identity, Metadata, Namespace, Phase, Problem, Replica, ReplicaSpec,
    ReplicaStatus, ServicePort, ServiceSpec, Volume, VolumeSpec, VolumeStatus, template_hash,
};

use hivemind_scheduler::{Decision, Outcome};

use self::{
    identities::{Identities, Place},
    placement::Placement,
};
use crate::snapshot::Snapshot;

/// One change that brings the cluster nearer to what users want.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this namespace: something is in it, or it is built in.
    CreateNamespace(Box<Namespace>),
    /// Make this identity; no other gets its number for as long as possible.
    CreateIdentity(Box<Identity>),
    /// Have this identity tell replicas apart by more keys, all its replicas having the labels that it tells.
    CutIdentity(Box<Identity>),
    /// Give the replica this identity: an older version made it without, or policies tell it apart from others by now.
    SetReplicaIdentity {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The identity's number.
        identity: u32,
    },
    /// Remove this identity: nothing has it or is about to.
    RemoveIdentity(Box<Identity>),
    /// Make this replica.
    CreateReplica(Box<Replica>),
    /// Ask the replica's node to take it down; the node removes the object when that is done.
    StopReplica {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Remove this replica: its node is away, and others take its place. Should the node come back, it stops it by itself.
    ForgetReplica(Box<Replica>),
    /// Forget what these nodes, which are away, told of the service.
    ForgetNodesOfService {
        /// The service's namespace.
        namespace: String,
        /// The service's name.
        name: String,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Forget how far the policy is enforced on these nodes, which are away.
    ForgetNodesOfPolicy {
        /// The policy's namespace.
        namespace: String,
        /// The policy's name.
        name: String,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Make this volume.
    CreateVolume(Box<Volume>),
    /// Send new connections to these endpoints.
    SetEndpoints {
        /// The service's namespace.
        namespace: String,
        /// The service's name.
        name: String,
        /// Sorted by replica.
        endpoints: Vec<Endpoint>,
    },
    /// Have the service be as its app says, as far as that may change.
    SetService {
        /// The service's namespace.
        namespace: String,
        /// The service's name.
        name: String,
        /// What it is to be.
        spec: Box<ServiceSpec>,
    },
    /// Tell how the app is.
    SetAppStatus {
        /// The app's namespace.
        namespace: String,
        /// The app's name.
        name: String,
        /// Its status.
        status: Box<AppStatus>,
    },
    /// Remove the app, its service and its claims: nothing of it runs any more.
    RemoveApp(Box<App>),
}

/// The actions that are due in `snapshot`. `suffix` gives five letters for the name of each new replica.
///
/// Actions are in the order in which they should be carried out: an identity is made before the replica that has it,
/// endpoints leave their service
/// before their replica is told to stop. The plan after all of them were carried out, and nothing else happened, holds
/// nothing but what is to be told in statuses.
pub fn plan(snapshot: &Snapshot, mut suffix: impl FnMut() -> String) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut identities = Identities::of(snapshot);
    namespaces::plan(snapshot, &mut actions);
    let mut room = None;
    let mut placement = Placement::new(snapshot, &mut room);
    identities.plan_missing(&mut actions);
    identities.plan_cuts(&mut actions);
    for app in &snapshot.apps {
        let stopping = replicas_to_stop(snapshot, app);
        plan_endpoints(snapshot, app, &stopping, &mut actions);
        plan_service(snapshot, app, &mut actions);
        for replica in &stopping {
            let Metadata { namespace, name, .. } = replica.metadata.clone();
            actions.push(Action::StopReplica { namespace, name });
        }
        if app.metadata.is_deleting() {
            if snapshot.replicas_of(app).next().is_none() {
                actions.push(Action::RemoveApp(Box::new(app.clone())));
            }
            continue;
        }
        let homeless =
            plan_new_replicas(snapshot, app, &mut identities, &mut placement, &mut suffix, &mut actions);
        plan_status(snapshot, app, homeless, &mut actions);
    }
    plan_orphans(snapshot, &mut actions);
    // After their endpoints have left the services.
    nodes::plan(snapshot, &mut actions);
    identities.plan_removals(&mut actions);
    actions
}

/// Replicas whose app is gone: nothing wants them.
fn plan_orphans(snapshot: &Snapshot, actions: &mut Vec<Action>) {
    let active = snapshot.replicas.iter().filter(|r| !r.metadata.is_deleting() && !snapshot.is_lost(r));
    for replica in active {
        let owned = |app: &App| {
            app.metadata.name == replica.spec.app && app.metadata.namespace == replica.metadata.namespace
        };
        if !snapshot.apps.iter().any(owned) {
            let Metadata { namespace, name, .. } = replica.metadata.clone();
            actions.push(Action::StopReplica { namespace, name });
        }
    }
}

/// An app's replicas that are not on their way out, those that are as they should be apart from those that others are to
/// take the place of: of an older template, or on a node that is being emptied.
struct Generations<'a> {
    snapshot: &'a Snapshot,
    present: Vec<&'a Replica>,
    stale: Vec<&'a Replica>,
}

/// The hash of what an app's replicas are made of now.
fn hash_of(app: &App) -> String {
    template_hash(&app.spec.template, &ServicePort::named(&app.spec.service.ports))
}

impl<'a> Generations<'a> {
    fn of(snapshot: &'a Snapshot, app: &'a App) -> Self {
        let hash = hash_of(app);
        let active = snapshot.replicas_of(app).filter(|r| !r.metadata.is_deleting());
        let (present, stale) = active.partition(|r| r.spec.template_hash == hash && !snapshot.is_to_move(r));
        Generations { snapshot, present, stale }
    }

    /// Those of the present template, wherever they are.
    fn of_template(&self, app: &App) -> usize {
        let hash = hash_of(app);
        self.present.iter().chain(&self.stale).filter(|r| r.spec.template_hash == hash).count()
    }

    fn of_phase(&self, phase: Phase) -> usize {
        self.present.iter().filter(|replica| replica.status.phase == phase).count()
    }

    fn ready(&self) -> usize {
        self.present.iter().chain(&self.stale).filter(|r| self.snapshot.is_ready(r)).count()
    }
}

/// While a template is replaced there is at most one replica more than wanted, and a ready one of the old template goes
/// only when enough others are ready; without an old template, what is too many goes: the unready first, then the youngest.
/// One that is to move to another node goes only when there is one in its place.
fn replicas_to_stop<'a>(snapshot: &'a Snapshot, app: &'a App) -> Vec<&'a Replica> {
    let generations = Generations::of(snapshot, app);
    let mut ready = generations.ready();
    let Generations { mut present, mut stale, .. } = generations;
    if app.metadata.is_deleting() {
        present.append(&mut stale);
        return present;
    }
    let wanted = app.spec.replicas as usize;
    let hash = hash_of(app);
    let mut surplus = (present.len() + stale.len()).saturating_sub(wanted);
    let mut stopping = Vec::new();
    stale.sort_by_key(|r| snapshot.is_ready(r));
    for replica in stale {
        if !snapshot.is_ready(replica) {
            let only_moves = replica.spec.template_hash == hash;
            if !only_moves || surplus > 0 {
                surplus = surplus.saturating_sub(1);
                stopping.push(replica);
            }
        } else if ready > wanted {
            ready -= 1;
            stopping.push(replica);
        }
    }
    let too_many = present.len().saturating_sub(wanted);
    present.sort_by_key(|r| (snapshot.is_ready(r), std::cmp::Reverse(r.metadata.creation_timestamp)));
    stopping.extend(present.into_iter().take(too_many));
    stopping
}

/// The annotation of a replica that says why it is on its node.
const REASON: &str = "scheduler.hivemind/reason";

/// Makes the replicas that are missing, as far as there is a place for them. Returns why there is none for the next one.
fn plan_new_replicas<'a>(
    snapshot: &'a Snapshot,
    app: &'a App,
    identities: &mut Identities<'a>,
    placement: &mut Placement<'_>,
    suffix: &mut impl FnMut() -> String,
    actions: &mut Vec<Action>,
) -> Option<Decision> {
    let generations = Generations::of(snapshot, app);
    let wanted = app.spec.replicas as usize;
    let missing = wanted.saturating_sub(generations.present.len());
    let room = match generations.stale.len() {
        0 => missing,
        stale => (wanted + 1).saturating_sub(generations.present.len() + stale),
    };
    if missing.min(room) == 0 || dependencies::missing(snapshot, app).is_some() {
        return None;
    }
    let names: Vec<_> =
        (0..missing.min(room)).map(|_| format!("{}-{}", app.metadata.name, suffix())).collect();
    let decisions = placement.place(app, &names);
    let homeless = decisions.last().filter(|decision| decision.node().is_none()).cloned();
    if decisions.iter().all(|decision| decision.node().is_none()) {
        return homeless;
    }
    let Some(identity) = identities.number_for(Place::of_app(app), actions) else { return homeless };
    for (name, decision) in names.into_iter().zip(decisions) {
        let Some(node) = decision.node() else { break };
        plan_volumes(snapshot, app, node, actions);
        let mut metadata = Metadata::new(&app.metadata.namespace, name);
        metadata.labels.clone_from(&app.spec.template.labels);
        metadata.annotations.insert(REASON.to_owned(), placement::reason(&decision));
        let spec = ReplicaSpec {
            app: app.metadata.name.clone(),
            node: node.to_owned(),
            identity,
            template_hash: hash_of(app),
            template: app.spec.template.clone(),
        };
        let replica = Replica { metadata, spec, status: ReplicaStatus::default() };
        actions.push(Action::CreateReplica(Box::new(replica)));
    }
    homeless
}

/// The volumes of the app that are not there yet are made on the node of its first replica.
fn plan_volumes(snapshot: &Snapshot, app: &App, node: &str, actions: &mut Vec<Action>) {
    for mount in app.spec.template.all_containers().flat_map(|c| &c.volume_mounts) {
        let same = |v: &Metadata| v.name == mount.volume && v.namespace == app.metadata.namespace;
        let planned = actions.iter().any(|a| matches!(a, Action::CreateVolume(v) if same(&v.metadata)));
        if planned || snapshot.volumes.iter().any(|v| same(&v.metadata)) {
            continue;
        }
        actions.push(Action::CreateVolume(Box::new(Volume {
            metadata: Metadata::new(&app.metadata.namespace, &mount.volume),
            spec: VolumeSpec { node: node.to_owned() },
            status: VolumeStatus::default(),
        })));
    }
}

fn plan_endpoints(snapshot: &Snapshot, app: &App, stopping: &[&Replica], actions: &mut Vec<Action>) {
    let Some(service) = snapshot.service_of(app) else { return };
    let mut endpoints: Vec<Endpoint> = snapshot
        .replicas_of(app)
        .filter(|r| snapshot.is_ready(r) && !r.metadata.is_deleting())
        .filter(|r| !stopping.iter().any(|s| s.metadata.name == r.metadata.name))
        .filter_map(|r| {
            Some(Endpoint {
                replica: r.metadata.name.clone(),
                node: r.spec.node.clone(),
                ipv4: r.status.ipv4?,
                ipv6: r.status.ipv6?,
            })
        })
        .collect();
    endpoints.sort_by(|a, b| a.replica.cmp(&b.replica));
    if endpoints != service.status.endpoints {
        let Metadata { namespace, name, .. } = service.metadata.clone();
        actions.push(Action::SetEndpoints { namespace, name, endpoints });
    }
}

fn plan_service(snapshot: &Snapshot, app: &App, actions: &mut Vec<Action>) {
    let Some(service) = snapshot.service_of(app) else { return };
    let spec = app.service_spec(service.spec.clone());
    if spec != service.spec {
        let Metadata { namespace, name, .. } = service.metadata.clone();
        actions.push(Action::SetService { namespace, name, spec: Box::new(spec) });
    }
}

fn plan_status(snapshot: &Snapshot, app: &App, homeless: Option<Decision>, actions: &mut Vec<Action>) {
    let generations = Generations::of(snapshot, app);
    let service = snapshot.service_of(app);
    let status = AppStatus {
        observed_generation: app.metadata.generation,
        replicas: count(generations.present.len() + generations.stale.len()),
        updated_replicas: count(generations.of_template(app)),
        ready_replicas: count(generations.ready()),
        succeeded_replicas: count(generations.of_phase(Phase::Succeeded)),
        failed_replicas: count(generations.of_phase(Phase::Failed)),
        addresses: service
            .and_then(|service| service.spec.balanced())
            .map_or_else(Vec::new, |(_, ipv4, ipv6)| vec![ipv4.into(), ipv6.into()]),
        problem: app_problem(snapshot, app, &generations, homeless),
    };
    if status != app.status {
        let Metadata { namespace, name, .. } = app.metadata.clone();
        actions.push(Action::SetAppStatus { namespace, name, status: Box::new(status) });
    }
}

/// What a user should look at first: the service's own problem, no node at all, else that of the replica with the most restarts.
fn app_problem(
    snapshot: &Snapshot,
    app: &App,
    generations: &Generations<'_>,
    homeless: Option<Decision>,
) -> Option<Problem> {
    if let Some(problem) = snapshot.service_of(app).and_then(|s| s.status.problem.clone()) {
        return Some(problem);
    }
    if let Some(problem) = dependencies::missing(snapshot, app) {
        return Some(problem);
    }
    if snapshot.nodes.is_empty() {
        return Some(Problem {
            code: hivemind_model::ErrorCode::ContainerFailed,
            field: String::new(),
            message: "there is no node to run on".into(),
            hint: "start a daemon with the agent's role".into(),
        });
    }
    if let Some(decision) = homeless
        && let Outcome::Unschedulable { reason } = decision.outcome
    {
        return Some(Problem {
            code: hivemind_model::ErrorCode::Unschedulable,
            field: String::new(),
            message: format!("no node can take another replica: {reason}"),
            hint: format!(
                "see what speaks against each node: hivemind scheduler explain {}",
                decision.app.name
            ),
        });
    }
    let unwell = generations.present.iter().chain(&generations.stale).filter(|r| !snapshot.is_ready(r));
    unwell
        .max_by_key(|r| (r.status.problem.is_some(), r.status.restarts))
        .and_then(|r| r.status.problem.clone())
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
