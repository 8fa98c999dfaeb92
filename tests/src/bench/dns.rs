//! The bench `dns`: how many questions a second the DNS server answers, beside unbound and dnsmasq.
//!
//! All three run on one processor, the client (dnsperf) on another; they are asked in turns, over UDP, for names that each
//! has by itself (a service's name here, `local-data` and `host-record` there) and for names that each has in its cache.
//! An upstream of the bench's own, a fourth server, has the latter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::figure::Figure;
use crate::{Background, Node, NodeOptions, Sandbox, eventually};

/// How often each server is asked for each kind of names, and how long.
const ROUNDS: usize = 9;
const STRETCH_S: &str = "2";

/// How many different names are asked for.
const NAMES: usize = 100;

const SERVERS_PROCESSOR: &str = "1";
const CLIENT_PROCESSOR: &str = "0";
const START_LIMIT: Duration = Duration::from_secs(10);

/// Where the servers listen.
const OURS: &str = "169.254.20.10";
const DNSMASQ: &str = "127.0.0.2";
const UNBOUND: &str = "127.0.0.3";
const UPSTREAM: &str = "127.0.0.53";
const UPSTREAM_PORT: &str = "5300";

/// The kinds of names.
const LOCAL: &str = "local";
const CACHED: &str = "cached";

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let unbound: PathBuf = std::env::var_os("HIVEMIND_BENCH_UNBOUND")
        .context("HIVEMIND_BENCH_UNBOUND does not name unbound: run this by `cargo xtask bench dns`")?
        .into();
    let daemon_flags = vec!["--dns-upstream".to_owned(), format!("{UPSTREAM}:{UPSTREAM_PORT}")];
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    let servers = start_servers(&node, &unbound)?;
    let questions = write_questions(&node)?;
    let mut samples = [const { Vec::new() }; 6];
    for round in 0..ROUNDS {
        progress(&format!("dns: round {} of {ROUNDS}", round + 1));
        for turn in 0..samples.len() {
            let way = (round + turn) % samples.len();
            let server = [OURS, DNSMASQ, UNBOUND][way % 3];
            samples[way].push(questions_per_s(node.sandbox(), server, &questions[way / 3])?);
        }
    }
    node.daemon_kill9()?;
    drop(servers);
    node.stop()?;
    Ok(figures(samples))
}

fn figures(
    [local, local_dnsmasq, local_unbound, cached, cached_dnsmasq, cached_unbound]: [Vec<f64>; 6],
) -> Vec<Figure> {
    let peers = [
        Figure::new("dns_local_qps_dnsmasq", "1/s", local_dnsmasq),
        Figure::new("dns_local_qps_unbound", "1/s", local_unbound),
        Figure::new("dns_cached_qps_dnsmasq", "1/s", cached_dnsmasq),
        Figure::new("dns_cached_qps_unbound", "1/s", cached_unbound),
    ];
    let mut figures = vec![
        Figure::new("dns_local_qps", "1/s", local.clone()).against(&peers[0]),
        Figure::new("dns_local_qps_vs_unbound", "1/s", local).against(&peers[1]),
        Figure::new("dns_cached_qps", "1/s", cached.clone()).against(&peers[2]),
        Figure::new("dns_cached_qps_vs_unbound", "1/s", cached).against(&peers[3]),
    ];
    figures.extend(peers);
    figures
}

/// A name of each kind.
fn name(kind: &str, number: usize) -> String {
    match kind {
        LOCAL => format!("app-{number}.default.svc.hivemind.internal"),
        _ => format!("name-{number}.example"),
    }
}

/// The peers, the upstream, and the daemon with an app for each local name; all on one processor.
fn start_servers(node: &Node, unbound: &Path) -> Result<Vec<Background>> {
    let mut servers = vec![dnsmasq(node, UPSTREAM, UPSTREAM_PORT, CACHED, &["--local-ttl=3600"])?];
    let forward = format!("--server={UPSTREAM}#{UPSTREAM_PORT}");
    servers.push(dnsmasq(
        node,
        DNSMASQ,
        "53",
        LOCAL,
        &[&forward, "--cache-size=10000", "--dns-forward-max=1000"],
    )?);
    servers.push(start_unbound(node, unbound)?);
    node.daemon_start()?;
    for number in 0..NAMES {
        let app = format!("app-{number}");
        node.hivemind_ok(&["app", "deploy", &app, "--image", "busybox", "--replicas", "0"])?;
    }
    let pid = node.daemon_pid()?.to_string();
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", SERVERS_PROCESSOR, &pid])
        .stdout(Stdio::null())
        .status()?;
    ensure!(pinned.success(), "the daemon cannot be put onto one processor");
    for server in [OURS, DNSMASQ, UNBOUND] {
        for kind in [LOCAL, CACHED] {
            eventually(START_LIMIT, &format!("{server} to answer"), || {
                answers(node.sandbox(), server, kind)
            })?;
        }
    }
    Ok(servers)
}

fn answers(sandbox: &Sandbox, server: &str, kind: &str) -> Result<()> {
    let at = format!("@{server}");
    let words = ["dig", "+short", "+time=1", "+tries=1", &at, &name(kind, NAMES - 1), "A"];
    let output = sandbox.run(&words)?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(output.status.success() && answer.parse::<std::net::Ipv4Addr>().is_ok(), "it says {answer:?}");
    Ok(())
}

fn pinned(node: &Node, words: &[&str]) -> Command {
    let mut command = node.sandbox().command("taskset");
    command.args(["--cpu-list", SERVERS_PROCESSOR]).args(words);
    command
}

fn dnsmasq(node: &Node, address: &str, port: &str, kind: &str, further: &[&str]) -> Result<Background> {
    let listen = format!("--listen-address={address}");
    let port = format!("--port={port}");
    let plain = [
        "--keep-in-foreground",
        "--no-hosts",
        "--no-resolv",
        "--bind-interfaces",
        "--conf-file=/dev/null",
        "--user=root",
    ];
    let mut command = pinned(node, &["dnsmasq", &listen, &port]);
    command.args(plain).args(further);
    for number in 0..NAMES {
        command.arg(format!("--host-record={},192.0.2.{number}", name(kind, number)));
    }
    node.sandbox().spawn_command(command, None)
}

fn start_unbound(node: &Node, program: &Path) -> Result<Background> {
    let data: String = (0..NAMES)
        .map(|number| format!("    local-data: \"{} A 192.0.2.{number}\"\n", name(LOCAL, number)))
        .collect();
    let text = format!(
        "server:\n    interface: {UNBOUND}\n    port: 53\n    num-threads: 1\n    do-daemonize: no\n    chroot: \"\"\n    \
         username: \"\"\n    pidfile: \"\"\n    module-config: \"iterator\"\n    do-not-query-localhost: no\n    \
         local-zone: \"hivemind.internal.\" static\n    domain-insecure: \"example\"\n{data}\
         forward-zone:\n    name: \".\"\n    forward-addr: {UPSTREAM}@{UPSTREAM_PORT}\n"
    );
    let file = node.sandbox().directory().join("unbound.conf");
    fs::write(node.sandbox().outside(&file), text).context("cannot write unbound's configuration")?;
    // Unpacked and not installed: its libraries lie beside it.
    let root =
        program.parent().and_then(Path::parent).and_then(Path::parent).context("unbound lies nowhere")?;
    let libraries = format!("LD_LIBRARY_PATH={}", root.join("usr/lib/x86_64-linux-gnu").display());
    let words = ["env", &libraries, &program.display().to_string(), "-d", "-c", &file.display().to_string()];
    node.sandbox().spawn_command(pinned(node, &words), None)
}

/// A file of questions of each kind, as dnsperf reads it: local, cached.
fn write_questions(node: &Node) -> Result<[String; 2]> {
    let write = |kind: &str| -> Result<String> {
        let file = node.sandbox().directory().join(format!("{kind}.txt"));
        let lines: String = (0..NAMES).map(|number| format!("{} A\n", name(kind, number))).collect();
        fs::write(node.sandbox().outside(&file), lines)?;
        Ok(file.display().to_string())
    };
    Ok([write(LOCAL)?, write(CACHED)?])
}

fn questions_per_s(sandbox: &Sandbox, server: &str, questions: &str) -> Result<f64> {
    let output = sandbox
        .command("taskset")
        .args(["--cpu-list", CLIENT_PROCESSOR, "dnsperf", "-s", server, "-d", questions, "-l", STRETCH_S])
        .args(["-c", "10", "-q", "100"])
        .output()
        .context("cannot start dnsperf")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let value = |label: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (Some(rate), Some(lost)) = (value("Queries per second:"), value("Queries lost:")) else {
        bail!("dnsperf said: {said}{}", String::from_utf8_lossy(&output.stderr))
    };
    ensure!(said.contains("NOERROR"), "{server} did not answer: {said}");
    ensure!(lost < rate / 100.0, "{server} lost {lost} questions");
    Ok(rate)
}
