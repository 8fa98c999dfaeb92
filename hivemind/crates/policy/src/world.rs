//! What policies are decided in: namespaces and their labels, identities, nodes, policies, and the addresses of domains.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hivemind_common::policy::{EGRESS, NAMESPACE};
use hivemind_model::{
    Entity, Identity, IdentitySpec, LabelSelector, NAMESPACE_NAME_LABEL, Namespace, NetworkPolicy,
};

use crate::{
    domain,
    keys::Keys,
    rules::{Peer, Policy, Rule, Subject},
};

/// Where replicas ask for names, if nothing else is said.
const DNS_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)),
];

/// The identities whose [`crate::compile`] may give something else after a change.
pub type Touched = BTreeSet<u32>;

type Labels = BTreeMap<String, String>;

/// Everything that verdicts depend on, with indexes, so that a change costs what it touches. Cheap enough to clone: what is
/// large in it is shared.
///
/// A namespace that is not in it counts as one with the label of its name only. The DNS server's identity is in it always.
#[derive(Clone, Debug)]
pub struct World {
    namespaces: BTreeMap<String, Arc<Labels>>,
    identities: BTreeMap<u32, Arc<IdentitySpec>>,
    by_namespace: BTreeMap<String, BTreeSet<u32>>,
    /// By namespace, key and value.
    by_label: BTreeMap<(String, String, String), BTreeSet<u32>>,
    policies: BTreeMap<Place, (Arc<NetworkPolicy>, Arc<Policy>)>,
    /// Of these, the ones of the whole cluster, in the order in which they are asked.
    cluster: BTreeMap<(u32, i64, Place), Arc<Policy>>,
    nodes: BTreeMap<String, Arc<Machine>>,
    /// By pattern.
    domains: BTreeMap<String, Arc<BTreeSet<IpAddr>>>,
    dns: Vec<IpAddr>,
    pub(crate) keys: Keys,
}

/// Namespace and name of a policy.
type Place = (String, String);

/// What policies see of a node.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    labels: Labels,
    addresses: Vec<IpAddr>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world with nothing but the DNS server.
    pub fn new() -> Self {
        let mut world = World {
            namespaces: BTreeMap::new(),
            identities: BTreeMap::new(),
            by_namespace: BTreeMap::new(),
            by_label: BTreeMap::new(),
            policies: BTreeMap::new(),
            cluster: BTreeMap::new(),
            nodes: BTreeMap::new(),
            domains: BTreeMap::new(),
            dns: DNS_ADDRESSES.to_vec(),
            keys: Keys::default(),
        };
        world.index(Identity::dns());
        world
    }

    /// The world of these objects.
    pub fn of<'a>(
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        identities: impl IntoIterator<Item = &'a Identity>,
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
    ) -> Self {
        let mut world = Self::new();
        namespaces.into_iter().for_each(|namespace| drop(world.set_namespace(namespace)));
        identities.into_iter().for_each(|identity| drop(world.set_identity(identity)));
        policies.into_iter().for_each(|policy| drop(world.set_policy(policy)));
        world
    }

    /// Says where replicas ask for names: [`crate::warnings`] tells which policies cut them off.
    pub fn set_dns_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.dns = addresses;
    }

    /// Puts a namespace in, or gives it other labels.
    pub fn set_namespace(&mut self, namespace: &Namespace) -> Touched {
        self.relabel(&namespace.metadata.name, Some(namespace.labels().clone()))
    }

    /// Takes a namespace out: it counts as one with the label of its name only.
    pub fn remove_namespace(&mut self, name: &str) -> Touched {
        self.relabel(name, None)
    }

    fn relabel(&mut self, name: &str, labels: Option<Labels>) -> Touched {
        let before = self.namespace_labels(name);
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), Arc::new(labels)),
            None => self.namespaces.remove(name),
        };
        let now = self.namespace_labels(name);
        if before == now {
            return Touched::new();
        }
        let differs = |selector: &LabelSelector| selector.selects(&before) != selector.selects(&now);
        let mut touched = self.selected_by(|policy| {
            policy.peers().any(
                |peer| matches!(peer, Peer::Replicas { namespaces: Some(selector), .. } if differs(selector)),
            )
        });
        for policy in self.cluster.values() {
            if policy.subject.namespaces.as_ref().is_some_and(differs) {
                touched.extend(self.select(name, &policy.subject.pods));
            }
        }
        touched
    }

    /// Puts a node in, or gives it other labels or addresses.
    pub fn set_node(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        addresses: &[IpAddr],
    ) -> Touched {
        self.replace_node(name, Some(Machine { labels: labels.clone(), addresses: addresses.to_vec() }))
    }

    /// Takes a node out.
    pub fn remove_node(&mut self, name: &str) -> Touched {
        self.replace_node(name, None)
    }

    fn replace_node(&mut self, name: &str, machine: Option<Machine>) -> Touched {
        let before = match &machine {
            Some(machine) => self.nodes.get(name).filter(|known| ***known == *machine).cloned(),
            None => None,
        };
        if before.is_some() {
            return Touched::new();
        }
        let now = machine.map(Arc::new);
        let before = match &now {
            Some(machine) => self.nodes.insert(name.to_owned(), Arc::clone(machine)),
            None => self.nodes.remove(name),
        };
        let machines: Vec<_> = before.into_iter().chain(now).collect();
        let is_meant =
            |selector: &LabelSelector| machines.iter().any(|machine| selector.selects(&machine.labels));
        let has = |address: &IpAddr| machines.iter().any(|machine| machine.addresses.contains(address));
        self.selected_by(|policy| {
            policy.peers().any(|peer| match peer {
                Peer::Nodes(selector) => is_meant(selector),
                Peer::Domain(pattern) => self.domains.get(pattern).is_some_and(|known| known.iter().any(has)),
                _ => false,
            })
        })
    }

    /// The addresses of the nodes that `selector` selects.
    pub(crate) fn node_addresses(&self, selector: &LabelSelector) -> impl Iterator<Item = IpAddr> {
        let machines = self.nodes.values().filter(|machine| selector.selects(&machine.labels));
        machines.flat_map(|machine| machine.addresses.iter().copied())
    }

    /// The addresses of a node; of all if none is named.
    pub(crate) fn addresses_of_nodes(&self, name: Option<&str>) -> impl Iterator<Item = IpAddr> {
        let wanted = self.nodes.iter().filter(move |(node, _)| name.is_none_or(|name| name == *node));
        wanted.flat_map(|(_, machine)| machine.addresses.iter().copied())
    }

    /// Says which addresses the names have that a pattern means, all of them. Those of the machine itself, of its links and of
    /// nodes count for nothing: whoever owns a name must not open these by it.
    pub fn set_domain(&mut self, pattern: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Touched {
        let Some(pattern) = domain::parse(pattern) else { return Touched::new() };
        let addresses: BTreeSet<IpAddr> =
            addresses.into_iter().filter(|address| !domain::is_internal(*address)).collect();
        let before = match addresses.is_empty() {
            true => self.domains.remove(&pattern),
            false => self.domains.insert(pattern.clone(), Arc::new(addresses)),
        };
        if before.as_ref() == self.domains.get(&pattern) {
            return Touched::new();
        }
        let is_meant = |peer: &Peer| matches!(peer, Peer::Domain(known) if *known == pattern);
        self.selected_by(|policy| policy.peers().any(is_meant))
    }

    /// The addresses that are known for a pattern.
    pub(crate) fn domain_addresses(&self, pattern: &str) -> Vec<IpAddr> {
        let is_of_node =
            |address: &IpAddr| self.nodes.values().any(|machine| machine.addresses.contains(address));
        let known = self.domains.get(pattern).into_iter().flat_map(|addresses| addresses.iter().copied());
        known.filter(|address| !is_of_node(address)).collect()
    }

    /// The patterns of domains that policies name, in lower case and without a last dot.
    pub fn domain_patterns(&self) -> BTreeSet<String> {
        let peers = self.policies.values().flat_map(|(_, policy)| policy.peers());
        peers
            .filter_map(|peer| match peer {
                Peer::Domain(pattern) => Some(pattern.clone()),
                _ => None,
            })
            .collect()
    }

    /// Puts an identity in, or has it stand for something else; later, if it is not cut by the keys that policies name.
    pub fn set_identity(&mut self, identity: &Identity) -> Touched {
        let number = identity.spec.number;
        if self.keep_identity(identity) {
            let mut touched = self.take_identity(number);
            self.release(&mut touched);
            return touched;
        }
        if self.identities.get(&number).is_some_and(|known| **known == identity.spec) {
            return Touched::new();
        }
        let mut touched = self.put_identity(identity);
        self.release(&mut touched);
        touched
    }

    pub(crate) fn put_identity(&mut self, identity: &Identity) -> Touched {
        let mut touched = self.take_identity(identity.spec.number);
        touched.append(&mut self.who_speaks_of(&identity.spec));
        touched.insert(identity.spec.number);
        self.index(identity.spec.clone());
        touched
    }

    fn index(&mut self, spec: IdentitySpec) {
        self.keys.add_identity(&spec);
        self.by_namespace.entry(spec.namespace.clone()).or_default().insert(spec.number);
        for (key, value) in &spec.labels {
            let place = (spec.namespace.clone(), key.clone(), value.clone());
            self.by_label.entry(place).or_default().insert(spec.number);
        }
        self.identities.insert(spec.number, Arc::new(spec));
    }

    /// Takes an identity out.
    pub fn remove_identity(&mut self, number: u32) -> Touched {
        self.drop_kept_identity(number);
        let mut touched = self.take_identity(number);
        self.release(&mut touched);
        touched
    }

    fn take_identity(&mut self, number: u32) -> Touched {
        let Some(spec) = self.identities.remove(&number) else { return Touched::new() };
        self.keys.remove_identity(&spec);
        take_out(&mut self.by_namespace, &spec.namespace, number);
        for (key, value) in &spec.labels {
            let place = (spec.namespace.clone(), key.clone(), value.clone());
            take_out(&mut self.by_label, &place, number);
        }
        let mut touched = self.who_speaks_of(&spec);
        touched.insert(number);
        touched
    }

    /// Puts a policy in, or in the place of the one of its name; later, if identities are not cut by the keys that it names.
    pub fn set_policy(&mut self, policy: &NetworkPolicy) -> Touched {
        let key = (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        let same =
            |known: &NetworkPolicy| known.spec == policy.spec && known.status.number == policy.status.number;
        if self.policies.get(&key).is_some_and(|(known, _)| same(known)) {
            self.keys.policies.remove(&key);
            return Touched::new();
        }
        if !self.decides(policy) {
            self.keys.policies.insert(key, Arc::new(policy.clone()));
            return Touched::new();
        }
        let mut touched = self.put_policy(policy);
        self.release(&mut touched);
        touched
    }

    pub(crate) fn put_policy(&mut self, policy: &NetworkPolicy) -> Touched {
        let key = (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        let mut touched = self.take_policy(&key);
        let rules = Arc::new(Policy::of(policy));
        touched.extend(self.subjects(&rules.namespace, &rules.subject));
        self.keys.add_policy(&rules);
        if rules.tier != NAMESPACE {
            self.cluster.insert((rules.tier, rules.priority, key.clone()), Arc::clone(&rules));
        }
        self.policies.insert(key, (Arc::new(policy.clone()), rules));
        touched
    }

    /// Takes a policy out.
    pub fn remove_policy(&mut self, namespace: &str, name: &str) -> Touched {
        let mut touched = self.take_policy(&(namespace.to_owned(), name.to_owned()));
        self.release(&mut touched);
        touched
    }

    /// Takes a policy out, with the one that is held back to come in its place.
    fn take_policy(&mut self, key: &Place) -> Touched {
        self.keys.policies.remove(key);
        let Some((_, rules)) = self.policies.remove(key) else { return Touched::new() };
        self.keys.remove_policy(&rules);
        self.cluster.remove(&(rules.tier, rules.priority, key.clone()));
        self.subjects(&rules.namespace, &rules.subject)
    }

    /// What an identity stands for.
    pub fn identity(&self, number: u32) -> Option<&IdentitySpec> {
        self.identities.get(&number).map(|spec| &**spec)
    }

    /// All identities, by number; the DNS server's among them.
    pub fn identities(&self) -> impl Iterator<Item = &IdentitySpec> {
        self.identities.values().map(|spec| &**spec)
    }

    /// All policies, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().map(|(policy, _)| &**policy)
    }

    /// The policy of that name, as it is in force.
    pub fn policy(&self, namespace: &str, name: &str) -> Option<&NetworkPolicy> {
        let found = self.policies.get(&(namespace.to_owned(), name.to_owned()));
        found.map(|(policy, _)| &**policy)
    }

    /// The form of a policy that the compiler works with.
    pub(crate) fn rules(&self, policy: &NetworkPolicy) -> Option<&Policy> {
        let key = (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        self.policies.get(&key).map(|(_, rules)| &**rules)
    }

    /// The policies of the whole cluster, in the order in which they are asked.
    pub(crate) fn cluster_policies(&self) -> impl Iterator<Item = &Policy> {
        self.cluster.values().map(|policy| &**policy)
    }

    /// The identities that a policy selects, by number.
    pub fn selected(&self, policy: &NetworkPolicy) -> Vec<u32> {
        let rules = Policy::of(policy);
        self.subjects(&rules.namespace, &rules.subject).into_iter().collect()
    }

    /// The same for the policy of that name, as it is in this world; nothing if there is none.
    pub fn selected_by_name(&self, namespace: &str, name: &str) -> Vec<u32> {
        let policy = self.policies.get(&(namespace.to_owned(), name.to_owned()));
        policy.map_or_else(Vec::new, |(_, rules)| {
            self.subjects(&rules.namespace, &rules.subject).into_iter().collect()
        })
    }

    /// Namespace and name of the policies that select an identity.
    pub fn policies_selecting(&self, identity: u32) -> Vec<(&str, &str)> {
        let Some(spec) = self.identity(identity) else { return Vec::new() };
        let policies = self.policies_of(spec).into_iter();
        policies.map(|policy| (policy.namespace.as_str(), policy.name.as_str())).collect()
    }

    /// The identities of replicas that a policy in `own_namespace` applies to.
    pub(crate) fn subjects(&self, own_namespace: &str, subject: &Subject) -> Touched {
        let found = self.peers(own_namespace, subject.namespaces.as_ref(), Some(&subject.pods));
        found.into_iter().filter(|number| *number >= Identity::FIRST).collect()
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Arc<Labels> {
        self.namespaces.get(name).cloned().unwrap_or_else(|| {
            Arc::new([(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned())].into_iter().collect())
        })
    }

    /// Takes over what another world knows of nodes and domains.
    #[cfg(test)]
    pub(crate) fn take_surroundings(&mut self, other: &World) {
        self.nodes.clone_from(&other.nodes);
        self.domains.clone_from(&other.domains);
    }

    pub(crate) fn dns_addresses(&self) -> &[IpAddr] {
        &self.dns
    }

    /// The policies that select an identity: those of the cluster in the order in which they are asked, those of its namespace
    /// by number.
    pub(crate) fn policies_of<'a>(&'a self, identity: &'a IdentitySpec) -> Vec<&'a Policy> {
        let mut found: Vec<&Policy> =
            self.cluster.values().map(|policy| &**policy).filter(|p| self.applies(p, identity)).collect();
        let before = found.len();
        found.extend(self.policies_in(&identity.namespace).filter(|p| self.applies(p, identity)));
        found[before..].sort_by_key(|policy| policy.number);
        found
    }

    fn applies(&self, policy: &Policy, identity: &IdentitySpec) -> bool {
        let Subject { namespaces, pods } = &policy.subject;
        let is_there = match namespaces {
            None => policy.namespace == identity.namespace,
            Some(selector) => selector.selects(&self.namespace_labels(&identity.namespace)),
        };
        is_there && pods.selects(&identity.labels)
    }

    /// The policies of a namespace; those of the cluster are in none.
    fn policies_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Policy> {
        self.policies
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((of, _), _)| of == namespace)
            .map(|(_, (_, policy))| &**policy)
            .filter(|policy| policy.tier == NAMESPACE)
    }

    /// The identities of replicas, and of the DNS server, by number.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = u32> {
        self.identities.keys().copied()
    }

    /// The identities that a peer of a policy in `own_namespace` stands for, blocks aside.
    pub(crate) fn peers(
        &self,
        own_namespace: &str,
        namespaces: Option<&LabelSelector>,
        pods: Option<&LabelSelector>,
    ) -> Vec<u32> {
        let everything = LabelSelector::default();
        let pods = pods.unwrap_or(&everything);
        match namespaces {
            None => self.select(own_namespace, pods).collect(),
            Some(selector) => self
                .by_namespace
                .keys()
                .filter(|name| selector.selects(&self.namespace_labels(name)))
                .flat_map(|name| self.select(name, pods))
                .collect(),
        }
    }

    /// The identities of a namespace that `selector` selects: the rarest of the labels that it names decides how many are
    /// looked at.
    fn select<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a LabelSelector,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let by_label = selector.match_labels.iter().map(|(key, value)| {
            self.by_label.get(&(namespace.to_owned(), key.clone(), value.clone())).map_or(&NONE, |set| set)
        });
        let all = self.by_namespace.get(namespace).unwrap_or(&NONE);
        let fewest = by_label.min_by_key(|set| set.len()).unwrap_or(all);
        fewest.iter().copied().filter(move |number| {
            self.identities.get(number).is_some_and(|spec| selector.selects(&spec.labels))
        })
    }

    /// The identities selected by policies that name `spec` as a peer.
    fn who_speaks_of(&self, spec: &IdentitySpec) -> Touched {
        let namespace = self.namespace_labels(&spec.namespace);
        let means = |policy: &Policy, peer: &Peer| match peer {
            Peer::Block { .. } | Peer::Nodes(_) | Peer::Domain(_) => false,
            Peer::Entity(entity) => *entity == Entity::Cluster,
            Peer::Replicas { namespaces, pods } => {
                let there = match namespaces {
                    None => policy.namespace == spec.namespace,
                    Some(selector) => selector.selects(&namespace),
                };
                there && pods.as_ref().is_none_or(|selector| selector.selects(&spec.labels))
            }
        };
        // What everybody may be asked for by its name is written for each who has it.
        let names_a_port = |direction: u32, rule: &Rule| direction == EGRESS && rule.has_names();
        self.selected_by(|policy| {
            policy.rules().any(|(direction, rule)| match &rule.peers {
                None => !spec.ports.is_empty() && names_a_port(direction, rule),
                Some(peers) => peers.iter().any(|peer| means(policy, peer)),
            })
        })
    }

    /// The identities selected by the policies for which `concerned` holds.
    fn selected_by(&self, concerned: impl Fn(&Policy) -> bool) -> Touched {
        let policies = self.policies.values().map(|(_, policy)| &**policy);
        policies
            .filter(|policy| concerned(policy))
            .flat_map(|policy| self.subjects(&policy.namespace, &policy.subject))
            .collect()
    }
}

static NONE: BTreeSet<u32> = BTreeSet::new();

fn take_out<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u32>>, key: &K, number: u32) {
    if let Some(set) = index.get_mut(key) {
        set.remove(&number);
        if set.is_empty() {
            index.remove(key);
        }
    }
}
