//! Flows on disk where there is little room: a full disk is told and waited out, and the log keeps within its size.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, Registry, eventually, get};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// A minute's end is at most this far away.
const MINUTE: Duration = Duration::from_secs(75);

const METRICS_PORT: u16 = 9464;

/// Long before any test.
const LONG_AGO: &str = "2001-01-01T00:00:00Z";

const FIRST_PORT: u16 = 10_000;

/// Records of so many ports take more than is left of a file's last page on a full disk.
const PORTS: u16 = 1_000;

/// So many records at a time, each with another number of bytes, fill the smallest log within some ten times.
const MANY_PORTS: u16 = 4_000;
const TIMES_MAX: usize = 24;

const SMALLEST_LOG_BYTES: u64 = 1 << 20;

/// A node with `client` and `server`, whose daemon has the flags; `disk` is the size of the log's own file system, if it has one.
fn node(flags: &[&str], disk: Option<&str>) -> Result<(Node, Registry)> {
    let daemon_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    if let Some(size) = disk {
        let directory = log_directory(&node);
        fs::create_dir_all(node.sandbox().outside(&directory))?;
        let (size, directory) = (format!("size={size}"), directory.display().to_string());
        node.sandbox().check(&["mount", "-t", "tmpfs", "-o", &size, "none", &directory])?;
    }
    let registry = node.registry()?;
    node.daemon_start()?;
    for app in ["server", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    Ok((node, registry))
}

fn log_directory(node: &Node) -> PathBuf {
    node.sandbox().directory().join("data/flows")
}

fn server(node: &Node) -> Result<IpAddr> {
    let replica = node.replica("server")?;
    replica["status"]["ipv4"].as_str().context("no address")?.parse().context("no address")
}

/// Sends a datagram from `client` to each of so many ports of `server`, each of so many bytes as `bytes` says of its port.
fn send(node: &Node, server: IpAddr, ports: u16, bytes: impl Fn(u16) -> usize + Sync) -> Result<()> {
    node.in_network_of("client", || -> Result<()> {
        // Always the same connections: their table has a size of its own.
        let socket = UdpSocket::bind(("0.0.0.0", FIRST_PORT))?;
        for port in FIRST_PORT..FIRST_PORT + ports {
            socket.send_to(&vec![7; bytes(port)], SocketAddr::new(server, port))?;
        }
        Ok(())
    })?
}

/// How many datagrams the records on disk tell of, with further flags.
fn on_disk(node: &Node, words: &[&str]) -> Result<u64> {
    let of_client = ["flows", "--since", LONG_AGO, "--from", "client", "--to", "server", "-o", "json"];
    let text = node.hivemind_ok(&[&of_client[..], words].concat())?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let minutes = lines.iter().filter(|line| line["type"] == "minute");
    Ok(minutes.filter_map(|line| line["object"]["packetsSent"].as_u64()).sum())
}

/// What the status says of the log, if something is wrong with it.
fn problem(node: &Node) -> Result<Option<String>> {
    let status = node.json(&["status"])?;
    let problems = status["problems"].as_array().context("no problems")?;
    let mut said = problems.iter().filter_map(|problem| problem["message"].as_str());
    Ok(said.find(|message| message.contains("flows cannot be kept on disk")).map(str::to_owned))
}

/// The value of a family without labels.
fn metric(node: &Node, family: &str) -> Result<u64> {
    let address = SocketAddr::from(([127, 0, 0, 1], METRICS_PORT));
    let text = node.sandbox().in_network(|| get(address, "/metrics", LIMIT))??.body;
    let value = text.lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no {family}"))?;
    Ok(value.parse::<f64>()? as u64)
}

#[test]
fn a_full_disk_is_told_breaks_nothing_else_and_what_went_meanwhile_is_written_once_there_is_room()
-> Result<()> {
    let (node, _registry) = node(&["--metrics-address", &format!("127.0.0.1:{METRICS_PORT}")], Some("1m"))?;
    let server = server(&node)?;
    send(&node, server, 1, |_| 4)?;
    node.daemon_term()?;
    node.daemon_start()?;
    ensure!(on_disk(&node, &[])? == 1 && problem(&node)?.is_none(), "{:?}", problem(&node));
    eventually(LIMIT, "the metrics to tell of the log", || {
        let oldest = metric(&node, "hivemind_flow_log_oldest_timestamp_seconds")?;
        ensure!(oldest > 1_700_000_000 && oldest % 60 == 0, "{oldest} is no minute");
        ensure!(metric(&node, "hivemind_flow_log_size_bytes")? > 0);
        ensure!(metric(&node, "hivemind_flow_log_writes_failed_total")? == 0);
        Ok(())
    })?;

    let filling = log_directory(&node).join("filling").display().to_string();
    node.sandbox().check(&["sh", "-c", "dd if=/dev/zero of=$1 bs=4096 2>/dev/null; true", "sh", &filling])?;
    send(&node, server, PORTS, |_| 4)?;
    // Neither the end of a daemon nor the beginning of the next needs room for it.
    node.daemon_term()?;
    node.daemon_start()?;
    let said = eventually(LIMIT, "the full disk to be told", || problem(&node)?.context("it is not"))?;
    ensure!(said.contains("their totals wait in the kernel"), "{said}");
    ensure!(metric(&node, "hivemind_flow_log_writes_failed_total")? > 0);
    send(&node, server, PORTS, |_| 4)?;
    node.deploy_waiting("another", &[])?;
    node.in_replica("client", "true")?;
    node.hivemind_ok(&["flows", "--from", "client"])?;
    let before = on_disk(&node, &[])?;

    node.sandbox().check(&["rm", &filling])?;
    let sent = 1 + 2 * u64::from(PORTS);
    ensure!(before < sent, "all {before} were written to a full disk");
    eventually(MINUTE, "what was counted to be written", || {
        let told = on_disk(&node, &[])?;
        ensure!(told == sent, "{told} datagrams are on disk, of {sent}");
        problem(&node)?.map_or(Ok(()), |said| Err(anyhow::anyhow!(said)))
    })?;
    ensure!(metric(&node, "hivemind_flow_log_records_total")? > 0);
    Ok(())
}

#[test]
fn the_log_keeps_within_the_size_that_it_was_given_and_the_oldest_goes_first() -> Result<()> {
    let (node, _registry) = node(&["--flow-log-size", "1"], None)?;
    let server = server(&node)?;
    let segments = || -> Result<Vec<(String, u64)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(node.sandbox().outside(&log_directory(&node)))? {
            let entry = entry?;
            segments.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
        }
        segments.sort();
        Ok(segments)
    };
    let (first, _) = segments()?.swap_remove(0);
    for time in 1..=TIMES_MAX {
        send(&node, server, MANY_PORTS, |port| (usize::from(port) * 7_919 + time * 104_729) % 1_200)?;
        node.daemon_term()?;
        let now = segments()?;
        let bytes: u64 = now.iter().map(|(_, bytes)| bytes).sum();
        ensure!(bytes <= SMALLEST_LOG_BYTES, "{bytes} bytes after {time} times");
        node.daemon_start()?;
        if now.iter().all(|(name, _)| *name != first) {
            // To one port of them one goes each time.
            let told = on_disk(&node, &["--port", &FIRST_PORT.to_string()])?;
            ensure!((2..time as u64).contains(&told), "{told} of {time} are on disk");
            ensure!(bytes > SMALLEST_LOG_BYTES / 2, "only {bytes} bytes are used");
            return Ok(());
        }
    }
    anyhow::bail!("the log never was full: {:?}", segments()?)
}
