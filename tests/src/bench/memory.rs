//! How much memory a process, and what it holds in the kernel, takes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What is resident is settled once it has kept still for this long: longer than the daemon takes to see that much is free.
const STILL: Duration = Duration::from_secs(7);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Changes below this count as none: 64 KiB.
const STILL_WITHIN_BYTES: u64 = 64 << 10;

/// The resident memory of a process (VmRSS, proc_pid_status(5)), in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    Ok(kib.context("no VmRSS")?.trim().parse::<u64>().context("VmRSS is no number")? << 10)
}

/// As [`resident`], once it does not change any more.
pub(super) fn settled(pid: u32) -> Result<u64> {
    let started = Instant::now();
    let (mut value, mut since) = (resident(pid)?, Instant::now());
    while since.elapsed() < STILL {
        if started.elapsed() > SETTLE_LIMIT {
            bail!("the memory of process {pid} did not settle; it is at {value} bytes");
        }
        std::thread::sleep(POLL_INTERVAL);
        let now = resident(pid)?;
        if now.abs_diff(value) > STILL_WITHIN_BYTES {
            (value, since) = (now, Instant::now());
        }
    }
    resident(pid)
}

/// What the eBPF maps that a process holds take in the kernel (`memlock` of their file descriptors, as bpftool(8) tells
/// it), in bytes; each map counts once.
pub(super) fn maps(pid: u32) -> Result<u64> {
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process is gone")? {
        // A descriptor may be closed meanwhile.
        if let Some((map, bytes)) = fs::read_to_string(entry?.path()).ok().and_then(|text| map_of(&text)) {
            sizes.insert(map, bytes);
        }
    }
    if sizes.is_empty() {
        bail!("process {pid} holds no eBPF maps");
    }
    Ok(sizes.values().sum())
}

/// The number and the size of the map that a descriptor stands for, if it is one.
fn map_of(fdinfo: &str) -> Option<(u32, u64)> {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    Some((field("map_id")?.parse().ok()?, field("memlock")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_told_from_other_descriptors() {
        let map = "pos:\t0\nflags:\t02000002\nmap_type:\t9\nmap_id:\t17\nmemlock:\t8192\nfrozen:\t0\n";
        assert_eq!(map_of(map), Some((17, 8192)));
        assert_eq!(map_of("pos:\t0\nprog_id:\t5\nmemlock:\t4096\n"), None);
    }

    #[test]
    fn a_process_knows_its_own_memory() {
        let own = resident(std::process::id()).unwrap();
        assert!((100 << 10..4 << 30).contains(&own), "{own}");
    }
}
