//! The snapshot, made ready for questions once, and kept up to date as replicas are placed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::network::Network;
use crate::snapshot::{Node, ObjectName, Pending, Placed, Port, Resources, Snapshot};

/// A node and what is on it.
pub(crate) struct NodeState<'a> {
    pub(crate) node: &'a Node,
    /// What all replicas on it asked for, those on their way out too.
    used: Resources,
    /// Replicas on it, those on their way out too.
    pub(crate) replicas: u64,
    pub(crate) ports: BTreeSet<Port>,
    /// Replicas by app that are not on their way out.
    apps: HashMap<ObjectName, u64>,
}

impl NodeState<'_> {
    /// What is left; nothing where more was promised than there is.
    pub(crate) fn free(&self) -> Resources {
        let capacity = self.node.capacity;
        Resources {
            cpu_millicores: capacity.cpu_millicores.saturating_sub(self.used.cpu_millicores),
            memory_bytes: capacity.memory_bytes.saturating_sub(self.used.memory_bytes),
        }
    }

    pub(crate) fn replicas_of(&self, app: &ObjectName) -> u64 {
        self.apps.get(app).copied().unwrap_or(0)
    }

    fn add(&mut self, app: &ObjectName, requests: Resources, ports: &BTreeSet<Port>, leaving: bool) {
        self.used.cpu_millicores = self.used.cpu_millicores.saturating_add(requests.cpu_millicores);
        self.used.memory_bytes = self.used.memory_bytes.saturating_add(requests.memory_bytes);
        self.replicas += 1;
        self.ports.extend(ports);
        if !leaving {
            *self.apps.entry(app.clone()).or_default() += 1;
        }
    }
}

/// See the module.
pub(crate) struct Index<'a> {
    /// Sorted by name.
    pub(crate) nodes: Vec<NodeState<'a>>,
    pub(crate) volumes: BTreeMap<ObjectName, String>,
    pub(crate) network: Network,
}

impl<'a> Index<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot) -> Self {
        let mut sorted: Vec<&Node> = snapshot.nodes.iter().collect();
        sorted.sort();
        sorted.dedup_by(|later, first| later.name == first.name);
        let positions: HashMap<&str, usize> =
            sorted.iter().enumerate().map(|(i, n)| (n.name.as_str(), i)).collect();
        let mut nodes: Vec<NodeState<'_>> = sorted.into_iter().map(empty).collect();

        let mut replicas: Vec<&Placed> = snapshot.replicas.iter().collect();
        replicas.sort();
        replicas.dedup_by(|later, first| later.id == first.id);
        let mut staying = Vec::new();
        for replica in replicas {
            let Some(&at) = positions.get(replica.node.as_str()) else { continue };
            nodes[at].add(&replica.app, replica.requests, &replica.ports, replica.leaving);
            if !replica.leaving {
                staying.push((&replica.app, at, replica.ready));
            }
        }
        let mut volumes = BTreeMap::new();
        for volume in &snapshot.volumes {
            let at = volumes.entry(volume.name.clone()).or_insert_with(|| volume.node.clone());
            if volume.node < *at {
                at.clone_from(&volume.node);
            }
        }
        let network = Network::of(snapshot, &positions, &staying);
        Index { nodes, volumes, network }
    }

    /// Take it that `pending` went to the node at position `at`.
    pub(crate) fn place(&mut self, pending: &Pending, at: usize) {
        let state = &mut self.nodes[at];
        state.add(&pending.app, pending.requests, &pending.ports, false);
        for volume in &pending.volumes {
            self.volumes.entry(volume.clone()).or_insert_with(|| state.node.name.clone());
        }
        self.network.place(&pending.app, at);
    }
}

fn empty(node: &Node) -> NodeState<'_> {
    let used = Resources::default();
    NodeState { node, used, replicas: 0, ports: BTreeSet::new(), apps: HashMap::new() }
}
