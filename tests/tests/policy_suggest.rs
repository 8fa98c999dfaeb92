//! Policies suggested by what apps really said to each other, applied as they are printed.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use hivemind_tests::{
    Node,
    echo::{Echo, PORT, addresses, asks, dials},
    eventually,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn what_is_suggested_is_applied_as_it_is_and_lets_pass_what_was_seen_and_nothing_else() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.refused(&["policy", "suggest", "nobody"], "HM0201", 3)?;
    for app in ["server", "client", "stranger", "idle"] {
        node.deploy_waiting(app, &[])?;
    }
    node.refused(&["policy", "suggest", "idle"], "HM0212", 3)?;
    let said = node.refused(&["policy", "suggest", "server", "--since", "soon"], "HM0100", 2)?;
    ensure!(said.contains("at: --since"), "{said}");

    let _server = Echo::start(&node, "server")?;
    for address in addresses(&node, "server")? {
        let to = SocketAddr::new(address, PORT);
        ensure!(dials(&node, "client", to)?, "the client does not reach {to} without a policy");
    }
    // The end of a daemon ends the minute, too.
    node.daemon_term()?;
    node.daemon_start()?;
    eventually(LIMIT, "what was seen to be suggested", || {
        node.hivemind_ok(&["policy", "suggest", "server"]).map(drop)
    })?;

    let text = node.hivemind_ok(&["policy", "suggest"])?;
    ensure!(text.contains(&format!("2 connections from default/client to {PORT}/tcp")), "{text}");
    ensure!(text.contains(&format!("2 connections to default/server on {PORT}/tcp")), "{text}");
    ensure!(
        text.starts_with("# From flows recorded ") && text.contains("no policy for idle, stranger"),
        "{text}"
    );
    let names = node.hivemind_ok(&["policy", "suggest", "-o", "name"])?;
    ensure!(names == "policy/client-as-seen\npolicy/server-as-seen\n", "{names}");
    let file = node.write("suggested.yaml", &text)?;
    let dry = node.hivemind(&["policy", "apply", "-f", &file, "--dry-run"])?;
    let warned = String::from_utf8_lossy(&dry.stderr).into_owned();
    ensure!(dry.status.success() && warned.is_empty(), "{warned}");
    node.apply(&text)?;

    for address in addresses(&node, "server")? {
        let to = SocketAddr::new(address, PORT);
        ensure!(dials(&node, "client", to)?, "{to} was seen, and is denied: {text}");
        ensure!(!asks(&node, "client", to)?, "datagrams to {to} were not seen, and pass: {text}");
        ensure!(!dials(&node, "stranger", to)?, "the stranger was not seen, and reaches {to}: {text}");
    }
    Ok(())
}
