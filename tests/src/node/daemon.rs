//! Starting, killing and stopping a node's daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hivemind_supervisor::AS_MAIN_PROCESS;
use nix::sys::signal::Signal;

use super::{Node, containerd};
use crate::background::Background;
use crate::http;
use crate::programs::{self, Build};

/// How long the daemon gets to answer after its start, and to end after a request to.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const TEARDOWN_LIMIT: Duration = Duration::from_secs(60);

/// How much of the daemon's log is shown when something went wrong.
const LOG_LINES_SHOWN: usize = 80;

impl Node {
    /// The flags that put a daemon wholly into this node.
    #[must_use]
    pub fn daemon_flags(&self) -> Vec<String> {
        let at = |part: &str| self.sandbox.directory().join(part).display().to_string();
        let mut flags: Vec<String> = [
            ("--config", at("config.toml")),
            ("--data-dir", at("data")),
            ("--run-dir", at("run")),
            ("--bpffs", at("bpf/hivemind")),
            ("--cgroup-root", self.sandbox.cgroup().display().to_string()),
            ("--containerd-socket", containerd::socket(&self.sandbox).display().to_string()),
            ("--node-name", self.name().to_owned()),
            ("--insecure-registry", "127.0.0.1:5000".to_owned()),
            ("--registry-mirror", "docker.io=http://127.0.0.1:5000".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        flags.extend(self.daemon_flags.iter().cloned());
        flags
    }

    /// Starts the daemon and waits until its API answers.
    ///
    /// # Errors
    /// When one runs already, when it exits, when it does not answer in time (it is then killed); the error holds the
    /// end of its log.
    pub fn daemon_start(&self) -> Result<()> {
        self.daemon_start_with(&[])
    }

    /// As [`Self::daemon_start`], with further flags for this once.
    ///
    /// # Errors
    /// As [`Self::daemon_start`].
    pub fn daemon_start_with(&self, further: &[&str]) -> Result<()> {
        self.daemon_start_from(Build::Current, further)
    }

    /// As [`Self::daemon_start_with`], by the program of a build.
    ///
    /// # Errors
    /// As [`Self::daemon_start`].
    pub fn daemon_start_from(&self, build: Build, further: &[&str]) -> Result<()> {
        let mut slot = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(daemon) = slot.as_mut()
            && daemon.exit_status()?.is_none()
        {
            bail!("a daemon runs on {} already", self.name());
        }
        let mut daemon = self.daemon_spawn_from(&programs::hivemind_of(build)?, further)?;
        let socket = self.sandbox.outside(&self.socket());
        daemon
            .until_ready(START_LIMIT, "the daemon's API", || {
                let response = http::get_unix(&socket, "/healthz", Duration::from_secs(5))?;
                if response.status != 200 {
                    bail!("status {}: {}", response.status, response.body);
                }
                Ok(())
            })
            .with_context(|| self.daemon_log_end())?;
        *slot = Some(daemon);
        Ok(())
    }

    /// Starts a daemon with further flags and returns at once; the caller owns it.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn daemon_spawn(&self, further: &[&str]) -> Result<Background> {
        self.daemon_spawn_from(&programs::hivemind_binary()?, further)
    }

    /// As [`Self::daemon_spawn`], from another file than the one that is tested otherwise.
    ///
    /// # Errors
    /// As [`Self::daemon_spawn`].
    pub fn daemon_spawn_from(&self, program: &Path, further: &[&str]) -> Result<Background> {
        let mut command = self.sandbox.command(AS_MAIN_PROCESS[0]);
        command.args(&AS_MAIN_PROCESS[1..]).arg(program);
        command.arg("daemon").args(self.daemon_flags()).args(further);
        self.fd_store.equip(&mut command)?;
        self.sandbox.spawn_command(command, Some(&self.daemon_log()))
    }

    /// Runs the daemon with further flags to its end, for one that is expected not to stay; it gets no sockets of earlier
    /// ones. `before` are words that the
    /// program is started by, such as `env NAME=VALUE`.
    ///
    /// # Errors
    /// When the program is missing or cannot be started. One that still runs after half a minute is killed, and then
    /// its exit code is 124.
    pub fn daemon_run(&self, before: &[&str], further: &[&str]) -> Result<Output> {
        let mut command = self.sandbox.command("timeout");
        command.args(["--kill-after=1", "30"]).args(before).arg(programs::hivemind_binary()?);
        command.arg("daemon").args(self.daemon_flags()).args(further);
        command.output().context("cannot run the daemon")
    }

    /// The running daemon's process id.
    ///
    /// # Errors
    /// When none was started.
    pub fn daemon_pid(&self) -> Result<u32> {
        let slot = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(Background::id).context("no daemon runs")
    }

    /// Kills the daemon with SIGKILL and waits until it is gone. Its sockets stay open, as long as the node is there.
    ///
    /// # Errors
    /// When none runs.
    pub fn daemon_kill9(&self) -> Result<()> {
        self.take_daemon()?.kill()
    }

    /// Ends the daemon with SIGTERM, which leaves containers and the data path as they are, and waits for its end.
    ///
    /// # Errors
    /// When none runs, when it does not end in time (it is then killed), when it fails.
    pub fn daemon_term(&self) -> Result<()> {
        let daemon = self.take_daemon()?;
        daemon.signal(Signal::SIGTERM)?;
        self.until_ended(daemon)
    }

    /// Waits for a daemon that ends by itself.
    ///
    /// # Errors
    /// As [`Self::daemon_term`].
    pub fn daemon_end(&self) -> Result<()> {
        let daemon = self.take_daemon()?;
        self.until_ended(daemon)
    }

    fn until_ended(&self, mut daemon: Background) -> Result<()> {
        let status = daemon.wait(STOP_LIMIT).with_context(|| self.daemon_log_end())?;
        if !status.success() {
            bail!("the daemon ended with {status}:\n{}", self.daemon_log_end());
        }
        Ok(())
    }

    /// Runs `hivemind daemon --teardown`, which removes all that daemons made on this node.
    ///
    /// # Errors
    /// When it fails or does not end in time; the error holds the end of the log.
    pub fn daemon_teardown(&self) -> Result<()> {
        let mut daemon = self.daemon_spawn(&["--teardown"])?;
        let status = daemon.wait(TEARDOWN_LIMIT).with_context(|| self.daemon_log_end())?;
        if !status.success() {
            bail!("the teardown ended with {status}:\n{}", self.daemon_log_end());
        }
        Ok(())
    }

    /// The resident memory of the daemon, in kB (1,024 bytes).
    ///
    /// # Errors
    /// When none runs.
    pub fn daemon_memory_kb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon_pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        number.parse().context("VmRSS is no number")
    }

    /// Kills the containerd that the harness started, as if the service had crashed.
    ///
    /// # Errors
    /// When there is none.
    pub fn containerd_kill9(&self) -> Result<()> {
        let mut slot = self.containerd.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().context("the harness runs no containerd on this node")?.kill()
    }

    /// Starts the node's containerd again.
    ///
    /// # Errors
    /// When it does not come to listen.
    pub fn containerd_start(&self) -> Result<()> {
        let mut slot = self.containerd.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(containerd::start(&self.sandbox)?);
        Ok(())
    }

    /// The end of the daemon's log, for messages.
    #[must_use]
    pub fn daemon_log_end(&self) -> String {
        let log = fs::read_to_string(self.sandbox.outside(&self.daemon_log())).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn daemon_log(&self) -> PathBuf {
        self.sandbox.directory().join("daemon.log")
    }

    fn take_daemon(&self) -> Result<Background> {
        let mut slot = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().context("no daemon runs")
    }
}
