//! What the controller looks at.

use std::{collections::BTreeMap, time::Duration};

use hivemind_model::{App, Identity, Namespace, NetworkPolicy, Node, NodeState, Replica, Service, Volume};
use jiff::Timestamp;

/// What was measured of the network between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Round trips in microseconds between two nodes, whose names are in order.
    pub round_trips_us: BTreeMap<(String, String), u32>,
    /// Bytes a second, both ways together, between two identities, which are in order.
    pub bytes_per_s: BTreeMap<(u32, u32), u64>,
}

/// All objects that a plan depends on, as of about one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All apps.
    pub apps: Vec<App>,
    /// All replicas.
    pub replicas: Vec<Replica>,
    /// All services.
    pub services: Vec<Service>,
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All namespaces.
    pub namespaces: Vec<Namespace>,
    /// All workload identities.
    pub identities: Vec<Identity>,
    /// All network policies.
    pub policies: Vec<NetworkPolicy>,
    /// The number that was given to an identity last; zero if none ever was.
    pub last_identity: u32,
    /// The time.
    pub now: Timestamp,
    /// How long a node may be dead until its replicas are taken to be lost.
    pub grace: Duration,
    /// The network.
    pub measured: Measured,
}

impl Snapshot {
    /// The replicas of `app` that are not lost, those on their way out among them.
    pub(crate) fn replicas_of<'a>(&'a self, app: &'a App) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(|replica| {
            replica.spec.app == app.metadata.name
                && replica.metadata.namespace == app.metadata.namespace
                && !self.is_lost(replica)
        })
    }

    fn node_of(&self, replica: &Replica) -> Option<&Node> {
        self.nodes.iter().find(|node| node.metadata.name == replica.spec.node)
    }

    /// Whether the replica is taken not to run any more, and never again: its node is no more, has left, or was dead for
    /// longer than the grace.
    /// One that has succeeded or failed has nothing left to lose.
    pub(crate) fn is_lost(&self, replica: &Replica) -> bool {
        if replica.status.phase.is_final() && !replica.metadata.is_deleting() {
            return false;
        }
        self.node_of(replica).is_none_or(|node| match node.status.state {
            NodeState::Left => true,
            NodeState::Dead => self.is_over(node),
            NodeState::Joining | NodeState::Ready | NodeState::Suspect => false,
        })
    }

    fn is_over(&self, node: &Node) -> bool {
        let since = node.status.since.unwrap_or(Timestamp::UNIX_EPOCH);
        Duration::try_from(self.now.duration_since(since)).is_ok_and(|dead_for| dead_for >= self.grace)
    }

    /// Whether time alone will change what is to be done: a node with replicas is dead and within its grace.
    pub(crate) fn waits(&self) -> bool {
        let waits = |node: &Node| node.status.state == NodeState::Dead && !self.is_over(node);
        self.replicas.iter().any(|replica| self.node_of(replica).is_some_and(waits))
    }

    /// Whether the replica takes connections, as far as is known: it said so, and its node is there.
    pub(crate) fn is_ready(&self, replica: &Replica) -> bool {
        replica.status.ready && self.node_of(replica).is_some_and(|node| node.status.state.is_up())
    }

    /// Whether the replica is to be moved to another node.
    pub(crate) fn is_to_move(&self, replica: &Replica) -> bool {
        !replica.status.phase.is_final() && self.node_of(replica).is_some_and(|node| node.spec.draining)
    }

    /// The service of `app`.
    pub(crate) fn service_of(&self, app: &App) -> Option<&Service> {
        self.services.iter().find(|service| {
            service.metadata.name == app.metadata.name && service.metadata.namespace == app.metadata.namespace
        })
    }
}
