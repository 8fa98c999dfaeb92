//! What is asked of a daemon that is away, and waits until it is back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::background::Background;
use crate::node::Node;

const LIMIT: Duration = Duration::from_secs(30);

/// A question that waits at a socket of the daemon's, and what its answer has to hold.
#[derive(Debug)]
pub struct Question {
    what: String,
    program: Background,
    output: PathBuf,
    expected: &'static str,
}

impl Question {
    /// Starts a program and waits until what it asks has arrived at the listening socket: of this kind (as `ss` has it: `u`, `t`
    /// or `x`) and with this address.
    ///
    /// # Errors
    /// When it cannot be started, or does not arrive.
    pub fn ask(node: &Node, at: (&str, &str), words: &[&str], expected: &'static str) -> Result<Self> {
        let (kind, local) = at;
        let before = waiting(node, kind, local)?;
        let mut command = node.sandbox().command(words[0]);
        command.args(&words[1..]).env("HIVEMIND_SOCKET", node.socket());
        let what = words.join(" ");
        let name = format!("answer-{kind}-{}-{before}", local.replace('/', "-"));
        let output = node.sandbox().directory().join(name);
        drop(fs::remove_file(node.sandbox().outside(&output)));
        let mut program = node.sandbox().spawn_command(command, Some(&output))?;
        program.until_ready(LIMIT, &what, || {
            ensure!(waiting(node, kind, local)? > before, "it has not arrived");
            Ok(())
        })?;
        Ok(Self { what, program, output, expected })
    }

    /// Waits for its answer and checks it.
    ///
    /// # Errors
    /// When there is none in time, or another.
    pub fn assert_answered(mut self, node: &Node) -> Result<()> {
        let status = self.program.wait(LIMIT).with_context(|| self.what.clone())?;
        let said = fs::read_to_string(node.sandbox().outside(&self.output))?;
        ensure!(status.success() && said.contains(self.expected), "{}: {status}: {said}", self.what);
        Ok(())
    }
}

/// How much waits at a listening socket: bytes of datagrams (`u`), or connections (`t`, `x`).
fn waiting(node: &Node, kind: &str, local: &str) -> Result<u64> {
    let shown = node.sandbox().check(&["ss", "-H", "-n", "-l", &format!("-{kind}")])?;
    // Before the address are the two queues.
    let queue = shown.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == local)?;
        words[at - 2].parse().ok()
    });
    queue.with_context(|| format!("nobody listens at {local}:\n{shown}"))
}
