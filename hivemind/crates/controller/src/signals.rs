//! When to plan anew.

use std::collections::HashMap;

use hivemind_model::{
    App, Namespace, NetworkPolicy, Node, Replica, Resource, Service, Volume, WatchEvent, WatchKind,
};
use hivemind_policy::LabelKeys;
use hivemind_store::{Object, Objects};
use tokio::sync::mpsc;
use tracing::warn;
use uuid::Uuid;

use crate::executor::RETRY_AFTER;

/// Signals at the start and whenever something changes by which plans go. Does not end.
pub(crate) async fn give(objects: &Objects, changed: &mpsc::Sender<()>) {
    tokio::join!(
        signal_changes::<App>(objects, changed),
        signal_changes::<Replica>(objects, changed),
        signal_changes::<Service>(objects, changed),
        signal_changes::<Volume>(objects, changed),
        signal_changes::<Namespace>(objects, changed),
        signal_changes::<Node>(objects, changed),
        signal_policies(objects, changed),
    );
}

/// Signals once at the start and at every change of a kind.
async fn signal_changes<T: Object>(objects: &Objects, changed: &mpsc::Sender<()>) {
    loop {
        match objects.list_and_watch::<T>(None).await {
            Ok((_, mut watch)) => loop {
                let _ = changed.try_send(());
                if let Err(error) = watch.next().await {
                    warn!(%error, kind = T::KIND, "A watch ended; starting it again");
                    break;
                }
            },
            Err(error) => warn!(%error, kind = T::KIND, "Objects cannot be watched; trying again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// What plans go by of a policy: the labels that it names, and the nodes that say something of it.
#[derive(Debug, PartialEq, Eq)]
struct Gist {
    keys: LabelKeys,
    nodes: Vec<String>,
}

impl Gist {
    fn of(policy: &NetworkPolicy) -> Self {
        Gist { keys: LabelKeys::of([policy]), nodes: policy.status.nodes.keys().cloned().collect() }
    }
}

/// As [`signal_changes`] of policies, but for changes by which no plan goes. There may be very many policies, and each node says of
/// each change that it is in force: a plan for each would be in the way of what brings them into force.
async fn signal_policies(objects: &Objects, changed: &mpsc::Sender<()>) {
    loop {
        match objects.list_and_watch::<NetworkPolicy>(None).await {
            Ok((list, mut watch)) => {
                let uid = |policy: &NetworkPolicy| policy.metadata.uid;
                let gists = list.items.into_iter().map(|policy| (uid(&policy), Gist::of(&policy)));
                let mut gists: HashMap<_, _> = gists.collect();
                let _ = changed.try_send(());
                loop {
                    let WatchEvent { kind, object } = match watch.next().await {
                        Ok(event) => event,
                        Err(error) => {
                            warn!(%error, kind = NetworkPolicy::KIND, "A watch ended; starting it again");
                            break;
                        }
                    };
                    let gist = (kind != WatchKind::Deleted).then(|| Gist::of(&object));
                    if note(&mut gists, uid(&object), gist) {
                        let _ = changed.try_send(());
                    }
                }
            }
            Err(error) => {
                warn!(%error, kind = NetworkPolicy::KIND, "Objects cannot be watched; trying again")
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Whether something is other than it was known to be.
fn note(known: &mut HashMap<Uuid, Gist>, uid: Uuid, gist: Option<Gist>) -> bool {
    if known.get(&uid) == gist.as_ref() {
        return false;
    }
    match gist {
        Some(gist) => drop(known.insert(uid, gist)),
        None => drop(known.remove(&uid)),
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hivemind_model::{Enforcement, LabelSelector, Metadata, NetworkPolicySpec, NetworkPolicyStatus};

    use super::*;

    fn policy(labels: &[(&str, &str)]) -> NetworkPolicy {
        let match_labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let pod_selector = LabelSelector { match_labels, ..LabelSelector::default() };
        NetworkPolicy {
            metadata: Metadata::new("default", "one"),
            spec: NetworkPolicySpec { pod_selector, ..NetworkPolicySpec::default() }.into(),
            status: NetworkPolicyStatus::default(),
        }
    }

    #[test]
    fn a_policy_matters_by_the_labels_that_it_names_and_the_nodes_that_tell_of_it() {
        let mut known = HashMap::new();
        let mut matters =
            |policy: Option<&NetworkPolicy>| note(&mut known, Uuid::nil(), policy.map(Gist::of));
        assert!(matters(Some(&policy(&[("app", "web")]))));
        assert!(!matters(Some(&policy(&[("app", "db")]))), "it names the same label");
        let mut named = policy(&[("app", "db"), ("tier", "a")]);
        assert!(matters(Some(&named)));
        named.status.note("node-1", &Enforcement::default());
        assert!(matters(Some(&named)), "a node that may go");
        named.status.note("node-1", &Enforcement { generation: 7, ..Enforcement::default() });
        assert!(!matters(Some(&named)), "it says so of the next generation");
        assert!(matters(None));
        assert!(!matters(None));
    }
}
