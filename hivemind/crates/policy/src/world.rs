//! What policies are decided in: namespaces and their labels, identities, policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hivemind_model::{Identity, IdentitySpec, LabelSelector, NAMESPACE_NAME_LABEL, Namespace, NetworkPolicy};

use crate::rules::{Peer, Policy};

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
    policies: BTreeMap<(String, String), (Arc<NetworkPolicy>, Arc<Policy>)>,
    dns: Vec<IpAddr>,
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
            dns: DNS_ADDRESSES.to_vec(),
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
        self.selected_by(|policy| {
            let selectors = policy.peers().filter_map(|peer| match peer {
                Peer::Replicas { namespaces: Some(selector), .. } => Some(selector),
                _ => None,
            });
            selectors.into_iter().any(|selector| selector.selects(&before) != selector.selects(&now))
        })
    }

    /// Puts an identity in. What an identity stands for never changes.
    pub fn set_identity(&mut self, identity: &Identity) -> Touched {
        let number = identity.spec.number;
        if self.identities.get(&number).is_some_and(|known| **known == identity.spec) {
            return Touched::new();
        }
        let mut touched = self.remove_identity(number);
        touched.append(&mut self.who_speaks_of(&identity.spec));
        touched.insert(number);
        self.index(identity.spec.clone());
        touched
    }

    fn index(&mut self, spec: IdentitySpec) {
        self.by_namespace.entry(spec.namespace.clone()).or_default().insert(spec.number);
        for (key, value) in &spec.labels {
            let place = (spec.namespace.clone(), key.clone(), value.clone());
            self.by_label.entry(place).or_default().insert(spec.number);
        }
        self.identities.insert(spec.number, Arc::new(spec));
    }

    /// Takes an identity out.
    pub fn remove_identity(&mut self, number: u32) -> Touched {
        let Some(spec) = self.identities.remove(&number) else { return Touched::new() };
        take_out(&mut self.by_namespace, &spec.namespace, number);
        for (key, value) in &spec.labels {
            let place = (spec.namespace.clone(), key.clone(), value.clone());
            take_out(&mut self.by_label, &place, number);
        }
        let mut touched = self.who_speaks_of(&spec);
        touched.insert(number);
        touched
    }

    /// Puts a policy in, or in the place of the one of its name.
    pub fn set_policy(&mut self, policy: &NetworkPolicy) -> Touched {
        let key = (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        let same =
            |known: &NetworkPolicy| known.spec == policy.spec && known.status.number == policy.status.number;
        if self.policies.get(&key).is_some_and(|(known, _)| same(known)) {
            return Touched::new();
        }
        let mut touched = self.remove_policy(&key.0, &key.1);
        let rules = Arc::new(Policy::of(policy));
        touched.extend(self.select(&rules.namespace, &rules.selector));
        self.policies.insert(key, (Arc::new(policy.clone()), rules));
        touched
    }

    /// Takes a policy out.
    pub fn remove_policy(&mut self, namespace: &str, name: &str) -> Touched {
        match self.policies.remove(&(namespace.to_owned(), name.to_owned())) {
            Some((_, rules)) => self.select(&rules.namespace, &rules.selector).collect(),
            None => Touched::new(),
        }
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

    /// The identities that a policy selects, by number.
    pub fn selected(&self, policy: &NetworkPolicy) -> Vec<u32> {
        self.select(&policy.metadata.namespace, &policy.spec.pod_selector).collect()
    }

    /// The same for the policy of that name, as it is in this world; nothing if there is none.
    pub fn selected_by_name(&self, namespace: &str, name: &str) -> Vec<u32> {
        let policy = self.policies.get(&(namespace.to_owned(), name.to_owned()));
        policy.map_or_else(Vec::new, |(policy, _)| self.selected(policy))
    }

    /// Namespace and name of the policies that select an identity.
    pub fn policies_selecting(&self, identity: u32) -> Vec<(&str, &str)> {
        let Some(spec) = self.identity(identity) else { return Vec::new() };
        let selecting =
            self.policies_in(&spec.namespace).filter(|(_, policy)| policy.selector.selects(&spec.labels));
        selecting.map(|((namespace, name), _)| (namespace.as_str(), name.as_str())).collect()
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Arc<Labels> {
        self.namespaces.get(name).cloned().unwrap_or_else(|| {
            Arc::new([(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned())].into_iter().collect())
        })
    }

    pub(crate) fn dns_addresses(&self) -> &[IpAddr] {
        &self.dns
    }

    /// The policies that select an identity, by number.
    pub(crate) fn policies_of<'a>(&'a self, identity: &'a IdentitySpec) -> Vec<&'a Policy> {
        let of_namespace = self.policies_in(&identity.namespace).map(|(_, policy)| policy);
        let mut found: Vec<_> =
            of_namespace.filter(|policy| policy.selector.selects(&identity.labels)).collect();
        found.sort_by_key(|policy| policy.number);
        found
    }

    fn policies_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a (String, String), &'a Policy)> {
        self.policies
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((of, _), _)| of == namespace)
            .map(|(key, (_, policy))| (key, &**policy))
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
        self.selected_by(|policy| {
            policy.peers().any(|peer| match peer {
                Peer::Block { .. } => false,
                Peer::Replicas { namespaces, pods } => {
                    let there = match namespaces {
                        None => policy.namespace == spec.namespace,
                        Some(selector) => selector.selects(&namespace),
                    };
                    there && pods.as_ref().is_none_or(|selector| selector.selects(&spec.labels))
                }
            })
        })
    }

    /// The identities selected by the policies for which `concerned` holds.
    fn selected_by(&self, concerned: impl Fn(&Policy) -> bool) -> Touched {
        let policies = self.policies.values().map(|(_, policy)| &**policy);
        policies
            .filter(|policy| concerned(policy))
            .flat_map(|policy| self.select(&policy.namespace, &policy.selector))
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
