//! Containers: what they are made of, and what can be done with one that exists.

mod capabilities;
mod devices;
pub(crate) mod events;
pub(crate) mod exec;
mod failure;
pub(crate) mod metrics;
mod oci;
pub(crate) mod run;
mod seccomp;
mod user;

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use containerd_client::{
    services::v1::{
        Container as ContainerRecord, DeleteContainerRequest, DeleteTaskRequest, GetContainerRequest,
        GetRequest as GetTaskRequest, KillRequest, ListContainersRequest, ListTasksRequest, WaitRequest,
        snapshots::RemoveSnapshotRequest,
    },
    types::v1::{Process, Status},
};
use hivemind_model::{Capabilities, ImageReference};
use jiff::Timestamp;

use crate::{
    Config, Error, Signal,
    containerd::{CALL_LIMIT, Containerd, TASK_LIMIT, within},
    error::allow_missing,
    images::Images,
    logs::Logs,
};

const ID_LENGTH_MAX: usize = 76;
const DELETE_TRIES: u32 = 20;
const DELETE_PAUSE: Duration = Duration::from_millis(100);

/// The name of a container on its node: up to 76 letters, digits, `-`, `_` and `.`, starting and ending with a letter
/// or digit, with no two of the others in a row (containerd's rule for identifiers).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The text is no [`ContainerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no container id: up to {ID_LENGTH_MAX} letters and digits, joined by single '-', '_' or '.'"
)]
pub struct ContainerIdError(pub String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    fn from_str(text: &str) -> Result<Self, ContainerIdError> {
        let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if text.len() <= ID_LENGTH_MAX && text.split(['-', '_', '.']).all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ContainerIdError(text.to_owned()))
        }
    }
}

/// What a container is to be. [`ContainerSpec::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its name, unused so far.
    pub id: ContainerId,
    /// An image of this node.
    pub image: ImageReference,
    /// Replaces the image's entrypoint, and with it the image's command; empty keeps them.
    pub command: Vec<String>,
    /// Replaces the image's command; empty keeps it, unless `command` is given.
    pub args: Vec<String>,
    /// Added to the image's environment, replacing variables of the same name.
    pub env: Vec<(String, String)>,
    /// Directory in which the command starts, instead of the image's.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or any mix, instead of the image's.
    pub user: Option<String>,
    /// Groups of its processes besides those of its user.
    pub groups: Vec<u32>,
    /// What its processes may do of what root may, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Whether it has all capabilities that the runtime has itself, all devices, no filter of system calls, and nothing of `/proc`
    /// and `/sys` hidden.
    pub privileged: bool,
    /// What its processes may use each; of descriptors there is a limit if none is given.
    pub rlimits: Vec<Rlimit>,
    /// Whether its root filesystem is read-only.
    pub read_only: bool,
    /// Settings of the kernel for its namespaces, besides those that every container gets.
    pub sysctls: BTreeMap<String, String>,
    /// Path of the network namespace that the container joins; `None` gives it an empty one.
    pub netns: Option<PathBuf>,
    /// Host name; the id if `None`.
    pub hostname: Option<String>,
    /// Processor time in thousandths of a processor, at least 10; `None` does not limit it.
    pub cpu_millis: Option<NonZeroU32>,
    /// Memory, in bytes, swap not counted in addition; `None` does not limit it.
    pub memory_bytes: Option<NonZeroU64>,
    /// Processes and threads at once.
    pub pids_max: NonZeroU32,
    /// Directories and files of the host.
    pub mounts: Vec<BindMount>,
    /// Directories in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Size of `/dev/shm` in bytes; 64 MiB if `None`.
    pub shm_bytes: Option<NonZeroU64>,
    /// Host path of what is to be `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// Host path of what is to be `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// For the caller, returned by [`crate::Runtime::list`]. A key and its value have at most 4096 bytes together.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// A container that runs the image as the image says, with the capabilities that Docker gives, and no limits but 4096 processes.
    pub fn new(id: ContainerId, image: ImageReference) -> Self {
        Self {
            id,
            image,
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            user: None,
            groups: Vec::new(),
            capabilities: Capabilities::USUAL.map(str::to_owned).into(),
            privileged: false,
            rlimits: Vec::new(),
            read_only: false,
            sysctls: BTreeMap::new(),
            netns: None,
            hostname: None,
            cpu_millis: None,
            memory_bytes: None,
            pids_max: NonZeroU32::new(4096).expect("4096 is not zero"),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            shm_bytes: None,
            resolv_conf: None,
            hosts: None,
            labels: BTreeMap::new(),
        }
    }
}

/// How much of something each process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what, as getrlimit(2) calls it, without `RLIMIT_` and in lower case: `nofile`.
    pub name: String,
    /// What it may use; as much as the hard limit if `None`.
    pub soft: Option<u64>,
    /// What it may raise that to; without limit if `None`.
    pub hard: Option<u64>,
}

/// A directory in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// In the container, absolute; it is made if it does not exist.
    pub target: PathBuf,
    /// How much fits, in bytes; half of the machine's memory if `None`.
    pub size_bytes: Option<NonZeroU64>,
}

/// A path of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// On the host; it must exist.
    pub source: PathBuf,
    /// In the container, absolute; it is made if it does not exist.
    pub target: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A container that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its first process, in the host's numbering.
    pub pid: u32,
}

/// A container as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its name.
    pub id: ContainerId,
    /// The image that it was made from, as named then.
    pub image: String,
    /// What the caller labelled it with.
    pub labels: BTreeMap<String, String>,
    /// What its first process does.
    pub state: ContainerState,
}

/// What a container's first process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It waits to be started: someone is creating the container, or died over it.
    Created {
        /// runc's placeholder for it.
        pid: u32,
    },
    /// It runs.
    Running {
        /// Its pid on the host.
        pid: u32,
    },
    /// It has ended.
    Exited {
        /// Its exit code; 128 and the signal's number where a signal killed it.
        code: u32,
        /// When it ended, if containerd knows.
        at: Option<Timestamp>,
    },
    /// It is gone, and nobody knows how it ended: its shim was killed, or the machine restarted.
    Lost,
}

impl ContainerState {
    /// The pid on the host, while there is a process.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Created { pid } | Self::Running { pid } => Some(pid),
            Self::Exited { .. } | Self::Lost => None,
        }
    }
}

/// What operations on containers need.
pub(crate) struct Containers<'a> {
    pub(crate) config: &'a Config,
    pub(crate) containerd: &'a Containerd,
    pub(crate) images: &'a Images,
    pub(crate) logs: &'a Logs,
}

impl Containers<'_> {
    pub(crate) async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), Error> {
        self.signal(id, signal).await.map_err(|error| missing(error, id))
    }

    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), Error> {
        let request =
            KillRequest { container_id: id.to_string(), signal: signal as u32, ..Default::default() };
        within("Tasks.Kill", TASK_LIMIT, self.containerd.tasks().kill(self.containerd.request(request))).await
    }

    pub(crate) async fn stop(&self, id: &ContainerId, signal: Signal, grace: Duration) -> Result<u32, Error> {
        // A process that has ended cannot be signalled, but its code can still be awaited.
        if allow_missing(self.signal(id, signal).await)?.is_some()
            && let Ok(code) = tokio::time::timeout(grace, self.exit_code(id)).await
        {
            return code;
        }
        allow_missing(self.signal(id, Signal::SIGKILL).await)?;
        match tokio::time::timeout(TASK_LIMIT, self.exit_code(id)).await {
            Ok(code) => code,
            Err(_) => Err(Error::TimedOut { call: "Tasks.Wait", after: TASK_LIMIT }),
        }
    }

    /// Waits for the end of the first process for as long as it takes; returns at once where it has ended.
    async fn exit_code(&self, id: &ContainerId) -> Result<u32, Error> {
        let request =
            self.containerd.request(WaitRequest { container_id: id.to_string(), ..Default::default() });
        let answer = self.containerd.tasks().wait(request).await;
        let answer = answer.map_err(|status| missing(Error::from_status("Tasks.Wait", status), id))?;
        Ok(answer.into_inner().exit_status)
    }

    pub(crate) async fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.delete_task(id).await?;
        // Now the shim has copied everything that the container wrote.
        self.logs.detach(id).await?;
        let request = self.containerd.request(DeleteContainerRequest { id: id.to_string() });
        allow_missing(
            within("Containers.Delete", CALL_LIMIT, self.containerd.containers().delete(request)).await,
        )?;
        let snapshotter = self.containerd.snapshotter.to_string();
        let request = self.containerd.request(RemoveSnapshotRequest { snapshotter, key: id.to_string() });
        allow_missing(
            within("Snapshots.Remove", CALL_LIMIT, self.containerd.snapshots().remove(request)).await,
        )?;
        Ok(())
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<(), Error> {
        let mut outcome = self.try_delete_task(id).await;
        for _ in 0..DELETE_TRIES {
            // Only the shim's words say why it refuses: the process runs, or the shim itself is just dying.
            if !matches!(outcome, Err(Error::Call { .. })) {
                break;
            }
            match self.stop(id, Signal::SIGKILL, TASK_LIMIT).await {
                Ok(_) | Err(Error::NoSuchContainer { .. }) => {}
                Err(Error::Call { .. }) => tokio::time::sleep(DELETE_PAUSE).await,
                Err(error) => return Err(error),
            }
            outcome = self.try_delete_task(id).await;
        }
        outcome
    }

    async fn try_delete_task(&self, id: &ContainerId) -> Result<(), Error> {
        let request = self.containerd.request(DeleteTaskRequest { container_id: id.to_string() });
        let deleted = within("Tasks.Delete", TASK_LIMIT, self.containerd.tasks().delete(request)).await;
        allow_missing(deleted).map(drop)
    }

    /// What the container's first process does; `None` if there is no such container.
    pub(crate) async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, Error> {
        let request = GetTaskRequest { container_id: id.to_string(), ..Default::default() };
        let task =
            within("Tasks.Get", TASK_LIMIT, self.containerd.tasks().get(self.containerd.request(request)))
                .await;
        if let Some(task) = allow_missing(task)?.and_then(|answer| answer.process) {
            return Ok(Some(state_of(&task)));
        }
        let request = self.containerd.request(GetContainerRequest { id: id.to_string() });
        let record = within("Containers.Get", CALL_LIMIT, self.containerd.containers().get(request)).await;
        Ok(allow_missing(record)?.map(|_| ContainerState::Lost))
    }

    pub(crate) async fn list(&self) -> Result<Vec<ContainerStatus>, Error> {
        // Containers first: one that is created in between is missing, not lost.
        let records = self.records().await?;
        let request = self.containerd.request(ListTasksRequest::default());
        let answer = within("Tasks.List", TASK_LIMIT, self.containerd.tasks().list(request)).await?;
        let tasks: HashMap<String, Process> =
            answer.tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let statuses = records.into_iter().filter_map(|record| {
            // What others put into our namespace under ids of their own is not ours.
            let id = record.id.parse().ok()?;
            let state = tasks.get(&record.id).map_or(ContainerState::Lost, state_of);
            Some(ContainerStatus {
                id,
                image: record.image,
                labels: record.labels.into_iter().collect(),
                state,
            })
        });
        Ok(statuses.collect())
    }

    /// As a stream, since each record carries its whole configuration and an answer has at most 4 MiB.
    async fn records(&self) -> Result<Vec<ContainerRecord>, Error> {
        let call = "Containers.List";
        let request = self.containerd.request(ListContainersRequest::default());
        let mut stream = within(call, CALL_LIMIT, self.containerd.containers().list_stream(request)).await?;
        let mut records = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| Error::from_status(call, status))? {
            records.extend(message.container.map(|record| ContainerRecord { spec: None, ..record }));
        }
        Ok(records)
    }
}

fn state_of(task: &Process) -> ContainerState {
    // containerd may not have noticed that a process is gone; the kernel knows.
    let alive = || Path::new("/proc").join(task.pid.to_string()).exists();
    match task.status() {
        Status::Stopped => ContainerState::Exited { code: task.exit_status, at: timestamp(task.exited_at) },
        Status::Created if alive() => ContainerState::Created { pid: task.pid },
        _ if alive() => ContainerState::Running { pid: task.pid },
        _ => ContainerState::Lost,
    }
}

/// containerd writes the zero of Go's calendar for a time that it does not know.
fn timestamp(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time.filter(|time| time.seconds > 0)?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

fn missing(error: Error, id: &ContainerId) -> Error {
    if error.is_not_found() { Error::NoSuchContainer { id: id.clone() } } else { error }
}

/// Whether the machine has only cgroup v2, where a container gets a cgroup namespace of its own.
fn is_unified() -> bool {
    fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false)
}

/// Whether the kernel can limit swap; asking for it elsewhere makes runc fail.
fn limits_swap() -> bool {
    is_unified() || fs::exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").unwrap_or(false)
}

/// The hard limit of this process, which containerd most likely shares. Only a process with CAP_SYS_RESOURCE could
/// exceed it.
fn descriptors_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_containerd_takes() {
        for id in ["a", "web-1", "web-app-3f9q.nginx", "A_b.c-d", &"x".repeat(76)] {
            assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
        }
        for id in ["", "-a", "a-", "a--b", "a b", "a/b", "..", "é", &"x".repeat(77)] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
    }
}
