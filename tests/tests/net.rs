//! `hivemind net`: every path of a node's network is walked, and a packet is followed that nobody sends.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Cluster, Node, eventually, policy_only};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Each path, its outcome and its explanation.
type Probes = Vec<(String, String, String)>;

/// What `net check` found, and its exit code.
fn check(node: &Node) -> Result<(i32, Probes)> {
    let output = node.hivemind(&["net", "check", "--json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    let check: Value = serde_json::from_str(&text)
        .with_context(|| format!("no JSON: {text}{said}{}", node.daemon_log_end()))?;
    ensure!(check["node"] == node.name(), "{check}");
    let word = |probe: &Value, field: &str| probe[field].as_str().unwrap_or_default().to_owned();
    let probes = check["probes"].as_array().context("no probes")?;
    let probes = probes.iter().map(|p| (word(p, "name"), word(p, "outcome"), word(p, "explanation")));
    Ok((output.status.code().context("it was killed")?, probes.collect()))
}

/// The names and the explanations of the paths that failed.
fn failed(probes: &[(String, String, String)]) -> Vec<(&str, &str)> {
    let failed = probes.iter().filter(|(_, outcome, _)| outcome == "failed");
    failed.map(|(name, _, explanation)| (name.as_str(), explanation.as_str())).collect()
}

/// The ends of a check that are on the node now.
fn ends(node: &Node) -> Result<usize> {
    let links = node.sandbox().check(&["ip", "link"])?;
    Ok(links.lines().filter(|line| line.contains("net-check-")).count())
}

fn until_ends(node: &Node, wanted: usize) -> Result<()> {
    eventually(LIMIT, &format!("{wanted} ends"), || {
        let found = ends(node)?;
        ensure!(found == wanted, "there are {found}");
        Ok(())
    })
}

#[test]
fn a_healthy_node_passes_and_keeps_nothing_of_the_check() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let before = node.left()?;
    let (code, probes) = check(&node)?;
    ensure!(code == 0 && failed(&probes).is_empty(), "exit {code}: {probes:#?}");
    let skipped: Vec<_> = probes.iter().filter(|(_, outcome, _)| outcome == "skipped").collect();
    ensure!(skipped.len() == 1 && skipped[0].0 == "replica to the outside", "{skipped:?}");
    for part in [
        "TCP over IPv6",
        "UDP over IPv4",
        "service by its IPv6",
        "by its name",
        "DNS over IPv6",
        "node to replica",
        "replica to node over IPv6",
        "published port from the node over IPv4",
        "in fragments over IPv6",
        "MiB by TCP",
        "metadata is refused",
        "own servers are refused",
    ] {
        ensure!(probes.iter().any(|(name, ..)| name.contains(part)), "no path {part:?}: {probes:?}");
    }
    // Somebody off the node: the machine outside answers, if only by refusing.
    let outside = node.fabric().client_addresses().ipv4.to_string();
    let text = node.hivemind_ok(&["net", "check", "--outside", &outside])?;
    ensure!(text.contains("ok    replica to the outside"), "{text}");
    let after = node.left()?;
    ensure!(before == after, "something is left: {after:?}");
    ensure!(node.json(&["app", "list"])?["items"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

#[test]
fn what_is_broken_is_told_with_what_to_look_at() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let sandbox = node.sandbox();
    // The interface of the DNS addresses loses one of them.
    let dns = sandbox.check(&["sh", "-c", "ip -o addr show | awk '/169.254.20.10/ {print $2}'"])?;
    sandbox.check(&["ip", "addr", "del", "169.254.20.10/32", "dev", dns.trim()])?;
    let (code, probes) = check(&node)?;
    let names: Vec<_> = failed(&probes).iter().map(|(name, _)| *name).collect();
    ensure!(code == 1 && names == ["DNS over IPv4", "service by its name"], "{probes:#?}");
    let (_, why) = failed(&probes)[0];
    ensure!(why.contains("interface of the DNS addresses"), "{why}");
    let text = String::from_utf8(node.hivemind(&["net", "check"])?.stdout)?;
    ensure!(text.contains("fail  DNS over IPv4") && text.contains("2 of "), "{text}");
    sandbox.check(&["ip", "addr", "add", "169.254.20.10/32", "dev", dns.trim()])?;
    // The hook is gone by which the node's own processes reach published ports.
    let links = sandbox.outside(&sandbox.directory().join("bpf"));
    let hook = sandbox.check(&[
        "sh",
        "-c",
        &format!("find {} -name sock_connect4", sandbox.directory().join("bpf").display()),
    ])?;
    ensure!(!hook.trim().is_empty(), "no pin below {}", links.display());
    sandbox.check(&["rm", hook.trim()])?;
    let (code, probes) = check(&node)?;
    let found = failed(&probes);
    ensure!(code == 1 && found.len() == 1, "{probes:#?}");
    ensure!(
        found[0].0 == "published port from the node over IPv4" && found[0].1.contains("cgroup"),
        "{found:?}"
    );
    // A daemon that starts puts it back.
    node.daemon_kill9()?;
    node.daemon_start()?;
    let (code, probes) = check(&node)?;
    ensure!(code == 0, "{probes:#?}");
    Ok(())
}

#[test]
fn a_check_that_is_given_up_or_whose_daemon_dies_leaves_nothing() -> Result<()> {
    let (node, registry) = Node::with_daemon()?;
    // Paths that fail take their time.
    let dns = node.sandbox().check(&["sh", "-c", "ip -o addr show | awk '/169.254.20.10/ {print $2}'"])?;
    node.sandbox().check(&["ip", "addr", "del", "169.254.20.10/32", "dev", dns.trim()])?;
    let log = node.sandbox().directory().join("check.log");
    let mut given_up = node.hivemind_spawn(&["net", "check"], &log)?;
    until_ends(&node, 2)?;
    let said = node.refused(&["net", "check"], "HM0513", 6)?;
    ensure!(said.contains("another check"), "{said}");
    given_up.signal(Signal::SIGINT)?;
    given_up.wait(LIMIT)?;
    until_ends(&node, 0)?;
    // The ends go before the last of what was made, and with that the turn.
    let mut orphan = eventually(LIMIT, "a check that begins", || -> Result<_> {
        let mut check = node.hivemind_spawn(&["net", "check"], &log)?;
        eventually(LIMIT, "its ends, or its end", || {
            let has_ended = check.exit_status()?.is_some();
            ensure!(has_ended || ends(&node)? == 2, "neither");
            Ok(())
        })?;
        ensure!(ends(&node)? == 2, "it was refused");
        Ok(check)
    })?;
    node.daemon_kill9()?;
    orphan.wait(LIMIT)?;
    ensure!(ends(&node)? == 2, "a killed daemon removes nothing");
    node.daemon_start()?;
    until_ends(&node, 0)?;
    node.daemon_term()?;
    node.daemon_teardown()?;
    drop(registry);
    node.assert_nothing_left()
}

/// The exit code and what was said.
fn trace(node: &Node, words: &[&str]) -> Result<(i32, String)> {
    let output = node.hivemind(&[&["net", "trace"], words].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().context("it was killed")?, text))
}

fn last(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[test]
fn a_packet_is_followed_to_its_verdict_in_the_words_of_flows() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx", "--port", "8080:80"])?;
    node.deploy_waiting("client", &[])?;
    let web = node.replica("web")?["metadata"]["name"].as_str().context("no name")?.to_owned();
    let (code, text) = trace(&node, &["client", "web:80"])?;
    ensure!(code == 0 && last(&text) == "allowed", "{text}");
    ensure!(text.contains("-> sock_connect4: its destination becomes 10."), "{text}");
    ensure!(text.contains(&format!("delivered to replica {web} by hm")), "{text}");
    ensure!(text.lines().any(|line| line.contains("<- from_replica")), "{text}");
    // By the name of the replica, by UDP, by IPv6, from the node, from outside by the published port.
    let outside = node.fabric().client_addresses().ipv4.to_string();
    let to = format!("web/{web}:53/udp");
    for words in [
        &["client", &to][..],
        &["client", "web:80", "--ipv6"],
        &["host", "web:80"],
        &["client", "host:22"],
        &[&outside, "host:8080"],
    ] {
        let (code, text) = trace(&node, words)?;
        ensure!(code == 0 && last(&text) == "allowed", "{words:?}: {text}");
    }
    // What is refused is refused in the very words in which the packet itself would be.
    node.apply(&policy_only("web", "nobody", "web", ""))?;
    let (code, text) = trace(&node, &["client", "web:80"])?;
    ensure!(
        code == 1 && last(&text).starts_with("denied  no policy lets it enter its destination"),
        "{text}"
    );
    let json = node.hivemind(&["net", "trace", "client", "web:80", "--json"])?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    ensure!(json["reason"] == "policy_ingress" && json["verdict"] == "denied", "{json}");
    let address: IpAddr = node.replica("web")?["status"]["ipv4"].as_str().context("no address")?.parse()?;
    node.in_network_of("client", move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"who?", (address, 80)).map(drop)
    })??;
    let told: Value = eventually(LIMIT, "the flow", || {
        let text = node.hivemind_ok(&["flows", "--verdict", "denied", "--to", "web", "-o", "json"])?;
        serde_json::from_str(text.lines().next().context("none")?).context("no JSON")
    })?;
    ensure!(told["object"]["explanation"] == json["explanation"], "{told} and {json}");
    node.hivemind_ok(&["policy", "delete", "web"])?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "0"])?;
    eventually(LIMIT, "no endpoint", || {
        let (code, text) = trace(&node, &["client", "web:80"])?;
        ensure!(code == 1 && last(&text) == "dropped  the service has no endpoint", "{text}");
        Ok(())
    })?;
    for (words, code, exit) in [
        (&["client", "none:80"][..], "HM0201", 3),
        (&["none", "web:80"], "HM0201", 3),
        (&["web", "client:80"], "HM0206", 3),
    ] {
        node.refused(&[&["net", "trace"], words].concat(), code, exit)?;
    }
    Ok(())
}

#[test]
fn a_packet_to_another_node_is_followed_from_wherever_its_sender_is() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.start_daemons()?;
    cluster.deploy_waiting_on(0, "near", &[])?;
    cluster.deploy_waiting_on(1, "far", &[])?;
    let server = cluster.server();
    let (near, far) = (server.replica("near")?, server.replica("far")?);
    let name = |replica: &Value| replica["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (to_far, to_near) = (format!("far/{}:80", name(&far)), format!("near/{}:80", name(&near)));
    eventually(LIMIT, "the way there", || {
        let (code, text) = trace(server, &["near", &to_far])?;
        ensure!(code == 0 && text.contains("sent to node") && text.contains("in the overlay"), "{text}");
        ensure!(text.contains(server.name()), "{text}");
        Ok(())
    })?;
    eventually(LIMIT, "the way back", || {
        let (code, text) = trace(server, &["far", &to_near])?;
        ensure!(code == 0 && text.contains("sent to node"), "{text}");
        ensure!(text.lines().next().is_some_and(|line| line.ends_with(cluster.node(1).name())), "{text}");
        Ok(())
    })?;
    let other = cluster.node(1).name().to_owned();
    let text = server.hivemind_ok(&["net", "check", "--node", &other])?;
    ensure!(text.contains(&format!("paths of node {other}")), "{text}");
    let said = cluster.node(1).refused(&["net", "check", "--node", server.name()], "HM0316", 4)?;
    ensure!(said.contains(server.name()), "{said}");
    Ok(())
}
