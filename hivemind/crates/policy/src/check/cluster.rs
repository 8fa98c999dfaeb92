//! Policies of the whole cluster, by the rules of the Kubernetes network policy API.

use std::collections::BTreeSet;

use hivemind_model::{
    ClusterAction, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort, ClusterPortRange, ClusterPorts,
    ClusterProtocol, ClusterSubject, ErrorCode, NamespacedPods, PolicyType, Problems,
};

use super::{check_count, domain_name, join, port, selector};
use crate::cidr;

/// The highest priority.
const PRIORITY_MAX: i64 = 1_000;
/// How many rules a direction may have; peers and protocols a rule; networks and names a peer.
const ITEMS_MAX: usize = 25;
/// How many characters the name of a rule may have.
const RULE_NAME_CHARS_MAX: usize = 100;

/// A rule of either direction.
struct Rule<'a> {
    name: &'a str,
    action: ClusterAction,
    peers: &'a [ClusterPeer],
    protocols: &'a [ClusterProtocol],
}

pub(super) fn check(at: &str, spec: &ClusterNetworkPolicySpec, problems: &mut Problems) {
    if !(0..=PRIORITY_MAX).contains(&spec.priority) {
        let what = format!("priority {} is not 0 to {PRIORITY_MAX}", spec.priority);
        let hint = format!("use 0, which is asked first, to {PRIORITY_MAX}");
        problems.add(ErrorCode::OutOfRange, join(at, "priority"), what, hint);
    }
    check_subject(&join(at, "subject"), &spec.subject, problems);
    let ingress = spec.ingress.iter().map(|rule| Rule {
        name: &rule.name,
        action: rule.action,
        peers: &rule.from,
        protocols: &rule.protocols,
    });
    check_rules(&join(at, "ingress"), PolicyType::Ingress, ingress, problems);
    let egress = spec.egress.iter().map(|rule| Rule {
        name: &rule.name,
        action: rule.action,
        peers: &rule.to,
        protocols: &rule.protocols,
    });
    check_rules(&join(at, "egress"), PolicyType::Egress, egress, problems);
}

fn check_subject(at: &str, subject: &ClusterSubject, problems: &mut Problems) {
    let ClusterSubject { namespaces, pods } = subject;
    let hint = "give namespaces or pods; for all replicas namespaces: {}";
    exactly_one(
        at,
        ErrorCode::InvalidSelector,
        "the subject",
        &[namespaces.is_some(), pods.is_some()],
        hint,
        problems,
    );
    if let Some(namespaces) = namespaces {
        selector::check(&join(at, "namespaces"), namespaces, problems);
    }
    check_pods(at, pods.as_ref(), problems);
}

fn check_pods(at: &str, pods: Option<&NamespacedPods>, problems: &mut Problems) {
    if let Some(NamespacedPods { namespace_selector, pod_selector }) = pods {
        selector::check(&format!("{at}.pods.namespaceSelector"), namespace_selector, problems);
        selector::check(&format!("{at}.pods.podSelector"), pod_selector, problems);
    }
}

/// Tells if not exactly one of the fields of `what` is there.
fn exactly_one(at: &str, code: ErrorCode, what: &str, fields: &[bool], hint: &str, problems: &mut Problems) {
    match fields.iter().filter(|is_there| **is_there).count() {
        0 => problems.add(code, at, format!("{what} says nothing"), hint),
        1 => {}
        count => problems.add(code, at, format!("{what} has {count} fields where one is possible"), hint),
    }
}

fn check_rules<'a>(
    at: &str,
    direction: PolicyType,
    rules: impl ExactSizeIterator<Item = Rule<'a>>,
    problems: &mut Problems,
) {
    check_count(at, rules.len(), ITEMS_MAX, "rules", problems);
    for (i, rule) in rules.enumerate().take(ITEMS_MAX) {
        check_rule(&format!("{at}[{i}]"), direction, &rule, problems);
    }
}

fn check_rule(at: &str, direction: PolicyType, rule: &Rule<'_>, problems: &mut Problems) {
    let peers_field = join(at, if direction == PolicyType::Ingress { "from" } else { "to" });
    check_rule_name(&join(at, "name"), rule.name, problems);
    if rule.peers.is_empty() {
        let hint = "name at least one peer; for all replicas namespaces: {}";
        problems.add(ErrorCode::OutOfRange, peers_field.as_str(), "a rule has no peers", hint);
    }
    check_count(&peers_field, rule.peers.len(), ITEMS_MAX, "peers", problems);
    check_count(&join(at, "protocols"), rule.protocols.len(), ITEMS_MAX, "protocols", problems);
    for (j, peer) in rule.peers.iter().enumerate().take(ITEMS_MAX) {
        check_peer(&format!("{peers_field}[{j}]"), direction, rule.action, peer, problems);
    }
    let of_address = rule.peers.iter().position(is_address).filter(|_| direction == PolicyType::Egress);
    for (j, protocol) in rule.protocols.iter().enumerate().take(ITEMS_MAX) {
        let field = format!("{at}.protocols[{j}]");
        check_protocol(&field, protocol, problems);
        if let (Some(peer), Some(_)) = (of_address, &protocol.destination_named_port) {
            let what =
                format!("only replicas have ports with names, and {peers_field}[{peer}] is about addresses");
            let hint = "give the number, or make two rules of it";
            problems.add(ErrorCode::InvalidSelector, join(&field, "destinationNamedPort"), what, hint);
        }
    }
}

fn check_rule_name(field: &str, name: &str, problems: &mut Problems) {
    let count = name.chars().count();
    if count > RULE_NAME_CHARS_MAX {
        let what = format!("a name of {count} characters: more than {RULE_NAME_CHARS_MAX}");
        problems.add(ErrorCode::InvalidName, field, what, "shorten it");
    }
    if name.chars().any(char::is_control) {
        let hint = "leave out what is no text, line breaks too";
        problems.add(ErrorCode::InvalidName, field, "a name with control characters", hint);
    }
}

/// Whether a peer means addresses, and not replicas.
fn is_address(peer: &ClusterPeer) -> bool {
    peer.nodes.is_some() || !peer.networks.is_empty() || !peer.domain_names.is_empty()
}

fn check_peer(
    at: &str,
    direction: PolicyType,
    action: ClusterAction,
    peer: &ClusterPeer,
    problems: &mut Problems,
) {
    let ClusterPeer { namespaces, pods, nodes, networks, domain_names } = peer;
    let has = [
        namespaces.is_some(),
        pods.is_some(),
        nodes.is_some(),
        !networks.is_empty(),
        !domain_names.is_empty(),
    ];
    let hint = match direction {
        PolicyType::Ingress => "give each peer one of namespaces and pods",
        PolicyType::Egress => "give each peer one of namespaces, pods, nodes, networks and domainNames",
    };
    exactly_one(at, ErrorCode::InvalidSelector, "the peer", &has, hint, problems);
    for (field, selector) in [("namespaces", namespaces), ("nodes", nodes)] {
        if let Some(selector) = selector {
            selector::check(&join(at, field), selector, problems);
        }
    }
    check_pods(at, pods.as_ref(), problems);
    check_networks(&join(at, "networks"), networks, problems);
    check_domains(&join(at, "domainNames"), action, domain_names, problems);
    let outside = [("nodes", has[2]), ("networks", has[3]), ("domainNames", has[4])];
    for (field, _) in outside.iter().filter(|(_, is_there)| *is_there && direction == PolicyType::Ingress) {
        let what =
            format!("{field} can be called, but not be told by who calls: it is a peer of egress only");
        let hint = "in from use namespaces or pods";
        problems.add(ErrorCode::Unsupported, join(at, field), what, hint);
    }
}

fn check_networks(at: &str, networks: &[String], problems: &mut Problems) {
    check_count(at, networks.len(), ITEMS_MAX, "networks", problems);
    let mut seen = BTreeSet::new();
    for (i, text) in networks.iter().enumerate().take(ITEMS_MAX) {
        match cidr::parse(text) {
            Err((message, hint)) => problems.add(ErrorCode::InvalidCidr, format!("{at}[{i}]"), message, hint),
            Ok(net) if !seen.insert(net) => {
                let what = format!("{text} is said twice");
                problems.add(ErrorCode::Repeated, format!("{at}[{i}]"), what, "say it once");
            }
            Ok(_) => {}
        }
    }
}

fn check_domains(at: &str, action: ClusterAction, names: &[String], problems: &mut Problems) {
    check_count(at, names.len(), ITEMS_MAX, "names", problems);
    if !names.is_empty() && action != ClusterAction::Accept {
        let what = format!("domain names can be accepted, but not with {action:?}");
        let hint = "accept the names that are meant, and deny the rest by a rule behind it";
        problems.add(ErrorCode::Unsupported, at, what, hint);
    }
    let mut seen = BTreeSet::new();
    for (i, name) in names.iter().enumerate().take(ITEMS_MAX) {
        let field = format!("{at}[{i}]");
        if !seen.insert(name) {
            problems.add(ErrorCode::Repeated, field, format!("{name} is said twice"), "say it once");
        } else {
            domain_name::check(&field, name, problems);
        }
    }
}

fn check_protocol(at: &str, protocol: &ClusterProtocol, problems: &mut Problems) {
    let ClusterProtocol { tcp, udp, sctp, destination_named_port } = protocol;
    let has = [tcp.is_some(), udp.is_some(), sctp.is_some(), destination_named_port.is_some()];
    let hint = "give each entry one of tcp, udp, sctp and destinationNamedPort";
    exactly_one(at, ErrorCode::OutOfRange, "the protocol", &has, hint, problems);
    for (field, ports) in [("tcp", tcp), ("udp", udp), ("sctp", sctp)] {
        if let Some(ports) = ports {
            check_ports(&format!("{at}.{field}"), ports, problems);
        }
    }
    if let Some(name) = destination_named_port {
        port::check_name(&join(at, "destinationNamedPort"), name, problems);
    }
}

fn check_ports(at: &str, ports: &ClusterPorts, problems: &mut Problems) {
    let Some(ClusterPort { number, range }) = &ports.destination_port else {
        let hint = "for all ports write destinationPort: {range: {start: 1, end: 65535}}";
        problems.add(ErrorCode::OutOfRange, at, "the protocol has no destinationPort", hint);
        return;
    };
    let at = join(at, "destinationPort");
    let hint = "give number or range";
    exactly_one(&at, ErrorCode::OutOfRange, "the port", &[number.is_some(), range.is_some()], hint, problems);
    if let Some(number) = number {
        port::check_number(&join(&at, "number"), *number, problems);
    }
    if let Some(ClusterPortRange { start, end }) = range {
        let at = join(&at, "range");
        let before = problems.len();
        port::check_number(&join(&at, "start"), *start, problems);
        port::check_number(&join(&at, "end"), *end, problems);
        if problems.len() == before && start >= end {
            let what = format!("the range from {start} to {end} does not end behind its start");
            let hint = "use a greater end; for one port give number";
            problems.add(ErrorCode::OutOfRange, join(&at, "end"), what, hint);
        }
    }
}
