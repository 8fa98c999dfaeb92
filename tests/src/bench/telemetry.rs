//! The bench `telemetry`: what a flood of new connections costs the daemon, which is told of each and is scraped meanwhile.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::figure::Figure;
use super::memory;
use super::pair::Pair;
use crate::{Node, http};

/// A flood of new connections, while the daemon is scraped.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
const OPENED_PER_S: u64 = 10_000;
const OPENED_MS: u64 = 5_000;
const MEMORY_MB_MAX: f64 = 30.0;

/// Governs both apps in both directions and allows what the bench does.
const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 7}, {port: 7, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: server}}}]}]
";

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress(&format!("telemetry: {OPENED_PER_S} new connections a second"));
    let node = node()?;
    let pair = Pair::of_replicas([(&node, &node.replica("server")?), (&node, &node.replica("client")?)])?;
    let flood = Flood::run(&node, &pair)?;
    node.daemon_kill9()?;
    node.stop()?;
    Ok(flood.figures())
}

/// A node with a server's and a client's replica, which only wait: the ends are put beside them.
fn node() -> Result<Node> {
    let (node, registry) = Node::with_daemon()?;
    for app in ["server", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    registry.stop()?;
    node.apply(POLICY)?;
    Ok(node)
}

/// What a stretch of many new connections cost the daemon.
struct Flood {
    opened_per_s: f64,
    /// Percent of one processor.
    processor: f64,
    /// The most that was resident, in MB.
    memory_mb: f64,
}

impl Flood {
    fn run(node: &Node, pair: &Pair) -> Result<Self> {
        let daemon = node.daemon_pid()?;
        let mut client = pair.opening_at_rate(OPENED_MS, OPENED_PER_S)?;
        let socket = node.sandbox().outside(&node.socket());
        let (before, began) = (processor_time(daemon)?, Instant::now());
        let running = client.stdout(Stdio::piped()).spawn().context("cannot start the client")?;
        let watch = std::thread::spawn(move || {
            let (mut most, mut scrapes) = (0, 0);
            while began.elapsed() < Duration::from_millis(OPENED_MS) {
                if began.elapsed() >= SCRAPED_EVERY * scrapes {
                    scrapes += 1;
                    let scrape = http::get_unix(&socket, "/metrics", SCRAPED_EVERY)?;
                    ensure!(scrape.status == 200, "a scrape was answered {}", scrape.status);
                }
                most = memory::resident(daemon)?.max(most);
                std::thread::sleep(Duration::from_millis(100));
            }
            anyhow::Ok(most)
        });
        let output = running.wait_with_output()?;
        ensure!(output.status.success(), "the client failed");
        let spent = processor_time(daemon)? - before;
        let elapsed = began.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        let mut words = said.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(answers)), Some(Ok(micros))) = (words.next(), words.next()) else {
            bail!("the client said {said:?}")
        };
        let most = watch.join().map_err(|_| anyhow::anyhow!("memory could not be watched"))??;
        Ok(Self {
            opened_per_s: answers / micros * 1e6,
            processor: 100.0 * spent.as_secs_f64() / elapsed.as_secs_f64(),
            memory_mb: most as f64 / 1e6,
        })
    }

    fn figures(self) -> Vec<Figure> {
        vec![
            Figure::new("new_flows", "1/s", vec![self.opened_per_s]),
            Figure::new("new_flows_daemon_cpu", "%", vec![self.processor]),
            Figure::new("new_flows_daemon_rss", "MB", vec![self.memory_mb]).at_most(MEMORY_MB_MAX),
        ]
    }
}

/// What a process has spent of processors' time (proc_pid_stat(5)).
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let (_, fields) = stat.rsplit_once(')').context("the kernel's line about the process has no name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let per_s = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no tick")? as u64;
    Ok(Duration::from_millis(ticks * 1_000 / per_s))
}
