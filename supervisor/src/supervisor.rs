//! A program that is started again whenever it ends.

use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fd_store::FdStore;

/// How long after its end the program is started again: what the daemon's unit says.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How long the program gets to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How often it is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a program for as long as it is wanted.
pub struct Supervisor<F> {
    store: FdStore,
    command: F,
}

impl<F: FnMut() -> Command> Supervisor<F> {
    /// One that starts what `command` makes; it begins with [`AS_MAIN_PROCESS`](crate::AS_MAIN_PROCESS).
    pub fn new(store: FdStore, command: F) -> Self {
        Self { store, command }
    }

    /// Keeps the program running until `is_wanted` says no more; then ends it with SIGTERM, and with SIGKILL if it does not
    /// heed that. `tell` hears of every end that came by itself.
    ///
    /// # Errors
    /// When the program cannot be started or waited for, or when it ends before it was ready for once: it would go on so.
    pub fn run(&mut self, is_wanted: impl Fn() -> bool, mut tell: impl FnMut(ExitStatus)) -> Result<()> {
        while is_wanted() {
            let mut child = self.start()?;
            match wait_while(&mut child, &is_wanted)? {
                Some(status) if !self.store.was_ready() => {
                    bail!("the program ended before it was ready ({status})")
                }
                Some(status) => tell(status),
                None => return end(&mut child),
            }
            let ended = Instant::now();
            while is_wanted() && ended.elapsed() < RESTART_PAUSE {
                thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Child> {
        let mut command = (self.command)();
        self.store.equip(&mut command)?;
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

/// How the program ended, if it did while `condition` held.
fn wait_while(child: &mut Child, condition: impl Fn() -> bool) -> Result<Option<ExitStatus>> {
    while condition() {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(Some(status));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(None)
}

fn end(child: &mut Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond the kernel's range")?);
    kill(pid, Signal::SIGTERM).context("cannot signal the program")?;
    let asked = Instant::now();
    if wait_while(child, || asked.elapsed() < STOP_LIMIT)?.is_none() {
        child.kill().context("cannot kill the program")?;
        child.wait().context("cannot wait for the program")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AS_MAIN_PROCESS;
    use crate::fd_store::tests::{barrier, send, store};
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new(AS_MAIN_PROCESS[0]);
        command.args(&AS_MAIN_PROCESS[1..]).args(["sh", "-c", script]);
        command
    }

    #[test]
    fn a_program_is_started_again_until_it_is_wanted_no_more_and_then_asked_to_end() {
        let (directory, store) = store();
        let path = directory.path().join("notify");
        let starts = Cell::new(0);
        // The first one ends by itself, the second one waits to be ended.
        let command = || {
            starts.set(starts.get() + 1);
            send(&path, "READY=1", &[]);
            barrier(&path);
            shell(if starts.get() == 1 { "exit 3" } else { "exec sleep 600" })
        };
        let began = Instant::now();
        let mut ends = Vec::new();
        Supervisor::new(store, command).run(|| starts.get() < 2, |status| ends.push(status)).unwrap();
        assert_eq!((starts.get(), ends), (2, vec![ExitStatus::from_raw(3 << 8)]));
        assert!(began.elapsed() < STOP_LIMIT, "the second one was not asked to end");
    }

    #[test]
    fn a_program_that_never_gets_ready_is_given_up() {
        let (_directory, store) = store();
        let mut supervisor = Supervisor::new(store, || shell("exit 3"));
        let error = supervisor.run(|| true, |status| panic!("started again after {status}")).unwrap_err();
        assert!(error.to_string().contains("before it was ready"), "{error}");
    }
}
