//! What a flood of new connections costs the daemon, which is told of each and is scraped meanwhile, and the kernel.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{SysconfVar, sysconf};

use crate::bench::figure::Figure;
use crate::bench::memory;
use crate::bench::pair::Pair;
use crate::{Node, PinnedMaps, http};
use hivemind_common::{ABI_VERSION, name};

/// A flood of new connections, while the daemon is scraped.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
const OPENED_PER_S: u64 = 10_000;
const OPENED_MS: u64 = 5_000;
const MEMORY_MB_MAX: f64 = 30.0;

/// Of one processor.
const DAEMON_PERCENT_MAX: f64 = 10.0;

const FLOODS: usize = 5;

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

/// Maps that are there for telemetry only.
const MAPS: [&str; 9] = [
    name::PAIR,
    name::PAIR_FREE,
    name::PAIR_COUNTERS,
    name::RTT,
    name::VERDICTS,
    name::EVENTS,
    name::EVENT_BUDGETS,
    name::DROP_COUNTERS,
    name::ENDPOINT_DROPS,
];

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let node = node()?;
    let pair = Pair::of_replicas([(&node, &node.replica("server")?), (&node, &node.replica("client")?)])?;
    let mut floods = Vec::new();
    for number in 1..=FLOODS {
        progress(&format!("telemetry: {OPENED_PER_S} new connections a second, {number} of {FLOODS}"));
        floods.push(Flood::run(&node, &pair)?);
    }
    let bpffs = node.sandbox().outside(&node.sandbox().directory().join("bpf/hivemind"));
    let maps = PinnedMaps::of_version(&bpffs, ABI_VERSION);
    let sizes = MAPS.iter().map(|map| maps.bytes(map)).collect::<Result<Vec<_>>>()?;
    let all = memory::maps(node.daemon_pid()?)?;
    node.daemon_kill9()?;
    node.stop()?;
    let mut figures = figures(&floods);
    let all = Figure::new("ebpf_maps", "MB", vec![all as f64 / 1e6]);
    let own = sizes.into_iter().sum::<u64>() as f64 / 1e6;
    figures.push(Figure::new("telemetry_maps", "MB", vec![own]).against(&all));
    Ok(figures)
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

/// What a stretch of many new connections cost.
struct Flood {
    opened_per_s: f64,
    /// Percent of one processor that the daemon took.
    daemon: f64,
    /// Percent of one processor that went into software interrupts on all of them.
    software_interrupts: f64,
    /// Percent of the events about beginnings and ends that were told, and not counted as lost.
    told: f64,
    /// The most that was resident, in MB.
    memory_mb: f64,
}

impl Flood {
    fn run(node: &Node, pair: &Pair) -> Result<Self> {
        let daemon = node.daemon_pid()?;
        let mut client = pair.opening_at_rate(OPENED_MS, OPENED_PER_S)?;
        let socket = node.sandbox().outside(&node.socket());
        let events = events(node)?;
        let (before, interrupts, began) = (processor_time(daemon)?, software_interrupts()?, Instant::now());
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
        let elapsed = began.elapsed().as_secs_f64();
        let spent = (processor_time(daemon)? - before).as_secs_f64();
        let interrupted = (software_interrupts()? - interrupts).as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout);
        let mut words = said.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(answers)), Some(Ok(micros))) = (words.next(), words.next()) else {
            bail!("the client said {said:?}")
        };
        let most = watch.join().map_err(|_| anyhow::anyhow!("memory could not be watched"))??;
        let [told, lost] = self::events(node)?;
        let [told, lost] = [told - events[0], lost - events[1]].map(|events| events as f64);
        ensure!(told + lost >= 2.0 * answers, "{told} told and {lost} lost, of {answers} connections");
        Ok(Self {
            opened_per_s: answers / micros * 1e6,
            daemon: 100.0 * spent / elapsed,
            software_interrupts: 100.0 * interrupted / elapsed,
            told: 100.0 * told / (told + lost),
            memory_mb: most as f64 / 1e6,
        })
    }
}

fn figures(floods: &[Flood]) -> Vec<Figure> {
    let figure = |metric, unit, of: fn(&Flood) -> f64| {
        Figure::new(metric, unit, floods.iter().map(of).collect::<Vec<_>>())
    };
    vec![
        figure("new_flows", "1/s", |flood| flood.opened_per_s),
        figure("new_flows_daemon_cpu", "%", |flood| flood.daemon).at_most(DAEMON_PERCENT_MAX),
        figure("new_flows_softirq_cpu", "%", |flood| flood.software_interrupts),
        figure("new_flows_told", "%", |flood| flood.told),
        figure("new_flows_daemon_rss", "MB", |flood| flood.memory_mb).at_most(MEMORY_MB_MAX),
    ]
}

/// Events about beginnings and ends of connections until now: told, and lost in the kernel.
fn events(node: &Node) -> Result<[u64; 2]> {
    let status = node.json(&["status"])?;
    let all = status["events"].as_array().context("no events")?;
    let ours = all.iter().filter(|events| events["class"] == "new" || events["class"] == "closed");
    let number = |events: &serde_json::Value, field: &str| events[field].as_u64().context("no number");
    ours.map(|events| Ok([number(events, "told")?, number(events, "lost")?]))
        .try_fold([0, 0], |sum, events: Result<_>| events.map(|[told, lost]| [sum[0] + told, sum[1] + lost]))
}

/// What all processors have spent in software interrupts (proc_stat(5)).
fn software_interrupts() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("the kernel tells nothing of its processors")?;
    let all = stat.lines().next().context("no processors")?;
    ticks(all.split_whitespace().nth(7).and_then(|word| word.parse().ok()).context("no software interrupts")?)
}

/// What a process has spent of processors' time (proc_pid_stat(5)).
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let (_, fields) = stat.rsplit_once(')').context("the kernel's line about the process has no name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    self::ticks(ticks)
}

fn ticks(count: u64) -> Result<Duration> {
    let per_s = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no tick")? as u64;
    Ok(Duration::from_millis(count * 1_000 / per_s))
}
