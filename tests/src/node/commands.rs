//! A node on which everything runs, and commands that have to fail.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Node, NodeOptions};
use crate::background::Background;
use crate::programs;
use crate::registry::Registry;

impl Node {
    /// A node with containerd, a registry and a daemon.
    ///
    /// # Errors
    /// When one of them does not start; nothing is left behind.
    pub fn with_daemon() -> Result<(Self, Registry)> {
        Self::with_daemon_flags(&[])
    }

    /// As [`Node::with_daemon`], whose daemon is started with further flags, now and later.
    ///
    /// # Errors
    /// As [`Node::with_daemon`].
    pub fn with_daemon_flags(flags: &[&str]) -> Result<(Self, Registry)> {
        let daemon_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let node = Self::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
        let registry = node.registry()?;
        node.daemon_start()?;
        Ok((node, registry))
    }

    /// Runs a command that has to fail with the error `code` and the exit code `exit`; returns what it said on standard
    /// error. Every error has to say what to do, in a hint.
    ///
    /// # Errors
    /// When it succeeds, or fails in another way; the error holds what it said.
    pub fn refused(&self, arguments: &[&str], code: &str, exit: i32) -> Result<String> {
        let output = self.hivemind(arguments)?;
        check_refusal(&output, code, exit).with_context(|| format!("`hivemind {}`", arguments.join(" ")))
    }

    /// Starts a command that goes on, such as one with `--follow`; its output goes to `log`, a path inside.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn hivemind_spawn(&self, arguments: &[&str], log: &std::path::Path) -> Result<Background> {
        let mut command = self.sandbox.command(programs::hivemind_binary()?);
        command.args(arguments).env("HIVEMIND_SOCKET", self.socket()).stdin(Stdio::null());
        self.sandbox.spawn_command(command, Some(log))
    }
}

/// As [`Node::refused`], of a command that has ended.
///
/// # Errors
/// When it succeeded, or failed in another way; the error holds what it said.
pub fn check_refusal(output: &Output, code: &str, exit: i32) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(exit), "exit {} and not {exit}: {said}", output.status);
    ensure!(said.contains(&format!("error[{code}]: ")), "no {code}: {said}");
    ensure!(said.contains("hint: "), "no hint: {said}");
    Ok(said)
}
