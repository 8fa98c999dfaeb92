//! What of the store concerns a node.

use hivemind_model::{ApiError, Replica, ReplicaStatus, Template, Volume};
use serde_json::Value;

use crate::{fault, key::Kind};

/// What node `node` is told of the value under `key`; `None`: nothing.
///
/// The replicas of other nodes are told without what only their own node needs: which node, whose identity, at which
/// addresses, and whether ready.
///
/// # Errors
/// [`hivemind_model::ErrorCode::StoreFailed`] if the value cannot be read.
pub fn view(node: &str, key: &str, value: &[u8]) -> Result<Option<Value>, ApiError> {
    let whole = || serde_json::from_slice(value).map_err(|error| fault::malformed(key, &error));
    match Kind::of(key) {
        Kind::Other => Ok(None),
        Kind::Cluster | Kind::Service | Kind::Policy | Kind::Node | Kind::Shared => whole().map(Some),
        Kind::Volume => {
            let volume: Volume = serde_json::from_slice(value).map_err(|e| fault::malformed(key, &e))?;
            if volume.spec.node == node { whole().map(Some) } else { Ok(None) }
        }
        Kind::Replica => {
            let replica: Replica = serde_json::from_slice(value).map_err(|e| fault::malformed(key, &e))?;
            if replica.spec.node == node {
                return whole().map(Some);
            }
            serde_json::to_value(of_others(replica)).map(Some).map_err(|e| fault::malformed(key, &e))
        }
    }
}

fn of_others(mut replica: Replica) -> Replica {
    replica.metadata.annotations.clear();
    replica.metadata.generation = 0;
    replica.spec.template = Template::default();
    let ReplicaStatus { phase, ready, ipv4, ipv6, .. } = replica.status;
    replica.status = ReplicaStatus { phase, ready, ipv4, ipv6, ..ReplicaStatus::default() };
    replica
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Container, Metadata, ReplicaSpec};

    use super::*;

    fn replica(node: &str) -> Vec<u8> {
        let replica = Replica {
            metadata: Metadata::new("shop", "web-1"),
            spec: ReplicaSpec {
                app: "web".into(),
                node: node.into(),
                identity: 300,
                template_hash: "x".into(),
                template: Template {
                    containers: vec![Container { image: "secret".into(), ..Container::default() }],
                    ..Template::default()
                },
            },
            status: ReplicaStatus { restarts: 3, ipv4: Some([10, 200, 0, 7].into()), ..Default::default() },
        };
        serde_json::to_vec(&replica).unwrap()
    }

    #[test]
    fn a_node_is_told_all_of_its_own_replicas_and_little_of_others() {
        let own = view("a", "replicas/shop/web-1", &replica("a")).unwrap().unwrap();
        assert!(own.to_string().contains("secret"));
        let others = view("b", "replicas/shop/web-1", &replica("a")).unwrap().unwrap();
        assert!(!others.to_string().contains("secret"));
        let others: Replica = serde_json::from_value(others).unwrap();
        assert_eq!((others.spec.identity, others.status.restarts), (300, 0));
        assert_eq!(others.status.ipv4, Some([10, 200, 0, 7].into()));
    }

    #[test]
    fn what_lets_people_in_does_not_leave_the_server() {
        for key in ["tokens/a", "jointokens/a", "claims/token/x", "apps/shop/web", "ids/app-aaaaa", "secret"]
        {
            assert_eq!(view("a", key, b"{}").unwrap(), None, "{key}");
        }
        assert!(view("a", "services/shop/web", b"{}").unwrap().is_some());
        assert!(view("a", "replicas/shop/web-1", b"nonsense").is_err());
    }
}
