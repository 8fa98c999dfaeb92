//! Judges a [`Machine`]: pure, one function a thing.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Finding, Level,
    machine::{Machine, PortState},
};
use crate::cli::units::size;

/// The oldest kernel that the data path works on.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// The oldest containerd that is driven.
const CONTAINERD_MIN: (u32, u32) = (1, 6);

/// Less free space than this does not hold an image.
const FREE_BYTES_MIN: u64 = 200_000_000;

/// Less free space than this is soon full.
const FREE_BYTES_GOOD: u64 = 2_000_000_000;

/// Capabilities that the daemon cannot do without, with their numbers (capability(7)).
const CAPABILITIES: [(&str, u32); 3] = [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("BPF", 39)];

/// Everything that is known of `machine`, in the order in which to mend it.
pub(crate) fn all(machine: &Machine) -> Vec<Finding> {
    let checks = [
        privileges,
        kernel,
        btf,
        bpf_filesystem,
        ebpf,
        cgroup2,
        overlay,
        containerd,
        runc,
        forwarding,
        firewall,
        disk,
        port,
        name_servers,
        clock,
    ];
    checks.iter().map(|check| check(machine)).collect()
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, found: found.into(), remedy: String::new() }
}

fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warn, found: found.into(), remedy: remedy.into() }
}

fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, level: Level::Fail, found: found.into(), remedy: remedy.into() }
}

fn privileges(machine: &Machine) -> Finding {
    let has = |bit: u32| machine.capabilities & (1 << bit) != 0;
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    match (missing.is_empty(), machine.is_root) {
        (true, true) => ok("privileges", "root"),
        (true, false) => ok("privileges", "not root, but with all capabilities that are needed"),
        (false, false) => fail(
            "privileges",
            "not root: eBPF and networks cannot be set up, and other checks see less",
            "sudo hivemind doctor; the daemon itself: sudo systemctl start hivemind",
        ),
        (false, true) => fail(
            "privileges",
            format!("root without the capabilities {}", missing.join(", ")),
            "in a container: run it with --privileged; under systemd: widen CapabilityBoundingSet",
        ),
    }
}

fn kernel(machine: &Machine) -> Finding {
    let release = &machine.kernel;
    match version_in(release) {
        Some(version) if version >= KERNEL_MIN => ok("kernel", release.clone()),
        Some(_) => fail(
            "kernel",
            format!("{release} is older than 6.1"),
            "apt install linux-image-amd64 (Debian 12 has 6.1), then reboot",
        ),
        None => warn("kernel", format!("{release:?} tells no version"), "6.1 or newer is needed: uname -r"),
    }
}

fn btf(machine: &Machine) -> Finding {
    if machine.has_btf {
        ok("kernel types (BTF)", "/sys/kernel/btf/vmlinux")
    } else {
        fail(
            "kernel types (BTF)",
            "/sys/kernel/btf/vmlinux is missing: the eBPF programs cannot be checked against this kernel",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's linux-image-amd64 is",
        )
    }
}

fn bpf_filesystem(machine: &Machine) -> Finding {
    if machine.filesystems.iter().any(|f| f == "bpf") {
        ok("bpf filesystem", "can be mounted")
    } else {
        fail(
            "bpf filesystem",
            "the kernel has none: eBPF maps could not outlive the daemon",
            "use a kernel with CONFIG_BPF_SYSCALL=y, as Debian's linux-image-amd64 is",
        )
    }
}

fn ebpf(machine: &Machine) -> Finding {
    match &machine.ebpf {
        Ok(()) => ok("eBPF", "programs can be loaded"),
        Err(why) if !machine.is_root => fail("eBPF", why.clone(), "run as root: sudo hivemind doctor"),
        Err(why) => fail(
            "eBPF",
            why.clone(),
            "in a container: run it with --privileged; with Secure Boot: see lockdown in /sys/kernel/security/lockdown",
        ),
    }
}

fn cgroup2(machine: &Machine) -> Finding {
    match &machine.cgroup2 {
        Some(place) if place.as_os_str() == "/sys/fs/cgroup" => ok("cgroup v2", "/sys/fs/cgroup"),
        Some(place) => ok("cgroup v2", format!("{}, beside v1 (hybrid)", place.display())),
        None => fail(
            "cgroup v2",
            "not mounted: connections cannot be led to services",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn overlay(machine: &Machine) -> Finding {
    if machine.filesystems.iter().any(|f| f == "overlay") {
        ok("overlay filesystem", "there")
    } else {
        fail(
            "overlay filesystem",
            "the kernel has none: images cannot be unpacked in layers",
            "modprobe overlay; if that fails use a kernel with CONFIG_OVERLAY_FS, as Debian's linux-image-amd64 is",
        )
    }
}

fn containerd(machine: &Machine) -> Finding {
    let check = "containerd";
    let Some(line) = &machine.containerd else {
        return match machine.containerd_answers {
            true => ok(check, "answers at its socket; its program is not in PATH"),
            false => fail(check, "neither its program nor its socket is there", "apt install containerd"),
        };
    };
    let state =
        if machine.containerd_answers { "runs" } else { "does not run; the daemon starts one of its own" };
    match version_in(line) {
        Some(version) if version < CONTAINERD_MIN => {
            fail(check, format!("{line:?} is older than 1.6"), "apt install containerd (Debian 12 has 1.6)")
        }
        Some((major, minor)) => ok(check, format!("{major}.{minor}, {state}")),
        None => warn(check, format!("{line:?} tells no version"), "1.6 or newer is needed"),
    }
}

fn runc(machine: &Machine) -> Finding {
    match &machine.runc {
        Some(line) => ok("runc", line.clone()),
        None => fail("runc", "not found: containers cannot be started", "apt install runc"),
    }
}

fn forwarding(machine: &Machine) -> Finding {
    let check = "forwarding";
    match machine.forwarding {
        (Some(true), Some(true)) => ok(check, "on"),
        (None, _) => {
            fail(check, "the kernel has no IPv4 forwarding", "mount /proc, and use a kernel with networking")
        }
        (_, None) => warn(
            check,
            "the kernel has no IPv6: replicas reach each other by IPv4 only",
            "boot without ipv6.disable=1",
        ),
        _ => ok(check, "off; the daemon switches it on"),
    }
}

fn firewall(machine: &Machine) -> Finding {
    let check = "firewall";
    let Some(ruleset) = &machine.ruleset else {
        return match machine.nft {
            Some(_) => warn(check, "the rules cannot be read", "run as root: sudo hivemind doctor"),
            None => ok(check, "no nft here, so none of its rules"),
        };
    };
    let dropping = dropping_chains(ruleset);
    if dropping.is_empty() {
        return ok(check, "nothing else drops forwarded packets");
    }
    warn(
        check,
        format!(
            "{} drops forwarded packets by default: other networks of this machine do not reach replicas, and packets that \
             are too long for their way out are lost (Docker and ufw set this up)",
            dropping.join(", ")
        ),
        "allow the replicas' range there, for example iptables -I FORWARD -s 10.200.0.0/14 -j ACCEPT and the same with -d",
    )
}

/// Chains of others that drop what is forwarded unless a rule says otherwise, as `ip filter FORWARD`.
fn dropping_chains(ruleset: &Value) -> Vec<String> {
    let chains = ruleset["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("chain"));
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let drops = |chain: &&Value| {
        text(chain, "hook") == "forward"
            && text(chain, "policy") == "drop"
            && ["ip", "ip6", "inet"].contains(&text(chain, "family").as_str())
            && !text(chain, "table").starts_with("hivemind")
    };
    let name =
        |chain: &Value| format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"));
    chains.filter(drops).map(name).collect()
}

fn disk(machine: &Machine) -> Finding {
    let place = machine.data_dir.display();
    let remedy = "make room, or give the daemon another directory: --data-dir";
    match machine.free_bytes {
        None => warn("disk", format!("the disk of {place} tells no free space"), remedy),
        Some(free) if free < FREE_BYTES_MIN => {
            fail("disk", format!("{} free for {place}", size(free)), remedy)
        }
        Some(free) if free < FREE_BYTES_GOOD => {
            warn("disk", format!("{} free for {place}: a few images fill it", size(free)), remedy)
        }
        Some(free) => ok("disk", format!("{} free for {place}", size(free))),
    }
}

fn port(machine: &Machine) -> Finding {
    let number = machine.web_port;
    match machine.web_port_is {
        PortState::Free => ok("port", format!("{number}/tcp is free")),
        PortState::Ours => ok("port", format!("{number}/tcp is held by the daemon that runs")),
        PortState::Taken => fail(
            "port",
            format!("{number}/tcp is held by another process"),
            format!(
                "see which: ss -ltnp 'sport = :{number}'; or use another: hivemind daemon --web-port PORT"
            ),
        ),
    }
}

fn name_servers(machine: &Machine) -> Finding {
    if machine.name_servers.is_empty() {
        return warn(
            "name servers",
            "/etc/resolv.conf names none: replicas resolve only services, and registries are not found",
            "put a nameserver line into /etc/resolv.conf, or give one: hivemind daemon --dns-upstream ADDRESS",
        );
    }
    let list: Vec<_> = machine.name_servers.iter().map(ToString::to_string).collect();
    ok("name servers", list.join(", "))
}

/// A clock before this program was written is wrong.
const CLOCK_MIN: Timestamp = Timestamp::constant(1_767_225_600, 0);

fn clock(machine: &Machine) -> Finding {
    let shown = machine.now.strftime("%Y-%m-%d %H:%M UTC");
    if machine.now < CLOCK_MIN {
        fail(
            "clock",
            format!("it is {shown} here: certificates of registries are not yet valid"),
            "apt install systemd-timesyncd, or set it: date -s",
        )
    } else {
        ok("clock", shown.to_string())
    }
}

/// The first `major.minor` in `text`.
fn version_in(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        Some((major, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests;
