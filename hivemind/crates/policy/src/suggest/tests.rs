//! Policies that are suggested, judged by the reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_model::{
    FlowEnd, FlowMinute, FlowShare, FlowVerdict, Identity, NetworkPolicy, PolicySpec, PolicyType,
};
use ipnet::IpNet;
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{OtherEnd, Speaks, judge};

const APPS: [(&str, &str); 5] =
    [("blue", "web"), ("blue", "db"), ("blue", "job"), ("green", "web"), ("green", "api")];
const DOMAINS: [(&str, [u8; 4]); 2] = [("api.example.org", [192, 0, 2, 1]), ("example.net", [192, 0, 2, 2])];
const PORTS: [u16; 5] = [80, 443, 5432, 33_000, 40_000];
const NODES: [&str; 2] = ["one", "two"];

/// An end of a generated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    App(usize),
    Host,
    Node,
    Dns,
    Named(usize),
    Address(u8),
}

#[derive(Clone, Debug)]
struct Talk {
    from: At,
    to: At,
    protocol: &'static str,
    port: u16,
    node: &'static str,
    denied: bool,
}

fn number(app: usize) -> u32 {
    Identity::FIRST + u32::try_from(app).unwrap()
}

fn address(at: At) -> IpAddr {
    match at {
        At::App(app) => [10, 200, 0, u8::try_from(app).unwrap()].into(),
        At::Host => [10, 0, 0, 1].into(),
        At::Node => [10, 0, 0, 2].into(),
        At::Dns => [169, 254, 20, 10].into(),
        At::Named(name) => DOMAINS[name].1.into(),
        At::Address(last) => [203, 0, 113, last].into(),
    }
}

fn other_end(at: At) -> OtherEnd {
    let identity = match at {
        At::App(app) => number(app),
        At::Host => Identity::HOST,
        At::Node => Identity::NODE,
        At::Dns => Identity::DNS,
        At::Named(_) | At::Address(_) => Identity::WORLD,
    };
    OtherEnd { identity, address: address(at) }
}

fn flow_end(at: At, port: Option<u16>) -> FlowEnd {
    let (kind, (namespace, app)) = match at {
        At::App(app) => ("replica", APPS[app]),
        At::Host => ("host", ("", "")),
        At::Node => ("node", ("", "")),
        At::Dns => ("dns", ("", "")),
        At::Named(_) | At::Address(_) => ("world", ("", "")),
    };
    FlowEnd { kind: kind.into(), namespace: namespace.into(), app: app.into(), port, ..FlowEnd::default() }
}

fn minute(talk: &Talk) -> FlowMinute {
    let is_outside = |at: At| matches!(at, At::Node | At::Named(_) | At::Address(_));
    let block = |at| is_outside(at).then(|| IpNet::from(address(at)));
    let domain = match talk.to {
        At::Named(name) => DOMAINS[name].0,
        _ => "",
    };
    let share = FlowShare {
        source: block(talk.from),
        destination: block(talk.to),
        domain: domain.into(),
        connections: 3,
        ..FlowShare::default()
    };
    let has_ports = talk.protocol != "icmp";
    FlowMinute {
        minute: Timestamp::UNIX_EPOCH,
        seconds: 60,
        node: talk.node.into(),
        verdict: if talk.denied { FlowVerdict::Denied } else { FlowVerdict::Allowed },
        source: flow_end(talk.from, None),
        destination: flow_end(talk.to, has_ports.then_some(talk.port)),
        protocol: talk.protocol.into(),
        exact: true,
        connections: 3,
        bytes_sent: 1,
        bytes_received: 1,
        packets_sent: 1,
        packets_received: 1,
        rtt_us: None,
        shares: if is_outside(talk.from) || is_outside(talk.to) { vec![share] } else { Vec::new() },
        untold: 0,
    }
}

fn speaks(talk: &Talk) -> Speaks {
    match talk.protocol {
        "tcp" => Speaks { protocol: 6, port: talk.port },
        "udp" => Speaks { protocol: 17, port: talk.port },
        "sctp" => Speaks { protocol: 132, port: talk.port },
        _ => Speaks { protocol: 1, port: 8 << 8 },
    }
}

fn talks() -> impl Strategy<Value = Vec<Talk>> {
    let app = || (0..APPS.len()).prop_map(At::App);
    let name = || (0..DOMAINS.len()).prop_map(At::Named);
    let end = prop_oneof![
        4 => app(),
        1 => Just(At::Host),
        1 => Just(At::Node),
        1 => name(),
        2 => prop_oneof![(0_u8..4).prop_map(At::Address), any::<u8>().prop_map(At::Address)],
    ];
    let ends = prop_oneof![(app(), end.clone()), (end, app()), (app(), Just(At::Dns)), (app(), name()),];
    let protocol = prop_oneof![4 => Just("tcp"), 2 => Just("udp"), 1 => Just("sctp"), 1 => Just("icmp")];
    let talk = (ends, protocol, select(&PORTS), select(&NODES), proptest::bool::weighted(0.2)).prop_map(
        |((from, to), protocol, port, node, denied)| {
            let (protocol, port) = if to == At::Dns { ("udp", 53) } else { (protocol, port) };
            Talk { from, to, protocol, port, node, denied }
        },
    );
    vec(talk, 1..40)
}

fn world() -> World {
    let identities: Vec<Identity> = APPS
        .iter()
        .enumerate()
        .map(|(i, (namespace, app))| {
            let labels = BTreeMap::from([("app".to_owned(), (*app).to_owned())]);
            Identity::new(number(i), namespace, app, labels)
        })
        .collect();
    let mut world = World::of(&[], &identities, &[]);
    for (name, address) in DOMAINS {
        world.set_domain(name, [IpAddr::from(address)]);
    }
    world
}

fn seen(talks: &[Talk]) -> Seen {
    let mut seen = Seen::new();
    talks.iter().for_each(|talk| seen.add(&minute(talk)));
    seen
}

fn of(namespace: &str) -> SuggestFor {
    let apps = APPS.iter().filter(|(own, _)| *own == namespace).map(|(_, app)| (*app).to_owned()).collect();
    SuggestFor { namespace: namespace.to_owned(), apps }
}

/// What is suggested for all apps, with numbers.
fn suggested(talks: &[Talk]) -> Vec<SuggestedPolicy> {
    let (seen, world) = (seen(talks), world());
    let all =
        ["blue", "green"].into_iter().flat_map(|name| suggest(&of(name), &seen, &world).unwrap().policies);
    let mut all: Vec<SuggestedPolicy> = all.collect();
    for (number, one) in (1..).zip(&mut all) {
        one.policy.status.number = number;
    }
    all
}

fn in_force<'a>(policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> World {
    let mut world = world();
    policies.into_iter().for_each(|policy| drop(world.set_policy(policy)));
    world
}

/// Whether both ends let it pass.
fn passes(world: &World, talk: &Talk) -> bool {
    let ends = [(talk.from, talk.to, PolicyType::Egress), (talk.to, talk.from, PolicyType::Ingress)];
    ends.into_iter().all(|(own, other, direction)| match own {
        At::App(app) => judge(world, number(app), direction, other_end(other), speaks(talk)).allowed,
        _ => true,
    })
}

/// The connections that show that they passed. Those to a replica may be seen by its node and by the source's, and pass if both let
/// them; others pass if their one node lets them.
fn passed(talks: &[Talk]) -> Vec<Talk> {
    let key = |talk: &Talk| minute(&Talk { node: "", denied: false, ..talk.clone() });
    let is_whole = |talk: &Talk| !matches!(talk.to, At::App(_)) || talk.from == At::Host;
    let on = |talk: &Talk, denied| -> BTreeSet<&str> {
        talks.iter().filter(|t| t.denied == denied && key(t) == key(talk)).map(|t| t.node).collect()
    };
    let is = |talk: &&Talk| {
        let (allowed, denied) = (on(talk, false), on(talk, true));
        !talk.denied && (is_whole(talk) || denied.is_empty() || !allowed.is_disjoint(&denied))
    };
    talks.iter().filter(is).cloned().collect()
}

/// The policy without one rule, and without one port of one, as far as its evidence does not say that it is wider.
fn with_less(one: &SuggestedPolicy) -> Vec<NetworkPolicy> {
    let mut all = Vec::new();
    for (direction, evidence) in [(PolicyType::Ingress, &one.ingress), (PolicyType::Egress, &one.egress)] {
        for (rule, _) in evidence.iter().enumerate().filter(|(_, evidence)| evidence.wider.is_empty()) {
            let mut less = one.policy.clone();
            take_rule(&mut less.spec, direction, rule);
            all.push(less);
            for port in 0.. {
                let mut less = one.policy.clone();
                if !take_port(&mut less.spec, direction, rule, port) {
                    break;
                }
                all.push(less);
            }
        }
    }
    all
}

fn take_rule(spec: &mut PolicySpec, direction: PolicyType, rule: usize) {
    match (spec, direction) {
        (PolicySpec::NetworkPolicy(spec), PolicyType::Ingress) => drop(spec.ingress.remove(rule)),
        (PolicySpec::NetworkPolicy(spec), PolicyType::Egress) => drop(spec.egress.remove(rule)),
        (PolicySpec::Policy(spec), PolicyType::Ingress) => drop(spec.ingress.remove(rule)),
        (PolicySpec::Policy(spec), PolicyType::Egress) => drop(spec.egress.remove(rule)),
        (PolicySpec::ClusterNetworkPolicy(_), _) => panic!("no such policy is suggested"),
    }
}

/// Whether there is such a port beside others.
fn take_port(spec: &mut PolicySpec, direction: PolicyType, rule: usize, port: usize) -> bool {
    let ports = match (spec, direction) {
        (PolicySpec::NetworkPolicy(spec), PolicyType::Ingress) => &mut spec.ingress[rule].ports,
        (PolicySpec::NetworkPolicy(spec), PolicyType::Egress) => &mut spec.egress[rule].ports,
        (PolicySpec::Policy(spec), PolicyType::Ingress) => &mut spec.ingress[rule].ports,
        (PolicySpec::Policy(spec), PolicyType::Egress) => &mut spec.egress[rule].ports,
        (PolicySpec::ClusterNetworkPolicy(_), _) => panic!("no such policy is suggested"),
    };
    let is = ports.len() > 1 && port < ports.len();
    if is {
        ports.remove(port);
    }
    is
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_to_pass_passes_under_the_policies(talks in talks()) {
        let suggested = suggested(&talks);
        let world = in_force(suggested.iter().map(|one| &one.policy));
        for talk in passed(&talks) {
            prop_assert!(passes(&world, &talk), "{talk:?} does not pass: {suggested:#?}");
        }
    }

    #[test]
    fn no_rule_and_no_port_is_more_than_what_was_seen_needs_unless_it_is_said(talks in talks()) {
        let suggested = suggested(&talks);
        let seen = passed(&talks);
        for one in &suggested {
            for less in with_less(one) {
                let others = suggested.iter().map(|one| &one.policy).filter(|policy| policy.metadata != less.metadata);
                let world = in_force(others.chain([&less]));
                prop_assert!(seen.iter().any(|talk| !passes(&world, talk)), "{less:#?} is enough: {one:#?}");
            }
        }
    }

    #[test]
    fn what_was_not_seen_between_the_apps_is_denied(talks in talks(), asked in talks()) {
        let suggested = suggested(&talks);
        let world = in_force(suggested.iter().map(|one| &one.policy));
        let governed: BTreeSet<_> = suggested
            .iter()
            .map(|one| (one.policy.metadata.namespace.as_str(), one.policy.metadata.name.trim_end_matches(ENDING)))
            .collect();
        let seen = passed(&talks);
        for talk in asked {
            let (At::App(from), At::App(to)) = (talk.from, talk.to) else { continue };
            let is_governed = governed.contains(&APPS[from]) || governed.contains(&APPS[to]);
            let is_same = |t: &Talk| (t.from, t.to, speaks(t)) == (talk.from, talk.to, speaks(&talk));
            if is_governed && !seen.iter().any(is_same) {
                prop_assert!(!passes(&world, &talk), "{talk:?} passes: {suggested:#?}");
            }
        }
    }

    #[test]
    fn nothing_is_warned_of_and_the_order_of_records_does_not_matter(talks in talks()) {
        let there = suggested(&talks);
        let policies: Vec<&NetworkPolicy> = there.iter().map(|one| &one.policy).collect();
        prop_assert_eq!(crate::warnings(&policies, &world()).concat(), Vec::new());
        let mut turned = talks;
        turned.reverse();
        prop_assert_eq!(suggested(&turned), there);
    }
}

fn talk(from: At, to: At, port: u16) -> Talk {
    Talk { from, to, protocol: "tcp", port, node: "one", denied: false }
}

#[test]
fn kubernetes_kind_is_used_where_it_can_say_it_and_peers_with_the_same_ports_stand_together() {
    let talks = [
        talk(At::App(0), At::App(1), 5432),
        talk(At::App(2), At::App(1), 5432),
        talk(At::App(3), At::App(1), 80),
    ];
    let all = suggested(&talks);
    let db = all.iter().find(|one| one.policy.metadata.name == "db-as-seen").unwrap();
    let PolicySpec::NetworkPolicy(spec) = &db.policy.spec else { panic!("{db:?}") };
    assert_eq!((spec.ingress.len(), spec.egress.len()), (2, 1), "and questions for names");
    let of_names = |rule: usize| -> Vec<_> {
        let from = spec.ingress[rule].from.iter();
        from.map(|peer| (peer.pod_selector.clone().unwrap().match_labels, peer.namespace_selector.is_some()))
            .collect()
    };
    let app = |name: &str| BTreeMap::from([("app".to_owned(), name.to_owned())]);
    assert_eq!(of_names(0), [(app("web"), true)]);
    assert_eq!(of_names(1), [(app("job"), false), (app("web"), false)]);
    assert_eq!(db.ingress[0].seen[0].source, "green/web");
    assert_eq!((db.ingress[1].seen.len(), db.ingress[1].seen[0].connections), (2, 3));
    let named = suggested(&[talk(At::App(0), At::Named(0), 443)]);
    assert!(matches!(named[0].policy.spec, PolicySpec::Policy(_)), "{named:?}");
}

#[test]
fn what_was_denied_is_told_and_an_app_of_which_nothing_else_was_seen_gets_no_policy() {
    let denied = Talk { denied: true, ..talk(At::App(2), At::App(1), 5432) };
    let seen = seen(&[talk(At::App(0), At::App(1), 80), denied]);
    let found = suggest(&of("blue"), &seen, &world()).unwrap();
    let names: Vec<_> = found.policies.iter().map(|one| one.policy.metadata.name.as_str()).collect();
    assert_eq!(names, ["db-as-seen", "web-as-seen"]);
    let said = "denied, and no reason to allow it: 3 attempts from blue/job on 5432/tcp";
    assert!(found.policies[0].notes.iter().any(|note| note == said), "{:?}", found.policies[0].notes);
    assert!(found.notes[0].starts_with("no policy for job: nothing was seen"), "{:?}", found.notes);
}

#[test]
fn many_ports_of_those_that_systems_give_are_said_as_a_range_and_that_it_is_wider_is_told() {
    let talks: Vec<Talk> = (0..20).map(|n| talk(At::App(0), At::App(1), 40_000 + n * 7)).collect();
    let all = suggested(&talks);
    let PolicySpec::NetworkPolicy(spec) = &all[0].policy.spec else { panic!("{all:?}") };
    assert_eq!(spec.ingress[0].ports.len(), 1);
    assert_eq!(spec.ingress[0].ports[0].end_port, Some(40_133));
    assert_eq!(all[0].ingress[0].wider, ["ports 40000 to 40133: 20 of these 134 were seen"]);
}

#[test]
fn what_is_only_audited_passed_and_is_told() {
    let mut record = minute(&talk(At::App(0), At::App(1), 5432));
    let audited = Some(FlowVerdict::Audited);
    record.shares = vec![FlowShare { verdict: audited, connections: 3, ..FlowShare::default() }];
    let mut seen = Seen::new();
    seen.add(&record);
    let found = suggest(&of("blue"), &seen, &world()).unwrap();
    let db = found.policies.iter().find(|one| one.policy.metadata.name == "db-as-seen").unwrap();
    let PolicySpec::NetworkPolicy(spec) = &db.policy.spec else { panic!("{db:?}") };
    assert_eq!(spec.ingress.len(), 1);
    let told = "would be denied by a policy that only tells: 3 connections from blue/web on 5432/tcp";
    assert!(db.notes.iter().any(|note| note == told), "{:?}", db.notes);
}

#[test]
fn connections_of_which_the_addresses_were_not_told_are_told_and_not_allowed() {
    let mut record = minute(&talk(At::App(0), At::Address(1), 443));
    record.connections = 7;
    record.shares[0].connections = 2;
    record.untold = 5;
    let mut seen = Seen::new();
    seen.add(&record);
    let found = suggest(&of("blue"), &seen, &world()).unwrap();
    let said = "5 connections to addresses outside that were not told on 443/tcp";
    assert!(found.policies[0].notes.iter().any(|note| note.contains(said)), "{:?}", found.policies[0].notes);
    // Without a beginning there is no address, and nothing that could be allowed.
    let ongoing = |port| FlowMinute {
        connections: 0,
        shares: Vec::new(),
        ..minute(&talk(At::App(0), At::Address(1), port))
    };
    let mut seen = Seen::new();
    [ongoing(443), ongoing(80), minute(&talk(At::App(0), At::Address(1), 80))]
        .iter()
        .for_each(|one| seen.add(one));
    let notes = suggest(&of("blue"), &seen, &world()).unwrap().policies[0].notes.clone();
    let before: Vec<_> = notes.iter().filter(|note| note.contains("that began before")).collect();
    assert!(before.len() == 1 && before[0].contains("443/tcp"), "{notes:?}");
}

#[test]
fn all_policies_that_would_have_too_many_rules_are_told_at_once() {
    let mut seen = Seen::new();
    for last in 0..=u8::MAX {
        for app in [0, 1] {
            for port in (0..5).map(|n| 100 + u16::from(last) * 5 + n) {
                seen.add(&minute(&talk(At::App(app), At::Address(last), port)));
            }
        }
    }
    assert!(suggest(&of("blue"), &seen, &world()).is_ok());
    for port in 0..2_000 {
        for app in [0, 1] {
            let to = At::Address(u8::try_from(port % 256).unwrap());
            seen.add(&FlowMinute {
                shares: vec![FlowShare {
                    destination: Some(format!("198.51.{}.{}/32", port / 256, port % 256).parse().unwrap()),
                    ..minute(&talk(At::App(app), to, 1)).shares[0].clone()
                }],
                ..minute(&talk(At::App(app), to, 10_000 + port))
            });
        }
    }
    let error = suggest(&of("blue"), &seen, &world()).unwrap_err();
    let fields: Vec<&str> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["db", "web"], "{error:?}");
}
