//! Recorded flows replayed, against asking of every replica and address one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_model::{
    FlowEnd, FlowMinute, FlowShare, FlowVerdict, Identity, IngressRule, NetworkPolicySpec, PolicyType,
};
use ipnet::IpNet;
use jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{generate, identity, policy, selector};
use crate::{Change, OtherEnd, Residents, Seen, SeenEnd, SeenPair, Simulation, Speaks, World, judge};

const WORLDS: u32 = 400;
/// What the generated policies call domains, in the form in which worlds have it.
const DOMAINS: [&str; 2] = ["example.org", "*.example.org"];

/// Policies as they are and as they would be, in the same surroundings.
fn worlds() -> impl Strategy<Value = [World; 2]> {
    (generate::world(), vec(generate::change(), 1..12)).prop_map(|(mut before, changes)| {
        for domain in DOMAINS {
            before.set_domain(domain, []);
        }
        let mut after = before.clone();
        let of_policies = changes
            .iter()
            .filter(|change| matches!(change, generate::Change::Policy(_) | generate::Change::NoPolicy(..)));
        of_policies.for_each(|change| drop(change.carry_out(&mut after)));
        [before, after]
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

fn app(namespace: &str) -> SeenEnd {
    SeenEnd::App { namespace: namespace.to_owned(), app: "app".to_owned() }
}

fn pair(source: SeenEnd, destination: SeenEnd, speaks: Speaks) -> SeenPair {
    let protocol = match speaks.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    };
    SeenPair { source, destination, protocol, port: Some(speaks.port) }
}

/// Whether the policies of both ends let it pass.
fn passes(world: &World, from: (u32, IpAddr), to: (u32, IpAddr), speaks: Speaks) -> bool {
    let side = |own: u32, direction, other: (u32, IpAddr)| {
        let other = OtherEnd { identity: other.0, address: other.1 };
        own < Identity::FIRST || judge(world, own, direction, other, speaks).allowed
    };
    side(from.0, PolicyType::Egress, to) && side(to.0, PolicyType::Ingress, from)
}

/// What becomes of every combination, before and after.
fn outcomes(
    worlds: &[World; 2],
    from: &BTreeSet<(u32, IpAddr)>,
    to: &BTreeSet<(u32, IpAddr)>,
    speaks: Speaks,
) -> BTreeSet<(bool, bool)> {
    let all = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from.1.is_ipv4() == to.1.is_ipv4())
        .map(|(from, to)| (passes(&worlds[0], from, to, speaks), passes(&worlds[1], from, to, speaks)))
        .collect()
}

fn word(change: &Change) -> &'static str {
    match change {
        Change::None => "none",
        Change::Denied(_) => "denied",
        Change::Allowed(_) => "allowed",
        Change::Depends(_) => "depends",
        Change::Unknown => "unknown",
        Change::Gone => "gone",
    }
}

fn meant(outcomes: &BTreeSet<(bool, bool)>) -> &'static str {
    let mut all = outcomes.iter();
    match (all.next(), all.next()) {
        (None, _) => "gone",
        (Some((true, false)), None) => "denied",
        (Some((false, true)), None) => "allowed",
        _ if outcomes.iter().all(|(before, after)| before == after) => "none",
        _ => "depends",
    }
}

fn speaks() -> impl Strategy<Value = Speaks> {
    generate::speaks().prop_filter("ICMP is judged as an echo request", |s| !matches!(s.protocol, 1 | 58))
}

/// A record of a replica's connections with an address outside that has a name.
fn named(address: IpAddr, name: &str) -> FlowMinute {
    FlowMinute {
        minute: Timestamp::UNIX_EPOCH,
        seconds: 60,
        node: "one".to_owned(),
        verdict: FlowVerdict::Allowed,
        source: FlowEnd {
            kind: "replica".to_owned(),
            namespace: "blue".to_owned(),
            app: "app".to_owned(),
            ..FlowEnd::default()
        },
        destination: FlowEnd { kind: "world".to_owned(), port: Some(80), ..FlowEnd::default() },
        protocol: "tcp".to_owned(),
        exact: true,
        connections: 1,
        bytes_sent: 0,
        bytes_received: 0,
        packets_sent: 0,
        packets_received: 0,
        rtt_us: None,
        shares: vec![FlowShare {
            destination: Some(address.into()),
            domain: name.to_owned(),
            connections: 1,
            ..FlowShare::default()
        }],
        untold: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS, ..ProptestConfig::default() })]

    #[test]
    fn between_apps_it_is_what_comes_of_every_replica_with_every_other(
        worlds in worlds(), addresses in vec(vec(generate::address(), 0..3), 8),
        questions in vec((select(&["blue", "green"]), select(&["blue", "green"]), speaks()), 20)
    ) {
        let residents = residents(&worlds[0], &addresses);
        let simulation = Simulation::new(worlds.clone(), &residents, &Seen::new());
        let none = BTreeSet::new();
        for (from, to, speaks) in questions {
            let change = simulation.replay(&pair(app(from), app(to), speaks));
            let of = |namespace: &str| residents.get(&(namespace.to_owned(), "app".to_owned())).unwrap_or(&none);
            let outcomes = outcomes(&worlds, of(from), of(to), speaks);
            prop_assert_eq!(word(&change), meant(&outcomes), "{} {} {:?}: {:?}", from, to, speaks, outcomes);
            if let Change::Denied(decided) | Change::Allowed(decided) = &change {
                prop_assert!(decided.before.allowed() != decided.after.allowed());
            }
        }
    }

    #[test]
    fn outside_nothing_is_said_that_is_not_so_for_every_address_and_name(
        worlds in worlds(), addresses in vec(vec(generate::address(), 1..3), 8),
        block in option::of((generate::address(), 0_u8..=32)),
        samples in vec((generate::address(), option::of(select(&DOMAINS))), 12),
        speaks in speaks(), is_source in any::<bool>()
    ) {
        let residents = residents(&worlds[0], &addresses);
        let simulation = Simulation::new(worlds.clone(), &residents, &Seen::new());
        let block = block.map(|(address, host_bits)| {
            let whole = IpNet::from(address);
            IpNet::new(address, whole.max_prefix_len() - host_bits).unwrap().trunc()
        });
        let outside = SeenEnd::Outside { block, domain: String::new() };
        let ends = if is_source { (outside, app("blue")) } else { (app("blue"), outside) };
        let change = simulation.replay(&pair(ends.0, ends.1, speaks));
        let Some(own) = residents.get(&("blue".to_owned(), "app".to_owned())) else {
            prop_assert_eq!(word(&change), "gone");
            return Ok(());
        };
        for (address, domain) in samples {
            if block.is_some_and(|block| !block.contains(&address)) {
                continue;
            }
            let mut worlds = worlds.clone();
            for world in &mut worlds {
                drop(domain.map(|domain| world.set_domain(domain, [address])));
            }
            let other = BTreeSet::from([(Identity::WORLD, address)]);
            let (from, to) = if is_source { (&other, own) } else { (own, &other) };
            let found = outcomes(&worlds, from, to, speaks);
            let is_so = match &change {
                Change::None => found.iter().all(|(before, after)| before == after),
                Change::Denied(_) => found.iter().all(|outcome| *outcome == (true, false)),
                Change::Allowed(_) => found.iter().all(|outcome| *outcome == (false, true)),
                Change::Gone => found.is_empty(),
                Change::Depends(_) | Change::Unknown => true,
            };
            prop_assert!(is_so, "{change:?} but {found:?} for {address} {domain:?}");
        }
    }

    #[test]
    fn an_address_with_a_name_is_judged_by_that_name(
        worlds in worlds(), addresses in vec(vec(generate::address(), 1..3), 8),
        address in generate::address(), name in select(&["example.org", "www.example.org", "other.net"])
    ) {
        let residents = residents(&worlds[0], &addresses);
        let mut seen = Seen::new();
        seen.add(&named(address, name));
        let simulation = Simulation::new(worlds.clone(), &residents, &seen);
        let (pair, _) = seen.pairs().next().unwrap();
        let mut worlds = worlds;
        for world in &mut worlds {
            for domain in DOMAINS.into_iter().filter(|domain| crate::domain_matches(domain, name)) {
                world.set_domain(domain, [address]);
            }
        }
        let none = BTreeSet::new();
        let own = residents.get(&("blue".to_owned(), "app".to_owned())).unwrap_or(&none);
        let speaks = Speaks { protocol: 6, port: 80 };
        let found = outcomes(&worlds, own, &BTreeSet::from([(Identity::WORLD, address)]), speaks);
        prop_assert_eq!(word(&simulation.replay(pair)), meant(&found));
    }
}

#[test]
fn a_cut_client_is_denied_the_other_is_not_and_who_is_gone_is_told() {
    let number = |name: &str| {
        Identity::FIRST + ["web", "client", "other"].iter().position(|n| *n == name).unwrap() as u32
    };
    let mut before = World::new();
    let mut residents: Residents = BTreeMap::new();
    for name in ["web", "client", "other"] {
        let mut known = identity(number(name), "blue", &[("app", name)]);
        name.clone_into(&mut known.spec.app);
        before.set_identity(&known);
        let address = IpAddr::from([10, 200, 0, u8::try_from(number(name) - Identity::FIRST).unwrap()]);
        residents.insert(("blue".to_owned(), name.to_owned()), [(number(name), address)].into());
    }
    let mut after = before.clone();
    let peer = hivemind_model::PolicyPeer {
        pod_selector: Some(selector(&[("app", "client")])),
        ..Default::default()
    };
    after.set_policy(&policy(
        1,
        "blue",
        NetworkPolicySpec {
            pod_selector: selector(&[("app", "web")]),
            ingress: vec![IngressRule { ports: Vec::new(), from: vec![peer] }],
            ..Default::default()
        },
    ));
    let simulation = Simulation::new([before, after], &residents, &Seen::new());
    let of = |name: &str| SeenEnd::App { namespace: "blue".to_owned(), app: name.to_owned() };
    let replay = |from, to| word(&simulation.replay(&pair(from, to, Speaks { protocol: 6, port: 80 })));
    assert_eq!(replay(of("client"), of("web")), "none");
    assert_eq!(replay(of("other"), of("web")), "denied");
    assert_eq!(replay(of("web"), of("other")), "none");
    assert_eq!(replay(of("nobody"), of("web")), "gone");
    assert_eq!(replay(SeenEnd::Unknown, of("web")), "unknown");
    assert_eq!(replay(SeenEnd::Outside { block: None, domain: String::new() }, of("web")), "denied");
    assert_eq!(replay(SeenEnd::Host { node: "one".to_owned() }, of("web")), "gone", "there is no such node");
}
