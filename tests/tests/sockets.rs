//! Sockets that outlive the daemon: what is asked while it is away is answered when it is back.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, Question, eventually, get, hivemind_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(30);
const NAME: &str = "web.default.svc.hivemind.internal";
const METRICS: &str = "127.0.0.1:9464";

/// What a daemon with a port for metrics gives to be kept.
const KEPT: [&str; 7] = ["dns-udp-v4", "dns-tcp-v4", "dns-udp-v6", "dns-tcp-v6", "api", "web", "metrics"];

fn start() -> Result<Node> {
    let (node, registry) = Node::with_daemon_flags(&["--metrics-address", METRICS])?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "busybox", "--command", "sleep 3600"])?;
    registry.stop()?;
    Ok(node)
}

/// The names of what is kept, when nothing more is on the way.
fn kept(node: &Node, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    eventually(LIMIT, "the right sockets to be kept", || {
        let names = node.fd_store().names();
        let found: BTreeSet<_> = names.iter().map(String::as_str).collect();
        ensure!(found == expected && names.len() == found.len(), "{names:?}");
        Ok(())
    })
}

/// Asks for a name in every way, from the node and from a replica's network; tells the API to do something, and asks at
/// each of its ports.
fn ask_everything(node: &Node, network: &Path, namespace: &str) -> Result<Vec<Question>> {
    let enter = format!("--net={}", network.display());
    let socket = node.socket().display().to_string();
    let hivemind = hivemind_binary()?.display().to_string();
    let mut all = Vec::new();
    for (server, local) in [("@169.254.20.10", "169.254.20.10:53"), ("@fd00:20::10", "[fd00:20::10]:53")] {
        for (protocol, kind) in [("+notcp", "u"), ("+tcp", "t")] {
            let dig = ["dig", "+time=30", "+tries=1", protocol, server, NAME, "A"];
            let in_replica = [&["nsenter", &enter][..], &dig].concat();
            all.push(Question::ask(node, (kind, local), &dig, "ANSWER: 1,")?);
            all.push(Question::ask(node, (kind, local), &in_replica, "ANSWER: 1,")?);
        }
    }
    let curl = ["curl", "-sS", "--fail", "--max-time", "30"];
    let api = [&curl[..], &["--unix-socket", &socket, "http://localhost/v1/apps"]].concat();
    let web =
        [&curl[..], &["-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:4483/healthz"]].concat();
    let url = format!("http://{METRICS}/metrics");
    let metrics = [&curl[..], &[&url]].concat();
    all.push(Question::ask(node, ("x", &socket), &[&hivemind, "app", "ls", "-o", "name"], "app/web")?);
    all.push(Question::ask(node, ("x", &socket), &[&hivemind, "namespace", "create", namespace], "")?);
    all.push(Question::ask(node, ("x", &socket), &api, "\"web\"")?);
    all.push(Question::ask(node, ("t", "127.0.0.1:4483"), &web, "200")?);
    all.push(Question::ask(node, ("t", METRICS), &metrics, "hivemind_")?);
    Ok(all)
}

#[test]
fn what_is_asked_while_the_daemon_is_away_is_answered_when_it_is_back() -> Result<()> {
    let node = start()?;
    let network = node.network_of_replica(&node.replica("web")?)?;
    for (end, namespace) in [
        (Node::daemon_kill9 as fn(&Node) -> Result<()>, "killed"),
        (Node::daemon_term, "ended"),
        (Node::daemon_kill9, "again"),
    ] {
        kept(&node, &KEPT)?;
        end(&node)?;
        let questions = ask_everything(&node, &network, namespace).with_context(|| namespace.to_owned())?;
        node.daemon_start()?;
        for question in questions {
            question.assert_answered(&node).with_context(|| namespace.to_owned())?;
        }
        let namespaces = node.hivemind_ok(&["namespace", "ls", "-o", "name"])?;
        ensure!(namespaces.contains(namespace), "it was not made: {namespaces}");
    }
    let mode = fs::metadata(node.sandbox().outside(&node.socket()))?;
    ensure!(mode.permissions().mode() & 0o777 == 0o660 && mode.uid() == 0, "{mode:?}");
    Ok(())
}

/// Whether the node's own programs reach a port.
fn answers(node: &Node, address: SocketAddr) -> Result<bool> {
    let response = node.sandbox().in_network(|| get(address, "/healthz", Duration::from_secs(5)))?;
    Ok(response.is_ok_and(|response| response.status == 200))
}

#[test]
fn a_socket_that_does_not_fit_the_configuration_any_more_is_let_go() -> Result<()> {
    let node = start()?;
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    ensure!(answers(&node, local(4483))?, "the web port does not answer");

    // Another port.
    node.daemon_kill9()?;
    node.daemon_start_with(&["--web-port", "4490"])?;
    kept(&node, &KEPT)?;
    let refused = node.sandbox().in_network(|| std::net::TcpStream::connect(local(4483)))?;
    ensure!(refused.is_err(), "the port that was given up takes connections");
    ensure!(answers(&node, local(4490))?, "the new port does not answer");

    // The same port at an address that takes in the old one: it has to be free before.
    node.daemon_term()?;
    node.daemon_start_with(&["--web-port", "4490", "--web-address", "0.0.0.0"])?;
    kept(&node, &KEPT)?;
    let shown = node.sandbox().check(&["ss", "-H", "-n", "-l", "-t"])?;
    ensure!(shown.contains("0.0.0.0:4490") && !shown.contains("127.0.0.1:4490"), "{shown}");

    // A socket whose file is gone is reached by nobody.
    node.daemon_term()?;
    fs::remove_file(node.sandbox().outside(&node.socket()))?;
    node.daemon_start()?;
    kept(&node, &KEPT)?;
    let apps = node.hivemind_ok(&["app", "ls", "-o", "name"])?;
    ensure!(apps.contains("app/web"), "{apps}");
    Ok(())
}

/// The sockets that a process has open, by their numbers.
fn sockets_of(pid: u32) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        found.extend(target.to_str().filter(|target| target.starts_with("socket:")).map(str::to_owned));
    }
    Ok(found)
}

/// The process that collects containers' output on the node.
fn log_process(node: &Node) -> Result<u32> {
    let directory = node.sandbox().directory().display().to_string();
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("log-collector") && line.contains(&directory) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("there is none")
}

#[test]
fn programs_that_the_daemon_starts_get_none_of_its_sockets() -> Result<()> {
    let node = start()?;
    node.daemon_kill9()?;
    node.daemon_start()?;
    let first = log_process(&node)?;
    kill(Pid::from_raw(i32::try_from(first)?), Signal::SIGKILL)?;
    let log = eventually(LIMIT, "another log process", || {
        let now = log_process(&node)?;
        ensure!(now != first, "it is dying");
        Ok(now)
    })?;
    let shared: Vec<_> = sockets_of(log)?.intersection(&sockets_of(node.daemon_pid()?)?).cloned().collect();
    ensure!(shared.is_empty(), "it has {shared:?}");
    let variables = fs::read(format!("/proc/{log}/environ"))?;
    let variables = String::from_utf8_lossy(&variables);
    ensure!(!variables.contains("LISTEN_") && !variables.contains("NOTIFY_"), "it is told of them");
    Ok(())
}

#[test]
fn after_a_teardown_nothing_is_kept() -> Result<()> {
    let node = start()?;
    node.daemon_term()?;
    kept(&node, &KEPT)?;
    node.daemon_teardown()?;
    let names = node.fd_store().names();
    ensure!(names.is_empty(), "{names:?} are kept");
    node.assert_nothing_left()?;
    node.daemon_start()?;
    kept(&node, &KEPT)
}
