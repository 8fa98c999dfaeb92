//! `hivemind policy matrix`: what is told to be used, open and denied is what packets find.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Node,
    echo::{Echo, PORT, addresses, dials},
};
use serde_json::{Value, json};

/// A port that is open and that nobody uses.
const UNUSED: u16 = PORT + 1;

/// Lets `client` in on both ports, and `spare` on the one that nobody uses.
const ONLY_SOME: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: only-some\nspec:\n  \
     podSelector:\n    matchLabels: {app: server}\n  ingress:\n  - from:\n    - podSelector:\n        matchLabels: {app: client}\n    \
     ports:\n    - {port: 7000, endPort: 7001}\n  - from:\n    - podSelector:\n        matchLabels: {app: spare}\n    \
     ports:\n    - {port: 7001}\n";

fn matrix(node: &Node) -> Result<Value> {
    Ok(serde_json::from_str(&node.hivemind_ok(&["policy", "matrix", "-o", "json"])?)?)
}

/// What is told of an app and the server, if something was recorded of them.
fn pair<'a>(matrix: &'a Value, source: &str) -> Option<&'a Value> {
    let is = |pair: &&Value| {
        pair["source"] == format!("default/{source}") && pair["destination"] == "default/server"
    };
    matrix["pairs"].as_array()?.iter().find(is)
}

/// The sum of a number over all minutes of what an app sent to the server.
fn recorded(node: &Node, source: &str, field: &str) -> Result<u64> {
    let words = ["flows", "--since", "1h", "--from", source, "--to", "server", "-o", "json"];
    let text = node.hivemind_ok(&words)?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let minutes = lines.iter().filter(|line| line["type"] == "minute");
    Ok(minutes.filter_map(|line| line["object"][field].as_u64()).sum())
}

#[test]
fn what_is_told_to_be_used_open_and_denied_is_what_packets_find() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "spare", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let told = node.hivemind_ok(&["policy", "matrix"])?;
    let everything = told.lines().filter(|line| line.contains("everything: no policy")).count();
    ensure!(everything == 2 && told.lines().filter(|line| line.contains("anybody")).count() == 2, "{told}");
    node.apply(ONLY_SOME)?;

    let _server = Echo::start(&node, "server")?;
    let [address, _] = addresses(&node, "server")?;
    let at = |port: u16| SocketAddr::new(address, port);
    for _ in 0..3 {
        ensure!(dials(&node, "client", at(PORT))?, "the client does not reach the server");
    }
    ensure!(!dials(&node, "stranger", at(PORT))?, "the stranger reaches the server");
    // The end of a daemon ends the minute, too.
    node.daemon_term()?;
    node.daemon_start()?;

    let told = matrix(&node)?;
    let used = pair(&told, "client").with_context(|| format!("no client: {told:#}"))?;
    ensure!(used["used"][0]["port"] == PORT && used["used"][0]["now"] == "allowed", "{used:#}");
    ensure!(used["used"][0]["connections"] == json!({"least": 3, "most": 3}), "{used:#}");
    for way in ["bytesSent", "bytesReceived"] {
        let sum = recorded(&node, "client", way)?;
        ensure!(sum > 0 && used["used"][0][way] == json!({"least": sum, "most": sum}), "{sum}: {used:#}");
    }
    let unused = json!([{"protocol": "tcp", "first": UNUSED, "last": UNUSED}]);
    ensure!(used["unused"]["ranges"] == unused && used["denied"] == json!([]), "{used:#}");
    let denied = pair(&told, "stranger").with_context(|| format!("no stranger: {told:#}"))?;
    ensure!(denied["denied"][0]["port"] == PORT && denied["denied"][0]["now"] == "denied", "{denied:#}");
    ensure!(denied["denied"][0]["bytesSent"] == json!({"least": 0, "most": 0}), "{denied:#}");
    ensure!(denied["used"] == json!([]) && denied["unused"]["ranges"] == json!([]), "{denied:#}");
    let open = json!({
        "sources": ["default/spare"], "destinations": ["default/server"], "allowed": {"ranges": unused},
    });
    let groups = told["open"].as_array().context("nothing is open")?;
    ensure!(groups.contains(&open), "{groups:#?}");
    let others = json!(["default/client", "default/spare", "default/stranger"]);
    ensure!(told["openFromAll"] == others && told["apps"] == 4, "{told:#}");

    let table = node.hivemind_ok(&["policy", "matrix", "-A"])?;
    let row = |words: &[&str]| {
        table
            .lines()
            .any(|line| line.split("   ").map(str::trim).filter(|c| !c.is_empty()).eq(words.iter().copied()))
    };
    ensure!(row(&["client", "server", "7000/tcp (3)", "7001/tcp", "-"]), "{table}");
    ensure!(row(&["spare", "server", "-", "7001/tcp", "-"]), "{table}");

    // What is told of ports that nobody used is so.
    let _unused = node.in_network_of("server", || TcpListener::bind(at(UNUSED)))??;
    for (app, is_open) in [("client", true), ("spare", true), ("stranger", false)] {
        ensure!(dials(&node, app, at(UNUSED))? == is_open, "{app} finds another port {UNUSED} than is told");
    }
    ensure!(!dials(&node, "spare", at(PORT))?, "spare reaches a port that is not told to be open");

    // Without the policy, what was denied is allowed by now.
    node.hivemind_ok(&["policy", "delete", "only-some"])?;
    let told = matrix(&node)?;
    let denied = pair(&told, "stranger").with_context(|| format!("no stranger: {told:#}"))?;
    ensure!(denied["denied"][0]["now"] == "allowed", "{denied:#}");
    Ok(())
}

#[test]
fn faults_of_a_question_are_told_all_at_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let said = node.refused(&["policy", "matrix", "--since", "soon", "--until", "later"], "HM0100", 2)?;
    ensure!(said.contains("--since") && said.contains("--until"), "{said}");
    node.refused(&["policy", "matrix", "-n", "nowhere"], "HM0208", 3)?;
    Ok(())
}
