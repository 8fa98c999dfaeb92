//! The bench `telemetry`: what policy, tracking and telemetry cost two replicas of one node that talk, and what a flood of
//! new connections costs the daemon.
//!
//! Three ways are compared in turns, both ends on one processor: a bare pair of virtual interfaces, the data path with
//! everything on and a policy that governs both ends, and the data path with policy, tracking and telemetry left out of
//! its programs.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::figure::Figure;
use super::memory;
use super::pair::{self, Kind, Pair};
use crate::{Node, Sandbox, http};

/// How often each way is measured.
const ROUNDS: usize = 15;

/// Of a bare pair's requests a second.
const OF_BARE_MIN: f64 = 0.94;

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
    progress("telemetry: two nodes and a bare pair");
    let full = node(&[])?;
    full.apply(POLICY)?;
    let off = node(&["--datapath-features", "0"])?;
    let bare_ends = [Sandbox::start()?, Sandbox::start()?];
    let pairs = [bare_pair(&bare_ends)?, replica_pair(&full)?, replica_pair(&off)?];
    let mut measure = |kind| pair::in_turns("telemetry", &pairs, kind, ROUNDS, progress);
    let (tcp, udp, crr) = (measure(Kind::TcpRr)?, measure(Kind::UdpRr)?, measure(Kind::TcpCrr)?);
    progress(&format!("telemetry: {OPENED_PER_S} new connections a second"));
    let flood = Flood::run(&full, &pairs[1])?;
    let mut figures =
        compared(["same_node_tcp_rr", "telemetry_tcp_rr", "veth_tcp_rr", "off_tcp_rr"], tcp, true);
    figures.extend(compared(
        ["same_node_udp_rr", "telemetry_udp_rr", "veth_udp_rr", "off_udp_rr"],
        udp,
        true,
    ));
    figures.extend(compared(
        ["same_node_tcp_crr", "telemetry_tcp_crr", "veth_tcp_crr", "off_tcp_crr"],
        crr,
        false,
    ));
    figures.extend(flood.figures());
    figures.extend(programs()?);
    for node in [full, off] {
        node.daemon_kill9()?;
        node.stop()?;
    }
    Ok(figures)
}

/// What the programs take for a packet by themselves: with everything on, and with nothing but the way.
fn programs() -> Result<Vec<Figure>> {
    const REPEAT: u32 = 200_000;
    let names = [
        ["prog_from_replica_first_ns", "prog_from_replica_ns", "prog_to_replica_ns"],
        ["off_from_replica_first_ns", "off_from_replica_ns", "off_to_replica_ns"],
    ];
    let mut samples = [const { [const { Vec::new() }; 3] }; 2];
    for _ in 0..ROUNDS {
        for (way, features) in [hivemind_datapath::Config::FEATURES, 0].into_iter().enumerate() {
            let times = hivemind_datapath::program_times(features, REPEAT)?;
            for (program, time) in times.into_iter().enumerate() {
                samples[way][program].push(time.ns);
            }
        }
    }
    let [on, off] = samples;
    let mut figures = Vec::new();
    for (program, (on, off)) in on.into_iter().zip(off).enumerate() {
        let off = Figure::new(names[1][program], "ns", off);
        figures.push(Figure::new(names[0][program], "ns", on).against(&off));
        figures.push(off);
    }
    Ok(figures)
}

/// A node with a server's and a client's replica, which only wait: the ends are put beside them.
fn node(flags: &[&str]) -> Result<Node> {
    let (node, registry) = Node::with_daemon_flags(flags)?;
    for app in ["server", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    registry.stop()?;
    Ok(node)
}

fn replica_pair(node: &Node) -> Result<Pair> {
    Pair::of_replicas([(node, &node.replica("server")?), (node, &node.replica("client")?)])
}

fn bare_pair(ends: &[Sandbox; 2]) -> Result<Pair> {
    let [server, client] = ends;
    let peer = client.pid().to_string();
    server.check(&["ip", "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", &peer])?;
    for (sandbox, address) in [(server, "10.9.0.1/24"), (client, "10.9.0.2/24")] {
        sandbox.check(&["ip", "address", "add", address, "dev", "e0"])?;
        sandbox.check(&["ip", "link", "set", "e0", "up"])?;
    }
    Pair::of_sandboxes([server, client], [10, 9, 0, 1].into())
}

fn compared(names: [&'static str; 4], [bare, full, off]: [Vec<f64>; 3], is_promised: bool) -> Vec<Figure> {
    let [same_node, telemetry, veth, without] = names;
    let bare = Figure::new(veth, "1/s", bare);
    let off = Figure::new(without, "1/s", off);
    let ours = Figure::new(same_node, "1/s", full.clone()).against(&bare);
    let ours = if is_promised { ours.at_least_times(OF_BARE_MIN) } else { ours };
    vec![ours, Figure::new(telemetry, "1/s", full).against(&off), bare, off]
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
        let mut client = pair.client_at_rate(Kind::TcpCrr, OPENED_MS, OPENED_PER_S)?;
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
