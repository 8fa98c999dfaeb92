//! What holds whatever the cluster looks like.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_scheduler::*;
use proptest::{collection::vec, prelude::*, sample::select};

fn app_name() -> impl Strategy<Value = ObjectName> {
    select(vec!["web", "db", "cache"]).prop_map(|n| ObjectName::new("default", n))
}

fn node_name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c", "d", "e"]).prop_map(String::from)
}

fn resources() -> impl Strategy<Value = Resources> {
    (0..4_u64, 0..4_u64).prop_map(|(cpu_millicores, memory_bytes)| Resources { cpu_millicores, memory_bytes })
}

fn taint() -> impl Strategy<Value = Taint> {
    (select(vec!["gpu", "old"]), select(vec![Effect::NoSchedule, Effect::PreferNoSchedule]))
        .prop_map(|(key, effect)| Taint { key: key.into(), value: String::new(), effect })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::option::weighted(0.3, select(vec!["x", "y"]))
        .prop_map(|zone| zone.map(|z| ("zone".to_owned(), z.to_owned())).into_iter().collect())
}

fn ports() -> impl Strategy<Value = BTreeSet<Port>> {
    prop::collection::btree_set(
        (80..82_u16).prop_map(|number| Port { protocol: Protocol::Tcp, number }),
        0..2,
    )
}

fn node() -> impl Strategy<Value = Node> {
    let health = select(vec![Health::Ready, Health::Ready, Health::Ready, Health::Suspect]);
    let taints = prop::collection::btree_set(taint(), 0..2);
    let rest = (prop::bool::weighted(0.1), health, 0..12_u64, 0..12_u64, any::<bool>());
    (node_name(), labels(), taints, rest).prop_map(|(name, labels, taints, rest)| {
        let (cordoned, health, cpu_millicores, memory_bytes, has_image) = rest;
        let capacity = Resources { cpu_millicores, memory_bytes };
        let images = has_image.then(|| "image".to_owned()).into_iter().collect();
        Node { name, labels, taints, cordoned, health, capacity, images }
    })
}

fn placed() -> impl Strategy<Value = Placed> {
    (0..9_u8, app_name(), node_name(), resources(), ports(), any::<bool>(), any::<bool>()).prop_map(
        |(id, app, node, requests, ports, ready, leaving)| Placed {
            id: format!("r{id}"),
            app,
            node,
            requests,
            ports,
            ready,
            leaving,
        },
    )
}

fn pending() -> impl Strategy<Value = Vec<Pending>> {
    let volume = prop::collection::btree_set(app_name(), 0..2);
    let one = (app_name(), resources(), labels(), any::<bool>(), volume, ports()).prop_map(
        |(app, requests, selector, tolerant, volumes, ports)| Pending {
            requests,
            selector,
            tolerations: tolerant.then(Toleration::default).into_iter().collect(),
            volumes,
            ports,
            images: BTreeSet::from(["image".to_owned()]),
            ..Pending::new(app, "")
        },
    );
    vec(one, 1..8).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(n, p)| p.id = format!("p{n}"));
        all
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let volume = (app_name(), node_name()).prop_map(|(name, node)| Volume { name, node });
    let traffic = (app_name(), app_name(), 0..9_000_u64)
        .prop_map(|(a, b, bytes_per_second)| Traffic { apps: (a, b), bytes_per_second });
    let rtt =
        (node_name(), node_name(), any::<u32>()).prop_map(|(a, b, rtt_us)| Rtt { nodes: (a, b), rtt_us });
    (vec(node(), 0..6), vec(placed(), 0..9), vec(volume, 0..2), vec(traffic, 0..4), vec(rtt, 0..8)).prop_map(
        |(nodes, replicas, volumes, traffic, rtt)| Snapshot { nodes, replicas, volumes, traffic, rtt },
    )
}

/// The nodes and replicas that count.
fn distinct(mut s: Snapshot) -> Snapshot {
    s.nodes.sort();
    s.nodes.dedup_by(|b, a| a.name == b.name);
    s.replicas.sort();
    s.replicas.dedup_by(|b, a| a.id == b.id);
    s
}

fn used(s: &Snapshot, node: &str) -> Resources {
    s.replicas.iter().filter(|r| r.node == node).fold(Resources::default(), |sum, r| Resources {
        cpu_millicores: sum.cpu_millicores + r.requests.cpu_millicores,
        memory_bytes: sum.memory_bytes + r.requests.memory_bytes,
    })
}

fn check(s: &Snapshot, p: &Pending, name: &str) {
    let node = s.nodes.iter().find(|n| n.name == name).expect("a node of the snapshot");
    assert!(node.health == Health::Ready && !node.cordoned);
    let refused =
        |t: &&Taint| t.effect == Effect::NoSchedule && !p.tolerations.iter().any(|o| o.tolerates(t));
    assert_eq!(node.taints.iter().find(refused), None);
    assert!(p.selector.iter().all(|(k, v)| node.labels.get(k) == Some(v)));
    assert!(!s.replicas.iter().any(|r| r.node == name && !r.ports.is_disjoint(&p.ports)));
    for v in &p.volumes {
        let least = s.volumes.iter().filter(|x| x.name == *v).map(|x| &x.node).min();
        assert!(least.is_none_or(|at| at == name));
    }
    let (used, asks) = (used(s, name), p.requests);
    let fits = |used, asks, capacity| asks == 0 || used + asks <= capacity;
    assert!(fits(used.cpu_millicores, asks.cpu_millicores, node.capacity.cpu_millicores));
    assert!(fits(used.memory_bytes, asks.memory_bytes, node.capacity.memory_bytes));
}

proptest! {
    #[test]
    fn no_filter_is_violated_and_no_capacity_exceeded(s in snapshot(), list in pending()) {
        let mut s = distinct(s);
        let decisions = schedule(&s.clone(), &list);
        for d in decisions {
            let p = list.iter().find(|p| p.id == d.replica).unwrap();
            prop_assert_eq!(d.outcome.clone(), explain(&s, p).outcome, "explain agrees with schedule");
            for n in &d.nodes {
                match &n.verdict {
                    Verdict::Refused { reasons } => prop_assert!(!reasons.is_empty()),
                    Verdict::Feasible { scores, total } => {
                        prop_assert!(scores.iter().all(|s| s.normalised <= 100));
                        prop_assert_eq!(*total, scores.iter().map(|s| s.weight * s.normalised).sum::<u32>());
                    }
                }
            }
            let feasible = d.nodes.iter().any(|n| matches!(n.verdict, Verdict::Feasible { .. }));
            prop_assert_eq!(feasible, d.node().is_some());
            let Some(name) = d.node() else { continue };
            check(&s, p, name);
            for v in p.volumes.iter().filter(|v| !s.volumes.iter().any(|x| x.name == **v)).collect::<Vec<_>>() {
                s.volumes.push(Volume { name: v.clone(), node: name.into() });
            }
            s.replicas.push(Placed {
                id: p.id.clone(), app: p.app.clone(), node: name.into(), requests: p.requests,
                ports: p.ports.clone(), ready: false, leaving: false,
            });
        }
    }

    #[test]
    fn the_order_of_no_list_matters(s in snapshot(), list in pending(), turn in 0..9_usize) {
        let (mut other, mut turned) = (s.clone(), list.clone());
        fn mix<T>(list: &mut [T], turn: usize) {
            list.reverse();
            if !list.is_empty() { let n = turn % list.len(); list.rotate_left(n); }
        }
        mix(&mut other.nodes, turn);
        mix(&mut other.replicas, turn);
        mix(&mut other.volumes, turn);
        mix(&mut other.traffic, turn);
        mix(&mut other.rtt, turn);
        mix(&mut turned, turn);
        prop_assert_eq!(schedule(&s, &list), schedule(&other, &turned));
    }

    #[test]
    fn one_more_node_takes_no_place_away(s in snapshot(), list in pending(), mut more in node()) {
        more.name = "new".into();
        let mut larger = s.clone();
        larger.nodes.push(more);
        for p in &list {
            prop_assert!(explain(&s, p).node().is_none() || explain(&larger, p).node().is_some());
        }
    }

    #[test]
    fn a_replica_follows_its_peer(at in 0..5_usize, bytes in 1_024..u64::MAX, rtts in vec(1..u32::MAX, 10)) {
        let names = ["a", "b", "c", "d", "e"];
        let plain = |name: &str| Node {
            name: name.into(), labels: BTreeMap::new(), taints: BTreeSet::new(), cordoned: false,
            health: Health::Ready, capacity: Resources::default(), images: BTreeSet::new(),
        };
        let (web, db) = (ObjectName::new("n", "web"), ObjectName::new("n", "db"));
        let pairs = (0..5).flat_map(|a| (0..a).map(move |b| (names[a].to_owned(), names[b].to_owned())));
        let s = Snapshot {
            nodes: names.iter().map(|n| plain(n)).collect(),
            replicas: vec![Placed {
                id: "db".into(), app: db.clone(), node: names[at].into(), requests: Resources::default(),
                ports: BTreeSet::new(), ready: true, leaving: false,
            }],
            traffic: vec![Traffic { apps: (web.clone(), db), bytes_per_second: bytes }],
            rtt: pairs.zip(rtts).map(|(nodes, rtt_us)| Rtt { nodes, rtt_us }).collect(),
            volumes: vec![],
        };
        let decision = explain(&s, &Pending::new(web, "w"));
        prop_assert_eq!(decision.node(), Some(names[at]));
    }
}
