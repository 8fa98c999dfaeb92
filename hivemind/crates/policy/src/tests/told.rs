//! What authors are told of valid policies.

use hivemind_model::{
    EgressRule, ErrorCode, IngressRule, LabelSelector, NetworkPolicy, NetworkPolicySpec, PolicyPeer,
    PolicyPort, PolicyProtocol, PolicyType, PortRef, Problem, SYSTEM_NAMESPACE,
};

use super::{identity, policy, selector};
use crate::{World, warnings};

fn world() -> World {
    World::of(&[], &[identity(256, "default", &[("app", "web")])], &[])
}

/// What the author of one policy is told.
fn told(policy: &NetworkPolicy, world: &World) -> Vec<Problem> {
    warnings(&[policy], world).remove(0)
}

fn fields(spec: NetworkPolicySpec) -> Vec<String> {
    let found = told(&policy(1, "default", spec), &world());
    assert!(found.iter().all(|warning| warning.code == ErrorCode::PolicyWarning && !warning.hint.is_empty()));
    found.into_iter().map(|warning| warning.field).collect()
}

fn to_dns() -> EgressRule {
    let peer = PolicyPeer {
        pod_selector: Some(selector(&[("app", "dns")])),
        namespace_selector: Some(selector(&[("kubernetes.io/metadata.name", SYSTEM_NAMESPACE)])),
        ip_block: None,
    };
    let port = PolicyPort { protocol: PolicyProtocol::Udp, port: Some(PortRef::Number(53)), end_port: None };
    EgressRule { ports: vec![port], to: vec![peer] }
}

#[test]
fn a_policy_that_cuts_replicas_off_names_is_told_unless_it_lets_them_ask() {
    let mut spec =
        NetworkPolicySpec { policy_types: vec![PolicyType::Egress], ..NetworkPolicySpec::default() };
    assert_eq!(fields(spec.clone()), ["spec.egress"]);
    spec.egress = vec![to_dns()];
    assert_eq!(fields(spec.clone()), [""; 0]);
    let block = |cidr: &str| EgressRule {
        ports: Vec::new(),
        to: vec![PolicyPeer {
            ip_block: Some(hivemind_model::IpBlock { cidr: cidr.into(), except: Vec::new() }),
            ..PolicyPeer::default()
        }],
    };
    spec.egress = vec![block("169.254.0.0/16")];
    assert_eq!(fields(spec.clone()), [""; 0], "its address is allowed");
    spec.egress = vec![block("192.0.2.0/24")];
    assert_eq!(fields(spec), ["spec.egress"]);
}

#[test]
fn what_was_cut_off_before_is_not_told_again() {
    let deny = NetworkPolicySpec { policy_types: vec![PolicyType::Egress], ..NetworkPolicySpec::default() };
    let mut world = world();
    world.set_policy(&policy(1, "default", deny.clone()));
    assert!(told(&policy(2, "default", deny.clone()), &world).is_empty());
    assert!(told(&policy(1, "default", deny), &world).is_empty(), "it is as it was");
}

#[test]
fn selectors_that_match_nothing_are_told_with_their_place() {
    let spec = NetworkPolicySpec {
        pod_selector: selector(&[("app", "nobody")]),
        ingress: vec![IngressRule {
            ports: Vec::new(),
            from: vec![
                PolicyPeer { pod_selector: Some(LabelSelector::default()), ..PolicyPeer::default() },
                PolicyPeer { pod_selector: Some(selector(&[("app", "nobody")])), ..PolicyPeer::default() },
            ],
        }],
        ..NetworkPolicySpec::default()
    };
    assert_eq!(fields(spec), ["spec.podSelector", "spec.ingress[0].from[1]"]);
}

#[test]
fn rules_of_a_direction_that_is_not_governed_are_told() {
    let spec = NetworkPolicySpec {
        policy_types: vec![PolicyType::Ingress],
        egress: vec![EgressRule::default()],
        ..NetworkPolicySpec::default()
    };
    assert_eq!(fields(spec), ["spec.egress"]);
}
