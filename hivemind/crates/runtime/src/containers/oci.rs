//! A container's description in the form that runc takes (OCI runtime-spec 1.0). Pure: nothing is looked up here.

use std::path::Path;

use serde_json::{Value, json};

use super::{ContainerSpec, seccomp, user::User};
use crate::{Error, Image};

/// What Docker gives a container that asks for nothing.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CPU_PERIOD_US: u64 = 100_000;
const CPU_MILLIS_MIN: u32 = 10;
const DESCRIPTORS_SOFT: u64 = 1024;
const DESCRIPTORS_HARD: u64 = 524_288;

/// What the machine is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    /// Only cgroup v2.
    pub(super) unified: bool,
    /// Swap can be limited.
    pub(super) limits_swap: bool,
    /// How many descriptors a process may be allowed to open at most.
    pub(super) descriptors_max: u64,
}

/// What the container executes.
///
/// # Errors
/// [`Error::NoCommand`].
pub(super) fn arguments(spec: &ContainerSpec, image: &Image) -> Result<Vec<String>, Error> {
    let config = &image.config;
    let mut arguments =
        if spec.command.is_empty() { config.entrypoint.clone() } else { spec.command.clone() };
    if !spec.args.is_empty() {
        arguments.extend_from_slice(&spec.args);
    } else if spec.command.is_empty() {
        arguments.extend_from_slice(&config.command);
    }
    if arguments.is_empty() {
        Err(Error::NoCommand { reference: image.reference.clone() })
    } else {
        Ok(arguments)
    }
}

/// The whole description. `arguments` are those of [`arguments`].
///
/// # Errors
/// [`Error::InvalidSpec`].
pub(super) fn describe(
    spec: &ContainerSpec,
    image: &Image,
    arguments: &[String],
    user: &User,
    cgroup_parent: &str,
    host: Host,
) -> Result<Value, Error> {
    check(spec)?;
    let hostname = spec.hostname.as_deref().unwrap_or(spec.id.as_str());
    let mut linux = json!({
        "cgroupsPath": format!("{}/{}", cgroup_parent.trim_end_matches('/'), spec.id),
        "namespaces": namespaces(spec, host),
        "resources": resources(spec, host),
        "maskedPaths": MASKED_PATHS,
        "readonlyPaths": READONLY_PATHS,
        "seccomp": seccomp::profile(),
    });
    // As Docker: any user may listen on any port and ping, in a network that is the container's own.
    linux["sysctl"] =
        json!({"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"});
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(spec, image, arguments, user, hostname, host),
        "root": {"path": "rootfs", "readonly": false},
        "hostname": hostname,
        "mounts": mounts(spec),
        "linux": linux,
    }))
}

fn check(spec: &ContainerSpec) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::InvalidSpec { reason });
    if let Some(millis) = spec.cpu_millis.filter(|millis| millis.get() < CPU_MILLIS_MIN) {
        return invalid(format!(
            "{millis} thousandths of a processor are less than the least, {CPU_MILLIS_MIN}"
        ));
    }
    for mount in &spec.mounts {
        if !mount.target.is_absolute() {
            return invalid(format!("mount target {} is not absolute", mount.target.display()));
        }
    }
    if let Some((name, _)) = spec.env.iter().find(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return invalid(format!("{name:?} is no name for an environment variable"));
    }
    Ok(())
}

fn process(
    spec: &ContainerSpec,
    image: &Image,
    arguments: &[String],
    user: &User,
    hostname: &str,
    host: Host,
) -> Value {
    let working_dir = spec.working_dir.as_deref().unwrap_or(&image.config.working_dir);
    let capabilities = json!(CAPABILITIES);
    json!({
        "terminal": false,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": arguments,
        "env": environment(&image.config.env, &spec.env, hostname),
        "cwd": if working_dir.starts_with('/') { working_dir.to_owned() } else { format!("/{working_dir}") },
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": true,
        // The soft limit is what programs expect that try every descriptor; others raise it themselves.
        "rlimits": [{
            "type": "RLIMIT_NOFILE",
            "soft": DESCRIPTORS_SOFT.min(host.descriptors_max),
            "hard": DESCRIPTORS_HARD.min(host.descriptors_max),
        }],
    })
}

fn environment(image: &[String], added: &[(String, String)], hostname: &str) -> Vec<String> {
    let hostname = format!("HOSTNAME={hostname}");
    let defaults = [DEFAULT_PATH, &hostname].map(str::to_owned);
    let added = added.iter().map(|(name, value)| format!("{name}={value}"));
    merge_environment(defaults.into_iter().chain(image.iter().cloned()).chain(added))
}

/// Later settings of a variable replace earlier ones, at the earlier place.
pub(super) fn merge_environment(settings: impl IntoIterator<Item = String>) -> Vec<String> {
    let name = |setting: &str| setting.split_once('=').map_or(setting.len(), |(name, _)| name.len());
    let mut merged: Vec<String> = Vec::new();
    for setting in settings {
        let key = setting[..name(&setting)].to_owned();
        match merged.iter_mut().find(|known| known[..name(known)] == key) {
            Some(known) => *known = setting,
            None => merged.push(setting),
        }
    }
    merged
}

fn namespaces(spec: &ContainerSpec, host: Host) -> Value {
    let network = match &spec.netns {
        Some(path) => json!({"type": "network", "path": path}),
        None => json!({"type": "network"}),
    };
    let mut namespaces = vec![network];
    namespaces.extend(["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})));
    // On a machine with v1 hierarchies a cgroup namespace would show the wrong root in some of them.
    if host.unified {
        namespaces.push(json!({"type": "cgroup"}));
    }
    namespaces.into()
}

fn resources(spec: &ContainerSpec, host: Host) -> Value {
    let mut resources = json!({
        // runc adds the harmless devices that every container has.
        "devices": [{"allow": false, "access": "rwm"}],
        "pids": {"limit": spec.pids_max},
    });
    if let Some(limit) = spec.memory_bytes {
        resources["memory"] = json!({"limit": limit});
        if host.limits_swap {
            // Memory and swap together: the container has no swap.
            resources["memory"]["swap"] = json!(limit);
        }
    }
    if let Some(millis) = spec.cpu_millis {
        let millis = u64::from(millis.get());
        resources["cpu"] = json!({
            "period": CPU_PERIOD_US,
            "quota": millis * CPU_PERIOD_US / 1000,
            "shares": (millis * 1024 / 1000).max(2),
        });
    }
    resources
}

fn mounts(spec: &ContainerSpec) -> Value {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    for (target, source) in [("/etc/resolv.conf", &spec.resolv_conf), ("/etc/hosts", &spec.hosts)] {
        mounts.extend(source.as_deref().map(|source| bind(source, Path::new(target), false)));
    }
    mounts.extend(spec.mounts.iter().map(|mount| bind(&mount.source, &mount.target, mount.read_only)));
    mounts.into()
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", access]})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ImageConfig;

    fn image(entrypoint: &[&str], command: &[&str]) -> Image {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let config = ImageConfig {
            entrypoint: words(entrypoint),
            command: words(command),
            env: words(&["A=image", "PATH=/bin"]),
            ..Default::default()
        };
        Image {
            reference: "test".parse().unwrap(),
            digest: String::new(),
            config: Arc::new(config),
            chain_id: "".into(),
            size_bytes: 0,
        }
    }

    fn spec(command: &[&str], args: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new("c".parse().unwrap(), "test".parse().unwrap());
        spec.command = command.iter().map(|&word| word.to_owned()).collect();
        spec.args = args.iter().map(|&word| word.to_owned()).collect();
        spec
    }

    const V2: Host = Host { unified: true, limits_swap: true, descriptors_max: 4096 };
    const HYBRID: Host = Host { unified: false, limits_swap: false, descriptors_max: u64::MAX };

    fn described(spec: &ContainerSpec, host: Host) -> Value {
        let user = User { uid: 0, gid: 0, groups: Vec::new() };
        describe(spec, &image(&["e"], &[]), &["e".to_owned()], &user, "/hivemind", host).unwrap()
    }

    #[test]
    fn a_command_replaces_the_entrypoint_and_drops_the_images_command() {
        let image = image(&["entry"], &["cmd"]);
        let run = |command: &[&str], args: &[&str]| arguments(&spec(command, args), &image).unwrap();
        assert_eq!(run(&[], &[]), ["entry", "cmd"]);
        assert_eq!(run(&[], &["a"]), ["entry", "a"]);
        assert_eq!(run(&["c"], &[]), ["c"]);
        assert_eq!(run(&["c"], &["a"]), ["c", "a"]);
        let nothing = self::image(&[], &[]);
        assert!(matches!(arguments(&spec(&[], &[]), &nothing), Err(Error::NoCommand { .. })));
    }

    #[test]
    fn a_variable_that_is_given_replaces_the_images() {
        let mut spec = spec(&[], &[]);
        spec.env = vec![("A".into(), "given=x".into()), ("B".into(), String::new())];
        let described = described(&spec, V2);
        assert_eq!(described["process"]["env"], json!(["PATH=/bin", "HOSTNAME=c", "A=given=x", "B="]));
    }

    #[test]
    fn limits_become_cgroup_settings() {
        let mut spec = spec(&[], &[]);
        spec.cpu_millis = std::num::NonZeroU32::new(250);
        spec.memory_bytes = std::num::NonZeroU64::new(64 << 20);
        let limits = described(&spec, V2)["linux"]["resources"].clone();
        assert_eq!(limits["cpu"], json!({"period": 100_000, "quota": 25_000, "shares": 256}));
        assert_eq!(limits["memory"], json!({"limit": 64 << 20, "swap": 64 << 20}));
        assert_eq!(limits["pids"]["limit"], 4096);
        assert_eq!(described(&spec, HYBRID)["linux"]["resources"]["memory"], json!({"limit": 64 << 20}));
    }

    #[test]
    fn no_more_descriptors_are_allowed_than_can_be() {
        let hard = |host| described(&spec(&[], &[]), host)["process"]["rlimits"][0]["hard"].clone();
        assert_eq!(hard(V2), 4096);
        assert_eq!(hard(HYBRID), 524_288);
    }

    #[test]
    fn a_container_gains_no_privileges_and_has_a_filter() {
        let described = described(&spec(&[], &[]), V2);
        assert_eq!(described["process"]["noNewPrivileges"], true);
        assert!(described["process"]["capabilities"].get("ambient").is_none());
        assert!(!described["process"]["capabilities"]["bounding"].to_string().contains("SYS_ADMIN"));
        assert_eq!(described["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    }

    #[test]
    fn only_a_machine_with_cgroup_v2_alone_gets_cgroup_namespaces() {
        let has =
            |host| described(&spec(&[], &[]), host)["linux"]["namespaces"].to_string().contains("cgroup");
        assert!(has(V2));
        assert!(!has(HYBRID));
    }

    #[test]
    fn what_runc_would_refuse_obscurely_is_refused_clearly() {
        let mut bad = spec(&[], &[]);
        bad.env = vec![("A=B".into(), String::new())];
        assert!(matches!(check(&bad), Err(Error::InvalidSpec { .. })));
        let mut bad = spec(&[], &[]);
        bad.cpu_millis = std::num::NonZeroU32::new(9);
        assert!(matches!(check(&bad), Err(Error::InvalidSpec { .. })));
    }
}
