//! A containerd of our own, for machines that run none.
//!
//! It is started in a session of its own so that it outlives the daemon, and is found again by its socket; its pid
//! is asked of the kernel (`SO_PEERCRED`), so there is no pid file to go stale.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{net::UnixStream, process::Command, time::Instant};

use crate::{Error, PrivateContainerd};

const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const CONFIG_FILE: &str = "config.toml";

/// Plugins that a container runner has no use for: each costs memory and start-up time.
const DISABLED_PLUGINS: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.differ.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
];

/// The pid of the process that listens at `socket`, or why nobody answers.
pub(crate) async fn listener_pid(socket: &Path) -> io::Result<Option<i32>> {
    UnixStream::connect(socket).await?.peer_cred().map(|credentials| credentials.pid())
}

/// Whether this private containerd has been started before and not been given up since.
pub(crate) fn is_established(private: &PrivateContainerd) -> bool {
    private.root.join(CONFIG_FILE).exists()
}

/// Starts it if it does not answer, and waits until it does.
///
/// # Errors
/// [`Error::BinaryMissing`], [`Error::StartFailed`], or [`Error::Io`] for its directories.
pub(crate) async fn start(private: &PrivateContainerd) -> Result<(), Error> {
    let socket = private.socket();
    if listener_pid(&socket).await.is_ok() {
        return Ok(());
    }
    let config = write_config(private).map_err(|source| {
        Error::io(format!("write the configuration below {}", private.root.display()), source)
    })?;
    let log_path = private.root.join("containerd.log");
    let log = File::create(&log_path)
        .map_err(|source| Error::io(format!("create {}", log_path.display()), source))?;
    let mut command = Command::new(&private.binary);
    command.arg("--config").arg(&config).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    detach(&mut command);
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            Error::BinaryMissing { socket: socket.clone(), binary: private.binary.clone() }
        }
        _ => Error::io(format!("start {}", private.binary.display()), source),
    })?;
    let deadline = Instant::now() + START_LIMIT;
    // Dropping `child` on success leaves it running: tokio reaps it should it ever end.
    loop {
        if listener_pid(&socket).await.is_ok() {
            tracing::info!(socket = %socket.display(), "Started a private containerd");
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Error::StartFailed { detail: format!("{status}: {}", end_of(&log_path)) });
        }
        if Instant::now() > deadline {
            let _ = child.kill().await;
            return Err(Error::StartFailed { detail: format!("timed out: {}", end_of(&log_path)) });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Stops it and forgets that it was this node's containerd. Its images and snapshots stay on disk.
pub(crate) async fn stop(private: &PrivateContainerd) -> Result<(), Error> {
    let socket = private.socket();
    if let Ok(Some(pid)) = listener_pid(&socket).await {
        let pid = Pid::from_raw(pid);
        let deadline = Instant::now() + STOP_LIMIT;
        let mut signal = Signal::SIGTERM;
        while kill(pid, signal).is_ok() {
            // Once told to end it is only asked whether it is gone.
            tokio::time::sleep(POLL_INTERVAL).await;
            if listener_pid(&socket).await.is_err() && !is_alive(pid) {
                break;
            }
            if Instant::now() > deadline {
                signal = Signal::SIGKILL;
            }
        }
    }
    match fs::remove_file(private.root.join(CONFIG_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove the private containerd's configuration", error))
        }
        _ => Ok(()),
    }
}

/// A zombie of ours counts as gone: nothing of it runs.
fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

fn write_config(private: &PrivateContainerd) -> io::Result<PathBuf> {
    fs::create_dir_all(&private.root)?;
    fs::create_dir_all(&private.state)?;
    let path = private.root.join(CONFIG_FILE);
    let quote = |path: PathBuf| serde_json::Value::from(path.to_string_lossy().into_owned()).to_string();
    let disabled = DISABLED_PLUGINS.iter().map(|plugin| format!("{plugin:?}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "# Written by hivemind at every start of its private containerd.\n\
         version = 2\nroot = {}\nstate = {}\ndisabled_plugins = [{disabled}]\n\
         [debug]\nlevel = \"warn\"\n[grpc]\naddress = {}\n[ttrpc]\naddress = {}\n",
        quote(private.root.join("root")),
        quote(private.state.join("state")),
        quote(private.socket()),
        quote(private.state.join("ttrpc.sock")),
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Lets the command run in a session of its own, out of reach of the terminal's signals, and without a word to our own
/// service manager: containerd would tell it that it is ready.
pub(crate) fn detach(command: &mut Command) {
    command.env_remove("NOTIFY_SOCKET");
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
