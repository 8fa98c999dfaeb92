//! What the keys of the store say.

use hivemind_model::{Identity, Namespace, NetworkPolicy, Node, Replica, Resource, Service, Volume};

/// The key of the cluster's own facts.
pub(crate) const CLUSTER: &str = "cluster";

/// What lies under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Replica,
    Service,
    Policy,
    Node,
    /// Identities and namespaces: for every node, and nobody's but the server's to change.
    Shared,
    Volume,
    /// Anything else: it does not leave the server.
    Other,
}

impl Kind {
    pub(crate) fn of(key: &str) -> Self {
        if key == CLUSTER {
            return Kind::Cluster;
        }
        let Some((plural, _)) = key.split_once('/') else { return Kind::Other };
        match plural {
            Replica::PLURAL => Kind::Replica,
            Service::PLURAL => Kind::Service,
            NetworkPolicy::PLURAL => Kind::Policy,
            Node::PLURAL => Kind::Node,
            Volume::PLURAL => Kind::Volume,
            Identity::PLURAL | Namespace::PLURAL => Kind::Shared,
            _ => Kind::Other,
        }
    }
}
