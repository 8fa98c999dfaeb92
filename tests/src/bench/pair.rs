//! Two ends that can talk, on one processor, and how much they can in a stretch of time.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Background, Node, Sandbox};

/// Both ends run here.
const PROCESSOR: &str = "1";

const PORT: u16 = 7;

/// How much is sent while processor time is counted: far less than fits, so that nobody waits for room.
const PACE_MBIT_PER_S: u64 = 2_000;

/// Enters the cgroup in the first argument, then becomes the program in the rest.
const ENTER_CGROUP: &str = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests and responses of one byte on one connection, a second.
    TcpRr,
    /// The same with datagrams.
    UdpRr,
    /// Connections with one request and response each, one after the other, a second. The client resets them.
    TcpCrr,
    /// What arrives of one connection's stream, in Mbit/s.
    Throughput,
    /// What both ends of a stream of [`PACE_MBIT_PER_S`] take of processor time, in milliseconds a gigabit.
    ProcessorTime,
}

impl Kind {
    /// What [`super::ping`] calls it.
    fn word(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp",
            Self::UdpRr => "udp",
            Self::TcpCrr => "crr",
            Self::Throughput => "stream",
            Self::ProcessorTime => "paced",
        }
    }

    /// How it is called in names of metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp_rr",
            Self::UdpRr => "udp_rr",
            Self::TcpCrr => "tcp_crr",
            Self::Throughput => "throughput",
            Self::ProcessorTime => "cpu_gbit",
        }
    }

    /// The unit of what is measured.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::TcpRr | Self::UdpRr | Self::TcpCrr => "1/s",
            Self::Throughput => "Mbit/s",
            Self::ProcessorTime => "ms",
        }
    }

    /// From what the client counted.
    fn value(self, counted: f64, micros: f64) -> f64 {
        match self {
            Self::TcpRr | Self::UdpRr | Self::TcpCrr => counted / micros * 1e6,
            Self::Throughput => counted * 8.0 / micros,
            Self::ProcessorTime => (micros / 1e3) / (counted * 8.0 / 1e9),
        }
    }
}

/// Where an end of a connection is: the words before a program's own that start it there.
#[derive(Clone, Debug)]
pub(super) struct End(Vec<OsString>);

impl End {
    /// In a sandbox's network.
    pub(super) fn of_sandbox(sandbox: &Sandbox) -> Self {
        Self(["nsenter", "--target", &sandbox.pid().to_string(), "--net", "--"].map(OsString::from).to_vec())
    }

    /// In a network that is mounted at a file inside a sandbox: such are reached through the sandbox's holder, since they
    /// are not children of this program.
    pub(super) fn of_network(sandbox: &Sandbox, network: &Path) -> Self {
        let holder = sandbox.pid().to_string();
        let net = format!("--net={}", network.display());
        let words = ["nsenter", "--target", &holder, "--mount", "--", "nsenter", &net, "--"];
        Self(words.map(OsString::from).to_vec())
    }

    /// The same in a cgroup.
    pub(super) fn in_cgroup(self, cgroup: &Path) -> Self {
        let words = [OsString::from("sh"), "-c".into(), ENTER_CGROUP.into(), cgroup.into()];
        Self(words.into_iter().chain(self.0).collect())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]);
        command
    }

    /// `hivemind-bench` on the bench's processor.
    fn pinned(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command();
        command.args(["taskset", "-c", PROCESSOR]).arg(bench_program()?).args(arguments);
        Ok(command)
    }
}

/// Two ends that can talk, with the server running.
#[derive(Clone)]
pub(super) struct Pair {
    client: End,
    /// What the client dials.
    target: SocketAddr,
    _server: Rc<Background>,
}

impl Pair {
    /// A server at an address at one end, and a client at another.
    pub(super) fn start(server: &End, client: End, address: IpAddr) -> Result<Self> {
        let target = SocketAddr::new(address, PORT);
        let mut serve = server.pinned(&["echo", &target.to_string()])?;
        let child = serve.stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut echo = Background::new(child);
        let mut line = String::new();
        BufReader::new(echo.take_stdout().context("no output")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the server does not start");
        Ok(Self { client, target, _server: Rc::new(echo) })
    }

    /// A server and a client in two replicas, each with its node. The programs are not the replicas' own: they are only
    /// put into their networks.
    pub(super) fn of_replicas([server, client]: [(&Node, &Value); 2]) -> Result<Self> {
        let address = server.1["status"]["ipv4"].as_str().context("no address")?.parse()?;
        let [server, client] = [server, client].map(|(node, replica)| {
            anyhow::Ok(End::of_network(node.sandbox(), &node.network_of_replica(replica)?))
        });
        Self::start(&server?, client?, address)
    }

    /// A server at `address` in one sandbox's network, and a client in another's.
    pub(super) fn of_sandboxes([server, client]: [&Sandbox; 2], address: IpAddr) -> Result<Self> {
        Self::start(&End::of_sandbox(server), End::of_sandbox(client), address)
    }

    /// The same ends; the client dials another address that leads to the server.
    pub(super) fn through(&self, address: IpAddr) -> Self {
        Self { target: SocketAddr::new(address, self.target.port()), ..self.clone() }
    }

    /// The same server with another client.
    pub(super) fn with_client(&self, client: End) -> Self {
        Self { client, ..self.clone() }
    }

    /// One stretch; see [`Kind`] for what is counted.
    fn measure(&self, kind: Kind, stretch_ms: u64) -> Result<f64> {
        let words = [self.target.to_string(), stretch_ms.to_string(), PACE_MBIT_PER_S.to_string()];
        let mut client = self.client.pinned(&["ping", kind.word(), &words[0], &words[1], &words[2]])?;
        let output = client.output().context("cannot start the client")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let numbers: Option<Vec<f64>> = said.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some([counted, micros]) if output.status.success() => Ok(kind.value(*counted, *micros)),
            _ => bail!("the client failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// Fails if there is no connection.
    pub(super) fn check(&self) -> Result<()> {
        self.measure(Kind::TcpRr, 1).map(drop)
    }

    /// A client that is not pinned, and that opens so many connections a second for so much time.
    pub(super) fn opening_at_rate(&self, millis: u64, per_s: u64) -> Result<Command> {
        let mut client = self.client.command();
        let words = ["ping", "open", &self.target.to_string(), &millis.to_string(), &per_s.to_string()];
        client.arg(bench_program()?).args(words);
        Ok(client)
    }
}

/// How pairs are measured beside one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// How often each.
    pub(super) rounds: usize,
    /// How long each time. The shorter, the less the machine changes within a round.
    pub(super) stretch_ms: u64,
}

impl Turns {
    /// Each pair's measurements; the order changes with each round.
    pub(super) fn measure<const N: usize>(
        self,
        bench: &str,
        pairs: &[Pair; N],
        kind: Kind,
        progress: &mut dyn FnMut(&str),
    ) -> Result<[Vec<f64>; N]> {
        let mut samples = self.measure_all(bench, pairs, kind, progress)?.into_iter();
        Ok(std::array::from_fn(|_| samples.next().unwrap_or_default()))
    }

    /// As [`Turns::measure`], of as many pairs as there are.
    pub(super) fn measure_all(
        self,
        bench: &str,
        pairs: &[Pair],
        kind: Kind,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Vec<f64>>> {
        let mut samples = vec![Vec::new(); pairs.len()];
        for round in 0..self.rounds {
            progress(&format!("{bench}: {}, round {} of {}", kind.word(), round + 1, self.rounds));
            for turn in 0..pairs.len() {
                let way = (round + turn) % pairs.len();
                samples[way].push(pairs[way].measure(kind, self.stretch_ms)?);
            }
        }
        Ok(samples)
    }
}

/// This program.
pub(super) fn bench_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program lies")
}
