//! Objects as the scheduler sees them, and its decisions.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{
    App, Container, Identity, ImageReference, Memory, Node, NodeState, Replica, TaintEffect, Template,
};
use hivemind_scheduler::{
    Decision, Effect, Health, ObjectName, Pending, Placed, Resources, Rtt, Scheduler, Taint, Toleration,
    Traffic, Verdict, Volume,
};

use crate::snapshot::Snapshot;

/// Everything that placement depends on.
pub(crate) fn snapshot_of(snapshot: &Snapshot) -> hivemind_scheduler::Snapshot {
    hivemind_scheduler::Snapshot {
        nodes: snapshot.nodes.iter().map(node).collect(),
        replicas: snapshot
            .replicas
            .iter()
            .filter(|r| !snapshot.is_lost(r) && !r.status.phase.is_final())
            .map(|r| placed(snapshot, r))
            .collect(),
        volumes: snapshot
            .volumes
            .iter()
            .map(|volume| Volume {
                name: ObjectName::new(&volume.metadata.namespace, &volume.metadata.name),
                node: volume.spec.node.clone(),
            })
            .collect(),
        traffic: traffic(snapshot),
        rtt: snapshot
            .measured
            .round_trips_us
            .iter()
            .map(|(nodes, us)| Rtt { nodes: nodes.clone(), rtt_us: *us })
            .collect(),
    }
}

fn node(node: &Node) -> hivemind_scheduler::Node {
    hivemind_scheduler::Node {
        name: node.metadata.name.clone(),
        labels: node.metadata.labels.clone(),
        taints: node.spec.taints.iter().map(taint).collect(),
        cordoned: node.spec.cordoned || node.spec.draining,
        health: match node.status.state {
            NodeState::Ready => Health::Ready,
            NodeState::Suspect => Health::Suspect,
            NodeState::Dead => Health::Dead,
            NodeState::Left => Health::Left,
            NodeState::Joining => Health::Unknown,
        },
        capacity: Resources {
            cpu_millicores: u64::from(node.status.cpus) * 1000,
            memory_bytes: node.status.memory_bytes,
        },
        images: node.status.images.iter().cloned().collect(),
    }
}

fn taint(taint: &hivemind_model::Taint) -> Taint {
    Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: match taint.effect {
            TaintEffect::NoSchedule => Effect::NoSchedule,
            TaintEffect::PreferNoSchedule => Effect::PreferNoSchedule,
        },
    }
}

fn placed(snapshot: &Snapshot, replica: &Replica) -> Placed {
    Placed {
        id: format!("{}/{}", replica.metadata.namespace, replica.metadata.name),
        app: ObjectName::new(&replica.metadata.namespace, &replica.spec.app),
        node: replica.spec.node.clone(),
        requests: requests(&replica.spec.template),
        // Published ports answer on every node: they bind a replica to none.
        ports: BTreeSet::new(),
        ready: snapshot.is_ready(replica),
        leaving: replica.metadata.is_deleting(),
    }
}

/// What a replica may use is what it is given room for.
fn requests(template: &Template) -> Resources {
    let of = |container: &Container| Resources {
        cpu_millicores: container.resources.cpu.map_or(0, |cpu| cpu.millicores().into()),
        memory_bytes: container.resources.memory.map_or(0, Memory::bytes),
    };
    let together = template.containers.iter().map(of).fold(Resources::default(), |sum, one| Resources {
        cpu_millicores: sum.cpu_millicores + one.cpu_millicores,
        memory_bytes: sum.memory_bytes + one.memory_bytes,
    });
    // Those that run first are alone.
    template.init_containers.iter().map(of).fold(together, |most, one| Resources {
        cpu_millicores: most.cpu_millicores.max(one.cpu_millicores),
        memory_bytes: most.memory_bytes.max(one.memory_bytes),
    })
}

/// What is measured between identities, as traffic between apps; an app's own is among it.
fn traffic(snapshot: &Snapshot) -> Vec<Traffic> {
    let app = |identity: &Identity| ObjectName::new(&identity.spec.namespace, &identity.spec.app);
    let apps: BTreeMap<u32, ObjectName> =
        snapshot.identities.iter().map(|identity| (identity.spec.number, app(identity))).collect();
    let mut sums = BTreeMap::<(ObjectName, ObjectName), u64>::new();
    for ((one, other), bytes_per_s) in &snapshot.measured.bytes_per_s {
        let (Some(one), Some(other)) = (apps.get(one), apps.get(other)) else { continue };
        let pair = if one <= other { (one, other) } else { (other, one) };
        let sum = sums.entry((pair.0.clone(), pair.1.clone())).or_default();
        *sum = sum.saturating_add(*bytes_per_s);
    }
    sums.into_iter().map(|(apps, bytes_per_second)| Traffic { apps, bytes_per_second }).collect()
}

/// The next replica of `app`, called `id`.
pub(crate) fn pending(app: &App, id: impl Into<String>) -> Pending {
    let (namespace, template) = (&app.metadata.namespace, &app.spec.template);
    let mut pending = Pending::new(ObjectName::new(namespace, &app.metadata.name), id);
    pending.requests = requests(template);
    pending.selector.clone_from(&template.node_selector);
    pending.tolerations = template.tolerations.iter().map(toleration).collect();
    let mounts = template.all_containers().flat_map(|container| &container.volume_mounts);
    pending.volumes = mounts.map(|mount| ObjectName::new(namespace, &mount.volume)).collect();
    pending.images = template.all_containers().map(|container| complete(&container.image)).collect();
    pending
}

/// An image's complete name, as nodes tell theirs: of `nginx`, `docker.io/library/nginx:latest`.
fn complete(image: &str) -> String {
    image.parse::<ImageReference>().map_or_else(|_| image.to_owned(), |reference| reference.to_string())
}

/// Why a replica is where it is, in a line.
pub(super) fn reason(decision: &Decision) -> String {
    let feasible = decision.nodes.iter().filter_map(|node| match &node.verdict {
        Verdict::Feasible { scores, total } => Some((node.node.as_str(), scores, total)),
        Verdict::Refused { .. } => None,
    });
    let feasible: Vec<_> = feasible.collect();
    let Some((_, scores, total)) = feasible.iter().find(|(node, ..)| Some(*node) == decision.node()) else {
        return String::new();
    };
    let scores: Vec<_> =
        scores.iter().map(|s| format!("{:?} {}x{}", s.criterion, s.normalised, s.weight)).collect();
    let (of, all) = (feasible.len(), decision.nodes.len());
    format!("{total} points ({}); the best of {of} nodes that could take it, of {all}", scores.join(", "))
}

fn toleration(toleration: &hivemind_model::Toleration) -> Toleration {
    Toleration {
        key: (!toleration.key.is_empty()).then(|| toleration.key.clone()),
        value: toleration.value.clone(),
        effect: None,
    }
}

/// Places replicas one after the other; what it is made of is looked at only once something is to be placed.
pub(super) struct Placement<'a> {
    snapshot: &'a Snapshot,
    room: &'a mut Option<hivemind_scheduler::Snapshot>,
}

impl<'a> Placement<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, room: &'a mut Option<hivemind_scheduler::Snapshot>) -> Self {
        Placement { snapshot, room }
    }

    /// Where `count` replicas of `app`, of these names, go: a decision for each, up to the first that finds no place.
    pub(super) fn place(&mut self, app: &App, names: &[String]) -> Vec<Decision> {
        let view = self.room.get_or_insert_with(|| snapshot_of(self.snapshot));
        let mut decisions = Vec::new();
        {
            let mut scheduler = Scheduler::new(view);
            for name in names {
                let decision = scheduler.place(&pending(app, name));
                let found = decision.node().is_some();
                decisions.push(decision);
                if !found {
                    break;
                }
            }
        }
        // The apps that come after this one see what it took.
        for (name, decision) in names.iter().zip(&decisions) {
            let Some(node) = decision.node() else { continue };
            let next = pending(app, name);
            for volume in &next.volumes {
                if !view.volumes.iter().any(|known| known.name == *volume) {
                    view.volumes.push(Volume { name: volume.clone(), node: node.to_owned() });
                }
            }
            view.replicas.push(Placed {
                id: format!("{}/{name}", app.metadata.namespace),
                app: next.app,
                node: node.to_owned(),
                requests: next.requests,
                ports: BTreeSet::new(),
                ready: false,
                leaving: false,
            });
        }
        decisions
    }
}
