//! Two ends that can talk, on one processor, and how much they can in a stretch of time.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Background, Node, Sandbox};

/// How long each stretch is.
const STRETCH_MS: u64 = 400;

/// Both ends run here.
const PROCESSOR: &str = "1";

const PORT: u16 = 7;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests and responses of one byte on one connection, a second.
    TcpRr,
    /// The same with datagrams.
    UdpRr,
    /// Connections with one request and response each, a second.
    TcpCrr,
    /// What arrives of one connection's stream, in Mbit/s.
    Throughput,
}

impl Kind {
    /// What [`super::ping`] calls it.
    fn word(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp",
            Self::UdpRr => "udp",
            Self::TcpCrr => "open",
            Self::Throughput => "stream",
        }
    }

    /// The unit of what [`Pair::measure`] returns.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Mbit/s",
            Self::TcpRr | Self::UdpRr | Self::TcpCrr => "1/s",
        }
    }
}

/// Two ends that can talk, with the server running.
pub(super) struct Pair {
    client: Box<dyn Fn() -> Command>,
    server: SocketAddr,
    _echo: Background,
}

impl Pair {
    /// A server and a client in two replicas, each with its node. The programs are not the replicas' own: they are only
    /// put into their networks.
    pub(super) fn of_replicas([server, client]: [(&Node, &Value); 2]) -> Result<Self> {
        let address = server.1["status"]["ipv4"].as_str().context("no address")?.parse()?;
        // Their networks are reached through the nodes' holders: they are not children of this program.
        let enter = |network: PathBuf, holder: u32| {
            let mut command = Command::new("nsenter");
            command.args(["--target", &holder.to_string(), "--mount", "--"]);
            command.arg("nsenter").arg(format!("--net={}", network.display())).arg("--");
            command
        };
        let (holder, network) = (client.0.pid(), client.0.network_of_replica(client.1)?);
        let serve = enter(server.0.network_of_replica(server.1)?, server.0.pid());
        Self::start(address, serve, Box::new(move || enter(network.clone(), holder)))
    }

    /// A server at `address` in one sandbox's network, and a client in another's.
    pub(super) fn of_sandboxes([server, client]: [&Sandbox; 2], address: IpAddr) -> Result<Self> {
        let enter = |pid: u32| {
            let mut command = Command::new("nsenter");
            command.args(["--target", &pid.to_string(), "--net", "--"]);
            command
        };
        let client = client.pid();
        Self::start(address, enter(server.pid()), Box::new(move || enter(client)))
    }

    fn start(address: IpAddr, serve: Command, client: Box<dyn Fn() -> Command>) -> Result<Self> {
        let server = SocketAddr::new(address, PORT);
        let mut serve = pinned(serve, &["echo", &server.to_string()])?;
        let child = serve.stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut echo = Background::new(child);
        let mut line = String::new();
        BufReader::new(echo.take_stdout().context("no output")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the server does not start");
        Ok(Self { client, server, _echo: echo })
    }

    /// One stretch; see [`Kind`] for what is counted.
    pub(super) fn measure(&self, kind: Kind) -> Result<f64> {
        let (server, millis) = (self.server.to_string(), STRETCH_MS.to_string());
        let mut client = pinned((self.client)(), &["ping", kind.word(), &server, &millis])?;
        let output = client.output().context("cannot start the client")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let numbers: Option<Vec<f64>> = said.split_whitespace().map(|word| word.parse().ok()).collect();
        match (numbers.as_deref(), kind) {
            _ if !output.status.success() => {}
            (Some([bytes, micros]), Kind::Throughput) => return Ok(bytes * 8.0 / micros),
            (Some([answers, micros]), _) => return Ok(answers / micros * 1e6),
            _ => {}
        }
        bail!("the client failed: {}", String::from_utf8_lossy(&output.stderr).trim())
    }

    /// A client that is not pinned, and that asks so often in so much time.
    pub(super) fn client_at_rate(&self, kind: Kind, millis: u64, per_s: u64) -> Result<Command> {
        let mut client = (self.client)();
        let words = ["ping", kind.word(), &self.server.to_string(), &millis.to_string(), &per_s.to_string()];
        client.arg(bench_program()?).args(words);
        Ok(client)
    }
}

/// Each pair's measurements, taken in turns; the order changes with each round.
pub(super) fn in_turns<const N: usize>(
    bench: &str,
    pairs: &[Pair; N],
    kind: Kind,
    rounds: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<[Vec<f64>; N]> {
    let mut samples = [const { Vec::new() }; N];
    for round in 0..rounds {
        progress(&format!("{bench}: {}, round {} of {rounds}", kind.word(), round + 1));
        for turn in 0..N {
            let way = (round + turn) % N;
            samples[way].push(pairs[way].measure(kind)?);
        }
    }
    Ok(samples)
}

/// This program.
pub(super) fn bench_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program lies")
}

/// `hivemind-bench`, on the bench's processor, started by `enter`.
fn pinned(mut enter: Command, arguments: &[&str]) -> Result<Command> {
    enter.args(["taskset", "-c", PROCESSOR]).arg(bench_program()?).args(arguments);
    Ok(enter)
}
