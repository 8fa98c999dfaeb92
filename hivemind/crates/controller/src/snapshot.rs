//! What the controller looks at.

use hivemind_model::{App, Identity, Namespace, Node, Replica, Service, Volume};

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
    /// The number that was given to an identity last; zero if none ever was.
    pub last_identity: u32,
}

impl Snapshot {
    /// The replicas of `app`, those on their way out among them.
    pub(crate) fn replicas_of<'a>(&'a self, app: &'a App) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(|replica| {
            replica.spec.app == app.metadata.name && replica.metadata.namespace == app.metadata.namespace
        })
    }

    /// The service of `app`.
    pub(crate) fn service_of(&self, app: &App) -> Option<&Service> {
        self.services.iter().find(|service| {
            service.metadata.name == app.metadata.name && service.metadata.namespace == app.metadata.namespace
        })
    }

    /// The node with the fewest replicas; by name among equals.
    pub(crate) fn emptiest_node(&self) -> Option<&Node> {
        let load = |node: &Node| self.replicas.iter().filter(|r| r.spec.node == node.metadata.name).count();
        self.nodes.iter().min_by_key(|node| (load(node), &node.metadata.name))
    }
}
