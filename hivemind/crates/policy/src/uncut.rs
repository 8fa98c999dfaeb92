//! Identities by all labels of their replicas, for deciding what policies would do that are not there yet.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{App, Identity, Replica};

/// The identities of `replicas`, none of which stands for replicas with different labels: as if policies named every key. Replicas
/// of one that is split are given other numbers, which no identity has; nobody may take these for the kernel's.
///
/// An identity that no replica has is told by the labels that its app's next replica will carry.
pub fn uncut(identities: &[Identity], replicas: &mut [Replica], apps: &[App]) -> Vec<Identity> {
    let mut whole: Vec<Identity> = Vec::with_capacity(identities.len());
    let taken: BTreeSet<u32> = identities.iter().map(|identity| identity.spec.number).collect();
    let mut free = (Identity::FIRST..=Identity::LAST).rev().filter(|number| !taken.contains(number));
    let mut of_number: BTreeMap<u32, Vec<&mut Replica>> = BTreeMap::new();
    for replica in replicas {
        of_number.entry(replica.spec.identity).or_default().push(replica);
    }
    for identity in identities {
        let spec = &identity.spec;
        let with = |number, labels: BTreeMap<String, String>| {
            let mut one = Identity::new(number, &spec.namespace, &spec.app, labels);
            one.spec.ports.clone_from(&spec.ports);
            one
        };
        let members = of_number.remove(&spec.number).unwrap_or_default();
        let mut numbers: BTreeMap<BTreeMap<String, String>, u32> = BTreeMap::new();
        for replica in members.into_iter().filter(|_| spec.keys.is_some()) {
            let first = numbers.is_empty();
            let number = numbers.entry(replica.metadata.labels.clone());
            replica.spec.identity = *number.or_insert_with(|| {
                let other = if first { None } else { free.next() };
                other.unwrap_or(spec.number)
            });
        }
        if numbers.is_empty() {
            let app = apps.iter().find(|app| {
                app.metadata.namespace == spec.namespace
                    && app.metadata.name == spec.app
                    && spec.stands_for(&app.spec.template.labels)
            });
            let labels = app.map_or(&spec.labels, |app| &app.spec.template.labels);
            numbers.insert(labels.clone(), spec.number);
        }
        whole.extend(numbers.into_iter().map(|(labels, number)| with(number, labels)));
    }
    whole
}
