//! A node for one test: a private containerd below a tmpfs, in mount and network namespaces of the test's own thread,
//! with cgroups of its own. Whatever a test does, nothing of it remains.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use hivemind_model::ImageReference;
use hivemind_runtime::{Config, ContainerId, ContainerSpec, Event, Events, PrivateContainerd, Runtime};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PREFIX: &str = "hm-rt";
/// No step of a test takes this long on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
}

/// Runs a test on a thread that is a node of its own.
pub(crate) fn on_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    sweep();
    // While the package archive can still be reached.
    super::image::TestImage::busybox();
    let name = format!("{PREFIX}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let dir = std::env::temp_dir().join(&name);
                fs::create_dir_all(&dir).unwrap();
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
                enter_namespaces(&dir);
                let cleanup = Cleanup { dir: dir.clone(), cgroup: name.clone() };
                let executor =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let executor = executor.unwrap();
                executor.block_on(async {
                    tokio::time::timeout(2 * PATIENCE, test(Node { dir, cgroup: name.clone() }))
                        .await
                        .unwrap();
                });
                executor.shutdown_timeout(Duration::from_secs(5));
                drop(cleanup);
            })
            .join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn enter_namespaces(dir: &Path) {
    let none: Option<&str> = None;
    // What all containerds of a machine share.
    let shared = ["/run/containerd/runc", "/run/containerd/s"];
    for path in shared {
        fs::create_dir_all(path).unwrap();
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for path in shared.into_iter().map(Path::new).chain([dir]) {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
}

impl Node {
    pub(crate) fn config(&self) -> Config {
        let program = env!("CARGO_BIN_EXE_hivemind-runtime-collector");
        let mut config = Config::new(self.dir.join("data"), self.dir.join("run"), program);
        config.socket = self.dir.join("no-containerd.sock");
        config.cgroup_parent = format!("/{}", self.cgroup);
        config.private = Some(PrivateContainerd {
            root: self.dir.join("containerd"),
            state: self.dir.join("state"),
            binary: "containerd".into(),
        });
        config
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.dir.join("state/containerd.sock")
    }

    pub(crate) async fn connect(&self) -> Runtime {
        Runtime::connect(self.config()).await.unwrap()
    }

    /// A runtime with the image `busybox` on the node.
    pub(crate) async fn with_busybox(&self) -> Runtime {
        let runtime = self.connect().await;
        let archive = super::image::TestImage::busybox().oci_archive("docker.io/library/busybox:latest");
        runtime.import(std::io::Cursor::new(archive)).await.unwrap();
        runtime
    }

    /// What `ctr` prints: another eye on containerd than the code under test.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.containerd_socket();
        let output =
            Command::new("ctr").arg("-a").arg(socket).args(["-n", "hivemind"]).args(arguments).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Everything that containerd holds for us, one line each.
    pub(crate) fn holdings(&self) -> Vec<String> {
        let listings: [(&str, &[&str]); 6] = [
            ("content", &["content", "ls", "-q"]),
            ("ingest", &["content", "active"]),
            ("snapshot", &["snapshots", "ls"]),
            ("lease", &["leases", "ls", "-q"]),
            ("container", &["containers", "ls", "-q"]),
            ("image", &["images", "ls", "-q"]),
        ];
        let mut holdings = Vec::new();
        for (kind, arguments) in listings {
            let listing = self.ctr(arguments);
            let headed = ["ingest", "snapshot"].contains(&kind);
            holdings.extend(listing.lines().skip(usize::from(headed)).map(|line| format!("{kind} {line}")));
        }
        holdings
    }

    pub(crate) fn containerd_pid(&self) -> Pid {
        let stream = std::os::unix::net::UnixStream::connect(self.containerd_socket()).unwrap();
        let credentials =
            nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).unwrap();
        Pid::from_raw(credentials.pid())
    }

    pub(crate) fn collector_pid(&self) -> Option<Pid> {
        let socket = self.config().log_socket;
        let found = find_processes(&socket).into_iter().find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(13).any(|w| w == b"log-collector"))
        });
        found.map(Pid::from_raw)
    }

    pub(crate) fn cgroup_file(&self, controller: &str, id: &ContainerId, file: &str) -> String {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let base = if unified { "/sys/fs/cgroup".into() } else { format!("/sys/fs/cgroup/{controller}") };
        fs::read_to_string(format!("{base}/{}/{id}/{file}", self.cgroup)).unwrap().trim().to_owned()
    }
}

pub(crate) fn busybox(id: &str, script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new(id.parse().unwrap(), "busybox".parse().unwrap());
    spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    spec
}

pub(crate) fn id(text: &str) -> ContainerId {
    text.parse().unwrap()
}

pub(crate) fn reference(text: &str) -> ImageReference {
    text.parse().unwrap()
}

/// The first event that is wanted; others are passed over.
pub(crate) async fn await_event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the events do not end");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the event comes")
}

/// Looks again and again until there is something, for what nothing announces.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Cleanup {
    dir: PathBuf,
    cgroup: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        clean(&self.dir, &self.cgroup);
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert_eq!(find_processes(&self.dir), Vec::<i32>::new(), "no process of the node is left");
            assert!(cgroups(&self.cgroup).is_empty(), "no cgroup of the node is left");
        }
    }
}

/// Removes what nodes of test processes that were killed have left.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)?.parse::<i32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            clean(&entry.path(), &name);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Kills containerd, shims, collector and containers of a node, and removes its cgroups.
fn clean(dir: &Path, cgroup: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut pids = find_processes(dir);
        for directory in cgroups(cgroup) {
            let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(members.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        for &pid in &pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for directory in cgroups(cgroup) {
            let _ = fs::remove_dir(directory);
        }
        if (pids.is_empty() && cgroups(cgroup).is_empty()) || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node's directories in every cgroup hierarchy, deepest first.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies =
        fs::read_dir(base).unwrap().flatten().map(|entry| entry.path()).chain([base.to_owned()]);
    let mut found = Vec::new();
    for parent in hierarchies.map(|hierarchy| hierarchy.join(name)).filter(|path| path.is_dir()) {
        let children = fs::read_dir(&parent).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(children.filter(|path| path.is_dir()));
        found.push(parent);
    }
    found
}

/// Processes with the node's directory in their command line, zombies excepted.
fn find_processes(dir: &Path) -> Vec<i32> {
    let wanted = dir.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        *pid != std::process::id() as i32
            && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line).into_owned();
                // `/tmp/x-1` is also in `/tmp/x-10`.
                line.match_indices(&wanted)
                    .any(|(at, _)| !line[at + wanted.len()..].starts_with(|c: char| c.is_ascii_digit()))
            })
    })
    .collect()
}
