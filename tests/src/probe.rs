//! One connection or some datagrams, from a replica's network, a node, or the machine outside.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use std::{
    io::{BufRead, BufReader},
    process::{ChildStdout, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Background, Sandbox, eventually, programs};

/// Where a probe runs: a machine, and the network namespace on it, or the machine's own.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The machine.
    pub sandbox: &'a Sandbox,
    /// A mounted network namespace, as seen inside.
    pub network: Option<&'a Path>,
}

impl<'a> Place<'a> {
    /// A machine's own network.
    #[must_use]
    pub fn machine(sandbox: &'a Sandbox) -> Self {
        Self { sandbox, network: None }
    }

    /// A network namespace on a machine.
    #[must_use]
    pub fn network(sandbox: &'a Sandbox, network: &'a Path) -> Self {
        Self { sandbox, network: Some(network) }
    }

    fn probe(&self, words: &[&str]) -> Result<std::process::Command> {
        let program = programs::probe()?;
        let mut command = match self.network {
            Some(path) => {
                let mut command = self.sandbox.command("nsenter");
                command.arg(format!("--net={}", path.display())).arg(program);
                command
            }
            None => self.sandbox.command(program),
        };
        command.args(words);
        Ok(command)
    }

    /// Opens a TCP connection. The object has `peer`, the address that the socket believes to talk to, or `error`; and
    /// `ms`, how long it took.
    ///
    /// # Errors
    /// When the probe cannot run.
    pub fn dial(&self, address: SocketAddr) -> Result<Value> {
        self.tell(&["dial", &address.to_string()])
    }

    /// Sends a datagram from each of `sockets` new sockets, one after another, and waits for each answer. The object has
    /// `answers`, and `froms`: the address that each came from. With `connected`, the sockets are connected first.
    ///
    /// # Errors
    /// When the probe cannot run.
    pub fn ask(&self, address: SocketAddr, sockets: usize, connected: bool) -> Result<Value> {
        let kind = if connected { "connected" } else { "unconnected" };
        self.tell(&["ask", &address.to_string(), &sockets.to_string(), kind])
    }

    /// Asks over connected UDP sockets, one request after another, until somebody else answers than at first.
    ///
    /// # Errors
    /// When nobody answers at first.
    pub fn ask_until_moved(&self, address: SocketAddr) -> Result<Held> {
        self.held(&["move", &address.to_string()])
    }

    /// Talks to an echo over one TCP connection until that ends.
    ///
    /// # Errors
    /// When it does not come to be.
    pub fn hold(&self, address: SocketAddr) -> Result<Held> {
        self.held(&["hold", &address.to_string()])
    }

    fn held(&self, words: &[&str]) -> Result<Held> {
        let mut command = self.probe(words)?;
        command.stdout(Stdio::piped());
        let mut program = Background::new(command.spawn().context("cannot start hivemind-probe")?);
        let output = program.take_stdout().context("no standard output")?;
        let mut held = Held { _program: program, output: BufReader::new(output), first: Value::Null };
        held.first = held.line()?;
        Ok(held)
    }

    /// Answers each datagram to `port`, of both families, with `name`, until the program is dropped.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn answer(&self, port: u16, name: &str) -> Result<Background> {
        let mut command = self.probe(&["answer", &port.to_string(), name])?;
        command.stdout(Stdio::piped());
        let mut program = Background::new(command.spawn().context("cannot start hivemind-probe")?);
        let mut output = program.take_stdout().context("no standard output")?;
        let mut byte = [0];
        std::io::Read::read_exact(&mut output, &mut byte).context("hivemind-probe did not bind its port")?;
        Ok(program)
    }

    /// Asks until an answer comes, which it must within `limit`.
    ///
    /// # Errors
    /// When none comes.
    pub fn ask_until_answered(&self, address: SocketAddr, limit: Duration) -> Result<Value> {
        eventually(limit, "a datagram to be answered", || {
            let said = self.ask(address, 1, true)?;
            if said["answers"].as_array().is_none_or(Vec::is_empty) {
                bail!("{said}");
            }
            Ok(said)
        })
    }

    fn tell(&self, words: &[&str]) -> Result<Value> {
        let output = self.probe(words)?.output().context("cannot run hivemind-probe")?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| {
            format!("hivemind-probe printed {text:?} {}", String::from_utf8_lossy(&output.stderr))
        })
    }
}

/// A client that goes on until something happens to it.
#[derive(Debug)]
pub struct Held {
    _program: Background,
    output: BufReader<ChildStdout>,
    /// What it said at first: who answered, or whom the connection is with.
    pub first: Value,
}

impl Held {
    /// Waits for the end, and returns what the client says of it.
    ///
    /// # Errors
    /// When it ended without a word.
    pub fn end(mut self) -> Result<Value> {
        self.line()
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("hivemind-probe said {line:?}"))
    }
}
