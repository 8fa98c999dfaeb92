//! What nodes that are away mean for what runs on them.

use std::collections::BTreeSet;

use hivemind_model::{Metadata, Node};

use super::Action;
use crate::snapshot::Snapshot;

/// Replicas that are taken to be lost go, and nobody waits for nodes that are away.
pub(super) fn plan(snapshot: &Snapshot, actions: &mut Vec<Action>) {
    for replica in snapshot.replicas.iter().filter(|replica| snapshot.is_lost(replica)) {
        actions.push(Action::ForgetReplica(Box::new(replica.clone())));
    }
    let up: BTreeSet<&str> =
        snapshot.nodes.iter().filter(|node| node.status.state.is_up()).map(name_of).collect();
    let away = |nodes: &mut dyn Iterator<Item = &String>| -> Vec<String> {
        nodes.filter(|node| !up.contains(node.as_str())).cloned().collect()
    };
    for service in &snapshot.services {
        let nodes = away(&mut service.status.node_problems.keys());
        if !nodes.is_empty() {
            let Metadata { namespace, name, .. } = service.metadata.clone();
            actions.push(Action::ForgetNodesOfService { namespace, name, nodes });
        }
    }
    for policy in &snapshot.policies {
        let nodes = away(&mut policy.status.nodes.keys());
        if !nodes.is_empty() {
            let Metadata { namespace, name, .. } = policy.metadata.clone();
            actions.push(Action::ForgetNodesOfPolicy { namespace, name, nodes });
        }
    }
}

fn name_of(node: &Node) -> &str {
    &node.metadata.name
}
