//! What the numbers and addresses of flows stand for, followed in the store.
//!
//! A flow may be told after what it speaks of is gone: the last [`GONE_MAX`] of each kind are remembered.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hivemind_model::{DEFAULT_NAMESPACE, Identity, NetworkPolicy, Node, Replica, WatchKind};
use hivemind_store::{Object, Objects};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::answered::Answered;

/// How many of each kind are remembered after they went.
const GONE_MAX: usize = 1024;

/// How long after a failure the store is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A replica, as flows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaName {
    pub(crate) namespace: String,
    pub(crate) app: String,
    pub(crate) name: String,
    pub(crate) node: String,
    /// Its identity; zero while it has none.
    identity: u32,
}

/// A policy, as flows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether it only tells what it would deny.
    pub(crate) is_audit: bool,
    /// Whether what it decides is written to the daemon's log.
    pub(crate) is_logged: bool,
}

/// A table from which what goes is removed late.
#[derive(Debug)]
struct Table<K, V> {
    known: BTreeMap<K, V>,
    gone: VecDeque<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { known: BTreeMap::new(), gone: VecDeque::new() }
    }
}

impl<K: Ord + Copy, V> Table<K, V> {
    fn insert(&mut self, key: K, value: V) {
        self.known.insert(key, value);
        self.gone.retain(|gone| *gone != key);
    }

    fn remove(&mut self, key: K) {
        if !self.known.contains_key(&key) || self.gone.contains(&key) {
            return;
        }
        self.gone.push_back(key);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Everything that has a name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Namespace and app.
    identities: Table<u32, (String, String)>,
    policies: Table<u32, PolicyName>,
    replicas: Table<IpAddr, ReplicaName>,
    nodes: Table<IpAddr, String>,
    /// Of addresses outside.
    pub(crate) answered: Answered,
}

impl Names {
    /// Namespace and app behind an identity.
    pub(crate) fn identity(&self, number: u32) -> Option<(&str, &str)> {
        self.identities.known.get(&number).map(|(namespace, app)| (namespace.as_str(), app.as_str()))
    }

    /// The policy of a number.
    pub(crate) fn policy(&self, number: u32) -> Option<&PolicyName> {
        self.policies.known.get(&number)
    }

    /// The replica that has an address, if it can be the one with that identity.
    pub(crate) fn replica(&self, address: IpAddr, identity: u32) -> Option<&ReplicaName> {
        self.replicas
            .known
            .get(&address)
            .filter(|replica| replica.identity == 0 || replica.identity == identity)
    }

    /// The node that others reach at this address.
    pub(crate) fn node(&self, address: IpAddr) -> Option<&str> {
        self.nodes.known.get(&address).map(String::as_str)
    }

    /// The name of the replica that has an address, with its namespace unless that is the default one.
    pub(crate) fn at(&self, address: IpAddr) -> Option<String> {
        let replica = self.replicas.known.get(&address)?;
        Some(match replica.namespace.as_str() {
            DEFAULT_NAMESPACE => replica.name.clone(),
            namespace => format!("{namespace}/{}", replica.name),
        })
    }

    /// Namespace and app of all identities.
    pub(crate) fn identities(&self) -> BTreeMap<u32, (String, String)> {
        self.identities.known.clone()
    }

    pub(crate) fn know_identity(&mut self, number: u32, namespace: &str, app: &str) {
        self.identities.insert(number, (namespace.to_owned(), app.to_owned()));
    }

    pub(crate) fn know_policy(&mut self, number: u32, policy: PolicyName) {
        self.policies.insert(number, policy);
    }

    fn note_identity(&mut self, kind: WatchKind, identity: &Identity) {
        let spec = &identity.spec;
        match kind {
            WatchKind::Deleted => self.identities.remove(spec.number),
            WatchKind::Added | WatchKind::Modified => {
                self.know_identity(spec.number, &spec.namespace, &spec.app);
            }
        }
    }

    fn note_policy(&mut self, kind: WatchKind, policy: &NetworkPolicy) {
        let (number, metadata) = (policy.status.number, &policy.metadata);
        match kind {
            WatchKind::Deleted => self.policies.remove(number),
            WatchKind::Added | WatchKind::Modified => {
                let name = PolicyName {
                    namespace: metadata.namespace.clone(),
                    name: metadata.name.clone(),
                    is_audit: policy.spec.is_audit(),
                    is_logged: policy.spec.is_logged(),
                };
                self.know_policy(number, name);
            }
        }
    }

    fn note_node(&mut self, kind: WatchKind, node: &Node) {
        let name = &node.metadata.name;
        for address in
            node.spec.address.map(IpAddr::from).into_iter().chain(node.status.addresses.iter().copied())
        {
            match kind {
                WatchKind::Deleted if self.nodes.known.get(&address) == Some(name) => {
                    self.nodes.remove(address)
                }
                WatchKind::Deleted => {}
                WatchKind::Added | WatchKind::Modified => self.nodes.insert(address, name.clone()),
            }
        }
    }

    fn note_replica(&mut self, kind: WatchKind, replica: &Replica) {
        let addresses = [replica.status.ipv4.map(IpAddr::from), replica.status.ipv6.map(IpAddr::from)]
            .into_iter()
            .flatten();
        let name = ReplicaName {
            namespace: replica.metadata.namespace.clone(),
            app: replica.spec.app.clone(),
            name: replica.metadata.name.clone(),
            node: replica.spec.node.clone(),
            identity: replica.spec.identity,
        };
        for address in addresses {
            match kind {
                // Its address may be another's by now.
                WatchKind::Deleted if self.replicas.known.get(&address) == Some(&name) => {
                    self.replicas.remove(address);
                }
                WatchKind::Deleted => {}
                WatchKind::Added | WatchKind::Modified => self.replicas.insert(address, name.clone()),
            }
        }
    }
}

/// Follows everything that has a name, until `stop`.
pub(crate) fn follow_names(
    objects: &Objects,
    names: &Arc<Mutex<Names>>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let (objects, names) = (objects.clone(), Arc::clone(names));
    let stop = stop.clone();
    tasks.spawn(async move {
        let all = async {
            tokio::join!(
                follow::<Identity>(&objects, &names, Names::note_identity),
                follow::<NetworkPolicy>(&objects, &names, Names::note_policy),
                follow::<Replica>(&objects, &names, Names::note_replica),
                follow::<Node>(&objects, &names, Names::note_node),
            );
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
    });
}

async fn follow<T: Object>(objects: &Objects, names: &Mutex<Names>, note: fn(&mut Names, WatchKind, &T)) {
    let told =
        |kind, object: &T| note(&mut names.lock().unwrap_or_else(PoisonError::into_inner), kind, object);
    loop {
        match objects.list_and_watch::<T>(None).await {
            Ok((list, mut watch)) => {
                list.items.iter().for_each(|object| told(WatchKind::Added, object));
                loop {
                    match watch.next().await {
                        Ok(event) => told(event.kind, &event.object),
                        Err(error) => {
                            warn!(%error, kind = T::KIND, "A watch ended; starting it again");
                            break;
                        }
                    }
                }
            }
            Err(error) => warn!(%error, kind = T::KIND, "Objects cannot be watched; trying again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_known_for_a_while_and_not_for_ever() {
        let mut table = Table::default();
        for key in 0..=GONE_MAX {
            table.insert(key, key);
        }
        for key in 0..GONE_MAX {
            table.remove(key);
            table.remove(key);
        }
        assert_eq!(table.known.len(), GONE_MAX + 1);
        table.remove(GONE_MAX);
        assert!(!table.known.contains_key(&0), "the first that went is forgotten");
        assert!(table.known.contains_key(&1));
    }

    #[test]
    fn what_comes_back_stays() {
        let mut table = Table::default();
        table.insert(1, "a");
        table.remove(1);
        table.insert(1, "b");
        for key in 2..=(GONE_MAX + 2) {
            table.insert(key, "c");
            table.remove(key);
        }
        assert_eq!(table.known.get(&1), Some(&"b"));
    }

    #[test]
    fn a_replica_is_named_only_if_its_identity_fits() {
        let mut names = Names::default();
        let address = IpAddr::from([10, 200, 0, 7]);
        let name = |identity| ReplicaName {
            namespace: "shop".into(),
            app: "web".into(),
            name: "web-k3f9q".into(),
            node: "n1".into(),
            identity,
        };
        names.replicas.insert(address, name(300));
        assert!(names.replica(address, 300).is_some());
        assert!(names.replica(address, 301).is_none(), "the address was another's");
    }
}
