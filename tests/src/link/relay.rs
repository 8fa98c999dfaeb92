//! A link's relay, as the test sees it: a process that takes orders.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use crate::background::Background;
use crate::programs;
use crate::sandbox::Sandbox;

#[derive(Debug)]
pub(super) struct Relay {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    // After the pipes: their end is what makes it end, and this what waits for that.
    _process: Background,
}

impl Relay {
    /// Makes a device in the router and `eth0` in the machine, joined by a process that ends when this is dropped.
    pub(super) fn start(router: &Sandbox, device: &str, machine: &Sandbox) -> Result<Self> {
        let mut command = router.command(programs::relay()?);
        command.args([&machine.pid().to_string(), device]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Background::new(command.spawn().context("cannot start hivemind-relay")?);
        let orders = process.take_stdin().context("the relay has no input")?;
        let answers = BufReader::new(process.take_stdout().context("the relay has no output")?);
        let mut relay = Self { orders, answers, _process: process };
        relay.answer()?;
        Ok(relay)
    }

    /// Has it do something, and returns when that is done.
    pub(super) fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}").context("the relay is gone")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<()> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim() {
            "done" => Ok(()),
            "" => bail!("the relay ended"),
            problem => bail!("the relay failed: {problem}"),
        }
    }
}
