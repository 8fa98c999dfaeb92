//! A process inside a node that starts containers without the product around them, and tells how long each took.
//!
//! It stays up between containers, so that no program's start is measured but `ctr`'s own. A word a line comes in, the
//! way to take; the time in microseconds goes out once the container is removed again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hivemind_model::ImageReference;
use hivemind_runtime::{Config, ContainerId, ContainerSpec, Runtime, Signal};

use super::containers::{COMMAND, IMAGE};
use crate::background::Background;
use crate::{Node, hivemind_binary};

/// The containerd namespace, apart from the daemon's, which would remove containers that it does not know.
const NAMESPACE: &str = "bench";

/// How long a process gets to end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How to start a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the same calls to containerd as the product's, without a network.
    Runtime,
    /// By `ctr run --detach`.
    Ctr,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Way::Runtime => "runtime",
            Way::Ctr => "ctr",
        }
    }
}

/// The process, as the bench sees it.
pub(super) struct Calls {
    process: Background,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Calls {
    /// Starts the process inside the node, and gives it an image.
    pub(super) fn start(node: &Node, archive: &Path) -> Result<Self> {
        let directory = node.sandbox().directory();
        let bench = std::env::current_exe().context("cannot tell where this program lies")?;
        let mut command = node.sandbox().command(bench);
        command
            .arg("calls")
            .args([directory.join("containerd/containerd.sock"), directory.join("bench"), hivemind_binary()?])
            .args([Path::new("/").join(node.name()).join("bench"), archive.to_path_buf()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Background::new(command.spawn().context("cannot start the process for calls")?);
        let input = process.take_stdin().context("no standard input")?;
        let output = BufReader::new(process.take_stdout().context("no standard output")?);
        let mut calls = Self { process, input, output };
        if calls.line()? != "ready" {
            bail!("the process for calls did not start");
        }
        Ok(calls)
    }

    /// Starts one container and removes it; returns how long the start took.
    pub(super) fn measure(&mut self, way: Way) -> Result<Duration> {
        writeln!(self.input, "{}", way.word())?;
        let line = self.line()?;
        Ok(Duration::from_micros(line.parse().with_context(|| format!("no time: {line:?}"))?))
    }

    /// Ends the process.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.input);
        let status = self.process.wait(STOP_GRACE)?;
        if !status.success() {
            bail!("the process for calls ended with {status}");
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the process for calls ended; it said why on standard error");
        }
        Ok(line.trim().to_owned())
    }
}

/// The process itself, until standard input ends: `SOCKET DIRECTORY PROGRAM CGROUP ARCHIVE`.
///
/// # Errors
/// When containerd does not answer, the image cannot be imported, or a container does not start.
pub fn serve_calls(arguments: &[String]) -> Result<()> {
    let [socket, directory, program, cgroup, archive] = arguments else {
        bail!("usage: hivemind-bench calls SOCKET DIRECTORY PROGRAM CGROUP ARCHIVE");
    };
    let directory = PathBuf::from(directory);
    let config = Config {
        socket: socket.into(),
        namespace: NAMESPACE.to_owned(),
        cgroup_parent: cgroup.clone(),
        private: None,
        ..Config::new(directory.join("data"), directory.join("run"), program)
    };
    // As many threads as the daemon has.
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let caller = executor.block_on(Caller::new(config, Path::new(archive)))?;
    println!("ready");
    for (number, word) in std::io::stdin().lines().enumerate() {
        let id = format!("{NAMESPACE}-{number}");
        let took = match word?.as_str() {
            "runtime" => executor.block_on(caller.through_runtime(&id))?,
            "ctr" => caller.through_ctr(&id)?,
            word => bail!("there is no way {word:?}"),
        };
        println!("{}", took.as_micros());
    }
    Ok(executor.block_on(caller.runtime.stop_log_collector())?)
}

struct Caller {
    runtime: Runtime,
    image: ImageReference,
}

impl Caller {
    async fn new(config: Config, archive: &Path) -> Result<Self> {
        let runtime = Runtime::connect(config).await?;
        runtime.import_file(archive).await?;
        Ok(Self { runtime, image: IMAGE.parse()? })
    }

    async fn through_runtime(&self, id: &str) -> Result<Duration> {
        let id: ContainerId = id.parse()?;
        let mut spec = ContainerSpec::new(id.clone(), self.image.clone());
        spec.command = COMMAND.map(str::to_owned).to_vec();
        let began = Instant::now();
        self.runtime.run(&spec).await?;
        let took = began.elapsed();
        self.runtime.stop(&id, Signal::SIGTERM, STOP_GRACE).await?;
        self.runtime.delete(&id).await?;
        self.runtime.remove_logs(&id).await?;
        Ok(took)
    }

    fn through_ctr(&self, id: &str) -> Result<Duration> {
        let cgroup = format!("{}/{id}", self.runtime.config().cgroup_parent);
        let image = self.image.to_string();
        let mut run = self.ctr(&["run", "--detach", "--cgroup", &cgroup, &image, id]);
        run.args(COMMAND);
        let began = Instant::now();
        complete(run)?;
        let took = began.elapsed();
        // Forced, which kills it first.
        complete(self.ctr(&["task", "delete", "--force", id]))?;
        complete(self.ctr(&["container", "delete", id]))?;
        Ok(took)
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let config = self.runtime.config();
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&config.socket).args(["--namespace", NAMESPACE]).args(words);
        command.stdin(Stdio::null());
        command
    }
}

fn complete(mut command: Command) -> Result<()> {
    let output = command.output().context("cannot run ctr")?;
    // A process that was killed by force is told as a failure; what counts is what it says.
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !said.trim().is_empty() {
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
