//! Policies that say more than a NetworkPolicy.

use hivemind_model::{
    Entity, ErrorCode, ExtendedPeer, ExtendedPolicySpec, IcmpMessage, PolicyAction, PolicyPeer, PolicyPort,
    PolicyType, PortRef, Problems,
};

use super::{
    COMBINATIONS_MAX, PEERS_MAX, RULES_MAX, check_count, check_types, domain_name, join, peer, port, selector,
};

/// A rule of either direction.
struct Rule<'a> {
    action: PolicyAction,
    ports: &'a [PolicyPort],
    icmp: &'a [IcmpMessage],
    peers: &'a [ExtendedPeer],
}

pub(super) fn check(at: &str, spec: &ExtendedPolicySpec, problems: &mut Problems) {
    selector::check(&join(at, "podSelector"), &spec.pod_selector, problems);
    check_types(at, &spec.policy_types, problems);
    let ingress = spec.ingress.iter().map(|rule| Rule {
        action: rule.action,
        ports: &rule.ports,
        icmp: &rule.icmp,
        peers: &rule.from,
    });
    check_rules(&join(at, "ingress"), PolicyType::Ingress, ingress, problems);
    let egress = spec.egress.iter().map(|rule| Rule {
        action: rule.action,
        ports: &rule.ports,
        icmp: &rule.icmp,
        peers: &rule.to,
    });
    check_rules(&join(at, "egress"), PolicyType::Egress, egress, problems);
}

fn check_rules<'a>(
    at: &str,
    direction: PolicyType,
    rules: impl ExactSizeIterator<Item = Rule<'a>>,
    problems: &mut Problems,
) {
    check_count(at, rules.len(), RULES_MAX, "rules", problems);
    let mut combinations = 0_usize;
    for (i, rule) in rules.enumerate().take(RULES_MAX) {
        let speech = rule.ports.len().saturating_add(rule.icmp.len()).max(1);
        combinations = combinations.saturating_add(speech.saturating_mul(rule.peers.len().max(1)));
        check_rule(&format!("{at}[{i}]"), direction, &rule, problems);
    }
    check_count(at, combinations, COMBINATIONS_MAX, "combinations of peers and ports", problems);
}

fn check_rule(at: &str, direction: PolicyType, rule: &Rule<'_>, problems: &mut Problems) {
    let peers_field = join(at, if direction == PolicyType::Ingress { "from" } else { "to" });
    check_count(&join(at, "ports"), rule.ports.len(), PEERS_MAX, "ports", problems);
    check_count(&join(at, "icmp"), rule.icmp.len(), PEERS_MAX, "messages", problems);
    check_count(&peers_field, rule.peers.len(), PEERS_MAX, "peers", problems);
    for (j, said) in rule.ports.iter().enumerate().take(PEERS_MAX) {
        port::check(&format!("{at}.ports[{j}]"), said, problems);
    }
    for (j, message) in rule.icmp.iter().enumerate().take(PEERS_MAX) {
        check_message(&format!("{at}.icmp[{j}]"), *message, problems);
    }
    for (j, said) in rule.peers.iter().enumerate().take(PEERS_MAX) {
        let field = format!("{peers_field}[{j}]");
        check_peer(&field, said, problems);
        if said.domain_name.is_some() {
            check_domain_rule(&join(&field, "domainName"), direction, rule.action, problems);
        }
        if direction == PolicyType::Egress {
            check_named(&field, rule.ports, said, problems);
        }
    }
}

fn check_message(at: &str, message: IcmpMessage, problems: &mut Problems) {
    for (field, number) in [("type", message.kind), ("code", message.code)] {
        if let Some(number) = number.filter(|number| !(0..=255).contains(number)) {
            let what = format!("{field} {number} does not exist");
            problems.add(ErrorCode::OutOfRange, join(at, field), what, "use 0 to 255");
        }
    }
    if message.kind.is_none() && message.code.is_some() {
        let hint = "say the type that it is of: codes mean something else in each";
        problems.add(ErrorCode::OutOfRange, join(at, "code"), "code without type", hint);
    }
}

fn check_peer(at: &str, said: &ExtendedPeer, problems: &mut Problems) {
    let ExtendedPeer { pod_selector, namespace_selector, ip_block, entity, domain_name } = said;
    let has_selector = pod_selector.is_some() || namespace_selector.is_some();
    let count = [has_selector, ip_block.is_some(), entity.is_some(), domain_name.is_some()];
    match count.into_iter().filter(|is| *is).count() {
        0 => problems.add(
            ErrorCode::InvalidSelector,
            at,
            "the peer says nothing",
            "give podSelector, namespaceSelector, ipBlock, entity or domainName; for everybody leave the list of \
             peers out",
        ),
        1 => {}
        _ => problems.add(
            ErrorCode::InvalidSelector,
            at,
            "of selectors, ipBlock, entity and domainName a peer has one",
            "make several peers of it: a connection has to match one of them",
        ),
    }
    peer::check_parts(
        at,
        &PolicyPeer {
            pod_selector: pod_selector.clone(),
            namespace_selector: namespace_selector.clone(),
            ip_block: ip_block.clone(),
        },
        problems,
    );
    if let Some(name) = domain_name {
        domain_name::check(&join(at, "domainName"), name, problems);
    }
}

/// Names are learned from the answers that replicas get, so they say who is called, and not who calls; and a name that was not
/// asked for denies nothing.
fn check_domain_rule(field: &str, direction: PolicyType, action: PolicyAction, problems: &mut Problems) {
    if direction == PolicyType::Ingress {
        let hint = "use ipBlock for who calls from outside";
        problems.add(ErrorCode::Unsupported, field, "a domain's name can be called, but does not call", hint);
    } else if action == PolicyAction::Deny {
        let hint = "allow the names that are meant: what no rule allows is denied";
        problems.add(ErrorCode::Unsupported, field, "a domain's name can be allowed, but not denied", hint);
    }
}

/// Only replicas have ports with names.
fn check_named(field: &str, ports: &[PolicyPort], said: &ExtendedPeer, problems: &mut Problems) {
    let has_names = ports.iter().any(|port| matches!(port.port, Some(PortRef::Name(_))));
    let is_address = said.ip_block.is_some() || said.domain_name.is_some();
    let is_other = matches!(said.entity, Some(Entity::Host | Entity::Node | Entity::World));
    if has_names && (is_address || is_other) {
        let what = "only replicas have ports with names, and this peer is none";
        problems.add(ErrorCode::InvalidSelector, field, what, "give the number, or make two rules of it");
    }
}
