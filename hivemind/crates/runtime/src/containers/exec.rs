//! Processes in a running container, with their streams through named pipes.
//!
//! One task owns each such process: it waits for the end, removes what containerd and the file system keep of it, and
//! kills it if the session is dropped before.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, GetRequest, KillRequest,
    ResizePtyRequest, StartRequest, WaitRequest,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use prost_types::Any;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::unix::pipe, sync::oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ContainerId, Containers, failure, missing, oci::merge_environment, user::User};
use crate::{
    Error, Signal,
    containerd::{CALL_LIMIT, Containerd, TASK_LIMIT, within},
    error::allow_missing,
};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const WAIT_PAUSE: Duration = Duration::from_millis(200);
/// Half a minute without containerd, and the process is given up.
const WAIT_TRIES: u32 = 150;

/// A process to be executed.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// The program and its arguments, at least one word.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Gives it a terminal of that size: then there is one stream of output.
    pub terminal: Option<TerminalSize>,
    /// `user`, `uid`, `user:group` or any mix; the container's if `None`.
    pub user: Option<String>,
    /// Where it starts; the container's directory if `None`.
    pub working_dir: Option<String>,
}

/// A terminal's size, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// A process that was started. Dropping it before [`ExecSession::wait`] has returned kills the process.
pub struct ExecSession {
    /// What the process reads.
    pub stdin: ExecInput,
    /// What it writes; all of it where it has a terminal.
    pub stdout: pipe::Receiver,
    /// Its standard error; `None` where it has a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// For signals and the terminal's size, from any task.
    pub control: ExecControl,
    exit: oneshot::Receiver<Result<u32, Error>>,
    _guard: DropGuard,
}

/// Standard input of an executed process.
pub struct ExecInput {
    /// `None` if the process had ended before anything could be written.
    pipe: Option<pipe::Sender>,
    control: ExecControl,
}

/// A handle to an executed process; clones are equivalent.
#[derive(Clone)]
pub struct ExecControl {
    containerd: Containerd,
    container: ContainerId,
    exec_id: String,
}

impl ExecSession {
    /// Waits for the end of the process and returns its exit code. Read its output before or meanwhile: a process
    /// whose pipe is full waits.
    pub async fn wait(&mut self) -> Result<u32, Error> {
        match (&mut self.exit).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::io("wait for a process", io::Error::other("its code was taken already"))),
        }
    }
}

impl ExecSession {
    /// Its parts, for tasks of their own: what it reads, what it writes (twice), and its end.
    pub fn into_parts(self) -> (ExecInput, pipe::Receiver, Option<pipe::Receiver>, ExecEnd) {
        let Self { stdin, stdout, stderr, exit, _guard, control: _ } = self;
        (stdin, stdout, stderr, ExecEnd { exit, _guard })
    }
}

/// The end of an executed process. Dropping it before [`ExecEnd::wait`] has returned kills the process.
pub struct ExecEnd {
    exit: oneshot::Receiver<Result<u32, Error>>,
    _guard: DropGuard,
}

impl ExecEnd {
    /// As [`ExecSession::wait`].
    pub async fn wait(self) -> Result<u32, Error> {
        self.exit.await.unwrap_or_else(|_| {
            Err(Error::io("wait for a process", io::Error::other("its watcher has ended")))
        })
    }
}

impl ExecInput {
    /// Writes all the bytes, waiting while the pipe is full; fails once the process has ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = match &mut self.pipe {
            Some(pipe) => pipe.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|source| Error::io("write to a process", source))
    }

    /// Ends the input: the process reads its end.
    pub async fn close(self) -> Result<(), Error> {
        let Self { pipe, control } = self;
        drop(pipe);
        let request = control.containerd.request(CloseIoRequest {
            container_id: control.container.to_string(),
            exec_id: control.exec_id.clone(),
            stdin: true,
        });
        let closed = within("Tasks.CloseIO", CALL_LIMIT, control.containerd.tasks().close_io(request)).await;
        allow_missing(closed).map(drop)
    }
}

impl ExecControl {
    /// Tells the terminal its size.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let request = self.containerd.request(ResizePtyRequest {
            container_id: self.container.to_string(),
            exec_id: self.exec_id.clone(),
            width: size.columns.into(),
            height: size.rows.into(),
        });
        let resized =
            within("Tasks.ResizePty", CALL_LIMIT, self.containerd.tasks().resize_pty(request)).await;
        resized.map_err(|error| missing(error, &self.container))
    }

    /// Sends the process a signal; one that has ended already takes none, which is no error.
    pub async fn kill(&self, signal: Signal) -> Result<(), Error> {
        let request = self.containerd.request(KillRequest {
            container_id: self.container.to_string(),
            exec_id: self.exec_id.clone(),
            signal: signal as u32,
            all: false,
        });
        allow_missing(within("Tasks.Kill", TASK_LIMIT, self.containerd.tasks().kill(request)).await).map(drop)
    }

    async fn start(&self) -> Result<(), Error> {
        let request = self.containerd.request(StartRequest {
            container_id: self.container.to_string(),
            exec_id: self.exec_id.clone(),
        });
        within("Tasks.Start", TASK_LIMIT, self.containerd.tasks().start(request)).await.map(drop)
    }

    /// Waits for as long as it takes, also while containerd is restarted.
    async fn exit_code(&self) -> Result<u32, Error> {
        let mut tries = 0;
        loop {
            let request = self.containerd.request(WaitRequest {
                container_id: self.container.to_string(),
                exec_id: self.exec_id.clone(),
            });
            match self.containerd.tasks().wait(request).await {
                Ok(answer) => return Ok(answer.into_inner().exit_status),
                Err(status) => match Error::from_status("Tasks.Wait", status) {
                    Error::Unavailable { .. } if tries < WAIT_TRIES => tries += 1,
                    error => return Err(missing(error, &self.container)),
                },
            }
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }

    async fn delete(&self) -> Result<(), Error> {
        let request = self.containerd.request(DeleteProcessRequest {
            container_id: self.container.to_string(),
            exec_id: self.exec_id.clone(),
        });
        let deleted =
            within("Tasks.DeleteProcess", TASK_LIMIT, self.containerd.tasks().delete_process(request)).await;
        allow_missing(deleted).map(drop)
    }
}

pub(crate) async fn exec(
    containers: &Containers<'_>,
    id: &ContainerId,
    spec: &ExecSpec,
) -> Result<ExecSession, Error> {
    let command =
        spec.args.first().ok_or_else(|| Error::InvalidSpec { reason: "there is no command".into() })?;
    let process = describe(containers, id, spec).await?;
    let exec_id = format!("exec-{:016x}", rand::random::<u64>());
    let pipes = Pipes::make(&containers.config.run_dir.join("exec").join(&exec_id), spec.terminal.is_none())
        .map_err(|source| Error::io("make the pipes of a process", source))?;
    let control = ExecControl { containerd: containers.containerd.clone(), container: id.clone(), exec_id };
    let streams = pipes.open().map_err(|source| Error::io("open the pipes of a process", source))?;
    let request = containers.containerd.request(ExecProcessRequest {
        container_id: id.to_string(),
        exec_id: control.exec_id.clone(),
        stdin: pipes.text(&pipes.stdin),
        stdout: pipes.text(&pipes.stdout),
        stderr: pipes.stderr.as_ref().map(|path| pipes.text(path)).unwrap_or_default(),
        terminal: spec.terminal.is_some(),
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() }),
    });
    let added = within("Tasks.Exec", TASK_LIMIT, containers.containerd.tasks().exec(request)).await;
    added.map_err(|error| missing(error, id))?;
    if let Err(error) = control.start().await {
        control.delete().await?;
        return Err(failure::explain(error, command, None));
    }
    if let Some(size) = spec.terminal {
        // It may have ended already.
        let _ = control.resize(size).await;
    }
    let (held, stdout, stderr) = streams;
    // As long as we could read it too, writing would never fail. Now the shim reads it, unless all is over.
    let stdin = pipe::OpenOptions::new().open_sender(&pipes.stdin).ok();
    drop(held);
    let (send, exit) = oneshot::channel();
    let dropped = CancellationToken::new();
    tokio::spawn(own(control.clone(), pipes, dropped.clone(), send));
    let guard = dropped.drop_guard();
    Ok(ExecSession {
        stdin: ExecInput { pipe: stdin, control: control.clone() },
        stdout,
        stderr,
        control,
        exit,
        _guard: guard,
    })
}

/// Owns the process until it has ended and nothing of it is left.
async fn own(
    control: ExecControl,
    pipes: Pipes,
    dropped: CancellationToken,
    exit: oneshot::Sender<Result<u32, Error>>,
) {
    let code = tokio::select! {
        code = control.exit_code() => code,
        () = dropped.cancelled() => {
            if let Err(error) = control.kill(Signal::SIGKILL).await {
                tracing::debug!(%error, "A process whose session ended cannot be killed");
            }
            control.exit_code().await
        }
    };
    if let Err(error) = control.delete().await {
        tracing::debug!(%error, "A process that ended is left to its container");
    }
    drop(pipes);
    let _ = exit.send(code);
}

/// The container's own process with what `spec` changes.
async fn describe(containers: &Containers<'_>, id: &ContainerId, spec: &ExecSpec) -> Result<Value, Error> {
    let containerd = containers.containerd;
    let request = containerd.request(GetContainerRequest { id: id.to_string() });
    let record = within("Containers.Get", CALL_LIMIT, containerd.containers().get(request)).await;
    let record = record.map_err(|error| missing(error, id))?.container.and_then(|record| record.spec);
    let raw = record.map(|spec| spec.value).unwrap_or_default();
    let mut description: Value = serde_json::from_slice(&raw)
        .map_err(|source| Error::Malformed { what: format!("the description of container {id}"), source })?;
    let mut process = description["process"].take();
    let inherited = process["env"].take();
    let inherited = inherited.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let terminal = spec.terminal.map(|_| "TERM=xterm".to_owned());
    let added = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    process["env"] = json!(merge_environment(inherited.chain(terminal).chain(added)));
    process["args"] = json!(spec.args);
    process["terminal"] = json!(spec.terminal.is_some());
    if let Some(TerminalSize { columns, rows }) = spec.terminal {
        // From its first instruction on: a resize reaches only a process that runs.
        process["consoleSize"] = json!({ "width": columns, "height": rows });
    }
    if let Some(directory) = &spec.working_dir {
        process["cwd"] = json!(directory);
    }
    if let Some(text) = &spec.user {
        let user = match User::evident(text) {
            Some(user) => user,
            None => {
                let root = PathBuf::from(format!("/proc/{}/root", pid(containers, id).await?));
                let text = text.clone();
                let looked_up = tokio::task::spawn_blocking(move || User::look_up(&text, &root)).await;
                looked_up.map_err(|source| Error::io("look up a user", io::Error::other(source)))??
            }
        };
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
    }
    Ok(process)
}

async fn pid(containers: &Containers<'_>, id: &ContainerId) -> Result<u32, Error> {
    let request =
        containers.containerd.request(GetRequest { container_id: id.to_string(), ..Default::default() });
    let answer = within("Tasks.Get", CALL_LIMIT, containers.containerd.tasks().get(request)).await;
    let process = answer.map_err(|error| missing(error, id))?.process;
    process.map(|process| process.pid).ok_or_else(|| Error::NoSuchContainer { id: id.clone() })
}

/// Named pipes in a directory of their own, which goes with this.
struct Pipes {
    directory: PathBuf,
    stdin: PathBuf,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

impl Pipes {
    fn make(directory: &Path, with_stderr: bool) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = |name: &str| directory.join(name);
        let pipes = Self {
            directory: directory.to_owned(),
            stdin: path("stdin"),
            stdout: path("stdout"),
            stderr: with_stderr.then(|| path("stderr")),
        };
        for path in [&pipes.stdin, &pipes.stdout].into_iter().chain(&pipes.stderr) {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(pipes)
    }

    /// Opens our ends, before the shim opens its own, so that neither waits for the other.
    fn open(&self) -> io::Result<(pipe::Sender, pipe::Receiver, Option<pipe::Receiver>)> {
        // A pipe can only be opened for writing alone once someone reads it.
        let stdin = pipe::OpenOptions::new().read_write(true).open_sender(&self.stdin)?;
        let receiver = |path: &PathBuf| pipe::OpenOptions::new().open_receiver(path);
        Ok((stdin, receiver(&self.stdout)?, self.stderr.as_ref().map(receiver).transpose()?))
    }

    fn text(&self, path: &Path) -> String {
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
