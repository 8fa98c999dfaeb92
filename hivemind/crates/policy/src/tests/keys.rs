//! Identities that tell replicas apart by some of their labels only.

use std::collections::BTreeSet;

use hivemind_model::{
    App, AppService, AppSpec, AppStatus, Identity, LabelExpression, LabelOperator, LabelSelector, Metadata,
    NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyType, Replica, ReplicaSpec, ReplicaStatus, Template,
};
use proptest::{collection::vec, prelude::*};

use super::{generate, identity, labels, laws::all_tables, policy, selector};
use crate::{LabelKeys, OtherEnd, Speaks, World, judge, uncut};

const HTTP: Speaks = Speaks { protocol: 6, port: 80 };

fn cut(mut identity: Identity, keys: &[&str]) -> Identity {
    let keys: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    identity.spec.labels.retain(|key, _| keys.contains(key));
    identity.spec.keys = Some(keys);
    identity
}

/// Of namespace blue: `web` takes connections from those that `from` selects only.
fn guard(number: u32, from: LabelSelector) -> NetworkPolicy {
    let peer = PolicyPeer { pod_selector: Some(from), ..PolicyPeer::default() };
    let rule = hivemind_model::IngressRule { ports: Vec::new(), from: vec![peer] };
    let spec = NetworkPolicySpec {
        pod_selector: selector(&[("app", "web")]),
        policy_types: vec![PolicyType::Ingress],
        ingress: vec![rule],
        egress: Vec::new(),
    };
    policy(number, "blue", spec)
}

fn lacks(key: &str) -> LabelSelector {
    let expression =
        LabelExpression { key: key.to_owned(), operator: LabelOperator::DoesNotExist, values: Vec::new() };
    LabelSelector { match_expressions: vec![expression], ..LabelSelector::default() }
}

fn reaches_web(world: &World, from: u32) -> bool {
    let other = OtherEnd { identity: from, address: [10, 200, 0, 9].into() };
    judge(world, 256, PolicyType::Ingress, other, HTTP).allowed
}

fn web_and_two() -> World {
    let mut world = World::new();
    world.set_identity(&cut(identity(256, "blue", &[("app", "web")]), &["app"]));
    world.set_identity(&cut(identity(257, "blue", &[("app", "shop"), ("tier", "front")]), &["app"]));
    world.set_identity(&cut(identity(258, "blue", &[("app", "spy"), ("tier", "back")]), &["app"]));
    world
}

#[test]
fn keys_matter_where_a_policy_can_mean_replicas_by_them() {
    let mut everywhere = guard(2, selector(&[("zone", "a")]));
    let hivemind_model::PolicySpec::NetworkPolicy(spec) = &mut everywhere.spec else { unreachable!() };
    spec.ingress[0].from[0].namespace_selector = Some(LabelSelector::default());
    let keys = LabelKeys::of([&guard(1, lacks("tier")), &everywhere]);
    let of = |namespace: &str| keys.in_namespace(namespace).into_iter().collect::<Vec<_>>();
    assert_eq!(of("blue"), ["app", "tier", "zone"]);
    assert_eq!(of("green"), ["zone"]);
}

#[test]
fn a_policy_comes_into_force_when_every_identity_is_cut_by_its_keys_and_the_one_before_it_stays_until_then() {
    let mut world = web_and_two();
    assert!(!world.set_policy(&guard(1, selector(&[("app", "shop")]))).is_empty());
    assert!(reaches_web(&world, 257) && !reaches_web(&world, 258));

    // Told by what the identities say, both would lack the label.
    assert!(world.set_policy(&guard(1, lacks("tier"))).is_empty());
    assert!(world.holds_back("blue", "policy-1"));
    assert!(reaches_web(&world, 257) && !reaches_web(&world, 258));

    world.set_identity(&cut(identity(256, "blue", &[("app", "web")]), &["app", "tier"]));
    let front = identity(257, "blue", &[("app", "shop"), ("tier", "front")]);
    world.set_identity(&cut(front, &["app", "tier"]));
    assert!(world.holds_back("blue", "policy-1"));
    let back = identity(258, "blue", &[("app", "spy"), ("tier", "back")]);
    let touched = world.set_identity(&cut(back, &["app", "tier"]));
    assert!(touched.contains(&256));
    assert_eq!(world.held_back().count(), 0);
    assert!(!reaches_web(&world, 257) && !reaches_web(&world, 258));
}

#[test]
fn a_policy_of_another_namespace_waits_for_none_of_these_identities() {
    let mut world = web_and_two();
    let mut elsewhere = guard(1, lacks("tier"));
    elsewhere.metadata.namespace = "green".to_owned();
    world.set_policy(&elsewhere);
    assert_eq!(world.held_back().count(), 0);
}

#[test]
fn an_identity_that_is_not_cut_by_what_matters_is_nobody_until_it_is() {
    let mut world = World::new();
    world.set_identity(&cut(identity(256, "blue", &[("app", "web")]), &["app", "tier"]));
    world.set_policy(&guard(1, lacks("tier")));
    let front = identity(257, "blue", &[("app", "shop"), ("tier", "front")]);
    world.set_identity(&cut(front.clone(), &["app"]));
    assert!(world.identity(257).is_none() && !reaches_web(&world, 257));
    world.set_identity(&cut(front.clone(), &["app", "tier"]));
    assert!(world.identity(257).is_some() && !reaches_web(&world, 257));

    // What nobody names any more is waited for no more.
    world.set_identity(&cut(front, &["app"]));
    assert!(world.identity(257).is_none());
    world.remove_policy("blue", "policy-1");
    assert!(world.identity(257).is_some());
}

#[test]
fn a_policy_that_is_held_back_can_be_deleted_with_the_one_that_is_in_force() {
    let mut world = web_and_two();
    world.set_policy(&guard(1, selector(&[("app", "shop")])));
    world.set_policy(&guard(1, lacks("tier")));
    world.remove_policy("blue", "policy-1");
    assert_eq!((world.held_back().count(), world.policies().count()), (0, 0));
    // And taken back.
    world.set_policy(&guard(1, selector(&[("app", "shop")])));
    world.set_policy(&guard(1, lacks("tier")));
    world.set_policy(&guard(1, selector(&[("app", "shop")])));
    assert_eq!((world.held_back().count(), world.policies().count()), (0, 1));
}

#[test]
fn what_is_in_force_stays_when_everything_is_read_anew() {
    let mut before = web_and_two();
    before.set_policy(&guard(1, selector(&[("app", "shop")])));
    let web = cut(identity(256, "blue", &[("app", "web")]), &["app"]);
    let shop = cut(identity(257, "blue", &[("app", "shop"), ("tier", "front")]), &["app"]);

    // The policy became one that cannot be decided yet.
    let after = before.succeeded_by(&[], [&web, &shop], &[&guard(1, lacks("tier"))]);
    assert!(after.holds_back("blue", "policy-1"));
    assert!(reaches_web(&after, 257) && !reaches_web(&after, 9_999));

    // It is as it was, and there is an identity that is not cut by what it names: it is that one that waits.
    let coarse = cut(identity(258, "blue", &[("app", "spy")]), &[]);
    let same = guard(1, selector(&[("app", "shop")]));
    let after = before.succeeded_by(&[], [&web, &shop, &coarse], &[&same]);
    assert_eq!((after.held_back().count(), after.identity(258)), (0, None));
    assert!(reaches_web(&after, 257) && !reaches_web(&after, 258));

    // What is deleted meanwhile is gone, and what is new is there.
    let after = before.succeeded_by(&[], [&web, &shop], &[&guard(2, selector(&[("app", "spy")]))]);
    assert_eq!(after.policies().map(|policy| policy.status.number).collect::<Vec<_>>(), [2]);
}

fn replica(name: &str, identity: u32, pairs: &[(&str, &str)]) -> Replica {
    let spec = ReplicaSpec {
        app: "app".to_owned(),
        node: "one".to_owned(),
        identity,
        template_hash: String::new(),
        template: Template::default(),
    };
    let mut metadata = Metadata::new("blue", name);
    metadata.labels = labels(pairs);
    Replica { metadata, spec, status: ReplicaStatus::default() }
}

#[test]
fn uncut_identities_stand_for_the_labels_of_their_replicas() {
    let (front, back) = ([("app", "shop"), ("tier", "front")], [("app", "shop"), ("tier", "back")]);
    let known = [
        cut(identity(300, "blue", &front), &["app"]),
        cut(identity(301, "blue", &[("app", "spy")]), &["app"]),
        cut(identity(302, "blue", &[("app", "idle")]), &["app"]),
        identity(303, "blue", &[("app", "old")]),
    ];
    let mut replicas = [
        replica("a", 300, &front),
        replica("b", 300, &back),
        replica("c", 300, &front),
        replica("d", 301, &[("app", "spy"), ("tier", "back")]),
        replica("e", 303, &[("app", "old")]),
    ];
    let template = Template { labels: labels(&[("app", "idle"), ("tier", "none")]), ..Template::default() };
    let spec = AppSpec {
        replicas: 0,
        hostnames: Vec::new(),
        service: AppService::default(),
        depends_on: Vec::new(),
        template,
    };
    let app = App { metadata: Metadata::new("blue", "app"), spec, status: AppStatus::default() };
    let whole = uncut(&known, &mut replicas, &[app]);
    let numbers = replicas.each_ref().map(|replica| replica.spec.identity);
    assert_eq!((numbers[0], numbers[2], numbers[3], numbers[4]), (300, 300, 301, 303));
    assert_eq!(numbers[1], Identity::LAST);
    for replica in &replicas {
        let of = whole.iter().find(|identity| identity.spec.number == replica.spec.identity).unwrap();
        assert_eq!((&of.spec.labels, &of.spec.keys), (&replica.metadata.labels, &None));
    }
    let idle = whole.iter().find(|identity| identity.spec.number == 302).unwrap();
    assert_eq!(idle.spec.labels, labels(&[("app", "idle"), ("tier", "none")]));
    assert_eq!(whole.len(), 5);
}

proptest! {
    #[test]
    fn what_no_policy_names_makes_no_difference(world in generate::world()) {
        let keys = LabelKeys::of(world.policies());
        let mut coarse = World::new();
        for name in ["blue", "green", "hivemind-system"] {
            let mut namespace = hivemind_model::Namespace::new(name);
            namespace.metadata.labels = (*world.namespace_labels(name)).clone();
            coarse.set_namespace(&namespace);
        }
        coarse.take_surroundings(&world);
        for spec in world.identities().filter(|spec| spec.number >= Identity::FIRST) {
            let mut identity = identity(spec.number, &spec.namespace, &[]);
            identity.spec = spec.clone();
            let matter = keys.in_namespace(&spec.namespace);
            coarse.set_identity(&cut(identity, &matter.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        world.policies().for_each(|policy| drop(coarse.set_policy(policy)));
        prop_assert_eq!(coarse.held_back().count(), 0);
        prop_assert_eq!(all_tables(&coarse), all_tables(&world));
    }

    #[test]
    fn in_every_world_all_identities_are_cut_by_all_keys_that_its_policies_name(
        start in generate::world(), changes in vec(generate::change(), 0..12)
    ) {
        let mut world = start;
        for change in changes {
            change.carry_out(&mut world);
            let keys = LabelKeys::of(world.policies());
            for spec in world.identities() {
                prop_assert!(keys.in_namespace(&spec.namespace).iter().all(|key| spec.knows(key)), "{spec:?}");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_without_need(start in generate::world(), changes in vec(generate::change(), 0..12)) {
        let mut world = start;
        for change in changes {
            change.carry_out(&mut world);
            for (namespace, name) in world.held_back() {
                let mut other = world.clone();
                let policy = world.keys.policies[&(namespace.to_owned(), name.to_owned())].clone();
                prop_assert!(!other.decides(&policy));
                other.set_policy(&policy);
                prop_assert!(other.holds_back(namespace, name));
            }
        }
    }
}
