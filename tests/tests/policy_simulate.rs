//! `hivemind policy simulate`: what is told of recorded flows is what comes of applying.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::Node;
use serde_json::Value;

const PORT: u16 = 5000;

/// How long a connection that policies refuse is waited for.
const REFUSED: Duration = Duration::from_secs(1);

/// Lets only the app `client` in.
const ONLY_CLIENT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: only-client\nspec:\n  \
     podSelector:\n    matchLabels: {app: server}\n  ingress:\n  - from:\n    - podSelector:\n        matchLabels: {app: client}\n";

fn connects(node: &Node, app: &str, to: SocketAddr) -> Result<bool> {
    node.in_network_of(app, || TcpStream::connect_timeout(&to, REFUSED).is_ok())
}

/// Has the daemon write what was counted: a SIGTERM does, and so does the end of each minute.
fn restart(node: &Node) -> Result<()> {
    node.daemon_term()?;
    node.daemon_start_with(&[])
}

fn simulated(node: &Node, words: &[&str]) -> Result<Value> {
    let text = node.hivemind_ok(&[&["policy", "simulate", "-o", "json"], words].concat())?;
    Ok(serde_json::from_str(&text)?)
}

/// Of the changes, from where to where on the port of the test.
fn changes(simulation: &Value) -> Result<Vec<(String, String, String)>> {
    let all = simulation["changes"].as_array().context("no changes")?;
    let text = |pair: &Value, field: &str| pair[field].as_str().map(str::to_owned).context("no text");
    all.iter()
        .filter(|pair| pair["port"] == PORT)
        .map(|pair| Ok((text(pair, "change")?, text(pair, "source")?, text(pair, "destination")?)))
        .collect()
}

fn one(change: &str) -> Vec<(String, String, String)> {
    vec![(change.to_owned(), "default/other".to_owned(), "default/server".to_owned())]
}

#[test]
fn what_simulate_says_of_recorded_flows_is_what_comes_of_applying() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "other"] {
        node.deploy_waiting(app, &[])?;
    }
    let file = node.write("only-client.yaml", ONLY_CLIENT)?;
    let none = node.hivemind_ok(&[
        "policy",
        "simulate",
        "-f",
        &file,
        "--until",
        "2001-01-01T00:01:00Z",
        "--since",
        "2001-01-01T00:00:00Z",
    ])?;
    ensure!(none.starts_with("no flows were recorded in that time"), "{none}");

    let address: IpAddr =
        node.replica("server")?["status"]["ipv4"].as_str().context("no address")?.parse()?;
    let to = SocketAddr::new(address, PORT);
    // The kernel completes connections that nobody accepts yet.
    let _listener = node.in_network_of("server", || TcpListener::bind(to))??;
    for app in ["client", "other", "client", "other", "client"] {
        ensure!(connects(&node, app, to)?, "{app} does not reach the server without policies");
    }
    restart(&node)?;

    let before = node.hivemind_ok(&["policy", "ls", "-A", "-o", "json"])?;
    let simulation = simulated(&node, &["-f", &file])?;
    ensure!(changes(&simulation)? == one("denied"), "{simulation:#}");
    let pairs = simulation["changes"].as_array().context("no changes")?;
    ensure!(pairs.len() == 1, "something else would change: {simulation:#}");
    ensure!(pairs[0]["connections"] == serde_json::json!({"least": 2, "most": 2}), "{simulation:#}");
    ensure!(pairs[0]["after"][0]["policy"] == "only-client", "{simulation:#}");
    let told = node.hivemind_ok(&["policy", "simulate", "-f", &file])?;
    let row = told.lines().find(|line| line.starts_with("denied ")).context("no row")?;
    ensure!(
        row.contains(" other ") && row.contains("5000/tcp") && row.contains("only-client/ingress"),
        "{told}"
    );
    let checked = node.hivemind(&["policy", "simulate", "-f", &file, "--check"])?;
    ensure!(checked.status.code() == Some(1), "{checked:?}");
    ensure!(node.hivemind_ok(&["policy", "ls", "-A", "-o", "json"])? == before, "the policies are others");
    ensure!(connects(&node, "other", to)?, "simulating cut a client off");

    node.hivemind_ok(&["policy", "apply", "-f", &file])?;
    ensure!(!connects(&node, "other", to)?, "what would be denied is not");
    ensure!(connects(&node, "client", to)?, "what would stay allowed does not");
    let again = simulated(&node, &["-f", &file, "--check"])?;
    ensure!(changes(&again)?.is_empty(), "what is in force already is told as new: {again:#}");

    let simulation = simulated(&node, &["--delete", "only-client", "--check"])?;
    ensure!(changes(&simulation)? == one("allowed"), "{simulation:#}");
    node.hivemind_ok(&["policy", "delete", "only-client"])?;
    ensure!(connects(&node, "other", to)?, "what would be allowed is not");
    node.refused(&["policy", "simulate", "--delete", "only-client"], "HM0207", 3)?;
    Ok(())
}
