//! Which labels tell replicas apart: those whose keys policies name.
//!
//! An identity is cut by keys ([`IdentitySpec::keys`]), so that labels at which nobody looks cost nothing however often they change.
//! A policy that names a new key cannot be decided before the identities are cut by it: a [`World`] holds it back until they are,
//! and the one that it replaces stays. An identity that is not cut by a key which a policy of the world names is held back likewise:
//! nobody knows yet whether the policy means it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hivemind_model::{Identity, IdentitySpec, LabelSelector, Metadata, Namespace, NetworkPolicy};

use crate::{
    rules::{Peer, Policy},
    world::{Touched, World},
};

/// The keys of replicas' labels that policies name, by the namespaces in which they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelKeys {
    /// How many selectors name a key; `None` is every namespace.
    counts: BTreeMap<Option<String>, BTreeMap<String, usize>>,
}

impl LabelKeys {
    /// The keys that some of `policies` name.
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> Self {
        let mut keys = Self::default();
        policies.into_iter().for_each(|policy| keys.add(&Policy::of(policy)));
        keys
    }

    /// Those that matter in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> BTreeSet<String> {
        self.relevant(namespace).cloned().collect()
    }

    fn relevant(&self, namespace: &str) -> impl Iterator<Item = &String> {
        let own = self.counts.get(&Some(namespace.to_owned()));
        self.counts.get(&None).into_iter().chain(own).flat_map(BTreeMap::keys)
    }

    /// Whether `identity` is cut by all that matter to it.
    fn cut(&self, identity: &IdentitySpec) -> bool {
        identity.keys.is_none() || self.relevant(&identity.namespace).all(|key| identity.knows(key))
    }

    fn add(&mut self, policy: &Policy) {
        for (place, key) in named(policy) {
            let keys = self.counts.entry(place.map(str::to_owned)).or_default();
            *keys.entry(key.to_owned()).or_default() += 1;
        }
    }

    fn take_out(&mut self, policy: &Policy) {
        for (place, key) in named(policy) {
            let place = place.map(str::to_owned);
            let Some(keys) = self.counts.get_mut(&place) else { continue };
            if let Some(count) = keys.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(key);
                }
            }
            if keys.is_empty() {
                self.counts.remove(&place);
            }
        }
    }
}

/// The keys that a policy names, each with the namespace in which it matters: `None` where namespaces are selected, since any may
/// come to be.
fn named(policy: &Policy) -> impl Iterator<Item = (Option<&str>, &str)> {
    let place = |namespaces: &Option<LabelSelector>| match namespaces {
        None => Some(policy.namespace.as_str()),
        Some(_) => None,
    };
    let subject = (place(&policy.subject.namespaces), &policy.subject.pods);
    let peers = policy.peers().filter_map(move |peer| match peer {
        Peer::Replicas { namespaces, pods: Some(pods) } => Some((place(namespaces), pods)),
        _ => None,
    });
    std::iter::once(subject).chain(peers).flat_map(|(place, pods)| {
        let expressions = pods.match_expressions.iter().map(|expression| &expression.key);
        pods.match_labels.keys().chain(expressions).map(move |key| (place, key.as_str()))
    })
}

/// What a [`World`] knows of keys, and what it holds back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Of the policies in force.
    named: LabelKeys,
    /// How many identities of a namespace are cut at all, and by each key.
    cut: BTreeMap<String, (usize, BTreeMap<String, usize>)>,
    pub(crate) policies: BTreeMap<(String, String), Arc<NetworkPolicy>>,
    identities: BTreeMap<u32, Arc<Identity>>,
}

impl Keys {
    pub(crate) fn add_policy(&mut self, policy: &Policy) {
        self.named.add(policy);
    }

    pub(crate) fn remove_policy(&mut self, policy: &Policy) {
        self.named.take_out(policy);
    }

    pub(crate) fn add_identity(&mut self, identity: &IdentitySpec) {
        let Some(keys) = &identity.keys else { return };
        let (all, by_key) = self.cut.entry(identity.namespace.clone()).or_default();
        *all += 1;
        keys.iter().for_each(|key| *by_key.entry(key.clone()).or_default() += 1);
    }

    pub(crate) fn remove_identity(&mut self, identity: &IdentitySpec) {
        let Some(keys) = &identity.keys else { return };
        let Some((all, by_key)) = self.cut.get_mut(&identity.namespace) else { return };
        *all -= 1;
        if *all == 0 {
            self.cut.remove(&identity.namespace);
            return;
        }
        for key in keys {
            if let Some(count) = by_key.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    by_key.remove(key);
                }
            }
        }
    }

    /// Whether every identity that a policy may mean is cut by the keys that it names.
    fn decide(&self, policy: &Policy) -> bool {
        let is_cut = |(all, by_key): &(usize, BTreeMap<String, usize>), key: &str| {
            by_key.get(key).is_some_and(|count| count == all)
        };
        named(policy).all(|(place, key)| match place {
            Some(namespace) => self.cut.get(namespace).is_none_or(|cut| is_cut(cut, key)),
            None => self.cut.values().all(|cut| is_cut(cut, key)),
        })
    }
}

impl World {
    /// Whether the identities in it tell apart what `policy` tells apart: if not, [`World::set_policy`] holds it back.
    pub fn decides(&self, policy: &NetworkPolicy) -> bool {
        self.keys.decide(&Policy::of(policy))
    }

    /// Whether the policy of that name is held back: what is in force is the one before it, or none.
    pub fn holds_back(&self, namespace: &str, name: &str) -> bool {
        self.keys.policies.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Namespace and name of the policies that are held back.
    pub fn held_back(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.policies.keys().map(|(namespace, name)| (namespace.as_str(), name.as_str()))
    }

    /// The world of these objects, which are what became of those of this one: nobody knows in which order they changed. What is in
    /// force here and still there, in whatever form, is in force in it as well until what it became can be decided.
    pub fn succeeded_by<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        identities: impl IntoIterator<Item = &'a Identity>,
        policies: &[&NetworkPolicy],
    ) -> World {
        let former = policies.iter().filter_map(|policy| {
            let Metadata { namespace, name, .. } = &policy.metadata;
            self.policy(namespace, name)
        });
        let mut world = World::new();
        namespaces.into_iter().for_each(|namespace| drop(world.set_namespace(namespace)));
        former.for_each(|policy| drop(world.set_policy(policy)));
        // Those that are not cut by what these name are held back, rather than the policies.
        identities.into_iter().for_each(|identity| drop(world.set_identity(identity)));
        policies.iter().for_each(|policy| drop(world.set_policy(policy)));
        world
    }

    /// Keeps an identity for later if it is not cut by all that matters to it.
    pub(crate) fn keep_identity(&mut self, identity: &Identity) -> bool {
        let number = identity.spec.number;
        let keeps = !self.keys.named.cut(&identity.spec);
        match keeps {
            true => drop(self.keys.identities.insert(number, Arc::new(identity.clone()))),
            false => drop(self.keys.identities.remove(&number)),
        }
        keeps
    }

    pub(crate) fn drop_kept_identity(&mut self, number: u32) {
        self.keys.identities.remove(&number);
    }

    /// Puts in what was held back and can be decided by now.
    pub(crate) fn release(&mut self, touched: &mut Touched) {
        let (keys, identities) = (&self.keys, self.keys.identities.values());
        let due: Vec<_> = identities.filter(|one| keys.named.cut(&one.spec)).map(Arc::clone).collect();
        for identity in due {
            self.keys.identities.remove(&identity.spec.number);
            touched.append(&mut self.put_identity(&identity));
        }
        let due: Vec<_> =
            self.keys.policies.values().filter(|one| self.decides(one)).map(Arc::clone).collect();
        for policy in due {
            // One that came in before it may have to be cut by its keys, but then it is held back itself.
            touched.append(&mut self.put_policy(&policy));
        }
    }
}
