//! What is decided in plain cases, and what people read.

use hivemind_scheduler::*;

const GIB: u64 = 1 << 30;

fn app(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        labels: Default::default(),
        taints: Default::default(),
        cordoned: false,
        health: Health::Ready,
        capacity: Resources { cpu_millicores: 4_000, memory_bytes: 8 * GIB },
        images: Default::default(),
    }
}

fn placed(id: &str, of: &str, node: &str) -> Placed {
    Placed {
        id: id.into(),
        app: app(of),
        node: node.into(),
        requests: Resources::default(),
        ports: Default::default(),
        ready: true,
        leaving: false,
    }
}

fn cluster(names: &[&str]) -> Snapshot {
    Snapshot { nodes: names.iter().map(|n| node(n)).collect(), ..Snapshot::default() }
}

fn talk(a: &str, b: &str, bytes_per_second: u64) -> Traffic {
    Traffic { apps: (app(a), app(b)), bytes_per_second }
}

fn rtt(a: &str, b: &str, rtt_us: u32) -> Rtt {
    Rtt { nodes: (a.into(), b.into()), rtt_us }
}

fn reason(decision: &Decision) -> &str {
    match &decision.outcome {
        Outcome::Unschedulable { reason } => reason,
        Outcome::Bound { node } => panic!("went to {node}"),
    }
}

#[test]
fn replicas_of_an_app_spread_over_the_nodes() {
    let snapshot = cluster(&["c", "a", "b"]);
    let pending: Vec<_> = ["1", "2", "3"].map(|id| Pending::new(app("web"), id)).into();
    let decisions = schedule(&snapshot, &pending);
    let nodes: Vec<_> = decisions.iter().map(Decision::node).collect();
    assert_eq!(nodes, [Some("a"), Some("b"), Some("c")]);
}

#[test]
fn a_chatty_replica_lands_beside_its_peer_although_its_kind_is_there() {
    let mut snapshot = cluster(&["a", "b"]);
    snapshot.replicas = vec![placed("db", "db", "b"), placed("w1", "web", "b"), placed("w2", "web", "b")];
    let pending = Pending::new(app("web"), "w3");
    assert_eq!(explain(&snapshot, &pending).node(), Some("a"));
    snapshot.traffic = vec![talk("db", "web", 1_000_000)];
    assert_eq!(explain(&snapshot, &pending).node(), Some("b"));
    snapshot.traffic = vec![talk("db", "web", 10)];
    assert_eq!(explain(&snapshot, &pending).node(), Some("a"), "next to nothing does not count");
}

#[test]
fn the_nearer_node_is_chosen_when_the_peers_is_closed() {
    let mut snapshot = cluster(&["a", "b", "c"]);
    snapshot.nodes[0].cordoned = true;
    snapshot.replicas = vec![placed("db", "db", "a")];
    snapshot.traffic = vec![talk("web", "db", 1_000_000)];
    snapshot.rtt = vec![rtt("a", "b", 9_000), rtt("c", "a", 200)];
    let decision = explain(&snapshot, &Pending::new(app("web"), "w"));
    assert_eq!((decision.node(), decision.rtt_not_measured), (Some("c"), 0));
    snapshot.rtt.pop();
    assert_eq!(explain(&snapshot, &Pending::new(app("web"), "w")).rtt_not_measured, 1);
}

#[test]
fn a_volume_that_two_new_replicas_share_is_made_once() {
    let snapshot = cluster(&["a", "b"]);
    let mut pending = [Pending::new(app("x"), "1"), Pending::new(app("x"), "2")];
    for p in &mut pending {
        p.volumes.insert(app("data"));
    }
    let decisions = schedule(&snapshot, &pending);
    assert_eq!(decisions[0].node(), decisions[1].node());
}

#[test]
fn an_exclusive_port_is_given_once() {
    let snapshot = cluster(&["a"]);
    let mut pending = [Pending::new(app("x"), "1"), Pending::new(app("x"), "2")];
    for p in &mut pending {
        p.ports.insert(Port { protocol: Protocol::Tcp, number: 80 });
    }
    let decisions = schedule(&snapshot, &pending);
    assert_eq!(decisions[0].node(), Some("a"));
    assert_eq!(reason(&decisions[1]), "1 node: 1 has port 80/tcp taken");
}

#[test]
fn what_fits_nowhere_is_told_in_words() {
    let mut snapshot = cluster(&["a", "b"]);
    snapshot.nodes[0].cordoned = true;
    snapshot.nodes[1].capacity.memory_bytes = GIB / 2;
    let mut pending = Pending::new(app("x"), "1");
    pending.requests.memory_bytes = 2 * GIB;
    let decision = explain(&snapshot, &pending);
    let expected = "2 nodes: 1 is cordoned, 1 has too little memory (wants 2.0 GiB, 512 MiB free)";
    assert_eq!(reason(&decision), expected);
    assert!(decision.words().contains("b  has too little memory"), "{}", decision.words());
    assert_eq!(reason(&explain(&Snapshot::default(), &pending)), "there is no node");
}

#[test]
fn nodes_that_lack_the_same_are_counted_together() {
    let mut snapshot = cluster(&["a", "b", "c", "d"]);
    snapshot.nodes[0].capacity.memory_bytes = GIB / 4;
    snapshot.nodes[1].capacity.memory_bytes = GIB / 2;
    snapshot.nodes[2].cordoned = true;
    snapshot.nodes[3].cordoned = true;
    let mut pending = Pending::new(app("x"), "1");
    pending.requests.memory_bytes = 2 * GIB;
    let expected = "4 nodes: 2 are cordoned, 2 have too little memory (wants 2.0 GiB, at most 512 MiB free)";
    assert_eq!(reason(&explain(&snapshot, &pending)), expected);
}

#[test]
fn the_explanation_reads_as_the_guide_shows_it() {
    let mut snapshot = cluster(&["a", "b", "c"]);
    snapshot.nodes[2].cordoned = true;
    snapshot.replicas = vec![placed("db", "db", "b"), placed("w1", "web", "b")];
    snapshot.traffic = vec![talk("db", "web", 1_000_000)];
    snapshot.rtt = vec![rtt("a", "b", 300)];
    let mut pending = Pending::new(app("web"), "w2");
    pending.requests.cpu_millicores = 400;
    let words = explain(&snapshot, &pending).to_string();
    let guide = include_str!("../../../../docs/guide/scheduling.md");
    assert!(guide.contains(&words), "{words}");
}

#[test]
fn a_decision_survives_json() {
    let decision = explain(&cluster(&["a"]), &Pending::new(app("x"), "1"));
    let json = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&json).unwrap(), decision);
}

#[test]
fn a_thousand_replicas_are_placed_on_five_hundred_nodes() {
    let names: Vec<String> = (0..500).map(|n| format!("n{n:03}")).collect();
    let mut snapshot = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    snapshot.traffic = vec![talk("app0", "app1", 1_000_000)];
    let mut scheduler = Scheduler::new(&snapshot);
    for n in 0..1_000 {
        let mut pending = Pending::new(app(&format!("app{}", n % 20)), n.to_string());
        pending.requests = Resources { cpu_millicores: 1_000, memory_bytes: GIB };
        assert!(scheduler.place(&pending).node().is_some());
    }
}

#[test]
fn a_replica_on_its_way_out_keeps_its_resources_but_repels_no_other() {
    let mut snapshot = cluster(&["a", "b"]);
    snapshot.replicas = vec![Placed { leaving: true, ..placed("w1", "web", "a") }, placed("w2", "web", "b")];
    snapshot.replicas[0].requests.memory_bytes = 2 * GIB;
    let mut pending = Pending::new(app("web"), "w3");
    assert_eq!(explain(&snapshot, &pending).node(), Some("a"));
    pending.requests.memory_bytes = 7 * GIB;
    assert_eq!(explain(&snapshot, &pending).node(), Some("b"));
}

#[test]
fn a_node_that_would_rather_not_is_taken_when_there_is_no_other_or_it_is_tolerated() {
    let mut snapshot = cluster(&["a", "b"]);
    let taint = Taint { key: "old".into(), value: String::new(), effect: Effect::PreferNoSchedule };
    snapshot.nodes[0].taints.insert(taint);
    let mut pending = Pending::new(app("x"), "1");
    assert_eq!(explain(&snapshot, &pending).node(), Some("b"));
    pending.tolerations.push(Toleration { key: Some("old".into()), ..Toleration::default() });
    assert_eq!(explain(&snapshot, &pending).node(), Some("a"));
    pending.tolerations.clear();
    snapshot.nodes[1].cordoned = true;
    assert_eq!(explain(&snapshot, &pending).node(), Some("a"));
}
