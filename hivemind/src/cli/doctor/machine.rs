//! What a machine is like, as far as Hivemind cares, and the reader that finds it out.

use std::{
    env, fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aya::{programs::ProgramType, sys::is_program_supported};
use jiff::Timestamp;

/// Where Hivemind keeps and finds things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) containerd_socket: &'a Path,
    pub(crate) web_port: u16,
}

/// A machine at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    /// Whether we are root.
    pub(crate) is_root: bool,
    /// The effective capabilities, a bit each (capability(7)).
    pub(crate) capabilities: u64,
    /// The kernel's release, `6.1.0-18-amd64`.
    pub(crate) kernel: String,
    /// Whether the kernel tells its types (`/sys/kernel/btf/vmlinux`).
    pub(crate) has_btf: bool,
    /// Filesystems that the kernel has, or could load.
    pub(crate) filesystems: Vec<String>,
    /// Whether the programs that the data path is made of could be loaded: its kind, and why not.
    pub(crate) ebpf: Result<(), String>,
    /// Where cgroup v2 is mounted.
    pub(crate) cgroup2: Option<PathBuf>,
    /// containerd: the program's version line, if there is one.
    pub(crate) containerd: Option<String>,
    /// Whether containerd takes connections at its socket.
    pub(crate) containerd_answers: bool,
    /// The first line of `runc --version`.
    pub(crate) runc: Option<String>,
    /// The line of `nft --version`.
    pub(crate) nft: Option<String>,
    /// Whether the kernel forwards IPv4 and IPv6; `None` if it does not tell.
    pub(crate) forwarding: (Option<bool>, Option<bool>),
    /// The data directory, and bytes free on its disk.
    pub(crate) data_dir: PathBuf,
    pub(crate) free_bytes: Option<u64>,
    /// The API's port, and who has it.
    pub(crate) web_port: u16,
    pub(crate) web_port_is: PortState,
    /// The name servers of `/etc/resolv.conf`.
    pub(crate) name_servers: Vec<IpAddr>,
    /// `nft -j list ruleset`, where it could be read.
    pub(crate) ruleset: Option<serde_json::Value>,
    /// What the clock says.
    pub(crate) now: Timestamp,
}

/// Who has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortState {
    /// Nobody.
    Free,
    /// Our daemon.
    Ours,
    /// Somebody else.
    Taken,
}

/// Reads this machine. Blocks for some tens of milliseconds and changes nothing.
pub(crate) fn read(places: &Places<'_>, daemon_answers: bool) -> Machine {
    let kernel = read_trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        is_root: nix::unistd::geteuid().is_root(),
        capabilities: capabilities(),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        filesystems: filesystems(&kernel),
        ebpf: ebpf(),
        cgroup2: fs::read_to_string("/proc/self/mounts").ok().and_then(|mounts| cgroup2_mount(&mounts)),
        containerd: version("containerd"),
        containerd_answers: UnixStream::connect(places.containerd_socket).is_ok(),
        runc: version("runc"),
        nft: version("nft"),
        forwarding: (
            read_switch("/proc/sys/net/ipv4/ip_forward"),
            read_switch("/proc/sys/net/ipv6/conf/all/forwarding"),
        ),
        data_dir: places.data_dir.to_owned(),
        free_bytes: free_bytes(places.data_dir),
        web_port: places.web_port,
        web_port_is: port_state(places.web_port, daemon_answers),
        name_servers: name_servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        ruleset: output("nft", &["-j", "list", "ruleset"]).and_then(|text| serde_json::from_str(&text).ok()),
        now: Timestamp::now(),
        kernel,
    }
}

fn read_trimmed(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn read_switch(path: &str) -> Option<bool> {
    read_trimmed(path).map(|text| text != "0")
}

fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// What `/proc/filesystems` lists, and what of the rest we need that lies beside the kernel as a module.
fn filesystems(kernel: &str) -> Vec<String> {
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mut found: Vec<String> =
        listed.lines().filter_map(|l| l.split_whitespace().last()).map(str::to_owned).collect();
    let modules = Path::new("/lib/modules").join(kernel).join("kernel/fs/overlayfs");
    if !found.iter().any(|f| f == "overlay") && fs::read_dir(modules).is_ok_and(|mut m| m.next().is_some()) {
        found.push("overlay".to_owned());
    }
    found
}

/// Tries to load the smallest program of each kind that the data path is made of.
fn ebpf() -> Result<(), String> {
    let kinds = [
        ("traffic control", ProgramType::SchedClassifier),
        ("socket address", ProgramType::CgroupSockAddr),
        ("socket operations", ProgramType::SockOps),
    ];
    for (name, kind) in kinds {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => return Err(format!("the kernel has no {name} programs")),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
                return Err(format!("a {name} program is refused: {error}{cause}"));
            }
        }
    }
    Ok(())
}

/// The first cgroup v2 mount of a mount table, `/proc/self/mounts`.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// The first line that `program --version` prints; `None` if there is no such program.
fn version(program: &str) -> Option<String> {
    output(program, &["--version"])?.lines().next().map(str::to_owned)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    // A user's PATH often lacks the directories in which daemons and runc lie.
    let path = env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin";
    let file = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())?;
    let out = Command::new(file).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Bytes that are free on the disk on which `dir` lies or would lie.
fn free_bytes(dir: &Path) -> Option<u64> {
    let exists = dir.ancestors().find(|d| d.exists())?;
    let stat = nix::sys::statvfs::statvfs(exists).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

fn port_state(port: u16, daemon_answers: bool) -> PortState {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            if daemon_answers {
                PortState::Ours
            } else {
                PortState::Taken
            }
        }
        Ok(_) | Err(_) => PortState::Free,
    }
}

/// The name servers of a resolv.conf(5).
fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local server has its interface behind it: fe80::1%eth0.
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_alone_and_beside_v1() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup2_mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }

    #[test]
    fn name_servers_are_read_with_comments_and_scopes_passed_over() {
        let text =
            "# nameserver 1.1.1.1\nsearch lan\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(name_servers(text), ["10.0.0.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn a_port_that_somebody_holds_is_taken_unless_our_daemon_answers() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert_eq!(port_state(port, false), PortState::Taken);
        assert_eq!(port_state(port, true), PortState::Ours);
    }

    #[test]
    fn the_disk_of_a_directory_that_is_not_there_yet_is_its_parents() {
        assert!(free_bytes(Path::new("/nonexistent/hivemind/data")).unwrap() > 0);
    }
}
