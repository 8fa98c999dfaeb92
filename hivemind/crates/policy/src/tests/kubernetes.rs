//! The cases of Kubernetes' documentation (Network Policies; Declare Network Policy).

use hivemind_common::policy::{EGRESS, RULE_HOST, RULE_NONE, rule_number};
use hivemind_model::{
    EgressRule, Identity, IngressRule, IpBlock, LabelSelector, NetworkPolicySpec, PolicyPeer, PolicyPort,
    PolicyProtocol, PolicyType, PortRef,
};

use super::{data_path, identity, namespace, policy, selector};
use crate::{OtherEnd, Speaks, World, compile, judge};

const DB: u32 = 256;
const FRONTEND: u32 = 257;
const STRANGER: u32 = 258;
/// In a namespace with `project=myproject`.
const FRIEND: u32 = 259;
/// There, too, and with `role=frontend`.
const FRIENDLY_FRONTEND: u32 = 260;

fn world(specs: &[NetworkPolicySpec]) -> World {
    let identities = [
        identity(DB, "default", &[("role", "db")]),
        identity(FRONTEND, "default", &[("role", "frontend")]),
        identity(STRANGER, "default", &[("app", "stranger")]),
        identity(FRIEND, "friends", &[("app", "friend")]),
        identity(FRIENDLY_FRONTEND, "friends", &[("role", "frontend")]),
    ];
    let namespaces = [namespace("friends", &[("project", "myproject")])];
    let policies: Vec<_> =
        (1..).zip(specs).map(|(number, spec)| policy(number, "default", spec.clone())).collect();
    World::of(&namespaces, &identities, &policies)
}

/// What is decided, by the tables and by the reference, which must agree.
fn decide(
    world: &World,
    whose: u32,
    direction: PolicyType,
    other: (u32, &str),
    speaks: (u8, u16),
) -> (bool, u32) {
    let other = OtherEnd { identity: other.0, address: other.1.parse().unwrap() };
    let speaks = Speaks { protocol: speaks.0, port: speaks.1 };
    let bit = if direction == PolicyType::Egress { EGRESS } else { 0 };
    let tables = compile(whose, world).unwrap();
    data_path::assert_well_formed(&tables);
    let (allowed, rule) = data_path::verdict(&tables, bit, other, speaks);
    let meant = judge(world, whose, direction, other, speaks);
    assert_eq!(allowed, meant.allowed);
    assert!(meant.rules.contains(&rule));
    (allowed, rule)
}

/// Whether `from` reaches a TCP port of the database.
fn reaches_db(world: &World, from: u32, port: u16) -> bool {
    decide(world, DB, PolicyType::Ingress, (from, "10.200.0.9"), (6, port)).0
}

fn spec(pods: LabelSelector, types: &[PolicyType]) -> NetworkPolicySpec {
    NetworkPolicySpec { pod_selector: pods, policy_types: types.to_vec(), ..NetworkPolicySpec::default() }
}

fn from(peers: Vec<PolicyPeer>) -> NetworkPolicySpec {
    let ingress = vec![IngressRule { ports: Vec::new(), from: peers }];
    NetworkPolicySpec { ingress, ..spec(selector(&[("role", "db")]), &[]) }
}

fn pods(labels: &[(&str, &str)]) -> PolicyPeer {
    PolicyPeer { pod_selector: Some(selector(labels)), ..PolicyPeer::default() }
}

fn namespaces(labels: &[(&str, &str)]) -> PolicyPeer {
    PolicyPeer { namespace_selector: Some(selector(labels)), ..PolicyPeer::default() }
}

fn port(protocol: PolicyProtocol, port: i64, end_port: Option<u16>) -> PolicyPort {
    PolicyPort { protocol, port: Some(PortRef::Number(port)), end_port }
}

#[test]
fn without_a_policy_everything_is_allowed() {
    let world = world(&[]);
    assert_eq!(decide(&world, DB, PolicyType::Ingress, (STRANGER, "10.200.0.9"), (6, 80)), (true, RULE_NONE));
    assert_eq!(decide(&world, DB, PolicyType::Egress, (0, "192.0.2.1"), (1, 0)), (true, RULE_NONE));
}

#[test]
fn deny_all_ingress_leaves_egress_and_the_node() {
    let world = world(&[spec(LabelSelector::default(), &[PolicyType::Ingress])]);
    let denied = rule_number(1, 0, None);
    assert_eq!(decide(&world, DB, PolicyType::Ingress, (FRONTEND, "10.200.0.9"), (6, 80)), (false, denied));
    assert_eq!(decide(&world, DB, PolicyType::Ingress, (2, "192.0.2.1"), (17, 80)), (false, denied));
    assert_eq!(decide(&world, DB, PolicyType::Egress, (FRONTEND, "10.200.0.9"), (6, 80)), (true, RULE_NONE));
    assert_eq!(
        decide(&world, DB, PolicyType::Ingress, (Identity::HOST, "192.0.2.7"), (6, 80)),
        (true, RULE_HOST)
    );
    assert!(decide(&world, FRIEND, PolicyType::Ingress, (DB, "10.200.0.9"), (6, 80)).0, "another namespace");
}

#[test]
fn allow_all_wins_over_deny_all() {
    let deny = spec(LabelSelector::default(), &[PolicyType::Ingress]);
    let allow = NetworkPolicySpec { ingress: vec![IngressRule::default()], ..deny.clone() };
    let world = world(&[deny, allow]);
    let rule = rule_number(2, 0, Some(0));
    assert_eq!(decide(&world, DB, PolicyType::Ingress, (STRANGER, "10.200.0.9"), (6, 80)), (true, rule));
    assert_eq!(decide(&world, DB, PolicyType::Ingress, (0, "2001:db8::1"), (132, 1)), (true, rule));
}

#[test]
fn deny_all_egress_reaches_neither_the_world_nor_the_node() {
    let world = world(&[spec(LabelSelector::default(), &[PolicyType::Egress])]);
    for other in [
        (2, "192.0.2.1"),
        (Identity::HOST, "192.0.2.7"),
        (Identity::DNS, "169.254.20.10"),
        (DB, "10.200.0.2"),
    ] {
        assert!(!decide(&world, FRONTEND, PolicyType::Egress, other, (6, 80)).0, "{other:?}");
    }
    assert!(reaches_db(&world, FRONTEND, 80));
}

#[test]
fn the_documentations_example() {
    let block = PolicyPeer {
        ip_block: Some(IpBlock { cidr: "172.17.0.0/16".into(), except: vec!["172.17.1.0/24".into()] }),
        ..PolicyPeer::default()
    };
    let mut example =
        from(vec![block, namespaces(&[("project", "myproject")]), pods(&[("role", "frontend")])]);
    example.policy_types = vec![PolicyType::Ingress, PolicyType::Egress];
    example.ingress[0].ports = vec![port(PolicyProtocol::Tcp, 6379, None)];
    let to = PolicyPeer {
        ip_block: Some(IpBlock { cidr: "10.0.0.0/24".into(), except: Vec::new() }),
        ..PolicyPeer::default()
    };
    example.egress = vec![EgressRule { ports: vec![port(PolicyProtocol::Tcp, 5978, None)], to: vec![to] }];
    let world = world(&[example]);
    for (who, allowed) in
        [(FRONTEND, true), (FRIEND, true), (FRIENDLY_FRONTEND, true), (STRANGER, false), (0, false)]
    {
        assert_eq!(reaches_db(&world, who, 6379), allowed, "{who}");
        assert!(!reaches_db(&world, who, 6380));
    }
    let from_world = |address| decide(&world, DB, PolicyType::Ingress, (2, address), (6, 6379)).0;
    assert!(from_world("172.17.0.255") && from_world("172.17.2.0") && from_world("172.17.255.255"));
    assert!(!from_world("172.17.1.0") && !from_world("172.17.1.255") && !from_world("172.18.0.0"));
    let to_world = |address, port| decide(&world, DB, PolicyType::Egress, (2, address), (6, port)).0;
    assert!(to_world("10.0.0.255", 5978) && !to_world("10.0.1.0", 5978) && !to_world("10.0.0.1", 5979));
}

#[test]
fn two_selectors_in_one_peer_must_both_match_and_in_two_peers_either() {
    let both = PolicyPeer {
        namespace_selector: Some(selector(&[("project", "myproject")])),
        ..pods(&[("role", "frontend")])
    };
    let narrow = world(&[from(vec![both])]);
    let wide = world(&[from(vec![namespaces(&[("project", "myproject")]), pods(&[("role", "frontend")])])]);
    for (who, and, or) in [
        (FRIENDLY_FRONTEND, true, true),
        (FRIEND, false, true),
        (FRONTEND, false, true),
        (STRANGER, false, false),
    ] {
        assert_eq!((reaches_db(&narrow, who, 80), reaches_db(&wide, who, 80)), (and, or), "{who}");
    }
}

#[test]
fn an_empty_namespace_selector_means_all_namespaces_and_none_the_own_one() {
    let own = world(&[from(vec![pods(&[])])]);
    assert!(reaches_db(&own, STRANGER, 80) && !reaches_db(&own, FRIEND, 80) && !reaches_db(&own, 2, 80));
    let all = world(&[from(vec![namespaces(&[])])]);
    assert!(reaches_db(&all, STRANGER, 80) && reaches_db(&all, FRIEND, 80) && !reaches_db(&all, 2, 80));
}

#[test]
fn namespaces_can_be_selected_by_their_names() {
    let world = world(&[from(vec![namespaces(&[("kubernetes.io/metadata.name", "friends")])])]);
    assert!(reaches_db(&world, FRIEND, 80) && !reaches_db(&world, FRONTEND, 80));
}

#[test]
fn a_range_of_ports_includes_both_its_ends() {
    let mut ranged = from(vec![]);
    ranged.ingress[0].ports =
        vec![port(PolicyProtocol::Tcp, 32_000, Some(32_768)), port(PolicyProtocol::Udp, 53, None)];
    let world = world(&[ranged]);
    for (number, allowed) in
        [(31_999, false), (32_000, true), (32_500, true), (32_768, true), (32_769, false)]
    {
        assert_eq!(reaches_db(&world, STRANGER, number), allowed, "{number}");
    }
    let udp = |port| decide(&world, DB, PolicyType::Ingress, (STRANGER, "10.200.0.9"), (17, port)).0;
    assert!(udp(53) && !udp(32_500));
    assert!(
        !decide(&world, DB, PolicyType::Ingress, (STRANGER, "10.200.0.9"), (1, 0)).0,
        "ICMP has no ports"
    );
}

#[test]
fn a_block_matches_the_addresses_of_replicas_too() {
    let block = |cidr: &str| PolicyPeer {
        ip_block: Some(IpBlock { cidr: cidr.into(), except: Vec::new() }),
        ..PolicyPeer::default()
    };
    assert!(reaches_db(&world(&[from(vec![block("10.200.0.0/14")])]), STRANGER, 80));
    assert!(!reaches_db(&world(&[from(vec![block("10.100.0.0/14")])]), STRANGER, 80));
}

#[test]
fn tables_stay_small_where_rules_say_the_same() {
    let rules =
        vec![
            IngressRule { ports: vec![port(PolicyProtocol::Tcp, 80, None)], from: vec![namespaces(&[])] };
            100
        ];
    let mut repeated = from(vec![]);
    repeated.ingress.extend(rules);
    let tables = compile(DB, &world(&[repeated])).unwrap();
    // All may come in by the first rule, the node always may, all may go out.
    assert_eq!(tables.entries.len(), 3);
}
