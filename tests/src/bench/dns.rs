//! The bench `dns`: how many questions a second the DNS server answers, beside unbound and dnsmasq.
//!
//! All three run on one processor, the client (dnsperf) on another; they are asked in turns, over UDP, for names that each
//! has by itself (a service's name here, `local-data` and `host-record` there) and for names that each has in its cache.
//! An upstream of the bench's own, a fourth server, has the latter. Beside the rate, which depends on what else the machine
//! does, stands what each question costs the server in processor time, the kernel's part included, which hardly does.

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
const PORT: &str = "53";

/// The kinds of names.
const LOCAL: &str = "local";
const CACHED: &str = "cached";

/// Of the questions a second of each of the others.
const OF_OTHERS_MIN: f64 = 0.5;

/// Of the processor time of each of the others.
const COST_OF_OTHERS_MAX: f64 = 2.0;

/// A server that is asked.
struct Server {
    address: &'static str,
    pid: u32,
    /// Nothing for ours, which is the node's daemon.
    _process: Option<Background>,
}

/// What a server did in one stretch.
struct Sample {
    per_s: f64,
    /// Microseconds of processor time a question.
    cost_us: f64,
}

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let unbound: PathBuf = std::env::var_os("HIVEMIND_BENCH_UNBOUND")
        .context("HIVEMIND_BENCH_UNBOUND does not name unbound: run this by `cargo xtask bench dns`")?
        .into();
    let daemon_flags = vec!["--dns-upstream".to_owned(), format!("{UPSTREAM}:{UPSTREAM_PORT}")];
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    progress("dns: four servers");
    let upstream = start_upstream(&node)?;
    let servers = [start_ours(&node)?, start_dnsmasq(&node)?, start_unbound(&node, &unbound)?];
    let questions = write_questions(&node)?;
    let mut samples = [const { Vec::new() }; 6];
    for round in 0..ROUNDS {
        progress(&format!("dns: round {} of {ROUNDS}", round + 1));
        for turn in 0..samples.len() {
            let way = (round + turn) % samples.len();
            samples[way].push(measure(node.sandbox(), &servers[way % 3], &questions[way / 3])?);
        }
    }
    drop((servers, upstream));
    node.daemon_kill9()?;
    node.stop()?;
    let [local, local_dnsmasq, local_unbound, cached, cached_dnsmasq, cached_unbound] = samples;
    let mut figures = compare(&LOCAL_NAMES, [local, local_dnsmasq, local_unbound]);
    figures.extend(compare(&CACHED_NAMES, [cached, cached_dnsmasq, cached_unbound]));
    Ok(figures)
}

/// How the figures of a kind of names are called: rates and costs against dnsmasq and against unbound, then theirs.
struct Names {
    rates: [&'static str; 4],
    costs: [&'static str; 4],
}

const LOCAL_NAMES: Names = Names {
    rates: ["dns_local_qps", "dns_local_qps_vs_unbound", "dns_local_qps_dnsmasq", "dns_local_qps_unbound"],
    costs: ["dns_local_cpu", "dns_local_cpu_vs_unbound", "dns_local_cpu_dnsmasq", "dns_local_cpu_unbound"],
};
const CACHED_NAMES: Names = Names {
    rates: [
        "dns_cached_qps",
        "dns_cached_qps_vs_unbound",
        "dns_cached_qps_dnsmasq",
        "dns_cached_qps_unbound",
    ],
    costs: [
        "dns_cached_cpu",
        "dns_cached_cpu_vs_unbound",
        "dns_cached_cpu_dnsmasq",
        "dns_cached_cpu_unbound",
    ],
};

/// The figures of ours, of dnsmasq and of unbound.
fn compare(names: &Names, samples: [Vec<Sample>; 3]) -> Vec<Figure> {
    let rates = samples.each_ref().map(|samples| samples.iter().map(|sample| sample.per_s).collect());
    let costs = samples.each_ref().map(|samples| samples.iter().map(|sample| sample.cost_us).collect());
    let [by_dnsmasq, by_unbound, dnsmasq, unbound] = side_by_side(names.rates, "1/s", rates);
    let rates = [
        by_dnsmasq.at_least_times(OF_OTHERS_MIN),
        by_unbound.at_least_times(OF_OTHERS_MIN),
        dnsmasq,
        unbound,
    ];
    let [beside_dnsmasq, beside_unbound, dnsmasq, unbound] = side_by_side(names.costs, "us", costs);
    let costs = [
        beside_dnsmasq.at_most_times(COST_OF_OTHERS_MAX),
        beside_unbound.at_most_times(COST_OF_OTHERS_MAX),
        dnsmasq,
        unbound,
    ];
    rates.into_iter().chain(costs).collect()
}

fn side_by_side(names: [&'static str; 4], unit: &'static str, samples: [Vec<f64>; 3]) -> [Figure; 4] {
    let [ours, dnsmasq, unbound] = samples;
    let dnsmasq = Figure::new(names[2], unit, dnsmasq);
    let unbound = Figure::new(names[3], unit, unbound);
    [
        Figure::new(names[0], unit, ours.clone()).against(&dnsmasq),
        Figure::new(names[1], unit, ours).against(&unbound),
        dnsmasq,
        unbound,
    ]
}

/// A name of each kind.
fn name(kind: &str, number: usize) -> String {
    match kind {
        LOCAL => format!("app-{number}.default.svc.hivemind.internal"),
        _ => format!("name-{number}.example"),
    }
}

fn start_upstream(node: &Node) -> Result<Background> {
    let listen = [&format!("--listen-address={UPSTREAM}"), &format!("--port={UPSTREAM_PORT}")];
    start_server(
        node,
        dnsmasq(node, CACHED).args(listen).arg("--local-ttl=3600"),
        UPSTREAM,
        UPSTREAM_PORT,
        &[CACHED],
    )
}

fn start_dnsmasq(node: &Node) -> Result<Server> {
    let mut command = dnsmasq(node, LOCAL);
    command.arg(format!("--listen-address={DNSMASQ}")).arg(format!("--server={UPSTREAM}#{UPSTREAM_PORT}"));
    command.args(["--cache-size=10000", "--dns-forward-max=1000"]);
    let process = start_server(node, &mut command, DNSMASQ, PORT, &[LOCAL, CACHED])?;
    Ok(Server { address: DNSMASQ, pid: process.id(), _process: Some(process) })
}

/// The daemon, with an app for each local name.
fn start_ours(node: &Node) -> Result<Server> {
    node.daemon_start()?;
    for number in 0..NAMES {
        let app = format!("app-{number}");
        node.hivemind_ok(&["app", "deploy", &app, "--image", "busybox", "--replicas", "0"])?;
    }
    let pid = node.daemon_pid()?;
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", SERVERS_PROCESSOR, &pid.to_string()])
        .stdout(Stdio::null())
        .status()?;
    ensure!(pinned.success(), "the daemon cannot be put onto one processor");
    for kind in [LOCAL, CACHED] {
        eventually(START_LIMIT, "the daemon to answer", || answers(node.sandbox(), OURS, PORT, kind))?;
    }
    Ok(Server { address: OURS, pid, _process: None })
}

fn start_unbound(node: &Node, program: &Path) -> Result<Server> {
    let data: String = (0..NAMES)
        .map(|number| format!("    local-data: \"{} A 192.0.2.{number}\"\n", name(LOCAL, number)))
        .collect();
    // Its directory would be that of an installed unbound.
    let text = format!(
        "server:\n    interface: {UNBOUND}\n    port: {PORT}\n    num-threads: 1\n    do-daemonize: no\n    directory: \"\"\n    \
         chroot: \"\"\n    username: \"\"\n    pidfile: \"\"\n    use-syslog: no\n    module-config: \"iterator\"\n    \
         do-not-query-localhost: no\n    local-zone: \"hivemind.internal.\" static\n    domain-insecure: \"example\"\n{data}\
         forward-zone:\n    name: \".\"\n    forward-addr: {UPSTREAM}@{UPSTREAM_PORT}\n"
    );
    let file = node.sandbox().directory().join("unbound.conf");
    fs::write(node.sandbox().outside(&file), text).context("cannot write unbound's configuration")?;
    // Unpacked and not installed: its libraries lie beside it.
    let root =
        program.parent().and_then(Path::parent).and_then(Path::parent).context("unbound lies nowhere")?;
    let libraries = format!("LD_LIBRARY_PATH={}", root.join("usr/lib/x86_64-linux-gnu").display());
    let mut command = pinned(node, "env");
    command.arg(libraries).arg(program).arg("-d").arg("-c").arg(file);
    let process = start_server(node, &mut command, UNBOUND, PORT, &[LOCAL, CACHED])?;
    Ok(Server { address: UNBOUND, pid: process.id(), _process: Some(process) })
}

/// dnsmasq with the names of a kind.
fn dnsmasq(node: &Node, kind: &str) -> Command {
    let mut command = pinned(node, "dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-hosts",
        "--no-resolv",
        "--bind-interfaces",
        "--conf-file=/dev/null",
        "--user=root",
    ]);
    for number in 0..NAMES {
        command.arg(format!("--host-record={},192.0.2.{number}", name(kind, number)));
    }
    command
}

/// A program on the servers' processor; the commands on the way to it become it, so that their process is its.
fn pinned(node: &Node, program: &str) -> Command {
    let mut command = node.sandbox().command("taskset");
    command.args(["--cpu-list", SERVERS_PROCESSOR, program]);
    command
}

/// Starts a server and returns once it knows names of these kinds.
fn start_server(
    node: &Node,
    command: &mut Command,
    address: &str,
    port: &str,
    kinds: &[&str],
) -> Result<Background> {
    let log = node.sandbox().directory().join(format!("{address}.log"));
    let command = std::mem::replace(command, Command::new("false"));
    let mut process = node.sandbox().spawn_command(command, Some(&log))?;
    for kind in kinds {
        let ready = process.until_ready(START_LIMIT, &format!("{address} to answer"), || {
            answers(node.sandbox(), address, port, kind)
        });
        ready.with_context(|| {
            let said = fs::read_to_string(node.sandbox().outside(&log)).unwrap_or_default();
            format!("the server at {address} said: {said}")
        })?;
    }
    Ok(process)
}

fn answers(sandbox: &Sandbox, server: &str, port: &str, kind: &str) -> Result<()> {
    let (at, name) = (format!("@{server}"), name(kind, NAMES - 1));
    let output = sandbox.run(&["dig", "+short", "+time=1", "+tries=1", &at, "-p", port, &name, "A"])?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(output.status.success() && answer.parse::<std::net::Ipv4Addr>().is_ok(), "it says {answer:?}");
    Ok(())
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

/// Asks a server as often as it answers, for a while.
fn measure(sandbox: &Sandbox, server: &Server, questions: &str) -> Result<Sample> {
    let before = processor_ns(server.pid)?;
    let output = sandbox
        .command("taskset")
        .args(["--cpu-list", CLIENT_PROCESSOR, "dnsperf", "-s", server.address, "-d", questions])
        .args(["-l", STRETCH_S, "-c", "10", "-q", "100"])
        .output()
        .context("cannot start dnsperf")?;
    let spent_ns = processor_ns(server.pid)? - before;
    let said = String::from_utf8_lossy(&output.stdout);
    let value = |label: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let labels = ["Queries per second:", "Queries completed:", "Queries lost:"];
    let [Some(per_s), Some(completed), Some(lost)] = labels.map(value) else {
        bail!("dnsperf said: {said}{}", String::from_utf8_lossy(&output.stderr))
    };
    ensure!(
        said.contains("NOERROR") && !said.contains("SERVFAIL"),
        "{} did not answer: {said}",
        server.address
    );
    ensure!(lost < completed / 100.0, "{} lost {lost} questions", server.address);
    Ok(Sample { per_s, cost_us: spent_ns as f64 / completed / 1e3 })
}

/// The processor time of a process's threads, the kernel's work for it included.
fn processor_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the server is gone")? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
