//! Connections at a known rate and long-lived ones with numbered messages, while a test does something to the network.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Background, programs};

/// How much traffic to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// New connections a second, TCP and UDP by turns.
    pub rate: u32,
    /// Long-lived connections of each of TCP and UDP.
    pub long: usize,
    /// Where to, by turns. Programs started by [`serve`] answer there.
    pub targets: Vec<SocketAddr>,
}

/// What became of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// New TCP connections that were opened, answered and closed.
    pub new_tcp: u64,
    /// UDP sockets that asked once and were answered once.
    pub new_udp: u64,
    /// Answers on long-lived TCP connections.
    pub long_tcp: u64,
    /// Datagrams that long-lived UDP sockets sent.
    pub long_udp: u64,
    /// Of those, how many were never answered.
    pub lost: u64,
    /// Of those, how many were answered more than once.
    pub duplicated: u64,
    /// How long it ran.
    pub time: Duration,
    /// The longest that a new TCP connection took to be open.
    pub longest_connect: Duration,
    /// How often the kernel sent a TCP connection's first packet again, in the program's network.
    pub syn_retransmissions: u64,
    /// How often it sent anything of TCP again.
    pub retransmissions: u64,
    /// What failed; the first twenty.
    pub failures: Vec<String>,
}

impl LoadReport {
    /// New connections a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.new_tcp + self.new_udp) as f64 / self.time.as_secs_f64()
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.new_tcp += other.new_tcp;
        self.new_udp += other.new_udp;
        self.long_tcp += other.long_tcp;
        self.long_udp += other.long_udp;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.time = self.time.max(other.time);
        self.longest_connect = self.longest_connect.max(other.longest_connect);
        self.syn_retransmissions += other.syn_retransmissions;
        self.retransmissions += other.retransmissions;
        self.failures.extend(other.failures.iter().cloned());
        self
    }

    /// Checks that nothing failed, was lost or came twice.
    ///
    /// # Errors
    /// What did.
    pub fn check(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{:#?}", self.failures);
        ensure!(self.lost == 0 && self.duplicated == 0, "datagrams were lost or came twice: {self:?}");
        ensure!(self.new_tcp > 0 && self.new_udp > 0 && self.long_tcp > 0, "no traffic: {self:?}");
        Ok(())
    }
}

/// Traffic that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    program: Background,
    output: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it; `place` makes a command that runs a program where the traffic shall come from. Returns once every long-lived
    /// connection is open.
    ///
    /// # Errors
    /// When the program is not built, cannot be started, or a long-lived connection cannot be opened.
    pub fn start(place: impl FnOnce(&std::path::Path) -> Command, plan: &Plan) -> Result<Self> {
        let mut command = place(&programs::load()?);
        command.arg("run").arg(plan.rate.to_string()).arg(plan.long.to_string());
        command.args(plan.targets.iter().map(ToString::to_string));
        let (program, output) = started(command, "running")?;
        Ok(Self { program, output })
    }

    /// Ends it, waits for the answers that are still under way, and tells what it saw.
    ///
    /// # Errors
    /// When it ended by itself without a report.
    pub fn stop(mut self) -> Result<LoadReport> {
        drop(self.program.take_stdin());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let report: Value = serde_json::from_str(&line).with_context(|| format!("no report: {line:?}"))?;
        let number = |key: &str| report[key].as_u64().with_context(|| format!("no {key} in {report}"));
        let failures = report["failures"].as_array().context("no failures")?;
        Ok(LoadReport {
            new_tcp: number("newTcp")?,
            new_udp: number("newUdp")?,
            long_tcp: number("longTcp")?,
            long_udp: number("longUdp")?,
            lost: number("lost")?,
            duplicated: number("duplicated")?,
            time: Duration::from_millis(number("ms")?),
            longest_connect: Duration::from_millis(number("longestConnectMs")?),
            syn_retransmissions: number("synRetransmissions")?,
            retransmissions: number("retransmissions")?,
            failures: failures.iter().map(|f| f.as_str().unwrap_or_default().to_owned()).collect(),
        })
    }
}

/// Answers what [`Load`] sends, at this port of all addresses, by TCP and UDP, until what is returned is dropped.
///
/// # Errors
/// As [`Load::start`].
pub fn serve(place: impl FnOnce(&std::path::Path) -> Command, port: u16) -> Result<Background> {
    let mut command = place(&programs::load()?);
    command.arg("serve").arg(port.to_string());
    started(command, "serving").map(|(program, _)| program)
}

fn started(mut command: Command, word: &str) -> Result<(Background, BufReader<ChildStdout>)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = Background::new(command.spawn().context("cannot start hivemind-load")?);
    let mut output = BufReader::new(program.take_stdout().context("no standard output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    if line.trim() != word {
        bail!("hivemind-load did not start: {line:?}");
    }
    Ok((program, output))
}
