//! The replicas of other nodes, as the data path knows them: whose identity is behind which address, and on which node.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use hivemind_datapath::{Datapath, RemoteEndpoint};
use hivemind_model::{ApiError, Node, Replica, WatchEvent, WatchKind};
use hivemind_store::Objects;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fault;

/// How long after a failure all of it is written again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Namespace and name.
type Key = (String, String);

/// Follows the replicas of other nodes than `own` and writes them to the data path, until `stop`.
pub(crate) async fn follow(own: String, objects: Objects, datapath: Arc<Datapath>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow_once(&own, &objects, &datapath) => ended,
        };
        if let Err(error) = ended {
            warn!(error = error.message, "The replicas of other nodes could not be written; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn follow_once(own: &str, objects: &Objects, datapath: &Datapath) -> Result<(), ApiError> {
    let (nodes, mut nodes_watch) = objects.list_and_watch::<Node>(None).await?;
    let (replicas, mut replicas_watch) = objects.list_and_watch::<Replica>(None).await?;
    let mut others = Others { own, numbers: BTreeMap::new(), replicas: BTreeMap::new() };
    for node in &nodes.items {
        others.note_node(WatchKind::Added, node);
    }
    for replica in replicas.items {
        others.note(WatchEvent { kind: WatchKind::Added, object: replica });
    }
    write_all(datapath, &others).await?;
    loop {
        tokio::select! {
            event = nodes_watch.next() => {
                let event = event?;
                if others.note_node(event.kind, &event.object) {
                    write_all(datapath, &others).await?;
                }
            }
            event = replicas_watch.next() => {
                let (gone, put) = others.note(event?);
                if gone.is_some() || put.is_some() {
                    let written = datapath.set_remote_endpoints(Vec::from_iter(put), Vec::from_iter(gone));
                    written.await.map_err(|error| fault::explain_datapath(&error))?;
                }
            }
        }
    }
}

async fn write_all(datapath: &Datapath, others: &Others<'_>) -> Result<(), ApiError> {
    let all = others.replicas.values().filter_map(|replica| others.endpoint(replica)).collect();
    datapath.replace_remote_endpoints(all).await.map_err(|error| fault::explain_datapath(&error))
}

/// What is known of other nodes.
struct Others<'a> {
    own: &'a str,
    numbers: BTreeMap<String, u16>,
    replicas: BTreeMap<Key, Replica>,
}

impl Others<'_> {
    /// Whether the node's number is news.
    fn note_node(&mut self, kind: WatchKind, node: &Node) -> bool {
        let name = &node.metadata.name;
        if name == self.own {
            return false;
        }
        match kind {
            WatchKind::Deleted => self.numbers.remove(name).is_some(),
            WatchKind::Added | WatchKind::Modified => {
                self.numbers.insert(name.clone(), node.spec.number) != Some(node.spec.number)
            }
        }
    }

    fn endpoint(&self, replica: &Replica) -> Option<RemoteEndpoint> {
        Some(RemoteEndpoint {
            ipv4: replica.status.ipv4?,
            ipv6: replica.status.ipv6?,
            identity: replica.spec.identity,
            node: *self.numbers.get(&replica.spec.node)?,
        })
    }

    /// What is to be removed from the data path, and what to be written there.
    fn note(&mut self, event: WatchEvent<Replica>) -> (Option<(Ipv4Addr, Ipv6Addr)>, Option<RemoteEndpoint>) {
        let WatchEvent { kind, object: replica } = event;
        if replica.spec.node == self.own {
            return (None, None);
        }
        let key = (replica.metadata.namespace.clone(), replica.metadata.name.clone());
        let next = if kind == WatchKind::Deleted { None } else { self.endpoint(&replica) };
        let before = match kind {
            WatchKind::Deleted => self.replicas.remove(&key),
            WatchKind::Added | WatchKind::Modified => self.replicas.insert(key, replica),
        };
        let before = before.and_then(|replica| self.endpoint(&replica));
        if before == next {
            return (None, None);
        }
        let addresses = |endpoint: RemoteEndpoint| (endpoint.ipv4, endpoint.ipv6);
        let moved =
            before.filter(|old| next.as_ref().is_none_or(|new| (new.ipv4, new.ipv6) != (old.ipv4, old.ipv6)));
        // Its address may be another's by now, who came before it went.
        let gone = moved.map(addresses).filter(|gone| !self.is_taken(*gone));
        (gone, next)
    }

    fn is_taken(&self, (ipv4, _): (Ipv4Addr, Ipv6Addr)) -> bool {
        self.replicas.values().any(|replica| replica.status.ipv4 == Some(ipv4))
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, NodeSpec, NodeStatus, ReplicaSpec, ReplicaStatus, Template};

    use super::*;

    fn others() -> Others<'static> {
        let mut others = Others { own: "one", numbers: BTreeMap::new(), replicas: BTreeMap::new() };
        let spec = NodeSpec { number: 2, ..NodeSpec::default() };
        let node = Node { metadata: Metadata::new("", "two"), spec, status: NodeStatus::default() };
        assert!(others.note_node(WatchKind::Added, &node));
        assert!(!others.note_node(WatchKind::Modified, &node));
        others
    }

    fn event(kind: WatchKind, name: &str, node: &str, last: Option<u8>) -> WatchEvent<Replica> {
        let status = ReplicaStatus {
            ipv4: last.map(|last| [10, 200, 1, last].into()),
            ipv6: last.map(|last| Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, last.into())),
            ..ReplicaStatus::default()
        };
        let object = Replica {
            metadata: Metadata::new("shop", name),
            spec: ReplicaSpec {
                app: "web".into(),
                node: node.into(),
                identity: 300,
                template_hash: String::new(),
                template: Template::default(),
            },
            status,
        };
        WatchEvent { kind, object }
    }

    #[test]
    fn a_replica_is_known_from_when_it_has_addresses_until_it_is_gone() {
        let mut others = others();
        assert_eq!(others.note(event(WatchKind::Added, "a", "two", None)), (None, None));
        let (gone, put) = others.note(event(WatchKind::Modified, "a", "two", Some(7)));
        assert_eq!((gone, put.map(|put| (put.node, put.identity))), (None, Some((2, 300))));
        assert_eq!(others.note(event(WatchKind::Modified, "a", "two", Some(7))), (None, None));
        let (gone, put) = others.note(event(WatchKind::Deleted, "a", "two", Some(7)));
        assert_eq!((gone.map(|gone| gone.0), put), (Some([10, 200, 1, 7].into()), None));
    }

    #[test]
    fn an_address_that_went_on_to_another_replica_stays() {
        let mut others = others();
        others.note(event(WatchKind::Added, "a", "two", Some(7)));
        others.note(event(WatchKind::Added, "b", "two", Some(7)));
        assert_eq!(others.note(event(WatchKind::Deleted, "a", "two", Some(7))), (None, None));
    }

    #[test]
    fn own_replicas_and_those_of_unknown_nodes_are_left_out() {
        let mut others = others();
        assert_eq!(others.note(event(WatchKind::Added, "a", "one", Some(7))), (None, None));
        assert_eq!(others.note(event(WatchKind::Added, "b", "three", Some(8))), (None, None));
    }
}
