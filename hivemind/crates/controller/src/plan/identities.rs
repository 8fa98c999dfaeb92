//! Workload identities: one for each set of labels that policies can tell apart and replicas of an app carry.
//!
//! New ones are cut by the keys that policies name in their namespace. When a policy names a key that is new, each identity is cut
//! by it too, in place: its number stays, and with it all that the data path holds and counts. Where its replicas have different
//! labels of that key, as while an app is rolled out, those that are fewer are given another number first, and the identity is cut
//! when their nodes have said that they have it; agents hold the policy back until then. An identity that is cut by more keys than
//! policies name, for they named more once, is good as long as it fits.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{App, Identity, IdentitySpec, Metadata, NamedPort, Replica, ServicePort};
use hivemind_policy::LabelKeys;

use super::Action;
use crate::snapshot::Snapshot;

type Labels = BTreeMap<String, String>;

/// What replicas are that policies cannot tell apart, but for their labels. The app's name is for people to read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    namespace: String,
    app: String,
    /// Those that have names, in their order.
    ports: Vec<NamedPort>,
}

/// What an identity is needed for.
pub(super) struct Place<'a> {
    kind: Kind,
    /// All that the replicas carry.
    labels: &'a Labels,
}

impl<'a> Place<'a> {
    /// That of the replicas which are made for an app now.
    pub(super) fn of_app(app: &'a App) -> Self {
        let Metadata { namespace, name, .. } = &app.metadata;
        let ports = ServicePort::named(&app.spec.service.ports);
        let kind = Kind { namespace: namespace.clone(), app: name.clone(), ports };
        Place { kind, labels: &app.spec.template.labels }
    }

    /// That of a replica with these ports.
    fn of_replica(replica: &'a Replica, ports: Vec<NamedPort>) -> Self {
        let Metadata { namespace, labels, .. } = &replica.metadata;
        let kind = Kind { namespace: namespace.clone(), app: replica.spec.app.clone(), ports };
        Place { kind, labels }
    }
}

/// The identities that there are and that the plan makes.
pub(super) struct Identities<'a> {
    snapshot: &'a Snapshot,
    keys: LabelKeys,
    /// Those that replicas have come first, so that another one that says the same goes; then in the order of their numbers.
    known: BTreeMap<Kind, Vec<IdentitySpec>>,
    taken: BTreeSet<u32>,
    last: u32,
}

impl<'a> Identities<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let specs = || snapshot.identities.iter().map(|identity| &identity.spec);
        let mut known: BTreeMap<Kind, Vec<IdentitySpec>> = BTreeMap::new();
        for spec in specs() {
            let IdentitySpec { namespace, app, ports, .. } = spec.clone();
            known.entry(Kind { namespace, app, ports }).or_default().push(spec.clone());
        }
        let used: BTreeSet<u32> = snapshot.replicas.iter().map(|replica| replica.spec.identity).collect();
        let order = |spec: &IdentitySpec| (!used.contains(&spec.number), spec.number);
        known.values_mut().for_each(|specs| specs.sort_by_key(order));
        Identities {
            snapshot,
            keys: LabelKeys::of(&snapshot.policies),
            known,
            taken: specs().map(|spec| spec.number).collect(),
            last: snapshot.last_identity,
        }
    }

    /// The identity of a place, if there is one that is cut by all keys that matter.
    fn find(&self, place: &Place<'_>) -> Option<u32> {
        let matter = self.keys.in_namespace(&place.kind.namespace);
        let fits =
            |spec: &&IdentitySpec| matter.iter().all(|key| spec.knows(key)) && spec.stands_for(place.labels);
        self.known.get(&place.kind)?.iter().find(fits).map(|spec| spec.number)
    }

    /// The number of a place's identity, which is made if there is none. `None` if all numbers are taken.
    pub(super) fn number_for(&mut self, place: Place<'_>, actions: &mut Vec<Action>) -> Option<u32> {
        if let Some(number) = self.find(&place) {
            return Some(number);
        }
        let number = self.next_number()?;
        let Place { kind, labels } = place;
        let keys = self.keys.in_namespace(&kind.namespace);
        let labels = labels.iter().filter(|(key, _)| keys.contains(*key));
        let labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut identity = Identity::new(number, &kind.namespace, &kind.app, labels);
        identity.spec.keys = Some(keys);
        identity.spec.ports.clone_from(&kind.ports);
        self.known.entry(kind).or_default().push(identity.spec.clone());
        actions.push(Action::CreateIdentity(Box::new(identity)));
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

    /// Replicas without one are those that an older version made, when ports had no names.
    pub(super) fn plan_missing(&mut self, actions: &mut Vec<Action>) {
        for replica in self.snapshot.replicas.iter().filter(|replica| replica.spec.identity == 0) {
            let place = Place::of_replica(replica, Vec::new());
            if !self.plan_replica(replica, place, actions) {
                return;
            }
        }
    }

    /// Gives a replica the identity of its place. False if all numbers are taken.
    fn plan_replica(&mut self, replica: &Replica, place: Place<'_>, actions: &mut Vec<Action>) -> bool {
        let Metadata { namespace, name, .. } = &replica.metadata;
        let Some(identity) = self.number_for(place, actions) else { return false };
        actions.push(Action::SetReplicaIdentity {
            namespace: namespace.clone(),
            name: name.clone(),
            identity,
        });
        true
    }

    /// Cuts identities by the keys that policies name and they do not know.
    pub(super) fn plan_cuts(&mut self, actions: &mut Vec<Action>) {
        for identity in &self.snapshot.identities {
            let spec = &identity.spec;
            let mut missing = self.keys.in_namespace(&spec.namespace);
            missing.retain(|key| !spec.knows(key));
            if !missing.is_empty() {
                self.plan_cut(identity, &missing, actions);
            }
        }
    }

    fn plan_cut(&mut self, identity: &Identity, missing: &BTreeSet<String>, actions: &mut Vec<Action>) {
        let spec = &identity.spec;
        let kind =
            Kind { namespace: spec.namespace.clone(), app: spec.app.clone(), ports: spec.ports.clone() };
        let snapshot = self.snapshot;
        let has = |replica: &&Replica| {
            let is_told =
                replica.spec.identity == spec.number || replica.status.identity == Some(spec.number);
            is_told && !snapshot.is_lost(replica)
        };
        let mut groups: BTreeMap<Labels, Vec<&Replica>> = BTreeMap::new();
        for replica in snapshot.replicas.iter().filter(has) {
            groups.entry(of_keys(&replica.metadata.labels, missing)).or_default().push(replica);
        }
        if groups.is_empty() {
            let app = snapshot.apps.iter().filter(|app| !app.metadata.is_deleting()).find(|app| {
                let place = Place::of_app(app);
                place.kind == kind && spec.stands_for(place.labels)
            });
            // Without one nothing needs it.
            let Some(app) = app else { return };
            groups.insert(of_keys(&app.spec.template.labels, missing), Vec::new());
        }
        // Of two that are equally large, the last.
        let Some(most) = groups.iter().max_by_key(|(_, replicas)| replicas.len()) else { return };
        let most = most.0.clone();
        if groups.len() == 1 {
            let mut cut = identity.clone();
            cut.spec.keys.get_or_insert_default().extend(missing.iter().cloned());
            cut.spec.labels.extend(most);
            let known = self.known.get_mut(&kind).into_iter().flatten();
            known.filter(|known| known.number == spec.number).for_each(|known| *known = cut.spec.clone());
            actions.push(Action::CutIdentity(Box::new(cut)));
            return;
        }
        let others =
            groups.into_iter().filter(|(labels, _)| *labels != most).flat_map(|(_, replicas)| replicas);
        for replica in others.filter(|replica| replica.spec.identity == spec.number) {
            let place = Place::of_replica(replica, spec.ports.clone());
            if !self.plan_replica(replica, place, actions) {
                return;
            }
        }
    }

    /// An identity stays as long as a replica has it, and as long as its app would give it to the next one.
    pub(super) fn plan_removals(&self, actions: &mut Vec<Action>) {
        let snapshot = self.snapshot;
        let mut used: BTreeSet<u32> = snapshot.replicas.iter().map(|replica| replica.spec.identity).collect();
        for replica in &snapshot.replicas {
            used.extend(replica.status.identity);
            if replica.spec.identity == 0 {
                used.extend(self.find(&Place::of_replica(replica, Vec::new())));
            }
        }
        for app in snapshot.apps.iter().filter(|app| !app.metadata.is_deleting()) {
            used.extend(self.find(&Place::of_app(app)));
        }
        let unused = snapshot.identities.iter().filter(|identity| !used.contains(&identity.spec.number));
        actions.extend(unused.map(|identity| Action::RemoveIdentity(Box::new(identity.clone()))));
    }
}

/// The labels of these keys.
fn of_keys(labels: &Labels, keys: &BTreeSet<String>) -> Labels {
    let known = labels.iter().filter(|(key, _)| keys.contains(*key));
    known.map(|(key, value)| (key.clone(), value.clone())).collect()
}
