//! Policies of the whole cluster.

use hivemind_model::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortRange, ClusterPorts, ClusterProtocol, ClusterSubject, LabelSelector, NamespacedPods,
};

use super::assert_told;

fn spec() -> ClusterNetworkPolicySpec {
    let subject = ClusterSubject { namespaces: Some(LabelSelector::default()), pods: None };
    ClusterNetworkPolicySpec { subject, ..ClusterNetworkPolicySpec::default() }
}

fn everyone() -> ClusterPeer {
    ClusterPeer { namespaces: Some(LabelSelector::default()), ..ClusterPeer::default() }
}

fn networks(texts: &[&str]) -> ClusterPeer {
    ClusterPeer { networks: texts.iter().map(|t| (*t).to_owned()).collect(), ..ClusterPeer::default() }
}

fn domains(texts: &[&str]) -> ClusterPeer {
    ClusterPeer { domain_names: texts.iter().map(|t| (*t).to_owned()).collect(), ..ClusterPeer::default() }
}

fn from(peers: Vec<ClusterPeer>) -> ClusterNetworkPolicySpec {
    let rule = ClusterIngressRule { from: peers, ..ClusterIngressRule::default() };
    ClusterNetworkPolicySpec { ingress: vec![rule], ..spec() }
}

fn to(action: ClusterAction, peers: Vec<ClusterPeer>) -> ClusterNetworkPolicySpec {
    let rule = ClusterEgressRule { action, to: peers, ..ClusterEgressRule::default() };
    ClusterNetworkPolicySpec { egress: vec![rule], ..spec() }
}

fn speaks(protocols: Vec<ClusterProtocol>) -> ClusterNetworkPolicySpec {
    let mut spec = from(vec![everyone()]);
    spec.ingress[0].protocols = protocols;
    spec
}

fn tcp(port: ClusterPort) -> ClusterProtocol {
    let tcp = Some(ClusterPorts { destination_port: Some(port) });
    ClusterProtocol { tcp, ..ClusterProtocol::default() }
}

fn range(start: i64, end: i64) -> ClusterProtocol {
    tcp(ClusterPort { number: None, range: Some(ClusterPortRange { start, end }) })
}

fn number(number: i64) -> ClusterProtocol {
    tcp(ClusterPort { number: Some(number), range: None })
}

fn named(name: &str) -> ClusterProtocol {
    ClusterProtocol { destination_named_port: Some(name.to_owned()), ..ClusterProtocol::default() }
}

#[test]
fn a_priority_is_0_to_1000() {
    for good in [0, 1_000] {
        assert_told(ClusterNetworkPolicySpec { priority: good, ..spec() }, &[]);
    }
    for (bad, message) in [(-1, "priority -1 is not 0 to 1000"), (1_001, "priority 1001 is not 0 to 1000")] {
        assert_told(ClusterNetworkPolicySpec { priority: bad, ..spec() }, &[("spec.priority", message)]);
    }
}

#[test]
fn subjects_peers_protocols_and_ports_have_exactly_one_field() {
    let pods = || Some(NamespacedPods::default());
    let none = ClusterNetworkPolicySpec { subject: ClusterSubject::default(), ..spec() };
    assert_told(none, &[("spec.subject", "the subject says nothing")]);
    let mut both = spec();
    both.subject.pods = pods();
    assert_told(both, &[("spec.subject", "the subject has 2 fields where one is possible")]);

    let two = ClusterPeer { pods: pods(), ..everyone() };
    assert_told(
        from(vec![everyone(), ClusterPeer::default(), two]),
        &[
            ("spec.ingress[0].from[1]", "the peer says nothing"),
            ("spec.ingress[0].from[2]", "the peer has 2 fields where one is possible"),
        ],
    );
    let none = tcp(ClusterPort::default());
    let both = tcp(ClusterPort { number: Some(1), range: Some(ClusterPortRange { start: 1, end: 2 }) });
    let two = ClusterProtocol { destination_named_port: Some("http".into()), ..number(80) };
    let bare = ClusterProtocol { udp: Some(ClusterPorts::default()), ..ClusterProtocol::default() };
    assert_told(
        speaks(vec![number(80), ClusterProtocol::default(), two, none, both, bare]),
        &[
            ("spec.ingress[0].protocols[1]", "the protocol says nothing"),
            ("spec.ingress[0].protocols[2]", "the protocol has 2 fields where one is possible"),
            ("spec.ingress[0].protocols[3].tcp.destinationPort", "the port says nothing"),
            (
                "spec.ingress[0].protocols[4].tcp.destinationPort",
                "the port has 2 fields where one is possible",
            ),
            ("spec.ingress[0].protocols[5].udp", "the protocol has no destinationPort"),
        ],
    );
}

#[test]
fn ports_exist_and_ranges_end_behind_their_start() {
    assert_told(speaks(vec![number(1), number(65_535), range(1, 65_535), named("http")]), &[]);
    assert_told(
        speaks(vec![number(0), range(0, 65_536), range(80, 80), named("80"), named("web_1")]),
        &[
            ("spec.ingress[0].protocols[0].tcp.destinationPort.number", "port 0 does not exist"),
            ("spec.ingress[0].protocols[1].tcp.destinationPort.range.start", "port 0 does not exist"),
            ("spec.ingress[0].protocols[1].tcp.destinationPort.range.end", "port 65536 does not exist"),
            (
                "spec.ingress[0].protocols[2].tcp.destinationPort.range.end",
                "the range from 80 to 80 does not end behind its start",
            ),
            ("spec.ingress[0].protocols[3].destinationNamedPort", "the port \"80\" is a text"),
            ("spec.ingress[0].protocols[4].destinationNamedPort", "\"web_1\" is not the name of a port"),
        ],
    );
}

#[test]
fn addresses_and_domains_are_peers_of_egress_only() {
    let nodes = ClusterPeer { nodes: Some(LabelSelector::default()), ..ClusterPeer::default() };
    let peers = vec![networks(&["10.0.0.0/8"]), nodes, domains(&["example.org"])];
    assert_told(to(ClusterAction::Accept, peers.clone()), &[]);
    let only = |field: &str| {
        format!("{field} can be called, but not be told by who calls: it is a peer of egress only")
    };
    assert_told(
        from(peers),
        &[
            ("spec.ingress[0].from[0].networks", &only("networks")),
            ("spec.ingress[0].from[1].nodes", &only("nodes")),
            ("spec.ingress[0].from[2].domainNames", &only("domainNames")),
        ],
    );
}

#[test]
fn networks_are_whole_blocks_and_stand_once() {
    assert_told(
        to(ClusterAction::Deny, vec![networks(&["10.0.0.1/8", "10.0.0.0/8", "10.0.0.0/8", "web", "::/0"])]),
        &[
            ("spec.egress[0].to[0].networks[0]", "\"10.0.0.1/8\" has bits set behind its length"),
            ("spec.egress[0].to[0].networks[2]", "10.0.0.0/8 is said twice"),
            ("spec.egress[0].to[0].networks[3]", "\"web\" is not a block of addresses"),
        ],
    );
}

#[test]
fn domains_are_accepted_only_with_a_star_in_front_only() {
    let good = ["example.org", "*.example.org", "EXAMPLE.org.", "a_b.c-d.example.org"];
    assert_told(to(ClusterAction::Accept, vec![domains(&good)]), &[]);
    for (action, word) in [(ClusterAction::Deny, "Deny"), (ClusterAction::Pass, "Pass")] {
        let message = format!("domain names can be accepted, but not with {word}");
        assert_told(to(action, vec![domains(&["a.org"])]), &[("spec.egress[0].to[0].domainNames", &message)]);
    }
    for bad in ["", "*", "org", "*.*.org", "a.*.org", "*a.org", "a..org", "-a.org", "a b.org", "ä.org"] {
        let message = format!("{bad:?} is not a domain's name");
        assert_told(
            to(ClusterAction::Accept, vec![domains(&[bad])]),
            &[("spec.egress[0].to[0].domainNames[0]", &message)],
        );
    }
}

#[test]
fn ports_have_no_names_beside_addresses() {
    let mut beside = to(ClusterAction::Accept, vec![everyone(), networks(&["10.0.0.0/8"])]);
    beside.egress[0].protocols = vec![number(80), named("http")];
    assert_told(
        beside.clone(),
        &[(
            "spec.egress[0].protocols[1].destinationNamedPort",
            "only replicas have ports with names, and spec.egress[0].to[1] is about addresses",
        )],
    );
    beside.egress[0].to.truncate(1);
    assert_told(beside, &[]);
}

#[test]
fn counts_and_names_of_rules_are_bounded() {
    let many = |count: usize| ClusterNetworkPolicySpec {
        ingress: vec![from(vec![everyone()]).ingress.remove(0); count],
        ..spec()
    };
    assert_told(many(25), &[]);
    assert_told(many(26), &[("spec.ingress", "26 rules: more than the 25 that are possible")]);
    assert_told(from(vec![]), &[("spec.ingress[0].from", "a rule has no peers")]);
    assert_told(
        from(vec![everyone(); 26]),
        &[("spec.ingress[0].from", "26 peers: more than the 25 that are possible")],
    );
    assert_told(
        speaks(vec![number(80); 26]),
        &[("spec.ingress[0].protocols", "26 protocols: more than the 25 that are possible")],
    );
    let blocks: Vec<String> = (0..26).map(|i| format!("10.{i}.0.0/16")).collect();
    let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
    assert_told(
        to(ClusterAction::Deny, vec![networks(&blocks)]),
        &[("spec.egress[0].to[0].networks", "26 networks: more than the 25 that are possible")],
    );
    let called = |name: String| {
        let mut spec = from(vec![everyone()]);
        spec.ingress[0].name = name;
        spec
    };
    assert_told(called("é".repeat(100)), &[]);
    assert_told(
        called("é".repeat(101)),
        &[("spec.ingress[0].name", "a name of 101 characters: more than 100")],
    );
    assert_told(called("a\u{1b}[31m".into()), &[("spec.ingress[0].name", "a name with control characters")]);
}
