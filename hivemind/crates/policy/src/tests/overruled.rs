//! What authors are told of rules that others decide before, of equals that contradict each other, and of what a policy that is
//! no NetworkPolicy does in vain.

use hivemind_model::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPorts, ClusterProtocol, ClusterSubject, ClusterTier, Entity, ExtendedEgressRule,
    ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, Identity, IngressRule, LabelSelector, NamedPort,
    NetworkPolicy, NetworkPolicySpec, PolicyAction, PolicyPeer, PolicyPort, PolicyProtocol, PortRef,
    SYSTEM_NAMESPACE,
};

use super::{identity, policy, selector};
use crate::{World, warnings};

fn world() -> World {
    let mut web = identity(Identity::FIRST, "default", &[("app", "web")]);
    web.spec.ports = vec![NamedPort { name: "http".into(), port: 80, protocol: PolicyProtocol::Tcp }];
    World::of(&[], &[web, identity(Identity::FIRST + 1, "default", &[("app", "db")])], &[])
}

/// The field and message of what each of `policies` is told.
fn told(policies: &[&NetworkPolicy]) -> Vec<Vec<(String, String)>> {
    let found = warnings(policies, &world());
    assert!(found.iter().flatten().all(|warning| !warning.hint.is_empty()), "{found:?}");
    let told =
        |found: Vec<hivemind_model::Problem>| found.into_iter().map(|w| (w.field, w.message)).collect();
    found.into_iter().map(told).collect()
}

/// Whether the last of `policies` is told `expected` and nothing else, and the others nothing.
fn assert_last(policies: &[&NetworkPolicy], expected: &[(&str, &str)]) {
    let mut found = told(policies);
    let last = found.pop().unwrap();
    let last: Vec<(&str, &str)> = last.iter().map(|(field, what)| (field.as_str(), what.as_str())).collect();
    assert_eq!(last, expected);
    assert!(found.iter().all(Vec::is_empty), "{found:?}");
}

fn apps(name: &str) -> ClusterPeer {
    let pods =
        hivemind_model::NamespacedPods { pod_selector: selector(&[("app", name)]), ..Default::default() };
    ClusterPeer { pods: Some(pods), ..ClusterPeer::default() }
}

fn all() -> ClusterPeer {
    ClusterPeer { namespaces: Some(LabelSelector::default()), ..ClusterPeer::default() }
}

fn tcp(number: i64) -> ClusterProtocol {
    let port = ClusterPort { number: Some(number), range: None };
    let tcp = Some(ClusterPorts { destination_port: Some(port) });
    ClusterProtocol { tcp, ..ClusterProtocol::default() }
}

/// A policy of the cluster about what all replicas of the namespace `default` take.
fn cluster(
    number: u32,
    tier: ClusterTier,
    priority: i64,
    rules: &[(ClusterAction, ClusterPeer, &[ClusterProtocol])],
) -> NetworkPolicy {
    let namespaces = Some(selector(&[("kubernetes.io/metadata.name", "default")]));
    let rule =
        |(action, peer, protocols): &(ClusterAction, ClusterPeer, &[ClusterProtocol])| ClusterIngressRule {
            name: String::new(),
            action: *action,
            from: vec![peer.clone()],
            protocols: protocols.to_vec(),
        };
    let spec = ClusterNetworkPolicySpec {
        tier,
        priority,
        subject: ClusterSubject { namespaces, pods: None },
        ingress: rules.iter().map(rule).collect(),
        egress: Vec::new(),
    };
    policy(number, SYSTEM_NAMESPACE, spec)
}

/// A NetworkPolicy by which `web` takes connections from `db` only.
fn from_db(number: u32) -> NetworkPolicy {
    let peer = PolicyPeer { pod_selector: Some(selector(&[("app", "db")])), ..PolicyPeer::default() };
    let spec = NetworkPolicySpec {
        pod_selector: selector(&[("app", "web")]),
        ingress: vec![IngressRule { ports: Vec::new(), from: vec![peer] }],
        ..NetworkPolicySpec::default()
    };
    policy(number, "default", spec)
}

#[test]
fn a_rule_is_told_that_one_of_a_higher_tier_decides_all_of_it() {
    let guard = |action, peer| cluster(1, ClusterTier::Admin, 5, &[(action, peer, &[])]);
    for (action, word) in [(ClusterAction::Deny, "Deny"), (ClusterAction::Accept, "Accept")] {
        let what = format!(
            "this rule never has an effect: ClusterNetworkPolicy policy-1, by its rule ingress[0], decides all that it \
             matches before ({word})"
        );
        assert_last(&[&guard(action, all()), &from_db(2)], &[("spec.ingress[0]", &what)]);
    }
    assert_last(&[&guard(ClusterAction::Pass, all()), &from_db(2)], &[]);
    assert_last(&[&guard(ClusterAction::Deny, apps("web")), &from_db(2)], &[]);
    let some = cluster(1, ClusterTier::Admin, 5, &[(ClusterAction::Deny, all(), &[tcp(80)])]);
    assert_last(&[&some, &from_db(2)], &[]);
}

#[test]
fn a_rule_is_told_that_one_asked_before_in_its_tier_decides_all_of_it() {
    use ClusterAction::{Accept, Deny, Pass};
    let first = cluster(1, ClusterTier::Admin, 1, &[(Pass, apps("db"), &[])]);
    let second = cluster(2, ClusterTier::Admin, 2, &[(Deny, apps("db"), &[tcp(80)]), (Deny, all(), &[])]);
    let what = "this rule never has an effect: ClusterNetworkPolicy policy-1, by its rule ingress[0], decides all that it \
                matches before (Pass)";
    assert_last(&[&first, &second], &[("spec.ingress[0]", what)]);
    let own = cluster(3, ClusterTier::Baseline, 0, &[(Accept, all(), &[]), (Deny, apps("db"), &[tcp(80)])]);
    let what = "this rule never has an effect: ClusterNetworkPolicy policy-3, by its rule ingress[0], decides all that it \
                matches before (Accept)";
    assert_last(&[&own], &[("spec.ingress[1]", what)]);
}

#[test]
fn a_rule_of_the_last_tier_is_told_of_policies_that_govern_all_its_replicas() {
    let closed = |number, app: &[(&str, &str)]| {
        policy(
            number,
            "default",
            NetworkPolicySpec { pod_selector: selector(app), ..NetworkPolicySpec::default() },
        )
    };
    let base = cluster(9, ClusterTier::Baseline, 0, &[(ClusterAction::Deny, all(), &[])]);
    assert_last(&[&closed(1, &[("app", "web")]), &base], &[]);
    let what = "this rule never has an effect: policy policy-1 governs the replicas, and what it does not allow is denied \
                before";
    assert_last(&[&closed(1, &[]), &base], &[("spec.ingress[0]", what)]);
}

#[test]
fn what_a_policy_allows_is_told_of_another_that_denies_it() {
    let deny = |audit| {
        let rule = ExtendedIngressRule { action: PolicyAction::Deny, ..ExtendedIngressRule::default() };
        policy(
            1,
            "default",
            ExtendedPolicySpec { ingress: vec![rule], audit, ..ExtendedPolicySpec::default() },
        )
    };
    let what = "this rule never has an effect: policy policy-1, by its rule ingress[0], decides all that it matches before \
                (Deny)";
    assert_last(&[&deny(false), &from_db(2)], &[("spec.ingress[0]", what)]);
    assert_last(&[&deny(true), &from_db(2)], &[]);
}

#[test]
fn equals_that_contradict_each_other_are_told_with_the_one_that_counts() {
    use ClusterAction::{Accept, Deny};
    let one = cluster(1, ClusterTier::Admin, 7, &[(Accept, apps("db"), &[])]);
    let other = |priority, action, protocols: &[ClusterProtocol]| {
        cluster(2, ClusterTier::Admin, priority, &[(action, all(), protocols)])
    };
    let found = told(&[&one, &other(7, Deny, &[tcp(80)])]);
    let expected = [
        "ClusterNetworkPolicy policy-2, by its rule ingress[0], says Deny of some connections of which this says \
             Accept, at the same tier and priority: policy-1 counts, the first by name",
        "ClusterNetworkPolicy policy-1, by its rule ingress[0], says Accept of some connections of which this says \
             Deny, at the same tier and priority: policy-1 counts, the first by name",
    ];
    for (found, what) in found.iter().zip(expected) {
        assert_eq!(found[..], [("spec.ingress[0]".to_owned(), what.to_owned())]);
    }
    for (priority, action) in [(8, Deny), (7, Accept)] {
        assert_last(&[&one, &other(priority, action, &[tcp(80)])], &[]);
    }
}

#[test]
fn policies_of_all_kinds_are_told_of_what_matches_nothing() {
    let nobody = |number| ClusterNetworkPolicySpec {
        subject: ClusterSubject { namespaces: Some(selector(&[("team", "x")])), pods: None },
        priority: number,
        ..ClusterNetworkPolicySpec::default()
    };
    assert_last(&[&policy(1, SYSTEM_NAMESPACE, nobody(1))], &[("spec.subject", "it selects no replica now")]);
    let idle = cluster(1, ClusterTier::Admin, 1, &[(ClusterAction::Deny, apps("none"), &[])]);
    assert_last(&[&idle], &[("spec.ingress[0].from[0]", "no replica matches this peer now")]);
    let named = |name: &str| PolicyPort { port: Some(PortRef::Name(name.into())), ..PolicyPort::default() };
    let rule =
        ExtendedIngressRule { ports: vec![named("http"), named("grpc")], ..ExtendedIngressRule::default() };
    let spec = ExtendedPolicySpec {
        pod_selector: selector(&[("app", "web")]),
        ingress: vec![rule],
        ..ExtendedPolicySpec::default()
    };
    assert_last(
        &[&policy(1, "default", spec)],
        &[("spec.ingress[0].ports[1].port", "no selected replica calls a port of tcp \"grpc\" now")],
    );
    let called = |name: &str| ClusterProtocol {
        destination_named_port: Some(name.into()),
        ..ClusterProtocol::default()
    };
    let rule = ClusterEgressRule {
        to: vec![apps("web")],
        protocols: vec![called("http"), called("grpc")],
        ..ClusterEgressRule::default()
    };
    let spec = ClusterNetworkPolicySpec {
        subject: ClusterSubject { namespaces: Some(LabelSelector::default()), pods: None },
        egress: vec![rule],
        ..ClusterNetworkPolicySpec::default()
    };
    assert_last(
        &[&policy(1, SYSTEM_NAMESPACE, spec)],
        &[(
            "spec.egress[0].protocols[1].destinationNamedPort",
            "no peer of the rule calls a port \"grpc\" now",
        )],
    );
}

#[test]
fn who_denies_the_nodes_own_processes_is_told_that_they_always_pass() {
    let peer = |entity| ExtendedPeer { entity: Some(entity), ..ExtendedPeer::default() };
    let rule = |action| ExtendedIngressRule {
        action,
        from: vec![peer(Entity::Host), peer(Entity::Node), peer(Entity::World)],
        ..ExtendedIngressRule::default()
    };
    let with = |action| ExtendedPolicySpec { ingress: vec![rule(action)], ..ExtendedPolicySpec::default() };
    assert_last(
        &[&policy(1, "default", with(PolicyAction::Deny))],
        &[
            (
                "spec.ingress[0].from[0]",
                "this denies nothing: the node's own processes, health probes among them, always reach its replicas",
            ),
            (
                "spec.ingress[0].from[1]",
                "this denies other nodes only: a node's own processes, health probes among them, always reach its replicas",
            ),
        ],
    );
    assert_last(&[&policy(1, "default", with(PolicyAction::Allow))], &[]);
}

#[test]
fn a_denial_of_any_kind_that_cuts_replicas_off_names_is_told() {
    let rule = ExtendedEgressRule { action: PolicyAction::Deny, ..ExtendedEgressRule::default() };
    let spec = ExtendedPolicySpec { egress: vec![rule], ..ExtendedPolicySpec::default() };
    let what = "replicas of app can no longer ask for names";
    assert_last(&[&policy(1, "default", spec)], &[("spec.egress", what)]);
    let mut guard = cluster(1, ClusterTier::Admin, 1, &[]);
    if let hivemind_model::PolicySpec::ClusterNetworkPolicy(spec) = &mut guard.spec {
        spec.egress.push(ClusterEgressRule {
            action: ClusterAction::Deny,
            to: vec![all()],
            ..Default::default()
        });
    }
    assert_last(&[&guard], &[("spec.egress", what)]);
}
