//! Nodes that vanish and come back: what ran there runs elsewhere, once, and what is no longer theirs is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Cluster, ClusterOptions, FabricOptions, LinkOptions, NodeOptions, both_addresses, eventually, get,
    get_unix,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// After how long without a sign of life a node's replicas are started on others.
const GRACE: Duration = Duration::from_secs(2);

/// Noticing that a node is dead takes a while; the grace, scheduling, and starting containers come on top.
const MOVED_LIMIT: Duration = Duration::from_secs(30);

fn cluster(nodes: usize) -> Result<Cluster> {
    let fabric = FabricOptions { link: LinkOptions::relayed(), ..FabricOptions::default() };
    let daemon_flags = vec!["--node-grace".to_owned(), GRACE.as_secs().to_string()];
    let node = NodeOptions { daemon_flags, ..NodeOptions::default() };
    let cluster = Cluster::start_with(nodes, &ClusterOptions { fabric, node })?;
    cluster.start_daemons()?;
    Ok(cluster)
}

/// The value of a series in the metrics of a node, at most a second old.
fn figure(cluster: &Cluster, node: usize, series: &str) -> Result<Option<u64>> {
    let node = cluster.node(node);
    let socket = node.sandbox().outside(&node.socket());
    let response = get_unix(&socket, "/metrics", Duration::from_secs(5))?;
    ensure!(response.status == 200, "{}", response.status);
    let mut found = response.body.lines().filter_map(|line| line.strip_prefix(series));
    found.next().map(|value| value.parse().context("no number")).transpose()
}

fn word<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    object.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {object}"))
}

/// Checks that no two replicas of these apps share a name or an address, that each node has a network and a container
/// for each of its replicas, and for no other, and that every replica answers from its own address.
fn check_whole(cluster: &Cluster, apps: &[&str]) -> Result<()> {
    let mut assigned: BTreeMap<&str, BTreeSet<String>> =
        cluster.nodes().iter().map(|node| (node.name(), BTreeSet::new())).collect();
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for app in apps {
        for replica in cluster.server().replicas(app)? {
            ensure!(names.insert(word(&replica, "/metadata/name")?.to_owned()), "a name is there twice");
            for address in both_addresses(&replica["status"])? {
                ensure!(addresses.insert(address), "{address} is there twice");
            }
            let of_node = assigned.get_mut(word(&replica, "/spec/node")?).context("an unknown node")?;
            of_node.insert(word(&replica, "/metadata/id")?.to_owned());
        }
    }
    for node in cluster.nodes() {
        let expected: Vec<_> = assigned[node.name()].iter().cloned().collect();
        let networks = node.replica_networks()?;
        ensure!(networks == expected, "{} has networks {networks:?} for replicas {expected:?}", node.name());
        let containers = node.containers()?;
        ensure!(
            containers == expected,
            "{} has containers {containers:?} for replicas {expected:?}",
            node.name()
        );
    }
    Ok(())
}

fn until_whole(cluster: &Cluster, apps: &[&str]) -> Result<()> {
    eventually(LIMIT, "each replica to be in one place", || check_whole(cluster, apps))
}

/// Every replica of an app answers with its own name on its node, of those that can be reached.
fn check_answers(cluster: &Cluster, app: &str) -> Result<()> {
    for replica in cluster.server().replicas(app)? {
        let target = SocketAddr::new(both_addresses(&replica["status"])?[0], 80);
        let own = cluster.node_of(&replica)?.sandbox();
        let page = own.in_network(|| get(target, "/hostname", Duration::from_secs(2)))??;
        ensure!(page.body.trim() == word(&replica, "/metadata/name")?, "{target} answers as {}", page.body);
    }
    Ok(())
}

fn nodes_of(replicas: &[Value]) -> Result<BTreeSet<&str>> {
    replicas.iter().map(|replica| word(replica, "/spec/node")).collect()
}

#[test]
fn replicas_of_a_node_that_is_cut_off_run_on_the_others_and_only_there_once_it_is_back() -> Result<()> {
    let cluster = cluster(3)?;
    cluster.deploy("web", "nginx", &["--replicas", "3", "-p", "8080:80"])?;
    let before = cluster.until_up("web", 3, LIMIT)?;
    let lost = cluster.node(2);
    ensure!(nodes_of(&before)?.contains(lost.name()), "it has no replica to lose");
    until_whole(&cluster, &["web"])?;

    lost.link().cut()?;
    cluster.until_state(2, "Dead", MOVED_LIMIT)?;
    let is_up = |told: usize, node: usize| {
        let series = format!("hivemind_node_up{{node=\"{}\"}} ", cluster.node(node).name());
        figure(&cluster, told, &series)
    };
    eventually(LIMIT, "the node to be told as down", || {
        ensure!((is_up(0, 1)?, is_up(0, 2)?) == (Some(1), Some(0)));
        Ok(())
    })?;
    assert_eq!(is_up(1, 2)?, None, "it is the server that tells of nodes");
    eventually(LIMIT, "the lost node to know that it hears nobody", || {
        ensure!(figure(&cluster, 2, "hivemind_cluster_connected ")? == Some(0));
        Ok(())
    })?;
    assert_eq!(figure(&cluster, 1, "hivemind_cluster_connected ")?, Some(1));
    assert!(figure(&cluster, 1, "hivemind_store_size_bytes ")? > Some(0), "a member's store has a size");
    eventually(MOVED_LIMIT, "all replicas to be on the other nodes", || {
        let now = cluster.until_up("web", 3, Duration::ZERO)?;
        ensure!(!nodes_of(&now)?.contains(lost.name()), "one is still on the lost node");
        Ok(())
    })?;
    eventually(LIMIT, "all replicas to answer", || check_answers(&cluster, "web"))?;

    lost.link().heal()?;
    cluster.until_ready(3)?;
    eventually(LIMIT, "the node to be told as up", || {
        ensure!(is_up(0, 2)? == Some(1));
        Ok(())
    })?;
    cluster.until_up("web", 3, LIMIT)?;
    until_whole(&cluster, &["web"])?;
    eventually(LIMIT, "all replicas to answer, the node's too", || check_answers(&cluster, "web"))
}

#[test]
fn a_node_that_crashed_comes_back_empty_and_gets_new_replicas() -> Result<()> {
    let cluster = cluster(2)?;
    cluster.deploy("web", "nginx", &["--replicas", "2"])?;
    cluster.until_up("web", 2, LIMIT)?;
    let lost = cluster.node(1);
    // All that ran there ends at once, and nobody is told: as when the power fails.
    lost.link().cut()?;
    lost.daemon_kill9()?;
    let containers = lost.sandbox().cgroup().join("hivemind");
    std::fs::write(containers.join("cgroup.kill"), "1").context("cannot kill the containers")?;
    cluster.until_state(1, "Dead", MOVED_LIMIT)?;
    eventually(MOVED_LIMIT, "all replicas to be on the server", || {
        let now = cluster.until_up("web", 2, Duration::ZERO)?;
        ensure!(!nodes_of(&now)?.contains(lost.name()), "one is still on the lost node");
        Ok(())
    })?;
    lost.link().heal()?;
    lost.daemon_start()?;
    cluster.until_ready(2)?;
    until_whole(&cluster, &["web"])?;
    cluster.server().hivemind_ok(&["app", "scale", "web", "--replicas", "4"])?;
    let now = cluster.until_up("web", 4, LIMIT)?;
    ensure!(nodes_of(&now)?.contains(lost.name()), "the node that came back gets nothing");
    until_whole(&cluster, &["web"])?;
    check_answers(&cluster, "web")
}

/// Numbers that look random and are the same in every run, by splitmix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[test]
fn an_agent_killed_at_any_moment_of_scaling_leaves_nothing_double_and_nothing_behind() -> Result<()> {
    const ROUNDS: usize = 8;
    let cluster = cluster(2)?;
    cluster.deploy("web", "nginx", &["--replicas", "2"])?;
    let mut numbers = Numbers(0);
    for round in 0..ROUNDS {
        let count = (1 + numbers.below(6)).to_string();
        let log = cluster.server().sandbox().directory().join("scale.log");
        let mut scaling =
            cluster.server().hivemind_spawn(&["app", "scale", "web", "--replicas", &count], &log)?;
        // The moment is the point: it is spread over the time that scaling takes.
        std::thread::sleep(Duration::from_millis(numbers.below(400)));
        cluster.node(1).daemon_kill9()?;
        cluster.node(1).daemon_start()?;
        scaling.wait(LIMIT).with_context(|| format!("round {round}, to {count}"))?;
        cluster.until_up("web", count.parse()?, LIMIT)?;
    }
    until_whole(&cluster, &["web"])?;
    check_answers(&cluster, "web")
}

#[test]
fn a_drained_node_has_no_replicas_and_gets_some_again_when_it_may() -> Result<()> {
    let cluster = cluster(2)?;
    cluster.deploy("web", "nginx", &["--replicas", "2"])?;
    cluster.until_up("web", 2, LIMIT)?;
    let name = cluster.node(1).name();
    cluster.server().hivemind_ok(&["node", "drain", name])?;
    let now = cluster.until_up("web", 2, LIMIT)?;
    ensure!(!nodes_of(&now)?.contains(name), "a replica is on the drained node");
    until_whole(&cluster, &["web"])?;
    cluster.cordon(1, false)?;
    cluster.server().hivemind_ok(&["app", "scale", "web", "--replicas", "4"])?;
    let now = cluster.until_up("web", 4, LIMIT)?;
    ensure!(nodes_of(&now)?.contains(name), "it gets nothing");
    check_answers(&cluster, "web")
}
