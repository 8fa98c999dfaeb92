//! A name server of the network that a node is in: dnsmasq, which knows names below `example` and no others.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Background, Node};

/// Where it answers, on the node's own loopback: for `--dns-upstream`.
pub const UPSTREAM: &str = "127.0.0.53:5300";

const LIMIT: Duration = Duration::from_secs(20);

/// Starts it with these records, each a flag of dnsmasq's, and a time to live in seconds. Returns once it answers.
///
/// # Errors
/// When it does not start, or does not answer in time.
pub fn start_upstream(node: &Node, ttl_s: u32, records: &[String]) -> Result<Background> {
    let ttl = format!("--local-ttl={ttl_s}");
    let mut words = vec![
        "dnsmasq",
        "--keep-in-foreground",
        "--no-hosts",
        "--no-resolv",
        "--bind-interfaces",
        "--conf-file=/dev/null",
        "--user=root",
        "--listen-address=127.0.0.53",
        "--port=5300",
        &ttl,
        "--local=/example/",
        "--host-record=ready.example,192.0.2.255",
    ];
    words.extend(records.iter().map(String::as_str));
    let log = node.sandbox().directory().join("upstream.log");
    let mut upstream = node.host_process(&words, Some(&log))?;
    let ask = ["dig", "@127.0.0.53", "-p", "5300", "+short", "+time=1", "+tries=1", "ready.example", "A"];
    upstream.until_ready(LIMIT, "the upstream", || {
        let output = node.exec_in_node(&ask)?;
        ensure!(output.stdout.starts_with(b"192.0.2.255"), "it says {output:?}");
        Ok(())
    })?;
    Ok(upstream)
}
