//! The bench `telemetry`: what policy, tracking and telemetry cost two replicas of one node that talk, and what a flood of
//! new connections costs the daemon.
//!
//! Three ways are compared in turns, both ends on one processor: a bare pair of virtual interfaces, the data path with
//! everything on and a policy that governs both ends, and the data path with policy, tracking and telemetry left out of
//! its programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::figure::Figure;
use super::memory;
use crate::{Background, Node, Sandbox, http};

/// How often each way is measured, and how long.
const ROUNDS: usize = 15;
const STRETCH_MS: u64 = 400;

/// Both ends run here.
const PROCESSOR: &str = "1";
const PORT: u16 = 7;

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

/// Two ends that can talk, with the server running.
struct Pair {
    client: Box<dyn Fn() -> Command>,
    server: SocketAddr,
    _echo: Background,
}

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("telemetry: two nodes and a bare pair");
    let full = node(&[])?;
    full.apply(POLICY)?;
    let off = node(&["--datapath-features", "0"])?;
    let bare_ends = [Sandbox::start()?, Sandbox::start()?];
    let pairs = [bare_pair(&bare_ends)?, replica_pair(&full)?, replica_pair(&off)?];
    let tcp = in_turns(&pairs, "tcp", progress)?;
    let udp = in_turns(&pairs, "udp", progress)?;
    let crr = in_turns(&pairs, "open", progress)?;
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

fn bench_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program lies")
}

/// `program`, on the bench's processor, started by `enter`.
fn pinned(mut enter: Command, arguments: &[&str]) -> Result<Command> {
    enter.args(["taskset", "-c", PROCESSOR]).arg(bench_program()?).args(arguments);
    Ok(enter)
}

fn pair(server: SocketAddr, serve: Command, client: Box<dyn Fn() -> Command>) -> Result<Pair> {
    let mut serve = pinned(serve, &["echo", &server.to_string()])?;
    let mut echo = Background::new(serve.stdout(Stdio::piped()).spawn().context("cannot start the server")?);
    let mut line = String::new();
    BufReader::new(echo.take_stdout().context("no output")?).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the server does not start");
    Ok(Pair { client, server, _echo: echo })
}

fn replica_pair(node: &Node) -> Result<Pair> {
    let (server, client) = (node.replica("server")?, node.replica("client")?);
    let address = server["status"]["ipv4"].as_str().context("no address")?.parse()?;
    // The programs' network is reached through the node's holder: they are not children of this program.
    let enter = |network: PathBuf, sandbox: u32| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &sandbox.to_string(), "--mount", "--"]);
        command.arg("nsenter").arg(format!("--net={}", network.display())).arg("--");
        command
    };
    let (holder, network) = (node.pid(), node.network_of_replica(&client)?);
    let serve = enter(node.network_of_replica(&server)?, holder);
    pair(SocketAddr::new(address, PORT), serve, Box::new(move || enter(network.clone(), holder)))
}

fn bare_pair(ends: &[Sandbox; 2]) -> Result<Pair> {
    let [server, client] = ends;
    let peer = client.pid().to_string();
    server.check(&["ip", "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", &peer])?;
    for (sandbox, address) in [(server, "10.9.0.1/24"), (client, "10.9.0.2/24")] {
        sandbox.check(&["ip", "address", "add", address, "dev", "e0"])?;
        sandbox.check(&["ip", "link", "set", "e0", "up"])?;
    }
    let enter = |pid: u32| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--net", "--"]);
        command
    };
    let client = client.pid();
    pair(SocketAddr::new([10, 9, 0, 1].into(), PORT), enter(server.pid()), Box::new(move || enter(client)))
}

impl Pair {
    /// Answers a second.
    fn measure(&self, kind: &str) -> Result<f64> {
        let mut words = vec!["ping", kind];
        let (server, millis) = (self.server.to_string(), STRETCH_MS.to_string());
        words.extend([server.as_str(), millis.as_str()]);
        answers_per_s(&mut pinned((self.client)(), &words)?)
    }
}

fn answers_per_s(client: &mut Command) -> Result<f64> {
    let output = client.output().context("cannot start the client")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Option<Vec<f64>> = said.split_whitespace().map(|word| word.parse().ok()).collect();
    match numbers.as_deref() {
        Some([answers, micros]) if output.status.success() => Ok(answers / micros * 1e6),
        _ => bail!("the client failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// Each pair's answers a second, measured in turns; the order changes with each round.
fn in_turns(pairs: &[Pair; 3], kind: &str, progress: &mut dyn FnMut(&str)) -> Result<[Vec<f64>; 3]> {
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        progress(&format!("telemetry: {kind}, round {} of {ROUNDS}", round + 1));
        for turn in 0..pairs.len() {
            let way = (round + turn) % pairs.len();
            samples[way].push(pairs[way].measure(kind)?);
        }
    }
    Ok(samples)
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
        let (server, millis) = (pair.server.to_string(), OPENED_MS.to_string());
        let rate = OPENED_PER_S.to_string();
        let mut client = (pair.client)();
        client.arg(bench_program()?).args(["ping", "open", &server, &millis, &rate]);
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
