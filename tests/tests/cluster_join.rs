//! Joining and leaving: what is in the way is told, and nothing is half done.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Cluster, ClusterOptions, Node, NodeOptions, check_refusal, eventually};

const LIMIT: Duration = Duration::from_secs(30);

/// Has a machine try to join, which has to be refused.
fn refused(cluster: &Cluster, node: &Node, token: &str, code: &str, exit: i32) -> Result<String> {
    let server = cluster.server().addresses().ipv4.to_string();
    let output = node.daemon_run(&[], &["--join", &server, "--token", token])?;
    check_refusal(&output, code, exit)
}

fn node_count(cluster: &Cluster) -> Result<usize> {
    let nodes = cluster.server().json(&["node", "ls"])?;
    nodes["items"].as_array().map(Vec::len).context("`node ls` prints no list")
}

#[test]
fn who_may_not_join_is_told_why_and_leaves_no_trace() -> Result<()> {
    let (cluster, other) = (Cluster::start(3)?, Cluster::start(1)?);
    cluster.server().daemon_start()?;
    other.server().daemon_start()?;
    let (node, late) = (cluster.node(1), cluster.node(2));
    let token = cluster.token()?;

    let said = refused(&cluster, node, "hmj_nonsense", "HM0109", 2)?;
    ensure!(said.contains("--token"), "{said}");
    let mut wrong = token.clone();
    wrong.replace_range(4..8, "0000");
    refused(&cluster, node, &wrong, "HM0804", 9)?;
    let said = refused(&cluster, node, &other.token()?, "HM0314", 4)?;
    ensure!(said.contains("another cluster"), "{said}");
    node.sandbox().check(&["ip", "address", "add", "10.201.0.1/24", "dev", "eth0"])?;
    let said = refused(&cluster, node, &token, "HM0315", 4)?;
    ensure!(said.contains("10.201.0.0/24") && said.contains("eth0"), "{said}");
    node.sandbox().check(&["ip", "address", "del", "10.201.0.1/24", "dev", "eth0"])?;
    assert_eq!(node_count(&cluster)?, 1);

    // None of that used the token up; one machine does.
    cluster.join(node, &token)?;
    let said = refused(&cluster, late, &token, "HM0804", 9)?;
    ensure!(said.contains("used up"), "{said}");
    assert_eq!(node_count(&cluster)?, 2);
    Ok(())
}

#[test]
fn a_machine_with_a_cluster_of_its_own_does_not_lose_it_by_joining() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.server().daemon_start()?;
    let node = cluster.node(1);
    node.daemon_start()?;
    node.daemon_term()?;
    let said = refused(&cluster, node, &cluster.token()?, "HM0314", 4)?;
    ensure!(said.contains("server of its own"), "{said}");
    node.daemon_start()?;
    assert_eq!(node.json(&["node", "ls"])?["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn a_port_that_another_overlay_has_is_told_and_taken_once_it_is_free() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.server().daemon_start()?;
    let node = cluster.node(1);
    let taken = ["ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "eth0"];
    node.sandbox().check(&taken)?;
    node.sandbox().check(&["ip", "link", "set", "vx0", "up"])?;
    cluster.join(node, &cluster.token()?)?;
    eventually(LIMIT, "the node to tell who has the port", || {
        let status = node.json(&["status"])?;
        let problems = status["problems"].to_string();
        ensure!(problems.contains("vx0") && problems.contains("4789"), "{problems}");
        Ok(())
    })?;
    node.sandbox().check(&["ip", "link", "del", "vx0"])?;
    cluster.until_ready(2)?;
    eventually(LIMIT, "the problem to be gone", || {
        let status = node.json(&["status"])?;
        ensure!(status["problems"].as_array().is_none_or(Vec::is_empty), "{}", status["problems"]);
        Ok(())
    })
}

fn with_web(options: &ClusterOptions) -> Result<Cluster> {
    let cluster = Cluster::start_with(2, options)?;
    cluster.start_daemons()?;
    cluster.deploy("web", "nginx", &["--replicas", "2"])?;
    cluster.until_up("web", 2, LIMIT)?;
    Ok(cluster)
}

fn until_all_on_server(cluster: &Cluster) -> Result<()> {
    let server = cluster.server().name();
    eventually(LIMIT, "both replicas to be on the server", || {
        let replicas = cluster.until_up("web", 2, Duration::ZERO)?;
        ensure!(replicas.iter().all(|replica| replica["spec"]["node"] == server), "one is elsewhere");
        Ok(())
    })
}

#[test]
fn a_node_that_leaves_moves_its_replicas_first_and_forgets_the_cluster() -> Result<()> {
    let cluster = with_web(&ClusterOptions::default())?;
    let node = cluster.node(1);
    node.hivemind_ok(&["node", "leave"])?;
    until_all_on_server(&cluster)?;
    assert_eq!(node_count(&cluster)?, 1);
    node.daemon_end()?;
    node.fd_store().clear();
    assert_eq!(node.hivemind(&["status"])?.status.code(), Some(7));
    ensure!(node.containers()?.is_empty(), "it has containers: {:?}", node.containers()?);
    ensure!(!node.sandbox().run(&["ip", "link", "show", "hivemind1"])?.status.success(), "the overlay stays");
    // It may join again, by another token.
    cluster.join(node, &cluster.token()?)?;
    cluster.until_ready(2)
}

#[test]
fn a_node_that_was_removed_is_not_let_in_and_stops_what_it_ran() -> Result<()> {
    let node =
        NodeOptions { daemon_flags: vec!["--node-grace".into(), "2".into()], ..NodeOptions::default() };
    let cluster = with_web(&ClusterOptions { node, ..ClusterOptions::default() })?;
    let node = cluster.node(1);
    let refusal = cluster.server().hivemind(&["node", "remove", node.name()])?;
    let said = check_refusal(&refusal, "HM0317", 4)?;
    ensure!(said.contains("drain"), "{said}");
    cluster.server().hivemind_ok(&["node", "remove", node.name(), "--force"])?;
    until_all_on_server(&cluster)?;
    eventually(LIMIT, "the removed node to stop its replica", || {
        let left = node.containers()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let status = node.json(&["status"])?["problems"].to_string();
    ensure!(status.contains("HM0516") && status.contains("not a member"), "{status}");
    // Nor does a restart let it in.
    node.daemon_term()?;
    node.daemon_start()?;
    assert_eq!(node_count(&cluster)?, 1);
    Ok(())
}
