//! The objects of namespaces: built-in ones, and those that something is in.

use std::collections::BTreeSet;

use hivemind_model::{DEFAULT_NAMESPACE, Metadata, Namespace, SYSTEM_NAMESPACE};

use super::Action;
use crate::snapshot::Snapshot;

pub(super) fn plan(snapshot: &Snapshot, actions: &mut Vec<Action>) {
    let Snapshot { apps, replicas, services, volumes, .. } = snapshot;
    let metadata = (apps.iter().map(|o| &o.metadata))
        .chain(replicas.iter().map(|o| &o.metadata))
        .chain(services.iter().map(|o| &o.metadata))
        .chain(volumes.iter().map(|o| &o.metadata));
    let in_use = metadata.map(|metadata: &Metadata| metadata.namespace.as_str());
    let wanted: BTreeSet<_> = in_use.chain([DEFAULT_NAMESPACE, SYSTEM_NAMESPACE]).collect();
    let there: BTreeSet<_> = snapshot.namespaces.iter().map(|o| o.metadata.name.as_str()).collect();
    let missing = wanted.difference(&there);
    actions.extend(missing.map(|name| Action::CreateNamespace(Box::new(Namespace::new(name)))));
}
