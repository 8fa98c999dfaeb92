//! What benches want to know of a node's programs.

use std::fs;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hivemind_runtime::logs::COLLECTOR_COMMAND;

use super::Node;
use crate::background::Background;
use crate::http;
use crate::programs::hivemind_binary;
use crate::sandbox::network_of;

/// How long a daemon may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How often a starting daemon is looked at: a short time beside those that are measured.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

impl Node {
    /// Starts the daemon and returns how long it took from the program's start (execve(2)) to the first answer of
    /// `/healthz`, to half a millisecond.
    ///
    /// # Errors
    /// As [`Node::daemon_start`].
    pub fn daemon_start_timed(&self) -> Result<Duration> {
        let mut slot = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            bail!("a daemon was started on {} already", self.name());
        }
        let program = hivemind_binary()?.canonicalize().context("the program is gone")?;
        let mut daemon = self.daemon_spawn(&[])?;
        // What starts it enters namespaces and cgroups first, and then becomes the daemon.
        let began = look_until(&mut daemon, |daemon| {
            fs::read_link(format!("/proc/{}/exe", daemon.id())).is_ok_and(|running| running == program)
        })?;
        let socket = self.sandbox.outside(&self.socket());
        let ready = look_until(&mut daemon, |_| {
            http::get_unix(&socket, "/healthz", START_LIMIT).is_ok_and(|answer| answer.status == 200)
        });
        let ready = ready.with_context(|| self.daemon_log_end())?;
        *slot = Some(daemon);
        Ok(ready - began)
    }

    /// How long the daemon that was started last took to load its eBPF programs and to attach them, as its log has it.
    #[must_use]
    pub fn datapath_opened_in(&self) -> Option<Duration> {
        let log = self.daemon_log_end();
        let line = log.lines().rfind(|line| line.contains("The data path is open"))?;
        let (_, field) = line.split_once("took_ms=")?;
        field.split_whitespace().next()?.parse().ok().map(Duration::from_millis)
    }

    /// The process id of the containerd that the harness started.
    ///
    /// # Errors
    /// When it started none.
    pub fn containerd_pid(&self) -> Result<u32> {
        let slot = self.containerd.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(Background::id).context("the harness runs no containerd on this node")
    }

    /// The process id of the daemon's log collector.
    ///
    /// # Errors
    /// When none runs on this node.
    pub fn log_collector_pid(&self) -> Result<u32> {
        let network = network_of(&self.pid().to_string());
        let is_ours = |pid: &str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = line.split(|&byte| byte == 0).nth(1);
            command == Some(COLLECTOR_COMMAND.as_bytes()) && network_of(pid) == network
        };
        fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .find(|name| name.parse::<u32>().is_ok() && is_ours(name))
            .and_then(|pid| pid.parse().ok())
            .context("no log collector runs")
    }
}

/// Looks again and again, and returns when it was so.
fn look_until(daemon: &mut Background, is_so: impl Fn(&Background) -> bool) -> Result<Instant> {
    let started = Instant::now();
    loop {
        if is_so(daemon) {
            return Ok(Instant::now());
        }
        if let Some(status) = daemon.exit_status()? {
            bail!("the daemon ended ({status})");
        }
        if started.elapsed() > START_LIMIT {
            bail!("the daemon was not ready within {} s", START_LIMIT.as_secs());
        }
        thread::sleep(LOOK_INTERVAL);
    }
}
