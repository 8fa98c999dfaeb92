//! Which replicas have one identity.

use hivemind_model::{LabelSelector, NetworkPolicy, NetworkPolicySpec, NetworkPolicyStatus};
use hivemind_policy::LabelKeys;
use proptest::prelude::*;

use super::*;

impl World {
    /// Has policies name these keys and no others.
    fn name_keys(&mut self, keys: &[&str]) {
        let policy = |key: &&str| {
            let pairs = [((*key).to_owned(), "x".to_owned())];
            let pod_selector =
                LabelSelector { match_labels: pairs.into_iter().collect(), ..LabelSelector::default() };
            NetworkPolicy {
                metadata: Metadata::new("default", *key),
                spec: NetworkPolicySpec { pod_selector, ..NetworkPolicySpec::default() }.into(),
                status: NetworkPolicyStatus::default(),
            }
        };
        self.snapshot.policies = keys.iter().map(policy).collect();
    }

    fn set_label(&mut self, key: &str, value: &str) {
        self.app().spec.template.labels.insert(key.into(), value.into());
    }

    /// No replica has, or is told by, an identity that says of it what is not true.
    fn assert_all_told_apart(&self) {
        for replica in &self.snapshot.replicas {
            for number in [Some(replica.spec.identity), replica.status.identity].into_iter().flatten() {
                let identity = self.snapshot.identities.iter().find(|known| known.spec.number == number);
                assert!(
                    identity.unwrap().spec.stands_for(&replica.metadata.labels),
                    "{identity:?}, {replica:?}"
                );
            }
        }
    }

    /// Every identity is cut by what policies name.
    fn assert_all_cut(&self) {
        let keys = LabelKeys::of(&self.snapshot.policies).in_namespace("default");
        for identity in &self.snapshot.identities {
            assert!(keys.iter().all(|key| identity.spec.knows(key)), "{identity:?}");
        }
    }
}

fn identities(world: &World) -> Vec<u32> {
    world.snapshot.identities.iter().map(|identity| identity.spec.number).collect()
}

#[test]
fn all_replicas_of_an_app_have_one_identity_that_outlives_them() {
    let mut world = World::with_app(3);
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST]);
    assert!(world.snapshot.replicas.iter().all(|r| r.spec.identity == Identity::FIRST));
    let spec = &world.snapshot.identities[0].spec;
    assert_eq!((spec.namespace.as_str(), spec.app.as_str()), ("default", "web"));
    world.app().spec.template.containers[0].image = "nginx:2".into();
    world.settle();
    world.app().spec.replicas = 0;
    world.settle();
    world.app().spec.replicas = 1;
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST]);
}

#[test]
fn other_labels_that_policies_name_are_another_identity_and_the_old_one_goes_with_its_last_replica() {
    let mut world = World::with_app(2);
    world.name_keys(&["tier"]);
    world.settle();
    world.set_label("tier", "front");
    let actions = world.plan();
    world.carry_out(actions);
    assert_eq!(identities(&world), [Identity::FIRST, Identity::FIRST + 1]);
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST + 1]);
    world.app().spec.template.labels.clear();
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST + 2], "a number does not come up again");
}

#[test]
fn numbers_begin_again_only_after_the_last() {
    let mut world = World::with_app(1);
    world.snapshot.last_identity = Identity::LAST - 1;
    world.name_keys(&["tier"]);
    world.settle();
    assert_eq!(identities(&world), [Identity::LAST]);
    world.set_label("tier", "front");
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST]);
}

#[test]
fn other_names_of_ports_are_another_identity_whose_replicas_take_the_place_of_the_old_ones() {
    let mut world = World::with_app(2);
    world.settle();
    let port = |name: &str, port| ServicePort { name: Some(name.into()), port, ..ServicePort::default() };
    world.app().spec.service.ports = vec![port("web", 80), port("admin", 8080), ServicePort::default()];
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST + 1]);
    assert!(world.active().iter().all(|replica| replica.spec.identity == Identity::FIRST + 1));
    let spec = &world.snapshot.identities[0].spec;
    let ports: Vec<_> = spec.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
    assert_eq!(ports, [("admin", 8080), ("web", 80)], "in the order of names, those that have one");
    let replicas: Vec<_> = world.active().iter().map(|replica| replica.metadata.name.clone()).collect();
    world.app().spec.service.ports.reverse();
    world.settle();
    let now: Vec<_> = world.active().iter().map(|replica| replica.metadata.name.clone()).collect();
    assert_eq!((identities(&world), now), (vec![Identity::FIRST + 1], replicas), "their order means nothing");
}

#[test]
fn replicas_of_an_older_version_are_given_an_identity() {
    let mut world = World::with_app(2);
    world.settle();
    world.snapshot.identities.clear();
    world.snapshot.replicas.iter_mut().for_each(|r| r.spec.identity = 0);
    let before = world.snapshot.replicas.len();
    world.settle();
    assert_eq!(world.snapshot.replicas.len(), before, "none is replaced");
    let number = identities(&world)[0];
    assert!(world.snapshot.replicas.iter().all(|r| r.spec.identity == number));
}

#[test]
fn other_labels_that_no_policy_names_are_the_same_identity() {
    let mut world = World::with_app(2);
    world.name_keys(&["tier"]);
    world.set_label("tier", "front");
    world.settle();
    for commit in ["a", "b", "c"] {
        world.set_label("commit", commit);
        world.settle();
        assert!(world.active().iter().all(|replica| replica.metadata.labels["commit"] == commit));
    }
    assert_eq!(identities(&world), [Identity::FIRST]);
    let spec = &world.snapshot.identities[0].spec;
    assert_eq!(spec.labels.keys().collect::<Vec<_>>(), ["tier"]);
}

#[test]
fn an_identity_is_cut_in_place_when_a_policy_names_a_new_key() {
    let mut world = World::with_app(2);
    world.set_label("tier", "front");
    world.settle();
    world.name_keys(&["tier", "zone"]);
    let actions = world.plan();
    assert!(matches!(actions.as_slice(), [Action::CutIdentity(_)]), "{actions:?}");
    world.carry_out(actions);
    assert_eq!(world.plan(), []);
    world.assert_all_cut();
    world.assert_all_told_apart();
    assert_eq!(identities(&world), [Identity::FIRST]);
    let spec = &world.snapshot.identities[0].spec;
    assert_eq!(spec.labels.get("tier").map(String::as_str), Some("front"));
}

#[test]
fn an_identity_without_a_replica_is_cut_by_the_labels_of_its_app() {
    let mut world = World::with_app(1);
    world.set_label("tier", "front");
    world.settle();
    world.app().spec.replicas = 0;
    world.settle();
    world.name_keys(&["tier"]);
    world.settle();
    world.assert_all_cut();
    assert_eq!(identities(&world), [Identity::FIRST]);
    world.app().spec.replicas = 1;
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST]);
    world.assert_all_told_apart();
}

#[test]
fn replicas_that_a_new_key_tells_apart_are_parted_before_the_identity_is_cut() {
    let mut world = World::with_app(3);
    world.set_label("tier", "front");
    world.settle();
    // One of the next generation is there, and does not come up.
    world.set_label("tier", "back");
    let actions = world.plan();
    world.carry_out(actions);
    let is_new = |replica: &&Replica| replica.metadata.labels["tier"] == "back";
    let new = world.active().into_iter().find(is_new).unwrap().metadata.name.clone();
    let replica = |world: &World| {
        let found = world.snapshot.replicas.iter().find(|replica| replica.metadata.name == new);
        found.unwrap().clone()
    };
    world.snapshot.replicas.iter_mut().for_each(|replica| replica.status.identity = Some(Identity::FIRST));
    assert_eq!(replica(&world).spec.identity, Identity::FIRST);

    world.name_keys(&["tier"]);
    let actions = world.plan();
    assert!(!actions.iter().any(|action| matches!(action, Action::CutIdentity(_))), "{actions:?}");
    world.carry_out(actions);
    assert_eq!(replica(&world).spec.identity, Identity::FIRST + 1);
    world.assert_all_told_apart();
    // Its node still has it as the first, so that nothing is cut, and nothing removed.
    let actions = world.plan();
    assert_eq!(actions, []);

    let told = world.snapshot.replicas.iter_mut().find(|replica| replica.metadata.name == new).unwrap();
    told.status.identity = Some(Identity::FIRST + 1);
    let actions = world.plan();
    assert!(matches!(actions.as_slice(), [Action::CutIdentity(_)]), "{actions:?}");
    world.carry_out(actions);
    world.assert_all_told_apart();
    world.assert_all_cut();
}

#[test]
fn a_replica_that_is_lost_with_its_node_keeps_no_identity_from_being_cut() {
    let mut world = World::with_app(2);
    world.set_label("tier", "front");
    world.settle();
    world.set_label("tier", "back");
    let actions = world.plan();
    world.carry_out(actions);
    let is_new = |replica: &&mut Replica| replica.metadata.labels["tier"] == "back";
    let new = world.snapshot.replicas.iter_mut().find(is_new).unwrap();
    (new.spec.node, new.status.identity) = ("gone".into(), Some(Identity::FIRST));
    world.name_keys(&["tier"]);
    let actions = world.plan();
    assert!(actions.iter().any(|action| matches!(action, Action::CutIdentity(_))), "{actions:?}");
}

#[test]
fn an_identity_that_is_cut_by_more_than_policies_name_is_good_as_long_as_it_fits() {
    let mut world = World::with_app(1);
    world.name_keys(&["tier", "zone"]);
    world.set_label("tier", "front");
    world.settle();
    world.name_keys(&["tier"]);
    world.app().spec.template.containers[0].image = "nginx:2".into();
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST]);
    world.set_label("zone", "a");
    world.settle();
    world.set_label("zone", "b");
    world.settle();
    assert_eq!(identities(&world), [Identity::FIRST + 1]);
}

proptest! {
    /// Whatever is asked in whatever order, it ends with exactly what was asked last, and a plan that was carried out
    /// leaves nothing to do.
    #[test]
    fn any_history_ends_with_what_was_asked_last(
        steps in prop::collection::vec(
            (0_u32..6, 0_usize..4, any::<bool>(), any::<bool>(), prop::option::of(0..4_usize)), 1..30
        )
    ) {
        let mut world = World::with_app(1);
        for (replicas, come_up, retemplate, relabel, named) in steps {
            world.app().spec.replicas = replicas;
            if retemplate {
                let image = format!("nginx:{}", world.made);
                world.app().spec.template.containers[0].image = image;
            }
            if relabel {
                let value = format!("{}", world.made % 3);
                world.app().spec.template.labels.insert("tier".into(), value);
            }
            if let Some(named) = named {
                world.name_keys(&["tier", "zone"][..named.min(2)]);
            }
            let actions = world.plan();
            world.carry_out(actions);
            world.assert_all_told_apart();
            let settled = world.plan().iter().all(|a| !matches!(a, Action::SetEndpoints { .. }));
            prop_assert!(settled);
            if come_up > 1 {
                world.tell_identities();
            }
            for i in 0..come_up {
                world.bring_up(i);
            }
            if come_up % 2 == 0 {
                world.take_down();
            }
        }
        world.settle();
        world.assert_all_cut();
        let wanted = world.snapshot.apps[0].spec.replicas as usize;
        let hash = hash_of(&world.snapshot.apps[0]);
        prop_assert_eq!(world.active().len(), wanted);
        prop_assert!(world.active().iter().all(|r| r.spec.template_hash == hash));
        prop_assert_eq!(world.snapshot.services[0].status.endpoints.len(), wanted);
        world.take_down();
        world.settle();
        let mut idle = identities(&world);
        idle.retain(|number| world.active().iter().all(|replica| replica.spec.identity != *number));
        prop_assert!(idle.len() <= usize::from(wanted == 0), "{idle:?}");
    }
}
