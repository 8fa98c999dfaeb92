//! What a matrix allows, against asking of every replica, address and port one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_model::{
    FlowEnd, FlowMinute, FlowVerdict, Identity, IngressRule, NetworkPolicy, NetworkPolicySpec, PolicyPeer,
    PolicyPort, PolicyProtocol, PolicyType, PortRef,
};
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{generate, identity, policy, selector};
use crate::{
    Allowed, Between, Matrix, MatrixEnd, MatrixOf, MatrixPair, OtherEnd, PolicyTransport, PortSet, Residents,
    Seen, Speaks, UseNow, World, judge, matrix, reference::Governing,
};

/// How many worlds are asked of some ports, and of all.
const WORLDS: u32 = 300;
const WORLDS_OF_ALL_PORTS: u32 = 16;

const NAMESPACES: [&str; 3] = ["blue", "green", "hivemind-system"];
const DOMAINS: [&str; 2] = ["example.org", "*.example.org"];

fn app(namespace: &str) -> MatrixEnd {
    MatrixEnd::App { namespace: namespace.to_owned(), app: "app".to_owned() }
}

/// A world that knows no addresses of domains.
fn world() -> impl Strategy<Value = World> {
    generate::world().prop_map(|mut world| {
        DOMAINS.iter().for_each(|domain| drop(world.set_domain(domain, [])));
        world
    })
}

/// Addresses for the identities, some of them for none.
fn residents(world: &World, addresses: &[Vec<IpAddr>]) -> Residents {
    let mut residents = Residents::new();
    for (spec, addresses) in world.identities().filter(|spec| spec.number >= Identity::FIRST).zip(addresses) {
        let place = (spec.namespace.clone(), spec.app.clone());
        residents.entry(place).or_default().extend(addresses.iter().map(|address| (spec.number, *address)));
    }
    residents
}

fn addresses() -> impl Strategy<Value = Vec<Vec<IpAddr>>> {
    vec(vec(generate::address(), 0..3), generate::IDENTITIES as usize)
}

fn ends() -> impl Strategy<Value = [MatrixEnd; 2]> {
    let other = |way: usize| {
        let around = match way {
            0 => vec![MatrixEnd::Host, MatrixEnd::World],
            _ => vec![MatrixEnd::Host, MatrixEnd::World, MatrixEnd::Dns],
        };
        prop_oneof![2 => select(&NAMESPACES).prop_map(app), 1 => select(around)]
    };
    prop_oneof![
        (select(&NAMESPACES).prop_map(app), other(1)).prop_map(|(source, other)| [source, other]),
        (other(0), select(&NAMESPACES).prop_map(app)).prop_map(|(other, destination)| [other, destination]),
    ]
}

fn made(world: &World, residents: &Residents, seen: &Seen) -> Matrix {
    matrix(MatrixOf { world, residents, has_other_nodes: true, seen, namespace: None })
}

/// What a matrix of no records allows between two ends.
fn allowed(matrix: &Matrix, ends: &[MatrixEnd; 2]) -> Allowed {
    let [source, destination] = ends;
    let mut found = matrix
        .open
        .iter()
        .filter(|open| open.sources.contains(source) && open.destinations.contains(destination));
    let found = (found.next(), found.next());
    let is_of =
        |end: &MatrixEnd, list: &[MatrixEnd]| !matches!(end, MatrixEnd::App { .. }) || list.contains(end);
    let is_open = is_of(source, &matrix.open_to_all) && is_of(destination, &matrix.open_from_all);
    match (found, is_open) {
        ((Some(open), None), false) => open.allowed.clone(),
        ((None, None), true) => {
            let all = PortSet::all_of(PolicyTransport::ALL);
            Allowed { all, some: PortSet::new(), is_everything: true }
        }
        ((None, None), false) => Allowed::default(),
        (found, _) => panic!("it is told more than once: {found:?}"),
    }
}

type Places = BTreeSet<(u32, IpAddr)>;

/// Everything that an end may be; of the outside some addresses.
fn places(
    end: &MatrixEnd,
    way: usize,
    residents: &Residents,
    nodes: &[IpAddr],
    outside: &[IpAddr],
) -> Places {
    let of = |identity: u32, addresses: &[IpAddr]| -> Places {
        addresses.iter().map(|address| (identity, *address)).collect()
    };
    match end {
        MatrixEnd::App { namespace, app } => {
            residents.get(&(namespace.clone(), app.clone())).cloned().unwrap_or_default()
        }
        MatrixEnd::Host if way == 0 => of(Identity::NODE, nodes),
        MatrixEnd::Host => &of(Identity::NODE, nodes) | &of(Identity::HOST, nodes),
        MatrixEnd::Dns => {
            of(Identity::DNS, &["169.254.20.10".parse().unwrap(), "fd00:20::10".parse().unwrap()])
        }
        MatrixEnd::World => of(Identity::WORLD, outside),
    }
}

/// Whether the policies of both ends let it pass.
fn passes(world: &World, from: (u32, IpAddr), to: (u32, IpAddr), speaks: Speaks) -> bool {
    let side = |own: u32, direction, other: (u32, IpAddr)| {
        let other = OtherEnd { identity: other.0, address: other.1 };
        own < Identity::FIRST || judge(world, own, direction, other, speaks).allowed
    };
    side(from.0, PolicyType::Egress, to) && side(to.0, PolicyType::Ingress, from)
}

/// What comes of a connection between all that the ends may be.
fn outcomes(world: &World, from: &Places, to: &Places, speaks: Speaks) -> BTreeSet<bool> {
    let is_spoken = |is_ipv6: bool| match speaks.protocol {
        1 => !is_ipv6,
        58 => is_ipv6,
        _ => true,
    };
    let all = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from.1.is_ipv4() == to.1.is_ipv4() && is_spoken(from.1.is_ipv6()))
        .map(|(from, to)| passes(world, from, to, speaks))
        .collect()
}

fn told(allowed: &Allowed, speaks: Speaks) -> BTreeSet<bool> {
    match (allowed.all.contains(speaks), allowed.some.contains(speaks)) {
        (true, false) => [true].into(),
        (false, true) => [true, false].into(),
        (false, false) => [false].into(),
        (true, true) => panic!("{speaks:?} is allowed for all and for some only"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(WORLDS))]

    #[test]
    fn what_is_told_of_two_ends_is_what_comes_of_everything_that_they_may_be(
        world in world(),
        addresses in addresses(),
        nodes in vec(generate::address(), 0..3),
        outside in vec(generate::address(), 1..8),
        ends in vec(ends(), 4),
        speaks in vec(generate::speaks(), 24),
    ) {
        let mut world = world;
        for name in ["one", "two"] {
            drop(world.remove_node(name));
        }
        drop(world.set_node("one", &super::labels(&[("tier", "x")]), &nodes));
        let residents = residents(&world, &addresses);
        let matrix = made(&world, &residents, &Seen::new());
        for ends in &ends {
            let allowed = allowed(&matrix, ends);
            let [from, to] = [0, 1].map(|way| places(&ends[way], way, &residents, &nodes, &outside));
            for speaks in &speaks {
                let outcomes = outcomes(&world, &from, &to, *speaks);
                let told = told(&allowed, *speaks);
                let is_outside = ends.contains(&MatrixEnd::World);
                if outcomes.is_empty() {
                    prop_assert!(is_outside || told == [false].into() || allowed.is_everything, "{ends:?} {speaks:?}");
                } else if is_outside {
                    // Of the outside it is so for every address; which of them differ depends on more than those that are tried.
                    prop_assert!(outcomes.is_subset(&told), "{:?} {:?}: {:?}, {:?}", ends, speaks, outcomes, allowed);
                } else {
                    prop_assert_eq!(outcomes, told, "{:?} {:?}", ends, speaks);
                }
            }
        }
    }

    #[test]
    fn of_names_outside_nothing_is_said_that_is_not_so_for_every_address_that_has_one(
        world in world(),
        addresses in addresses(),
        named in vec(generate::address(), 1..4),
        domain in select(&DOMAINS),
        namespace in select(&NAMESPACES),
        speaks in vec(generate::speaks(), 24),
    ) {
        let residents = residents(&world, &addresses);
        let matrix = made(&world, &residents, &Seen::new());
        let mut knowing = world.clone();
        drop(knowing.set_domain(domain, named.clone()));
        let ends = [app(namespace), MatrixEnd::World];
        let allowed = allowed(&matrix, &ends);
        let [from, to] = [0, 1].map(|way| places(&ends[way], way, &residents, &[], &named));
        for speaks in speaks {
            let outcomes = outcomes(&knowing, &from, &to, speaks);
            prop_assert!(outcomes.is_subset(&told(&allowed, speaks)), "{:?}: {:?}, {:?}", speaks, outcomes, allowed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(WORLDS_OF_ALL_PORTS))]

    #[test]
    fn every_port_of_a_protocol_is_told_as_it_is_judged(
        world in world(),
        addresses in vec(generate::address(), 2),
        source in select(&NAMESPACES),
        destination in select(&NAMESPACES),
        protocol in prop_oneof![4 => Just(6), 2 => Just(17), 1 => Just(132), 1 => Just(1), 1 => Just(58), 1 => any::<u8>()],
    ) {
        let mut residents = Residents::new();
        for (namespace, address) in [source, destination].into_iter().zip(&addresses) {
            let own = world.identities().find(|spec| spec.number >= Identity::FIRST && spec.namespace == namespace);
            let place = own.map(|spec| (spec.number, *address));
            residents.entry((namespace.to_owned(), "app".to_owned())).or_default().extend(place);
        }
        let ends = [app(source), app(destination)];
        let allowed = allowed(&made(&world, &residents, &Seen::new()), &ends);
        let place = |end: &MatrixEnd, way| places(end, way, &residents, &[], &[]).into_iter().next();
        let (Some(from), Some(to)) = (place(&ends[0], 0), place(&ends[1], 1)) else { return Ok(()) };
        if from.1.is_ipv4() != to.1.is_ipv4() {
            return Ok(());
        }
        let egress = Governing::of(&world, from.0, PolicyType::Egress);
        let ingress = Governing::of(&world, to.0, PolicyType::Ingress);
        let [source, destination] =
            [from, to].map(|(identity, address)| OtherEnd { identity, address });
        let is_spoken = protocol != if from.1.is_ipv4() { 58 } else { 1 };
        for port in (0..=u16::MAX).filter(|_| is_spoken) {
            let speaks = Speaks { protocol, port };
            let passes = egress.judge(destination, speaks).allowed && ingress.judge(source, speaks).allowed;
            prop_assert_eq!(passes, allowed.all.contains(speaks), "{:?} {:?}", ends, speaks);
            prop_assert!(!allowed.some.contains(speaks), "{:?} {:?}", ends, speaks);
        }
    }
}

fn end(kind: &str, app: &str, port: Option<u16>) -> FlowEnd {
    let namespace = if app.is_empty() { String::new() } else { "shop".to_owned() };
    FlowEnd { kind: kind.to_owned(), namespace, app: app.to_owned(), port, ..FlowEnd::default() }
}

fn minute(node: &str, from: &str, to: &str, port: u16, verdict: FlowVerdict, connections: u64) -> FlowMinute {
    FlowMinute {
        minute: Timestamp::UNIX_EPOCH,
        seconds: 60,
        node: node.to_owned(),
        verdict,
        source: end("replica", from, None),
        destination: end("replica", to, Some(port)),
        protocol: "tcp".to_owned(),
        exact: true,
        connections,
        bytes_sent: connections * 10,
        bytes_received: connections,
        packets_sent: 1,
        packets_received: 1,
        rtt_us: None,
        shares: Vec::new(),
        untold: 0,
    }
}

fn named_identity(number: u32, app: &str, pairs: &[(&str, &str)]) -> Identity {
    let mut identity = identity(number, "shop", pairs);
    app.clone_into(&mut identity.spec.app);
    identity
}

/// Lets `from` in on some ports of TCP.
fn only(number: u32, app: &str, from: &[(&str, &str)], ports: (u16, u16)) -> NetworkPolicy {
    let port = PolicyPort {
        protocol: PolicyProtocol::Tcp,
        port: Some(PortRef::Number(ports.0.into())),
        end_port: Some(ports.1),
    };
    let from = PolicyPeer { pod_selector: Some(selector(from)), ..PolicyPeer::default() };
    let spec = NetworkPolicySpec {
        pod_selector: selector(&[("app", app)]),
        ingress: vec![IngressRule { ports: vec![port], from: vec![from] }],
        ..NetworkPolicySpec::default()
    };
    policy(number, "shop", spec)
}

/// A database that takes 5432 to 5433 from who is trusted; of the two replicas of `web` one is.
fn shop() -> (World, Residents) {
    let identities = [
        named_identity(300, "web", &[("app", "web"), ("trusted", "yes")]),
        named_identity(301, "web", &[("app", "web")]),
        named_identity(302, "db", &[("app", "db")]),
        named_identity(303, "batch", &[("app", "batch"), ("trusted", "yes")]),
    ];
    let policies = [only(1, "db", &[("trusted", "yes")], (5_432, 5_433))];
    let residents = identities.iter().zip(1_u8..).map(|(identity, last)| {
        let place = (identity.spec.namespace.clone(), identity.spec.app.clone());
        (place, (identity.spec.number, IpAddr::from([10, 204, 0, last])))
    });
    let mut by_app = Residents::new();
    residents.for_each(|(app, place)| by_app.entry(app).or_default().extend([place]));
    (World::of(&[], &identities, &policies), by_app)
}

fn shop_app(app: &str) -> MatrixEnd {
    MatrixEnd::App { namespace: "shop".to_owned(), app: app.to_owned() }
}

fn ports(ranges: &[(u16, u16)]) -> PortSet {
    let mut set = PortSet::new();
    ranges.iter().for_each(|(first, last)| set.append(PolicyTransport::Tcp, *first, *last));
    set
}

#[test]
fn what_passed_what_was_refused_and_what_nobody_used_are_told_beside_what_is_allowed() {
    let (world, residents) = shop();
    let mut seen = Seen::new();
    for minute in [
        minute("one", "batch", "db", 5_432, FlowVerdict::Allowed, 7),
        minute("one", "web", "db", 5_433, FlowVerdict::Denied, 2),
        minute("one", "web", "db", 22, FlowVerdict::Denied, 3),
        minute("one", "batch", "db", 80, FlowVerdict::Allowed, 1),
        minute("one", "gone", "db", 5_432, FlowVerdict::Allowed, 1),
    ] {
        seen.add(&minute);
    }
    let matrix = made(&world, &residents, &seen);
    let [web, batch] = matrix.pairs.as_slice() else { panic!("{matrix:#?}") };
    let uses = |uses: &[crate::MatrixUse]| -> Vec<_> {
        uses.iter().map(|one| (one.speaks.port, one.connections.most, one.now)).collect()
    };
    assert_eq!((&web.source, &web.destination), (&shop_app("web"), &shop_app("db")));
    assert_eq!(uses(&web.denied), [(22, 3, Some(UseNow::Denied)), (5_433, 2, Some(UseNow::Depends))]);
    assert_eq!((uses(&web.used), &web.unused), (vec![], &PortSet::new()));
    assert_eq!(web.unused_by_some, ports(&[(5_432, 5_433)]));
    let allowed = web.allowed.as_ref().unwrap();
    assert_eq!((&allowed.all, &allowed.some), (&PortSet::new(), &ports(&[(5_432, 5_433)])));
    assert_eq!(batch.source, shop_app("batch"));
    assert_eq!(uses(&batch.used), [(80, 1, Some(UseNow::Denied)), (5_432, 7, Some(UseNow::Allowed))]);
    assert_eq!(batch.unused, ports(&[(5_433, 5_433)]));
    assert_eq!((matrix.apps, matrix.gone, matrix.unknown, matrix.unjudged), (3, 1, 0, 0));
}

#[test]
fn apps_without_policies_are_told_once_and_others_by_what_is_open_to_them() {
    let (world, residents) = shop();
    let matrix = made(&world, &residents, &Seen::new());
    assert_eq!(matrix.open_from_all, [shop_app("batch"), shop_app("web")]);
    assert_eq!(matrix.open_to_all, [shop_app("batch"), shop_app("db"), shop_app("web")]);
    assert_eq!(matrix.pairs, []);
    let open: Vec<_> = matrix.open.iter().map(|open| (&open.sources[..], &open.destinations[..])).collect();
    let (batch, web, db) = ([shop_app("batch")], [shop_app("web")], [shop_app("db")]);
    assert_eq!(open, [(&batch[..], &db[..]), (&web[..], &db[..])]);
    assert_eq!(matrix.open[0].allowed.all, ports(&[(5_432, 5_433)]));
    // Nodes without addresses are no ends; the database itself and the outside are kept out.
    assert_eq!(matrix.closed, 2);
}

#[test]
fn what_two_nodes_counted_has_bounds_and_what_only_one_let_pass_did_not() {
    let (world, residents) = shop();
    let counted = |minutes: &[FlowMinute]| -> Vec<MatrixPair> {
        let mut seen = Seen::new();
        minutes.iter().for_each(|minute| seen.add(minute));
        made(&world, &residents, &seen).pairs
    };
    let passed = |node| minute(node, "batch", "db", 5_432, FlowVerdict::Allowed, 5);
    let pairs = counted(&[passed("one"), passed("two")]);
    let used = &pairs[0].used[0];
    assert_eq!(used.connections, Between { least: 5, most: 10 });
    assert_eq!((used.bytes_sent.least, used.bytes_sent.most), (50, 100));
    assert_eq!((used.bytes_received.least, used.bytes_received.most), (5, 10));
    let refused = minute("two", "batch", "db", 5_432, FlowVerdict::Denied, 5);
    let pairs = counted(&[passed("one"), refused]);
    assert!(pairs[0].used.is_empty() && pairs[0].denied[0].connections.most == 5, "{pairs:#?}");
    assert_eq!(pairs[0].denied[0].bytes_sent, Between::default(), "bytes of what was refused");
}

#[test]
fn of_one_namespace_only_pairs_with_an_end_in_it_are_told() {
    let (world, residents) = shop();
    let seen = {
        let mut seen = Seen::new();
        seen.add(&minute("one", "batch", "db", 5_432, FlowVerdict::Allowed, 5));
        seen
    };
    let of = |namespace| {
        let namespace = Some(namespace);
        matrix(MatrixOf {
            world: &world,
            residents: &residents,
            has_other_nodes: false,
            seen: &seen,
            namespace,
        })
    };
    let other = of("other");
    assert_eq!((other.pairs.len(), other.open.len(), other.apps), (0, 0, 0));
    assert_eq!((other.open_from_all.len(), other.closed), (0, 0));
    assert_eq!(of("shop").pairs.len(), 1);
}

#[test]
fn the_outside_is_allowed_as_far_as_all_of_its_addresses_are() {
    let (mut world, residents) = shop();
    let mut open = only(2, "web", &[], (80, 80));
    let hivemind_model::PolicySpec::NetworkPolicy(spec) = &mut open.spec else { panic!() };
    let block = |cidr: &str| PolicyPeer {
        ip_block: Some(hivemind_model::IpBlock { cidr: cidr.to_owned(), except: Vec::new() }),
        ..PolicyPeer::default()
    };
    spec.ingress[0].from = vec![block("0.0.0.0/0"), block("::/0")];
    let mut some = spec.ingress[0].clone();
    (some.from, some.ports[0].port) = (vec![block("192.0.2.0/24")], Some(PortRef::Number(22)));
    some.ports[0].end_port = None;
    spec.ingress.push(some);
    drop(world.set_policy(&open));
    let matrix = made(&world, &residents, &Seen::new());
    let allowed = allowed(&matrix, &[MatrixEnd::World, shop_app("web")]);
    assert_eq!((allowed.all, allowed.some), (ports(&[(80, 80)]), ports(&[(22, 22)])));
}

#[test]
fn recorded_ports_of_the_same_pair_stay_together() {
    let (world, residents) = shop();
    let mut seen = Seen::new();
    (0..500)
        .for_each(|port| seen.add(&minute("one", "web", "batch", 40_000 + port, FlowVerdict::Allowed, 1)));
    let matrix = made(&world, &residents, &seen);
    let [pair] = matrix.pairs.as_slice() else { panic!("{matrix:#?}") };
    assert_eq!(pair.used.len(), 500);
    let everything = PortSet::all_of(PolicyTransport::ALL);
    assert!(pair.allowed.as_ref().is_some_and(|allowed| allowed.is_everything));
    let used: BTreeMap<u16, u64> =
        pair.used.iter().map(|one| (one.speaks.port, one.connections.most)).collect();
    assert_eq!(used.len(), 500);
    assert!(pair.unused.and(&ports(&[(40_000, 40_499)])).is_empty());
    assert!(!pair.unused.is_empty() && pair.unused != everything);
}
