//! Traffic that goes on in the background while a test does something to the node.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{Background, Node, programs};

/// What a stretch of traffic saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficReport {
    /// Requests on the long connections.
    pub long_requests: u64,
    /// New connections, each with one request.
    pub new_connections: u64,
    /// The longest that a connect with its request, or a request, took.
    pub longest_wait: Duration,
    /// What failed; the first twenty.
    pub failures: Vec<String>,
}

/// Long connections and a stream of new ones, until [`Traffic::stop`].
#[derive(Debug)]
pub struct Traffic {
    program: Background,
    output: BufReader<ChildStdout>,
}

impl Traffic {
    /// Starts it towards `address` from the node itself, or, with the id of an endpoint, from that replica's network.
    ///
    /// # Errors
    /// When the program is not built or cannot be started.
    pub fn start(node: &Node, address: SocketAddr, long: usize, replica: Option<&str>) -> Result<Self> {
        let traffic = programs::traffic()?;
        let command = match replica {
            Some(id) => {
                let namespace = node.sandbox().directory().join("run/netns").join(id);
                let mut command = node.sandbox().command("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(traffic);
                command
            }
            None => node.sandbox().command(traffic),
        };
        Self::run(command, address, long)
    }

    /// Starts it from the machine outside towards `address`.
    ///
    /// # Errors
    /// As [`Traffic::start`].
    pub fn start_outside(node: &Node, address: SocketAddr, long: usize) -> Result<Self> {
        Self::run(node.fabric().client().command(programs::traffic()?), address, long)
    }

    fn run(mut command: Command, address: SocketAddr, long: usize) -> Result<Self> {
        command.arg(address.to_string()).arg(long.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Background::new(command.spawn().context("cannot start hivemind-traffic")?);
        let mut output = BufReader::new(program.take_stdout().context("no standard output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() != "running" {
            bail!("hivemind-traffic did not start: {line:?}");
        }
        Ok(Traffic { program, output })
    }

    /// Ends it and tells what it saw.
    ///
    /// # Errors
    /// When it ended by itself without a report.
    pub fn stop(mut self) -> Result<TrafficReport> {
        drop(self.program.take_stdin());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let report: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("no report: {line:?}"))?;
        let number = |key: &str| report[key].as_u64().with_context(|| format!("no {key}"));
        let failures = report["failures"].as_array().context("no failures")?;
        Ok(TrafficReport {
            long_requests: number("longRequests")?,
            new_connections: number("newConnections")?,
            longest_wait: Duration::from_millis(number("longestWaitMs")?),
            failures: failures.iter().map(|f| f.as_str().unwrap_or_default().to_owned()).collect(),
        })
    }
}
