//! Workload identities: one for each set of labels that replicas of a namespace carry.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{App, Identity, IdentitySpec, Metadata, NamedPort, Replica, ServicePort};

use super::Action;
use crate::snapshot::Snapshot;

/// What an identity stands for. The app's name is among the labels of its replicas, so that it tells nothing apart that they
/// do not; it is for people to read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) app: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    /// Those that have names, in their order.
    pub(super) ports: Vec<NamedPort>,
}

impl<'a> Place<'a> {
    /// That of the replicas which are made for an app now.
    pub(super) fn of_app(app: &'a App) -> Self {
        Place {
            namespace: &app.metadata.namespace,
            app: &app.metadata.name,
            labels: &app.spec.template.labels,
            ports: ServicePort::named(&app.spec.service.ports),
        }
    }

    /// That of a replica which an older version made: ports had no names.
    fn of_replica(replica: &'a Replica) -> Self {
        let Metadata { namespace, labels, .. } = &replica.metadata;
        Place { namespace, app: &replica.spec.app, labels, ports: Vec::new() }
    }

    fn of_identity(spec: &'a IdentitySpec) -> Self {
        let IdentitySpec { namespace, app, labels, ports, .. } = spec;
        Place { namespace, app, labels, ports: ports.clone() }
    }
}

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
            numbers: specs.clone().rev().map(|spec| (Place::of_identity(spec), spec.number)).collect(),
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
        let mut identity = Identity::new(number, place.namespace, place.app, place.labels.clone());
        identity.spec.ports.clone_from(&place.ports);
        actions.push(Action::CreateIdentity(Box::new(identity)));
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
            let Metadata { namespace, name, .. } = &replica.metadata;
            let Some(identity) = self.number_for(Place::of_replica(replica), actions) else { return };
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
            used.extend(self.numbers.get(&Place::of_replica(replica)));
        }
        for app in snapshot.apps.iter().filter(|app| !app.metadata.is_deleting()) {
            used.extend(self.numbers.get(&Place::of_app(app)));
        }
        let unused = snapshot.identities.iter().filter(|identity| !used.contains(&identity.spec.number));
        actions.extend(unused.map(|identity| Action::RemoveIdentity(Box::new(identity.clone()))));
    }
}
