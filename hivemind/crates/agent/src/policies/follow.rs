//! What the store tells, as changes of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use hivemind_model::{
    ApiError, Identity, Namespace, NetworkPolicy, Node, Replica, Resource, WatchEvent, WatchKind,
};
use hivemind_policy::World;
use hivemind_store::{ObjectWatch, Objects};
use jiff::Timestamp;
use tracing::info;

use super::{Head, Key, PolicyWriter};

/// How many changes are looked at before the world is brought into force.
const READY_MAX: usize = 4_096;

/// How often the clock is looked at while a policy has an end, at least.
const ENDS_EVERY: Duration = Duration::from_secs(60);

/// A change of something that verdicts depend on.
pub(super) enum Change {
    Namespace(WatchEvent<Namespace>),
    Policy(Box<WatchEvent<NetworkPolicy>>),
    Identity(WatchEvent<Identity>),
    Replica(Box<WatchEvent<Replica>>),
    Node(Box<WatchEvent<Node>>),
}

/// Everything as it was when the watches began.
pub(super) struct Lists {
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
    identities: Vec<Identity>,
    replicas: Vec<Replica>,
    nodes: Vec<Node>,
}

pub(super) struct Watches {
    namespaces: ObjectWatch<Namespace>,
    policies: ObjectWatch<NetworkPolicy>,
    identities: ObjectWatch<Identity>,
    replicas: ObjectWatch<Replica>,
    nodes: ObjectWatch<Node>,
}

impl Watches {
    pub(super) async fn start(objects: &Objects) -> Result<(Lists, Self), ApiError> {
        let (namespaces, on_namespaces) = objects.list_and_watch(None).await?;
        let (policies, on_policies) = objects.list_and_watch(None).await?;
        let (identities, on_identities) = objects.list_and_watch(None).await?;
        let (replicas, on_replicas) = objects.list_and_watch(None).await?;
        let (nodes, on_nodes) = objects.list_and_watch(None).await?;
        let lists = Lists {
            namespaces: namespaces.items,
            policies: policies.items,
            identities: identities.items,
            replicas: replicas.items,
            nodes: nodes.items,
        };
        let watches = Watches {
            namespaces: on_namespaces,
            policies: on_policies,
            identities: on_identities,
            replicas: on_replicas,
            nodes: on_nodes,
        };
        Ok((lists, watches))
    }

    /// The next change, waiting for one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Change, ApiError> {
        tokio::select! {
            event = self.namespaces.next() => Ok(Change::Namespace(event?)),
            event = self.policies.next() => Ok(Change::Policy(Box::new(event?))),
            event = self.identities.next() => Ok(Change::Identity(event?)),
            event = self.replicas.next() => Ok(Change::Replica(Box::new(event?))),
            event = self.nodes.next() => Ok(Change::Node(Box::new(event?))),
        }
    }

    /// The changes that can be told without waiting: none of the kinds has more when it returns, as long as there are not
    /// very many.
    pub(super) async fn ready(&mut self) -> Result<Vec<Change>, ApiError> {
        let mut ready = Vec::new();
        // One look is at all kinds, so that the last look, which finds nothing, comes after everything that was found.
        while ready.len() < READY_MAX
            && let Some(change) = tokio::task::unconstrained(self.next()).now_or_never()
        {
            ready.push(change?);
        }
        Ok(ready)
    }
}

/// Where others reach a node.
fn addresses_of(node: &Node) -> Vec<IpAddr> {
    let underlay = node.spec.address.map(IpAddr::from);
    underlay.into_iter().chain(node.status.addresses.iter().copied()).collect()
}

fn key_of(object: &impl Resource) -> Key {
    (object.metadata().namespace.clone(), object.metadata().name.clone())
}

impl PolicyWriter {
    /// Puts what the store holds in the place of what was known, which is nothing the first time.
    pub(super) fn replace_all(&mut self, lists: Lists, node: &str, is_first: bool) {
        let Lists { namespaces, policies, identities, replicas, nodes } = lists;
        let now = Timestamp::now();
        let ends = policies.iter().filter_map(|policy| Some((key_of(policy), policy.spec.until()?)));
        self.ends = ends.collect();
        let standing: Vec<_> = policies.iter().filter(|policy| !policy.spec.has_ended(now)).collect();
        let mut world = match is_first {
            true => World::of(&namespaces, &identities, standing),
            false => self.world.succeeded_by(&namespaces, &identities, &standing),
        };
        for node in &nodes {
            world.set_node(&node.metadata.name, &node.metadata.labels, &addresses_of(node));
        }
        for pattern in self.domains.patterns() {
            world.set_domain(pattern, self.domains.addresses(pattern));
        }
        let gone = self.world.identities().filter(|spec| world.identity(spec.number).is_none());
        self.gone.extend(gone.map(|spec| (spec.number, Some((spec.namespace.clone(), spec.app.clone())))));
        self.is_blind |= is_first && world.held_back().next().is_some();
        if self.is_blind {
            info!("Policies are held back until replicas are told apart; until then nothing is changed");
        }
        self.world = Arc::new(world);
        let policies_before = std::mem::take(&mut self.policies);
        self.policies = policies.iter().map(|policy| (key_of(policy), Head::of(policy))).collect();
        self.note_missed(policies_before);
        let is_pending = |policy: &&NetworkPolicy| {
            let on = policy.status.nodes.get(node);
            on.is_none_or(|on| on.generation < policy.metadata.generation)
        };
        self.pending = policies.iter().filter(is_pending).map(key_of).collect();
        self.replicas.clear();
        self.counts.clear();
        self.local.retain(|number| self.world.identity(*number).is_some());
        self.local.extend(self.datapath.endpoints().iter().map(|endpoint| endpoint.spec.identity));
        for replica in &replicas {
            self.note_replica(replica, true, node);
        }
        self.due.extend(self.local.iter());
        self.untold.extend(self.policies.keys().cloned());
        self.follow_patterns();
    }

    /// Takes note of what became of policies while nobody followed the store. At the start nothing is known of before.
    fn note_missed(&mut self, before: BTreeMap<Key, Head>) {
        let known: BTreeSet<_> = self.policies.values().map(|head| head.number).collect();
        let gone = before.values().map(|head| head.number).filter(|number| !known.contains(number));
        self.gone_policies.extend(gone);
        self.accepted.retain(|key, _| self.policies.contains_key(key));
        for (key, head) in &self.policies {
            let is_changed = before.get(key).is_some_and(|known| known.differs(head));
            if is_changed && let Some(accepted) = head.accepted {
                self.accepted.insert(key.clone(), accepted);
            }
        }
    }

    pub(super) fn note(&mut self, change: Change, node: &str) {
        let world = Arc::make_mut(&mut self.world);
        let is_there = |kind| kind != WatchKind::Deleted;
        match change {
            Change::Namespace(WatchEvent { kind, object }) => {
                self.due.append(&mut match is_there(kind) {
                    true => world.set_namespace(&object),
                    false => world.remove_namespace(&object.metadata.name),
                });
            }
            Change::Policy(event) => self.note_policy(*event),
            Change::Identity(WatchEvent { kind, object }) => {
                let number = object.spec.number;
                if is_there(kind) {
                    self.due.append(&mut world.set_identity(&object));
                    self.gone.remove(&number);
                } else {
                    self.due.append(&mut world.remove_identity(number));
                    self.gone.insert(number, Some((object.spec.namespace, object.spec.app)));
                    self.local.remove(&number);
                    self.in_force.remove(&number);
                    self.failed.remove(&number);
                }
            }
            Change::Replica(event) => self.note_replica(&event.object, is_there(event.kind), node),
            Change::Node(event) => {
                let WatchEvent { kind, object } = *event;
                let name = &object.metadata.name;
                self.due.append(&mut match is_there(kind) {
                    true => world.set_node(name, &object.metadata.labels, &addresses_of(&object)),
                    false => world.remove_node(name),
                });
            }
        }
    }

    /// Waits until the next policy is to be as if it were not there; for ever, if there is none.
    pub(super) async fn next_end(&self) {
        let now = Timestamp::now();
        let Some(next) = self.ends.values().filter(|until| **until > now).min() else {
            return std::future::pending().await;
        };
        // Looked at again now and then, since clocks are set.
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        tokio::time::sleep(wait.min(ENDS_EVERY)).await;
    }

    /// Takes policies out of the world of which the time is over.
    pub(super) fn end_policies(&mut self) {
        let now = Timestamp::now();
        let world = Arc::make_mut(&mut self.world);
        for (key, _) in self.ends.iter().filter(|(_, until)| **until <= now) {
            self.due.append(&mut world.remove_policy(&key.0, &key.1));
            self.untold.insert(key.clone());
        }
    }

    fn note_policy(&mut self, event: WatchEvent<NetworkPolicy>) {
        let WatchEvent { kind, object: policy } = event;
        let key = key_of(&policy);
        let world = Arc::make_mut(&mut self.world);
        self.ends.remove(&key);
        if kind == WatchKind::Deleted {
            self.due.append(&mut world.remove_policy(&key.0, &key.1));
            self.policies.remove(&key);
            self.pending.remove(&key);
            self.accepted.remove(&key);
            self.gone_policies.insert(policy.status.number);
            return;
        }
        if let Some(until) = policy.spec.until() {
            self.ends.insert(key.clone(), until);
        }
        self.due.append(&mut match policy.spec.has_ended(Timestamp::now()) {
            true => world.remove_policy(&key.0, &key.1),
            false => world.set_policy(&policy),
        });
        let head = Head::of(&policy);
        if self.policies.get(&key).is_none_or(|known| known.differs(&head)) {
            if let Some(accepted) = head.accepted {
                self.accepted.insert(key.clone(), accepted);
            }
            self.untold.insert(key.clone());
            self.pending.insert(key.clone());
            self.policies.insert(key, head);
        }
    }

    /// Counts a replica, and knows its identity for one of this node's.
    fn note_replica(&mut self, replica: &Replica, is_there: bool, node: &str) {
        let key = key_of(replica);
        let identity = replica.spec.identity;
        let before = if is_there { self.replicas.insert(key, identity) } else { self.replicas.remove(&key) };
        if is_there && replica.spec.node == node && identity != 0 && self.local.insert(identity) {
            self.due.insert(identity);
        }
        if is_there && before == Some(identity) {
            return;
        }
        if let Some(before) = before
            && let Some(count) = self.counts.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&before);
            }
        }
        if is_there {
            *self.counts.entry(identity).or_default() += 1;
        }
        for identity in before.into_iter().chain([identity]) {
            let keys = self.world.policies_selecting(identity);
            self.untold
                .extend(keys.into_iter().map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
        }
    }
}
