//! What the data path needs of the machine and of its configuration, checked before anything is changed.

use crate::programs::UNMASKED_MAX;
use crate::{Config, Error};
use nix::sys::{
    statfs::{CGROUP2_SUPER_MAGIC, statfs},
    utsname::uname,
};
use std::{fs, path::PathBuf};

const KERNEL_MIN: (u32, u32) = (6, 1);
const KERNEL_MIN_NAME: &str = "6.1";
/// What takes an IPv6 packet out of an IPv4 one (`BPF_F_ADJ_ROOM_DECAP_L3_IPV6`) came with this release.
const KERNEL_WITH_OVERLAY: (u32, u32) = (6, 3);
const KERNEL_WITH_OVERLAY_NAME: &str = "6.3";
/// Links at tcx came with this release.
const KERNEL_WITH_TCX: (u32, u32) = (6, 6);
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The least MTU that IPv6 works with (RFC 8200 section 5).
const MTU_MIN: u32 = 1280;
/// What a veth pair carries at most.
const MTU_MAX: u32 = 65_535;

/// What the kernel has beyond what is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Abilities {
    /// Programs can be attached to interfaces by links.
    pub(crate) tcx: bool,
}

/// Capabilities that nothing works without, with their numbers (capability(7)). CAP_SYS_ADMIN includes CAP_BPF.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Fails with the first requirement that is not met.
pub(crate) fn check(config: &Config) -> Result<Abilities, Error> {
    check_config(config)?;
    check_privileges()?;
    let abilities = check_kernel()?;
    if !PathBuf::from(BTF).exists() {
        return Err(Error::NoBtf { path: BTF.into() });
    }
    let is_cgroup2 =
        statfs(&config.cgroup_root).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if !is_cgroup2 {
        return Err(Error::NoCgroup2 { path: config.cgroup_root.clone() });
    }
    Ok(abilities)
}

/// Fails on a kernel on which traffic between nodes does not work.
pub(crate) fn check_overlay() -> Result<(), Error> {
    let release = release()?;
    match parse_release(&release) {
        Some(version) if version >= KERNEL_WITH_OVERLAY => Ok(()),
        _ => Err(Error::KernelTooOldForNodes { found: release, needed: KERNEL_WITH_OVERLAY_NAME }),
    }
}

fn release() -> Result<String, Error> {
    let name = uname().map_err(|error| Error::system("ask for the kernel's release")(error.into()))?;
    Ok(name.release().to_string_lossy().into_owned())
}

fn check_kernel() -> Result<Abilities, Error> {
    let release = release()?;
    match parse_release(&release) {
        Some(version) if version >= KERNEL_MIN => Ok(Abilities { tcx: version >= KERNEL_WITH_TCX }),
        _ => Err(Error::KernelTooOld { found: release, needed: KERNEL_MIN_NAME }),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Checks what can be checked without looking at the machine.
pub(crate) fn check_config(config: &Config) -> Result<(), Error> {
    let wrong = |field, reason: &str| Err(Error::Config { field, reason: reason.to_owned() });
    let name = config.name.as_bytes();
    let well_formed = name.first().is_some_and(u8::is_ascii_lowercase)
        && name.len() <= 11
        && name.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-');
    if !well_formed {
        return wrong("name", "must be 1 to 11 of a-z, 0-9 and -, beginning with a letter");
    }
    if !config.cluster_range.0.contains(&config.replica_range.0)
        || !config.cluster_range.1.contains(&config.replica_range.1)
    {
        return wrong("replica_range", "must lie within the cluster's range");
    }
    if config.mtu.is_some_and(|mtu| !(MTU_MIN..=MTU_MAX).contains(&mtu)) {
        return wrong("mtu", "must be from 1280 to 65535");
    }
    let (first, last) = config.masquerade_ports;
    if first < 1_024 || last < first {
        return wrong(
            "masquerade_ports",
            "must be a first port of at least 1024 and a last one that is not before it",
        );
    }
    let blocks_v4 = config.unmasked.iter().filter(|block| block.addr().is_ipv4()).count();
    if blocks_v4.max(config.unmasked.len() - blocks_v4) > UNMASKED_MAX as usize {
        return wrong("unmasked", "must be at most 256 blocks in each family");
    }
    if config.collect_interval.is_zero() {
        return wrong("collect_interval", "must not be zero");
    }
    let sizes = &config.sizes;
    let smallest = [
        sizes.conntrack,
        sizes.endpoints,
        sizes.addresses,
        sizes.services,
        sizes.backends,
        sizes.service_cells,
        sizes.reverse,
        sizes.node_addresses,
        sizes.translations,
        sizes.fragments,
        sizes.affinity,
    ]
    .into_iter()
    .min();
    if smallest == Some(0) {
        return wrong("sizes", "no map can have zero entries");
    }
    Ok(())
}

fn check_privileges() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_privileges(&status, nix::unistd::geteuid().is_root());
    if missing.is_empty() { Ok(()) } else { Err(Error::NotPermitted { missing: missing.join(", ") }) }
}

/// What a process lacks whose `/proc/PID/status` (proc_pid_status(5)) is `status`. Of one that cannot be read nothing is
/// said: the kernel will.
fn missing_privileges(status: &str, is_root: bool) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
    let root = (!is_root).then_some("root's user id");
    let capabilities =
        CAPABILITIES.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name);
    root.into_iter().chain(capabilities).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_may_not_do_is_told_by_name() {
        let all = "CapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(missing_privileges(all, true), Vec::<&str>::new());
        assert_eq!(missing_privileges(&all.replace("1ffffffffff", "1ffffdfffff"), true), ["CAP_SYS_ADMIN"]);
        assert_eq!(
            missing_privileges("CapEff:\t0000000000000000\n", false),
            ["root's user id", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("6.1.0-37-amd64"), Some((6, 1)));
        assert!(parse_release("6.10.3").unwrap() > KERNEL_WITH_TCX);
        assert!(parse_release("5.19.0").unwrap() < KERNEL_MIN);
        assert!(parse_release("6.1.0-37-amd64").unwrap() < KERNEL_WITH_OVERLAY);
        assert!(parse_release("6.12.1").unwrap() > KERNEL_WITH_OVERLAY);
        assert_eq!(parse_release("weird"), None);
    }
}
