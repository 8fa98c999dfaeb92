//! Containers of a template: what runs, who runs it, what it sees and what it may take.

mod capabilities;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{ErrorCode, Problems},
    name::{check_image, check_name},
    probe::{Probe, ProbeKind},
    quantity::{Cpu, Memory},
};

pub use capabilities::Capabilities;
pub(crate) use capabilities::{ALL_CAPABILITIES, capability_name, is_capability};

/// One container of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// What it is called among the replica's containers, up to 50 characters; may be left out where it is the only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The image, as `docker pull` would take it.
    pub image: String,
    /// What runs, in place of the image's entrypoint and command; empty: what the image says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What the entrypoint is given, in place of the image's command; with `command`: what comes after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The directory in which it starts; left out: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Who it runs as: `user`, `uid`, `user:group`; left out: who the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Further groups of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Environment variables, on top of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Ports published on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Volumes and where they appear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Files and directories of the node, as far as the namespace permits them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<HostPath>,
    /// Directories in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// How large `/dev/shm` is; left out: 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "64Mi")]
    pub shm_size: Option<Memory>,
    /// Whether nothing but volumes and directories in memory can be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// What its processes may do of what root may.
    #[serde(default, skip_serializing_if = "Capabilities::is_usual")]
    pub capabilities: Capabilities,
    /// Whether it is as root of the node in all but name: with all capabilities, all devices and no filter of system calls. Only
    /// where the namespace permits it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// What its processes may use each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// The signal that asks it to end, such as `SIGQUIT`; left out: the image's, or SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Whether it has started: until then nothing else is asked of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    /// Whether it takes connections; left out: it does as soon as it listens on a port that it is known for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Whether it has to be restarted; left out: only when its process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// Limits.
    #[serde(default)]
    pub resources: Resources,
}

/// A file or directory of the node, and where it appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPath {
    /// An absolute path of the node that runs the replica; it has to be there. Symbolic links are followed as long as they
    /// stay within what the namespace permits.
    pub source: String,
    /// An absolute path in the container.
    pub path: String,
    /// Whether the container may only read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A directory in memory, which is empty at first and counts as the container's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tmpfs {
    /// An absolute path in the container.
    pub path: String,
    /// How much fits; left out: half of the machine's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "64Mi")]
    pub size: Option<Memory>,
}

/// How much of something each process may use, see `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ulimit {
    /// Of what: `nofile`, `nproc`, `memlock`, …
    pub name: String,
    /// What it may use; left out: as much as the hard limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// What it may raise that to; left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// Transport protocols.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A port of the container that is published on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The port on the host, 1 to 65535.
    pub host_port: u16,
    /// The port in the container, 1 to 65535.
    pub container_port: u16,
    /// TCP unless said otherwise.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A named volume and where it appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// The volume's name; it is made when it does not exist.
    pub volume: String,
    /// An absolute path in the container.
    pub path: String,
    /// Whether the container may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// Limits of a container; without one it may take what the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU time: cores (`0.5`) or thousandths (`500m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "500m")]
    pub cpu: Option<Cpu>,
    /// Memory: `64Mi`, `512M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "64Mi")]
    pub memory: Option<Memory>,
    /// Processes and threads at once, 1 to 4,194,304; left out: 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Container {
    /// Brings names of capabilities and signals into the form in which they are kept.
    pub(crate) fn normalize(&mut self) {
        self.capabilities.normalize();
        if let Some(signal) = &mut self.stop_signal {
            *signal = signal_name(signal);
        }
    }

    /// Its probes, with what each is for.
    pub fn probes(&self) -> impl Iterator<Item = (ProbeKind, &Probe)> {
        let probes = [
            (ProbeKind::Startup, &self.startup_probe),
            (ProbeKind::Readiness, &self.readiness_probe),
            (ProbeKind::Liveness, &self.liveness_probe),
        ];
        probes.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
    }

    pub(crate) fn check(&self, field: &str, problems: &mut Problems) {
        for (kind, probe) in self.probes() {
            probe.check(kind, &format!("{field}.{}Probe", kind.as_str()), problems);
        }
        check_image(&format!("{field}.image"), &self.image, problems);
        self.check_process(field, problems);
        self.check_env(field, problems);
        self.check_ports(field, problems);
        self.check_mounts(field, problems);
        self.capabilities.check(&format!("{field}.capabilities"), problems);
        self.check_ulimits(field, problems);
        if let Some(pids) = self.resources.pids.filter(|pids| !(1..=PIDS_MAX).contains(pids)) {
            let what = format!("{pids} processes are no limit");
            let hint = format!("give 1 to {PIDS_MAX}");
            problems.add(ErrorCode::OutOfRange, format!("{field}.resources.pids"), what, hint);
        }
        if let Some(memory) = self.resources.memory
            && memory.bytes() < MEMORY_MIN_BYTES
        {
            problems.add(
                ErrorCode::OutOfRange,
                format!("{field}.resources.memory"),
                format!("a memory limit of {memory} is too small to start any container"),
                "give at least 6Mi",
            );
        }
    }

    fn check_env(&self, field: &str, problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for (i, var) in self.env.iter().enumerate() {
            let field = format!("{field}.env[{i}]");
            if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
                problems.add(
                    ErrorCode::InvalidEnv,
                    field,
                    format!("{:?} is not a variable's name", var.name),
                    "write NAME=VALUE",
                );
            } else if !seen.insert(&var.name) {
                problems.add(ErrorCode::Repeated, field, format!("{} is set twice", var.name), "set it once");
            }
        }
    }

    fn check_ports(&self, field: &str, problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for (i, port) in self.ports.iter().enumerate() {
            let field = format!("{field}.ports[{i}]");
            if port.host_port == 0 || port.container_port == 0 {
                problems.add(
                    ErrorCode::OutOfRange,
                    field,
                    "port 0 cannot be published",
                    "use ports from 1 to 65535",
                );
            } else if !seen.insert((port.host_port, port.protocol)) {
                problems.add(
                    ErrorCode::Repeated,
                    field,
                    format!("host port {} is published twice", port.host_port),
                    "publish it once",
                );
            }
        }
    }

    fn check_process(&self, field: &str, problems: &mut Problems) {
        for (list, words) in [("command", &self.command), ("args", &self.args)] {
            if let Some(i) = words.iter().position(|word| word.contains('\0')) {
                let what = "a word with a zero byte in it cannot be given to a process";
                problems.add(
                    ErrorCode::Malformed,
                    format!("{field}.{list}[{i}]"),
                    what,
                    "leave the byte out",
                );
            }
        }
        if let Some(directory) = self.working_dir.as_deref().filter(|directory| !is_path(directory)) {
            let what = format!("{directory:?} is not an absolute path");
            let hint = "write it from the container's root on, for example /srv";
            problems.add(ErrorCode::Malformed, format!("{field}.workingDir"), what, hint);
        }
        let is_word =
            |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '\0');
        if let Some(user) = self.user.as_deref()
            && !(user.split(':').all(is_word) && user.split(':').count() <= 2)
        {
            let what = format!("{user:?} is nobody who could run a container");
            problems.add(
                ErrorCode::Malformed,
                format!("{field}.user"),
                what,
                "write user, uid, or user:group",
            );
        }
        if self.groups.len() > GROUPS_MAX {
            let what = format!("{} groups are too many", self.groups.len());
            let hint = format!("give {GROUPS_MAX} at most");
            problems.add(ErrorCode::OutOfRange, format!("{field}.groups"), what, hint);
        }
        if let Some(signal) = self.stop_signal.as_deref()
            && !SIGNALS.contains(&signal_name(signal).as_str())
        {
            let what = format!("{signal:?} is no signal that asks a process to end");
            let hint = "write its name, for example SIGTERM, SIGINT or SIGQUIT";
            problems.add(ErrorCode::OutOfRange, format!("{field}.stopSignal"), what, hint);
        }
    }

    fn check_mounts(&self, field: &str, problems: &mut Problems) {
        let volumes = self.volume_mounts.iter().enumerate().map(|(i, mount)| {
            check_name(&format!("{field}.volumeMounts[{i}].volume"), &mount.volume, 63, problems);
            (format!("{field}.volumeMounts[{i}]"), &mount.path)
        });
        let mut places: Vec<_> = volumes.collect();
        places.extend(self.host_paths.iter().enumerate().map(|(i, mount)| {
            let field = format!("{field}.hostPaths[{i}]");
            if !is_path(&mount.source) {
                let what = format!("{:?} is not an absolute path", mount.source);
                let hint = "write it from the node's root on, without '..', for example /srv/shop";
                problems.add(ErrorCode::InvalidMount, format!("{field}.source"), what, hint);
            }
            (field, &mount.path)
        }));
        places.extend(
            self.tmpfs.iter().enumerate().map(|(i, tmpfs)| (format!("{field}.tmpfs[{i}]"), &tmpfs.path)),
        );
        let mut seen = BTreeSet::new();
        for (field, path) in places {
            if !is_path(path) || path.trim_end_matches('/').is_empty() {
                problems.add(
                    ErrorCode::InvalidMount,
                    field,
                    format!("{path:?} cannot hold a volume"),
                    "use an absolute path in the container, for example /data",
                );
            } else if !seen.insert(path.trim_end_matches('/')) {
                problems.add(
                    ErrorCode::Repeated,
                    field,
                    format!("{path} holds two volumes"),
                    "mount one volume at a path",
                );
            }
        }
    }

    fn check_ulimits(&self, field: &str, problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for (i, ulimit) in self.ulimits.iter().enumerate() {
            let field = format!("{field}.ulimits[{i}]");
            let Ulimit { name, soft, hard } = ulimit;
            if !ULIMITS.contains(&name.as_str()) {
                let what = format!("{name:?} cannot be limited");
                problems.add(
                    ErrorCode::OutOfRange,
                    field,
                    what,
                    format!("use one of {}", ULIMITS.join(", ")),
                );
            } else if !seen.insert(name) {
                problems.add(ErrorCode::Repeated, field, format!("{name} is limited twice"), "limit it once");
            } else if soft.zip(*hard).is_some_and(|(soft, hard)| soft > hard) {
                let what = format!("the soft limit of {name} is above the hard one");
                problems.add(
                    ErrorCode::OutOfRange,
                    field,
                    what,
                    "give a hard limit that is at least as high",
                );
            }
        }
    }
}

/// An absolute path that stays below the root by its own words.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0')
}

/// `term` is `SIGTERM`.
fn signal_name(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name.starts_with("SIG") { name } else { format!("SIG{name}") }
}

/// What can be limited (getrlimit(2)).
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Signals that a process can take for a request to end.
const SIGNALS: [&str; 13] = [
    "SIGABRT", "SIGALRM", "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGPWR", "SIGQUIT", "SIGTERM",
    "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGWINCH",
];

/// How many groups are added at most.
const GROUPS_MAX: usize = 64;

/// The kernel has no more numbers for processes.
const PIDS_MAX: u32 = 1 << 22;

/// runc itself needs this much to start a container.
const MEMORY_MIN_BYTES: u64 = 6 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::TcpProbe;

    fn faults(container: &Container) -> Vec<String> {
        let mut problems = Problems::default();
        container.check("c", &mut problems);
        let error = problems.into_result().err();
        let told = error.map(|error| match error.problems.is_empty() {
            true => vec![error.field.unwrap_or_default()],
            false => error.problems.into_iter().map(|problem| problem.field).collect(),
        });
        told.unwrap_or_default()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn container() -> Container {
        Container { image: "nginx".into(), ..Container::default() }
    }

    #[test]
    fn a_container_with_everything_is_valid() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let mut container = Container {
            args: words(&["-c", "sleep 1"]),
            working_dir: Some("/srv".into()),
            user: Some("web:33".into()),
            groups: vec![7, 8],
            tmpfs: vec![Tmpfs { path: "/tmp".into(), size: Memory::from_bytes(1 << 20) }],
            shm_size: Memory::from_bytes(1 << 20),
            read_only: true,
            capabilities: Capabilities { add: words(&["cap_chown"]), drop: words(&["all"]) },
            ulimits: vec![
                limit("nofile", Some(10), Some(20)),
                limit("core", Some(0), None),
                limit("nproc", None, Some(9)),
            ],
            stop_signal: Some("quit".into()),
            liveness_probe: Some(Probe { tcp: Some(TcpProbe { port: 80 }), ..Probe::default() }),
            resources: Resources { pids: Some(16), ..Resources::default() },
            ..container()
        };
        container.normalize();
        assert_eq!(faults(&container), Vec::<String>::new());
        assert_eq!(container.capabilities, Capabilities { add: words(&["CHOWN"]), drop: words(&["ALL"]) });
        assert_eq!(container.capabilities.left(), ["CHOWN"]);
        assert_eq!(container.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn every_fault_of_a_container_is_told_with_its_place() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let tmpfs = |path: &str| Tmpfs { path: path.into(), size: None };
        let container = Container {
            args: words(&["a", "b\0"]),
            working_dir: Some("srv".into()),
            user: Some("a:b:c".into()),
            groups: vec![1; 65],
            tmpfs: vec![tmpfs("/"), tmpfs("//"), tmpfs("/a/../b"), tmpfs("/data/")],
            volume_mounts: vec![VolumeMount {
                volume: "data".into(),
                path: "/data".into(),
                read_only: false,
            }],
            capabilities: Capabilities {
                add: words(&["ALL", "SYS_ADMIN", "CHOWN"]),
                drop: words(&["FLY", "BPF", "all"]),
            },
            ulimits: vec![
                limit("files", None, None),
                limit("nofile", Some(3), Some(2)),
                limit("nofile", None, None),
            ],
            stop_signal: Some("SIGSTOP".into()),
            startup_probe: Some(Probe::default()),
            resources: Resources { pids: Some(0), ..Resources::default() },
            ..container()
        };
        assert_eq!(
            faults(&container),
            [
                "c.startupProbe",
                "c.args[1]",
                "c.workingDir",
                "c.user",
                "c.groups",
                "c.stopSignal",
                "c.tmpfs[0]",
                "c.tmpfs[1]",
                "c.tmpfs[2]",
                "c.tmpfs[3]",
                "c.capabilities.drop[0]",
                "c.ulimits[0]",
                "c.ulimits[1]",
                "c.ulimits[2]",
                "c.resources.pids",
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_not_written_so_that_the_hash_of_a_template_stays() {
        let json = serde_json::to_value(container()).unwrap();
        let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["image", "resources"]);
    }
}
