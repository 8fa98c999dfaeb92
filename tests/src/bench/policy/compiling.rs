//! What the engine of policies takes for a large set: all of it, what one change touches, and who may speak to whom.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use hivemind_model::{
    ClusterAction, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterSubject, EgressRule,
    Identity, IngressRule, IpBlock, LabelSelector, Metadata, Namespace, NetworkPolicy, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyPeer, PolicyPort, PolicyProtocol, PolicySpec, PortRef, SYSTEM_NAMESPACE,
};
use hivemind_policy::{MatrixOf, Residents, Seen, World, compile};

use crate::bench::figure::Figure;

const POLICIES: u32 = 1_000;
/// As many apps, each with an identity of its own.
const ENDPOINTS: u32 = 500;
const NAMESPACES: u32 = 50;
/// Of the policies, those of the whole cluster.
const CLUSTER: u32 = 20;
const COMPILE_MS_MAX: f64 = 1_000.0;
const ROUNDS: usize = 9;
const CHANGES: u32 = 1_000;
const MATRICES: usize = 3;

/// Compiles all identities of a world with many policies, and then what each of many changes of one policy touches.
pub(super) fn run() -> Vec<Figure> {
    let world = world();
    let compile_all = || {
        let began = Instant::now();
        let entries: usize =
            world.identities().filter_map(|spec| compile(spec.number, &world)).map(|t| t.entries.len()).sum();
        (began.elapsed().as_secs_f64() * 1e3, entries)
    };
    let mut entries = 0;
    let all = (0..ROUNDS).map(|_| {
        let (time, found) = compile_all();
        entries = found;
        time
    });
    let all: Vec<f64> = all.collect();
    let mut changed = world.clone();
    let changes = (0..CHANGES).map(|turn| {
        let number = 1 + CLUSTER + turn % (POLICIES - CLUSTER);
        let policy = policy(number, turn + 1);
        let began = Instant::now();
        let touched = changed.set_policy(&policy);
        let tables: Vec<_> = touched.iter().filter_map(|identity| compile(*identity, &changed)).collect();
        std::hint::black_box(tables);
        began.elapsed().as_secs_f64() * 1e3
    });
    let changes: Vec<f64> = changes.collect();
    vec![
        Figure::new("policy_compile_all", "ms", all).at_most(COMPILE_MS_MAX),
        Figure::p99("policy_compile_change_p99", "ms", changes),
        Figure::new("policy_entries_all", "entries", vec![entries as f64]),
        matrix("policy_matrix_100_apps", 100, &world),
        matrix("policy_matrix_500_apps", ENDPOINTS, &world),
    ]
}

/// How long it takes to tell who may speak to whom of so many apps, each with a replica, under all policies.
fn matrix(name: &'static str, apps: u32, world: &World) -> Figure {
    let resident = |number: u32| {
        let address = IpAddr::V4(Ipv4Addr::from(0x0ac8_0000 + number));
        ((namespace_of(number), app(number)), [(Identity::FIRST + number, address)].into())
    };
    let residents: Residents = (0..apps).map(resident).collect();
    let seen = Seen::new();
    let of = MatrixOf { world, residents: &residents, has_other_nodes: true, seen: &seen, namespace: None };
    let times = (0..MATRICES).map(|_| {
        let began = Instant::now();
        std::hint::black_box(hivemind_policy::matrix(of));
        began.elapsed().as_secs_f64() * 1e3
    });
    Figure::new(name, "ms", times.collect())
}

fn world() -> World {
    let mut world = World::new();
    for number in 0..NAMESPACES {
        let mut namespace = Namespace::new(&namespace_of(number));
        namespace.metadata.labels.insert("team".to_owned(), format!("team-{}", number % 10));
        world.set_namespace(&namespace);
    }
    for number in 0..ENDPOINTS {
        let labels = [("app".to_owned(), app(number)), ("tier".to_owned(), format!("tier-{}", number % 4))];
        let identity =
            Identity::new(Identity::FIRST + number, &namespace_of(number), &app(number), labels.into());
        world.set_identity(&identity);
    }
    for number in 1..=POLICIES {
        world.set_policy(&policy(number, 0));
    }
    world
}

fn app(number: u32) -> String {
    format!("app-{number}")
}

fn namespace_of(number: u32) -> String {
    format!("namespace-{}", number % NAMESPACES)
}

fn selector(key: &str, value: String) -> LabelSelector {
    LabelSelector { match_labels: [(key.to_owned(), value)].into(), ..LabelSelector::default() }
}

/// One of the policies; `turn` makes it another one of the same name.
fn policy(number: u32, turn: u32) -> NetworkPolicy {
    let (namespace, spec): (_, PolicySpec) = match number <= CLUSTER {
        true => (SYSTEM_NAMESPACE.to_owned(), cluster(number).into()),
        false => (namespace_of(number), of_namespace(number, turn).into()),
    };
    NetworkPolicy {
        metadata: Metadata::new(namespace, format!("policy-{number}")),
        spec,
        status: NetworkPolicyStatus { number, ..NetworkPolicyStatus::default() },
    }
}

/// One tier denied to the apps of one team, and left to the next tier for another one.
fn cluster(number: u32) -> ClusterNetworkPolicySpec {
    let team = |number: u32| selector("team", format!("team-{}", number % 10));
    let rule = |action, number| ClusterIngressRule {
        name: String::new(),
        action,
        from: vec![ClusterPeer { namespaces: Some(team(number)), ..ClusterPeer::default() }],
        protocols: Vec::new(),
    };
    ClusterNetworkPolicySpec {
        priority: number.into(),
        subject: ClusterSubject { namespaces: Some(team(number)), pods: None },
        ingress: vec![rule(ClusterAction::Pass, number), rule(ClusterAction::Deny, number + 1)],
        ..ClusterNetworkPolicySpec::default()
    }
}

/// Two apps of a namespace, with peers of the namespace, of a team, and of blocks.
fn of_namespace(number: u32, turn: u32) -> NetworkPolicySpec {
    let port = |first: u32, last: Option<u16>| PolicyPort {
        protocol: PolicyProtocol::Tcp,
        port: Some(PortRef::Number(first.into())),
        end_port: last,
    };
    let pods = |selector| PolicyPeer { pod_selector: Some(selector), ..PolicyPeer::default() };
    let team = PolicyPeer {
        namespace_selector: Some(selector("team", format!("team-{}", number % 10))),
        pod_selector: Some(selector("tier", format!("tier-{}", turn % 4))),
        ip_block: None,
    };
    let block = |third: u32| PolicyPeer {
        ip_block: Some(IpBlock { cidr: format!("198.18.{}.0/24", third % 256), except: Vec::new() }),
        ..PolicyPeer::default()
    };
    NetworkPolicySpec {
        pod_selector: selector("app", app(number % ENDPOINTS)),
        ingress: vec![
            IngressRule {
                ports: vec![port(80, None), port(8_000, Some(8_999))],
                from: vec![pods(selector("tier", "tier-1".to_owned())), team],
            },
            IngressRule { ports: Vec::new(), from: vec![block(number), block(number + turn + 1)] },
        ],
        egress: vec![
            EgressRule { ports: vec![port(443, None)], to: vec![block(number + 2)] },
            EgressRule { ports: Vec::new(), to: vec![pods(LabelSelector::default())] },
        ],
        ..NetworkPolicySpec::default()
    }
}
