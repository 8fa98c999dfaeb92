//! A program that runs beside the test and ends with it.

use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    pub(crate) fn new(child: Child) -> Self {
        Self { child }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once, if it was piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard input, once, if it was piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel refuses to tell; the program's state is then unknown.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for a program")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the program has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond the range")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`; it goes on running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let id = self.child.id();
        eventually(limit, &format!("process {id} to end"), || match self.exit_status()? {
            Some(status) => Ok(status),
            None => bail!("it is running"),
        })
    }

    /// Tries until an attempt succeeds, as [`eventually`] does, and gives up at once when the program ends.
    ///
    /// # Errors
    /// When the program ended, or when `limit` has passed; it may then still run.
    pub fn until_ready<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        eventually(limit, what, || match self.exit_status() {
            Ok(None) => attempt().map(Ok),
            Ok(Some(status)) => Ok(Err(anyhow!("waited for {what}, but the program ended ({status})"))),
            Err(error) => Ok(Err(error)),
        })?
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill a program")?;
        self.child.wait().context("cannot wait for a program")?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended long ago; then there is nothing to do.
        drop(self.kill());
    }
}
