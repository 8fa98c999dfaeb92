//! A machine made of namespaces: network, mounts and host name of its own, a tmpfs, a bpffs, and a cgroup in every
//! hierarchy.
//!
//! One process, the holder (`hivemind-sandbox hold NAME`), creates and keeps all of it, and takes it down again: when
//! the sandbox is dropped, and just the same when the test that owns it dies in any way, because then the pipe between
//! them closes. The namespaces have no name in the file system; they live exactly as long as processes in them. Should
//! the holder itself be killed, the next sandbox that starts on the machine finds what it left by its lock file.

mod cgroup;
mod cleanup;
mod holder;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::background::Background;
use crate::programs;

pub use cleanup::remains;
pub use holder::hold;

/// Where the sandboxes of a machine have their directories and lock files.
const BASE: &str = "/run/hivemind-sandboxes";

/// Enters the cgroups named in the first argument, then becomes the program in the rest.
const ENTER_CGROUPS: &str =
    r#"for c in $1; do echo 0 > "$c/cgroup.procs" || exit 125; done; shift; exec "$@""#;

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running sandbox; dropping it removes it and everything that runs in it.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    holder: Child,
    /// Closing it tells the holder to clean up.
    lifeline: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    cgroup: PathBuf,
    /// The cgroups that programs started by the harness are put into, separated by spaces.
    leaves: String,
}

impl Sandbox {
    /// Makes a sandbox named `hmt-PID-N`, after removing what sandboxes of killed holders left on the machine.
    ///
    /// # Errors
    /// When not root, or when the kernel refuses a namespace, a mount or a cgroup. Nothing is left behind.
    pub fn start() -> Result<Self> {
        cleanup::sweep().context("cannot remove what an earlier sandbox left")?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("hmt-{}-{number}", std::process::id());
        let mut holder = Command::new(programs::holder()?)
            .args(["hold", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not inherited: a test runner waits until every copy of the test's output is closed.
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the sandbox's holder")?;
        let lifeline = holder.stdin.take();
        let mut reports = BufReader::new(holder.stdout.take().context("the holder has no output")?);
        let mut report = String::new();
        reports.read_line(&mut report)?;
        if report.trim() != "ready" {
            reports.read_to_string(&mut report)?;
            holder.wait()?;
            bail!("cannot make the sandbox {name}: {}", report.trim());
        }
        let leaves: Vec<_> = cgroup::leaves(&name)?.iter().map(|leaf| leaf.display().to_string()).collect();
        let cgroup = cgroup::unified(&name)?;
        Ok(Self { name, holder, lifeline, reports, cgroup, leaves: leaves.join(" ") })
    }

    /// Its name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds its namespaces, for `nsenter --target`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Its tmpfs, as seen inside; from outside the directory is empty. `bpf/` below it is a bpffs.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        Path::new(BASE).join(&self.name)
    }

    /// Its directory in the cgroup v2 hierarchy. Programs that the harness starts lie in `host/` below it.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// How the test, which is outside, reaches a file that lies at `path` inside.
    #[must_use]
    pub fn outside(&self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(self.pid().to_string()).join("root").join(relative)
    }

    /// A command that runs inside, in the sandbox's cgroups, in the directory `/`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid().to_string(), "--mount", "--net", "--uts", "--"])
            .args(["sh", "-c", ENTER_CGROUPS, "sh", &self.leaves])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// When it cannot be started. A program that fails is no error: look at the output's status.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no program to run")?;
        self.command(program).args(arguments).output().with_context(|| format!("cannot run {program}"))
    }

    /// Runs a program inside and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error holds what it said.
    pub fn check(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        if !output.status.success() {
            bail!(
                "`{}` in {} failed ({}): {}{}",
                words.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout),
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program inside that runs beside the test. Its output goes to `log`, a path inside, or nowhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, words: &[&str], log: Option<&Path>) -> Result<Background> {
        let (program, arguments) = words.split_first().context("no program to start")?;
        let mut command = self.command(program);
        command.args(arguments);
        self.spawn_command(command, log)
    }

    /// As [`Self::spawn`], with a command from [`Self::command`] that was given an environment, say.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_command(&self, mut command: Command, log: Option<&Path>) -> Result<Background> {
        let (stdout, stderr) = match log {
            Some(path) => {
                let path = self.outside(path);
                let file = File::options().create(true).append(true).open(&path);
                let file = file.with_context(|| format!("cannot open {}", path.display()))?;
                (Stdio::from(file.try_clone()?), Stdio::from(file))
            }
            None => (Stdio::null(), Stdio::null()),
        };
        let child = command.stdout(stdout).stderr(stderr).spawn().context("cannot start a program")?;
        Ok(Background::new(child))
    }

    /// Runs a function on a thread whose network is the sandbox's: what it connects, binds or writes below
    /// `/proc/sys/net` is the sandbox's. Its files are the host's, and it is not in the sandbox's cgroup.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When the function does.
    pub fn in_network<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).context("the sandbox is gone")?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the sandbox's network")?;
                Ok(function())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Removes the sandbox and waits until it is gone.
    ///
    /// # Errors
    /// When something could not be removed; names it.
    pub fn stop(mut self) -> Result<()> {
        self.close()
    }

    fn close(&mut self) -> Result<()> {
        if self.lifeline.take().is_none() {
            return Ok(());
        }
        let mut report = String::new();
        self.reports.read_to_string(&mut report).context("the sandbox's holder did not report")?;
        self.holder.wait().context("cannot wait for the sandbox's holder")?;
        if report.trim() != "clean" {
            bail!("the sandbox {} could not be removed whole: {}", self.name, report.trim());
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("{error:#}");
        }
    }
}

/// The network namespace that a process is in.
pub(crate) fn network_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}
