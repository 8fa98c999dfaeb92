//! What the runtime is told when it starts.

use std::{collections::BTreeMap, path::PathBuf};

/// Where containerd is, and where the runtime keeps what is its own.
///
/// Nothing is created before [`crate::Runtime::connect`]. Paths are absolute.
#[derive(Debug, Clone)]
pub struct Config {
    /// containerd's gRPC socket.
    pub socket: PathBuf,
    /// containerd namespace that holds everything of ours.
    pub namespace: String,
    /// containerd snapshotter; anything whose mounts the kernel can make.
    pub snapshotter: String,
    /// Parent of each container's cgroup, as an absolute cgroup path such as `/hivemind`; a container gets
    /// `<cgroup_parent>/<id>` in every hierarchy.
    pub cgroup_parent: String,
    /// Directory on a tmpfs for what need not survive a reboot: pipes, runc's state.
    pub run_dir: PathBuf,
    /// Directory of the containers' log files.
    pub log_dir: PathBuf,
    /// Socket of the node's log collector.
    pub log_socket: PathBuf,
    /// The program that is started as log collector, with [`crate::logs::COLLECTOR_COMMAND`] as its first
    /// argument: the hivemind executable.
    pub program: PathBuf,
    /// How image registries are reached.
    pub registries: Registries,
    /// The containerd to start if none answers at `socket`; `None` never starts one.
    pub private: Option<PrivateContainerd>,
}

impl Config {
    /// The defaults for a daemon with these two directories, the containerd of the machine, and a private one
    /// below `data_dir` where the machine runs none.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        program: impl Into<PathBuf>,
    ) -> Self {
        let (data_dir, run_dir) = (data_dir.into(), run_dir.into());
        Self {
            socket: PathBuf::from("/run/containerd/containerd.sock"),
            namespace: "hivemind".into(),
            snapshotter: "overlayfs".into(),
            cgroup_parent: "/hivemind".into(),
            log_dir: data_dir.join("logs"),
            log_socket: run_dir.join("log.sock"),
            program: program.into(),
            registries: Registries::default(),
            private: Some(PrivateContainerd {
                root: data_dir.join("containerd"),
                state: run_dir.join("containerd"),
                binary: PathBuf::from("containerd"),
            }),
            run_dir,
        }
    }

    /// Directory of the pipes that carry the containers' output to the log collector.
    pub(crate) fn pipe_dir(&self) -> PathBuf {
        self.run_dir.join("pipes")
    }
}

/// How image registries are reached. The default is HTTPS to the registry that the reference names.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Registries (`host` or `host:port`) that are spoken to in plain HTTP.
    pub insecure: Vec<String>,
    /// Registry host, as a reference names it (`docker.io`), to URLs such as `http://10.0.0.5:5000` or
    /// `https://mirror.example/prefix`: tried in their order, then the registry itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

/// A containerd that belongs to this daemon alone.
///
/// It outlives the daemon, and is found again through its socket (`<state>/containerd.sock`). Once it has been
/// started, the directory `root` marks it as this node's containerd: it is preferred to [`Config::socket`] until
/// [`crate::Runtime::stop_private`], so that a containerd that is installed later does not hide its containers.
#[derive(Debug, Clone)]
pub struct PrivateContainerd {
    /// containerd's persistent directory: images and snapshots.
    pub root: PathBuf,
    /// containerd's volatile directory: socket and running tasks.
    pub state: PathBuf,
    /// The executable, by path or by a name that is looked up in `PATH`.
    pub binary: PathBuf,
}

impl PrivateContainerd {
    /// The socket at which it answers.
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }
}
