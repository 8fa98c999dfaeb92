//! Workload identities: one for each set of labels that replicas of a namespace carry.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{Identity, Metadata};

use super::Action;
use crate::snapshot::Snapshot;

/// Namespace, app and labels. The app's name is among the labels of its replicas, so that it tells nothing apart that they
/// do not; it is for people to read.
type Place<'a> = (&'a str, &'a str, &'a BTreeMap<String, String>);

/// The identities that there are and that the plan makes.
pub(super) struct Identities<'a> {
    numbers: BTreeMap<Place<'a>, u32>,
    taken: BTreeSet<u32>,
    last: u32,
}

impl<'a> Identities<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let specs = snapshot.identities.iter().map(|identity| &identity.spec);
        Identities {
            // Of two for the same place, which only a fault can make, the older counts.
            numbers: specs
                .clone()
                .rev()
                .map(|spec| ((spec.namespace.as_str(), spec.app.as_str(), &spec.labels), spec.number))
                .collect(),
            taken: specs.map(|spec| spec.number).collect(),
            last: snapshot.last_identity,
        }
    }

    /// The number of a place's identity, which is made if there is none. `None` if all numbers are taken.
    pub(super) fn number_for(&mut self, place: Place<'a>, actions: &mut Vec<Action>) -> Option<u32> {
        if let Some(number) = self.numbers.get(&place) {
            return Some(*number);
        }
        let number = self.next_number()?;
        let (namespace, app, labels) = place;
        actions.push(Action::CreateIdentity(Box::new(Identity::new(number, namespace, app, labels.clone()))));
        self.numbers.insert(place, number);
        self.taken.insert(number);
        self.last = number;
        Some(number)
    }

    /// The first free one after the last that was given, and then from the beginning again.
    fn next_number(&self) -> Option<u32> {
        let next = self.last.saturating_add(1).max(Identity::FIRST);
        let mut numbers = (next..=Identity::LAST).chain(Identity::FIRST..next.min(Identity::LAST));
        numbers.find(|number| !self.taken.contains(number))
    }

    /// Replicas without one are those that an older version made.
    pub(super) fn plan_missing(&mut self, snapshot: &'a Snapshot, actions: &mut Vec<Action>) {
        for replica in snapshot.replicas.iter().filter(|replica| replica.spec.identity == 0) {
            let Metadata { namespace, name, labels, .. } = &replica.metadata;
            let Some(identity) = self.number_for((namespace, &replica.spec.app, labels), actions) else {
                return;
            };
            actions.push(Action::SetReplicaIdentity {
                namespace: namespace.clone(),
                name: name.clone(),
                identity,
            });
        }
    }

    /// An identity stays as long as a replica has it, and as long as its app would give it to the next one.
    pub(super) fn plan_removals(&self, snapshot: &'a Snapshot, actions: &mut Vec<Action>) {
        let mut used: BTreeSet<u32> = snapshot.replicas.iter().map(|replica| replica.spec.identity).collect();
        for replica in snapshot.replicas.iter().filter(|replica| replica.spec.identity == 0) {
            let Metadata { namespace, labels, .. } = &replica.metadata;
            used.extend(self.numbers.get(&(namespace.as_str(), replica.spec.app.as_str(), labels)));
        }
        for app in snapshot.apps.iter().filter(|app| !app.metadata.is_deleting()) {
            let Metadata { namespace, name, .. } = &app.metadata;
            used.extend(self.numbers.get(&(namespace.as_str(), name.as_str(), &app.spec.template.labels)));
        }
        let unused = snapshot.identities.iter().filter(|identity| !used.contains(&identity.spec.number));
        actions.extend(unused.map(|identity| Action::RemoveIdentity(Box::new(identity.clone()))));
    }
}
