//! A container's description in the form that runc takes (OCI runtime-spec 1.0). Pure: nothing is looked up here.

use std::{collections::BTreeSet, num::NonZeroU64, path::Path};

use serde_json::{Value, json};

use super::{ContainerSpec, Rlimit, Tmpfs, capabilities, devices::Device, seccomp, user::User};
use crate::{Error, Image};

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
const NOFILE: &str = "nofile";
const SHM_BYTES: u64 = 64 << 20;
const DESCRIPTORS_SOFT: u64 = 1024;
const DESCRIPTORS_HARD: u64 = 524_288;

/// What the machine is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    /// Only cgroup v2.
    pub(super) unified: bool,
    /// Swap can be limited.
    pub(super) limits_swap: bool,
    /// The capabilities that this process may hand on, a bit each (capabilities(7)).
    pub(super) capabilities: u64,
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

/// The whole description. `arguments` are those of [`arguments`], `devices` those of the machine that a privileged container gets.
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
    devices: &[Device],
) -> Result<Value, Error> {
    check(spec, host)?;
    let hostname = spec.hostname.as_deref().unwrap_or(spec.id.as_str());
    let mut linux = json!({
        "cgroupsPath": format!("{}/{}", cgroup_parent.trim_end_matches('/'), spec.id),
        "namespaces": namespaces(spec, host),
        "resources": resources(spec, host),
    });
    if spec.privileged {
        linux["devices"] = json!(devices.iter().map(device).collect::<Vec<_>>());
    } else {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        linux["readonlyPaths"] = json!(READONLY_PATHS);
        linux["seccomp"] = seccomp::profile(&spec.capabilities);
    }
    // As Docker: any user may listen on any port and ping, in a network that is the container's own.
    linux["sysctl"] =
        json!({"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"});
    for (name, value) in &spec.sysctls {
        linux["sysctl"][name] = json!(value);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(spec, image, arguments, user, hostname, host),
        "root": {"path": "rootfs", "readonly": spec.read_only},
        "hostname": hostname,
        "mounts": mounts(spec),
        "linux": linux,
    }))
}

fn check(spec: &ContainerSpec, host: Host) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::InvalidSpec { reason });
    if let Some(millis) = spec.cpu_millis.filter(|millis| millis.get() < CPU_MILLIS_MIN) {
        return invalid(format!(
            "{millis} thousandths of a processor are less than the least, {CPU_MILLIS_MIN}"
        ));
    }
    let targets = spec.mounts.iter().map(|mount| &mount.target);
    for target in targets.chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target)) {
        if !target.is_absolute() {
            return invalid(format!("mount target {} is not absolute", target.display()));
        }
    }
    let most = host.descriptors_max;
    let descriptors = spec.rlimits.iter().find(|limit| limit.name == NOFILE);
    if let Some(limit) = descriptors.filter(|limit| limit.hard.unwrap_or(u64::MAX) > most) {
        let wanted = limit.hard.map_or_else(|| "no limit".to_owned(), |hard| hard.to_string());
        return invalid(format!(
            "a process may open {most} descriptors at most on this machine, not {wanted}"
        ));
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
    let names: Vec<_> = match spec.privileged {
        true => capabilities::of(host.capabilities).map(|name| format!("CAP_{name}")).collect(),
        false => spec.capabilities.iter().map(|name| format!("CAP_{name}")).collect(),
    };
    let capabilities = json!(names);
    let groups: BTreeSet<u32> = user.groups.iter().chain(&spec.groups).copied().collect();
    json!({
        "terminal": false,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": groups},
        "args": arguments,
        "env": environment(&image.config.env, &spec.env, hostname),
        "cwd": if working_dir.starts_with('/') { working_dir.to_owned() } else { format!("/{working_dir}") },
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": !spec.privileged,
        "rlimits": rlimits(&spec.rlimits, host),
    })
}

/// Those that are asked for, and one of descriptors: the soft limit is what programs expect that try every descriptor; others raise
/// it themselves.
fn rlimits(asked: &[Rlimit], host: Host) -> Vec<Value> {
    let usual = Rlimit {
        name: NOFILE.to_owned(),
        soft: Some(DESCRIPTORS_SOFT.min(host.descriptors_max)),
        hard: Some(DESCRIPTORS_HARD.min(host.descriptors_max)),
    };
    let is_usual = !asked.iter().any(|limit| limit.name == NOFILE);
    let all = asked.iter().chain(is_usual.then_some(&usual));
    let described = |limit: &Rlimit| {
        // The largest number stands for no limit (RLIM_INFINITY of <asm-generic/resource.h>).
        let hard = limit.hard.unwrap_or(u64::MAX);
        let kind = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        json!({"type": kind, "soft": limit.soft.unwrap_or(hard), "hard": hard})
    };
    all.map(described).collect()
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
        "devices": [{"allow": spec.privileged, "access": "rwm"}],
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

/// A device of the machine, at the same place in the container.
fn device(device: &Device) -> Value {
    let kind = if device.is_block { "b" } else { "c" };
    let Device { path, major, minor, mode, .. } = device;
    json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0})
}

fn mounts(spec: &ContainerSpec) -> Value {
    let shm_size = format!("size={}", spec.shm_bytes.map_or(SHM_BYTES, NonZeroU64::get));
    let access = if spec.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    for (target, source) in [("/etc/resolv.conf", &spec.resolv_conf), ("/etc/hosts", &spec.hosts)] {
        mounts.extend(source.as_deref().map(|source| bind(source, Path::new(target), false)));
    }
    let in_memory = spec.tmpfs.iter().map(|tmpfs| (&tmpfs.target, in_memory(tmpfs)));
    let bound =
        spec.mounts.iter().map(|mount| (&mount.target, bind(&mount.source, &mount.target, mount.read_only)));
    let mut asked: Vec<_> = in_memory.chain(bound).collect();
    // What is below another comes after it, or would be hidden by it.
    asked.sort_by_key(|(target, _)| target.components().count());
    mounts.extend(asked.into_iter().map(|(_, mount)| mount));
    mounts.into()
}

fn in_memory(tmpfs: &Tmpfs) -> Value {
    let mut options =
        vec!["nosuid".to_owned(), "noexec".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
    options.extend(tmpfs.size_bytes.map(|size| format!("size={size}")));
    json!({"destination": tmpfs.target, "type": "tmpfs", "source": "tmpfs", "options": options})
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
    use crate::{BindMount, ImageConfig};

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

    const V2: Host = Host { unified: true, limits_swap: true, capabilities: 0b1001, descriptors_max: 4096 };
    const HYBRID: Host =
        Host { unified: false, limits_swap: false, capabilities: 0, descriptors_max: u64::MAX };

    #[test]
    fn a_privileged_container_has_what_the_runtime_has_and_no_more() {
        let mut spec = spec(&[], &[]);
        let bounding =
            |spec: &ContainerSpec| described(spec, V2)["process"]["capabilities"]["bounding"].clone();
        assert_eq!(bounding(&spec).as_array().unwrap().len(), 14);
        spec.privileged = true;
        assert_eq!(bounding(&spec), json!(["CAP_CHOWN", "CAP_FOWNER"]));
        let described = described(&spec, V2);
        assert_eq!(described["linux"]["resources"]["devices"][0]["allow"], true);
        assert!(
            described["linux"].get("seccomp").is_none() && described["linux"].get("maskedPaths").is_none()
        );
    }

    fn described(spec: &ContainerSpec, host: Host) -> Value {
        let user = User { uid: 0, gid: 0, groups: Vec::new() };
        describe(spec, &image(&["e"], &[]), &["e".to_owned()], &user, "/hivemind", host, &[]).unwrap()
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
    fn limits_of_processes_are_what_is_asked_and_never_beyond_the_machine() {
        let limit = |name: &str, soft, hard| Rlimit { name: name.to_owned(), soft, hard };
        let mut spec = spec(&[], &[]);
        spec.rlimits = vec![limit("nofile", None, Some(99)), limit("core", Some(0), None)];
        let limits = described(&spec, V2)["process"]["rlimits"].clone();
        let core = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX});
        assert_eq!(limits, json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}, core]));
        for hard in [None, Some(4097)] {
            spec.rlimits = vec![limit("nofile", Some(9), hard)];
            assert!(matches!(check(&spec, V2), Err(Error::InvalidSpec { .. })), "{hard:?}");
        }
    }

    #[test]
    fn directories_in_memory_have_their_size_and_run_nothing() {
        let mut spec = spec(&[], &[]);
        spec.shm_bytes = NonZeroU64::new(1 << 20);
        let tmpfs = |target: &str, size| Tmpfs { target: target.into(), size_bytes: NonZeroU64::new(size) };
        spec.tmpfs = vec![tmpfs("/tmp", 0), tmpfs("/run", 4096)];
        let mounts = described(&spec, V2)["mounts"].clone();
        let options = |target: &str| {
            let found = mounts.as_array().unwrap().iter().find(|mount| mount["destination"] == target);
            found.unwrap()["options"].to_string()
        };
        assert!(options("/dev/shm").contains("\"size=1048576\""), "{mounts}");
        assert!(!options("/tmp").contains("size=") && options("/tmp").contains("noexec"), "{mounts}");
        assert!(options("/run").contains("\"size=4096\""), "{mounts}");
        let volume =
            |target: &str| BindMount { source: "/v".into(), target: target.into(), read_only: false };
        spec.mounts = vec![volume("/tmp/below/it"), volume("/")];
        let mounts = described(&spec, V2)["mounts"].clone();
        let last: Vec<_> =
            mounts.as_array().unwrap().iter().rev().take(4).map(|m| m["destination"].clone()).collect();
        assert_eq!(last, ["/tmp/below/it", "/run", "/tmp", "/"]);
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
        assert!(matches!(check(&bad, V2), Err(Error::InvalidSpec { .. })));
        let mut bad = spec(&[], &[]);
        bad.cpu_millis = std::num::NonZeroU32::new(9);
        assert!(matches!(check(&bad, V2), Err(Error::InvalidSpec { .. })));
    }
}
