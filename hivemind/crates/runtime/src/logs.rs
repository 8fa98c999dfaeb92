//! The containers' output, in files: one process per node collects it, and readers follow the files.
//!
//! # How a line travels
//! A container's shim copies its standard output and error into two named pipes that [`Runtime::run`] makes for it
//! ([`crate::Runtime::run`]). The node's **collector**, a process of its own that outlives the daemon, reads them and
//! appends lines of JSON to `<log_dir>/<container>.log`: `{"t":"2026-01-01T00:00:00.123456789Z","s":"stdout","m":"…"}`,
//! with `"p":true` where a line longer than 64 KiB goes on in the next record. At 10 MiB a file becomes `.log.1`, and
//! that `.log.2`; three files are kept.
//!
//! # What a death costs
//! A pipe is opened by name, and the shim holds both of its ends. So a collector that dies takes nothing with it: what
//! containers write meanwhile waits in the pipes (64 KiB each; then the writer waits), and the next collector, which
//! the daemon starts as soon as the old one is gone, finds the pipes by their names. Only a line that had no end yet
//! is lost. Daemon and containerd may come and go without any effect. Bytes that a container wrote before it ended are
//! in the file when [`crate::Runtime::delete`] returns.
//!
//! # Why not the shim's `binary://` logger
//! Such a logger could hand its descriptors to the collector and exit. But the shim of containerd 1.6 and 1.7 reaps
//! it without remembering that, and sends SIGTERM to its pid when the container is deleted, by then perhaps the pid of
//! an unrelated process of the host. It would have to stay, one process a container. Descriptors that are handed over
//! also die with the collector, and starting a program for each container costs more time than opening a pipe. The
//! known trap of pipes, that the shim waits for ever if nobody reads, is avoided by holding both ends open while the
//! container is created.

mod collector;
mod file;
mod line;
mod reader;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::Command,
    time::Instant,
};

pub use self::{
    collector::collector_main,
    reader::{LogLine, LogReader, LogStream},
};
pub(crate) use reader::read;

use crate::{Config, ContainerId, containerd::private::detach};

/// The first argument with which [`Config::program`] is started as collector; those that follow are for
/// [`collector_main`].
pub const COLLECTOR_COMMAND: &str = "log-collector";

const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const WATCH_PAUSE: Duration = Duration::from_millis(200);

/// A failure of the log collector or of reading what it wrote.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The collector cannot be started. Nothing is left behind; the program or its directories are at fault.
    #[error("the log collector {program} did not start: {reason}")]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The collector refused. Nothing is left behind.
    #[error("the log collector cannot {request}: {reason}")]
    Refused {
        /// What it was asked for.
        request: String,
        /// Its words.
        reason: String,
    },
    /// A file, pipe or socket cannot be used. Nothing is left behind.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl LogError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

/// The daemon's side of the collector.
#[derive(Clone)]
pub(crate) struct Logs {
    program: PathBuf,
    socket: PathBuf,
    pipe_dir: PathBuf,
    log_dir: PathBuf,
}

/// The pipes of a container that is being created. While this lives, opening them blocks nobody.
pub(crate) struct Attachment {
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
    _held: [File; 2],
}

impl Logs {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            program: config.program.clone(),
            socket: config.log_socket.clone(),
            pipe_dir: config.pipe_dir(),
            log_dir: config.log_dir.clone(),
        }
    }

    /// Makes the container's pipes and returns when the collector reads them.
    pub(crate) async fn attach(&self, id: &ContainerId) -> Result<Attachment, LogError> {
        let [stdout, stderr] = self.pipes(id);
        let held = [make_pipe(&stdout)?, make_pipe(&stderr)?];
        self.ask(&format!("attach {id}")).await?;
        Ok(Attachment { stdout, stderr, _held: held })
    }

    /// Removes the container's pipes, after the collector has written what was in them.
    pub(crate) async fn detach(&self, id: &ContainerId) -> Result<(), LogError> {
        let pipes = self.pipes(id);
        if pipes.iter().any(|pipe| pipe.exists()) {
            self.ask(&format!("detach {id}")).await?;
        }
        pipes.iter().try_for_each(|pipe| remove(pipe))
    }

    pub(crate) async fn remove(&self, id: &ContainerId) -> Result<(), LogError> {
        file::generations(&self.log_dir, id.as_str()).iter().try_for_each(|path| remove(path))
    }

    /// Starts the collector unless it answers. That its socket takes a connection is no answer: so does the socket of
    /// one that was just killed, until the kernel has closed its files.
    pub(crate) async fn ensure_collector(&self) -> Result<(), LogError> {
        match self.ask("ping").await {
            // Of an older version, which does not know the request and yet serves.
            Err(LogError::Refused { .. }) => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn stop_collector(&self) -> Result<(), LogError> {
        let Ok(mut stream) = UnixStream::connect(&self.socket).await else { return Ok(()) };
        exchange(&mut stream, "shutdown").await
    }

    /// Keeps a collector running until it is dropped.
    pub(crate) async fn watch(&self) -> ! {
        loop {
            match self.connect().await {
                // The collector says nothing unasked: this returns when it ends.
                Ok(mut stream) => {
                    let _ = stream.read(&mut [0]).await;
                }
                Err(error) => tracing::warn!(%error, "The log collector is not running"),
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    fn pipes(&self, id: &ContainerId) -> [PathBuf; 2] {
        ["stdout", "stderr"].map(|stream| self.pipe_dir.join(format!("{id}.{stream}")))
    }

    /// Asks a second time if the collector dies over the first: it is started anew in between.
    async fn ask(&self, request: &str) -> Result<(), LogError> {
        let mut stream = self.connect().await?;
        match exchange(&mut stream, request).await {
            Err(LogError::Io { .. }) => {
                let mut stream = self.connect().await?;
                exchange(&mut stream, request).await
            }
            other => other,
        }
    }

    async fn connect(&self) -> Result<UnixStream, LogError> {
        if let Ok(stream) = UnixStream::connect(&self.socket).await {
            return Ok(stream);
        }
        let failed = |reason: String| LogError::NotStarted { program: self.program.clone(), reason };
        let mut command = Command::new(&self.program);
        command.arg(COLLECTOR_COMMAND).args([&self.socket, &self.pipe_dir, &self.log_dir]).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        detach(&mut command);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket).await {
                let serving = stream.peer_cred().ok().and_then(|peer| peer.pid());
                if serving != child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    // Another was faster. Ours would end by itself, but not if the other is stopped before.
                    let _ = child.kill().await;
                }
                return Ok(stream);
            }
            // It ends successfully where another has just been started.
            if let Ok(Some(status)) = child.try_wait()
                && !status.success()
            {
                return Err(failed(status.to_string()));
            }
            if Instant::now() > deadline {
                let _ = child.kill().await;
                return Err(failed("timed out".into()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

async fn exchange(stream: &mut UnixStream, request: &str) -> Result<(), LogError> {
    let failed = |error: io::Error| LogError::io(format!("ask the log collector to {request}"), error);
    let conversation = async {
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, conversation)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(failed)?;
    match answer.trim_end() {
        "ok" => Ok(()),
        "" => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        reason => Err(LogError::Refused { request: request.to_owned(), reason: reason.to_owned() }),
    }
}

/// A new pipe at `path`, opened for both directions, which never blocks.
fn make_pipe(path: &Path) -> Result<File, LogError> {
    remove(path)?;
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(LogError::io(format!("make the pipe {}", path.display()), errno)),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(path).map_err(|error| LogError::io(format!("open the pipe {}", path.display()), error))
}

fn remove(path: &Path) -> Result<(), LogError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LogError::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// What a collector is started with.
struct CollectorPaths {
    socket: PathBuf,
    pipe_dir: PathBuf,
    log_dir: PathBuf,
}

impl CollectorPaths {
    fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, LogError> {
        let paths: Vec<PathBuf> = arguments.into_iter().map(PathBuf::from).collect();
        match <[PathBuf; 3]>::try_from(paths) {
            Ok([socket, pipe_dir, log_dir]) => Ok(Self { socket, pipe_dir, log_dir }),
            Err(_) => Err(LogError::Refused {
                request: "start".into(),
                reason: "it takes its socket, the directory of pipes and the directory of logs".into(),
            }),
        }
    }
}
