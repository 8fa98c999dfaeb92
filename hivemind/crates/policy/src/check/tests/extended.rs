//! Policies that say more than a NetworkPolicy.

use hivemind_model::{
    Entity, ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily,
    IcmpMessage, IpBlock, LabelSelector, NetworkPolicySpec, PolicyAction, PolicyPort, PolicyType, PortRef,
    Problems,
};

use super::{assert_told, of_spec, port};
use crate::check_until;

fn from(peers: Vec<ExtendedPeer>) -> ExtendedPolicySpec {
    let rule = ExtendedIngressRule { from: peers, ..ExtendedIngressRule::default() };
    ExtendedPolicySpec { ingress: vec![rule], ..ExtendedPolicySpec::default() }
}

fn to(action: PolicyAction, peers: Vec<ExtendedPeer>) -> ExtendedPolicySpec {
    let rule = ExtendedEgressRule { action, to: peers, ..ExtendedEgressRule::default() };
    ExtendedPolicySpec { egress: vec![rule], ..ExtendedPolicySpec::default() }
}

fn entity(entity: Entity) -> ExtendedPeer {
    ExtendedPeer { entity: Some(entity), ..ExtendedPeer::default() }
}

fn domain(name: &str) -> ExtendedPeer {
    ExtendedPeer { domain_name: Some(name.to_owned()), ..ExtendedPeer::default() }
}

fn block(cidr: &str) -> ExtendedPeer {
    let ip_block = Some(IpBlock { cidr: cidr.to_owned(), except: Vec::new() });
    ExtendedPeer { ip_block, ..ExtendedPeer::default() }
}

fn replicas() -> ExtendedPeer {
    ExtendedPeer { pod_selector: Some(LabelSelector::default()), ..ExtendedPeer::default() }
}

#[test]
fn a_peer_is_selectors_a_block_an_entity_or_a_domain() {
    let good = vec![replicas(), block("10.0.0.0/8"), entity(Entity::World), domain("*.example.org")];
    assert_told(to(PolicyAction::Allow, good), &[]);
    let two = ExtendedPeer { entity: Some(Entity::Host), ..replicas() };
    let three = ExtendedPeer {
        domain_name: Some("a.org".into()),
        ..ExtendedPeer { entity: Some(Entity::Host), ..block("10.0.0.1/8") }
    };
    let one = "of selectors, ipBlock, entity and domainName a peer has one";
    assert_told(
        to(PolicyAction::Allow, vec![ExtendedPeer::default(), two, three]),
        &[
            ("spec.egress[0].to[0]", "the peer says nothing"),
            ("spec.egress[0].to[1]", one),
            ("spec.egress[0].to[2]", one),
            ("spec.egress[0].to[2].ipBlock.cidr", "\"10.0.0.1/8\" has bits set behind its length"),
        ],
    );
}

#[test]
fn a_domain_can_be_called_and_allowed_and_nothing_else() {
    assert_told(
        from(vec![domain("example.org")]),
        &[("spec.ingress[0].from[0].domainName", "a domain's name can be called, but does not call")],
    );
    assert_told(
        to(PolicyAction::Deny, vec![domain("example.org")]),
        &[("spec.egress[0].to[0].domainName", "a domain's name can be allowed, but not denied")],
    );
    assert_told(
        to(PolicyAction::Allow, vec![domain("a.*.org")]),
        &[("spec.egress[0].to[0].domainName", "\"a.*.org\" is not a domain's name")],
    );
}

#[test]
fn messages_have_types_and_codes_that_exist() {
    let message = |kind, code| IcmpMessage { family: IcmpFamily::IPv4, kind, code };
    let mut spec = from(vec![]);
    spec.ingress[0].icmp = vec![message(None, None), message(Some(0), Some(255)), message(Some(255), None)];
    assert_told(spec.clone(), &[]);
    spec.ingress[0].icmp = vec![message(Some(256), None), message(Some(3), Some(-1)), message(None, Some(4))];
    assert_told(
        spec,
        &[
            ("spec.ingress[0].icmp[0].type", "type 256 does not exist"),
            ("spec.ingress[0].icmp[1].code", "code -1 does not exist"),
            ("spec.ingress[0].icmp[2].code", "code without type"),
        ],
    );
}

#[test]
fn ports_have_no_names_where_no_replica_is_called() {
    let http = PolicyPort { port: Some(PortRef::Name("http".into())), ..PolicyPort::default() };
    let mut spec = to(PolicyAction::Allow, vec![replicas(), entity(Entity::Cluster)]);
    spec.egress[0].ports = vec![port(80, None), http.clone()];
    assert_told(spec.clone(), &[]);
    spec.egress[0].to.extend([block("10.0.0.0/8"), entity(Entity::World)]);
    let message = "only replicas have ports with names, and this peer is none";
    assert_told(spec, &[("spec.egress[0].to[2]", message), ("spec.egress[0].to[3]", message)]);
    let mut own = from(vec![block("10.0.0.0/8"), entity(Entity::World)]);
    own.ingress[0].ports = vec![http];
    assert_told(own, &[]);
}

#[test]
fn types_stand_once_and_counts_are_bounded() {
    let twice = vec![PolicyType::Egress, PolicyType::Egress];
    assert_told(
        ExtendedPolicySpec { policy_types: twice, ..ExtendedPolicySpec::default() },
        &[("spec.policyTypes[1]", "Egress is said twice")],
    );
    let mut many = from(vec![replicas(); 300]);
    many.ingress[0].icmp = vec![IcmpMessage::default(); 300];
    assert_told(
        many,
        &[("spec.ingress", "90000 combinations of peers and ports: more than the 65536 that are possible")],
    );
}

#[test]
fn a_policy_that_has_ended_is_told_as_such() {
    let until = Some("2026-01-01T00:00:00Z".parse().unwrap());
    let policy = of_spec(ExtendedPolicySpec { until, ..ExtendedPolicySpec::default() });
    let at = |now: &str| {
        let mut problems = Problems::default();
        check_until("items[1]", &policy, now.parse().unwrap(), &mut problems);
        problems.into_result().err().map(|error| (error.field.unwrap(), error.message))
    };
    assert_eq!(at("2025-12-31T23:59:59Z"), None);
    let ended = ("items[1].spec.until".to_owned(), "it has ended: 2026-01-01T00:00:00Z is past".to_owned());
    assert_eq!(at("2026-01-01T00:00:00Z"), Some(ended));
    let mut problems = Problems::default();
    let plain = of_spec(NetworkPolicySpec::default());
    check_until("", &plain, "2030-01-01T00:00:00Z".parse().unwrap(), &mut problems);
    assert!(problems.into_result().is_ok());
}
