//! What there is on a node, so that a test can tell what something left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::sandbox::{Sandbox, network_of};

/// Links, mounts, cgroups, nftables tables, rules of routing, BPF pins and processes of a sandbox, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    things: BTreeSet<String>,
}

impl Inventory {
    /// Looks at everything now.
    ///
    /// # Errors
    /// When `ip` or `nft` fails, or the sandbox is gone.
    pub fn take(sandbox: &Sandbox) -> Result<Self> {
        let mut things = BTreeSet::new();
        for link in sandbox.check(&["ip", "-brief", "link"])?.lines() {
            let name = link.split_whitespace().next().unwrap_or_default();
            things.insert(format!("link {}", name.split('@').next().unwrap_or_default()));
        }
        for family in ["-4", "-6"] {
            let rules = sandbox.check(&["ip", family, "rule"])?;
            things.extend(rules.lines().map(|rule| format!("rule {family} {rule}")));
        }
        let tables = sandbox.check(&["nft", "list", "tables"])?;
        things.extend(tables.lines().map(|table| format!("nftables {table}")));
        things.extend(mounts(sandbox)?);
        things.extend(below(sandbox.cgroup(), "cgroup"));
        things.extend(below(&sandbox.outside(&sandbox.directory().join("bpf")), "pin"));
        things.extend(processes(sandbox));
        Ok(Self { things })
    }

    /// What is here and was not there before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

fn mounts(sandbox: &Sandbox) -> Result<Vec<String>> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.pid()))?;
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        // Other sandboxes come and go on the host, and their mounts propagate to here; only our own directory counts.
        let ours = Path::new(point).starts_with(sandbox.directory()) || point.starts_with("/sys/fs/bpf/");
        ours.then(|| format!("mount {point} ({})", file_system.split(' ').next().unwrap_or_default()))
    };
    Ok(table.lines().filter_map(line).collect())
}

/// Everything below a directory, by its path relative to it.
fn below(directory: &Path, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(parent) = pending.pop() {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // A cgroup's files are the kernel's; its directories are what somebody made.
            if is_directory || kind != "cgroup" {
                found.push(format!("{kind} {}", path.strip_prefix(directory).unwrap_or(&path).display()));
            }
            if is_directory {
                pending.push(path);
            }
        }
    }
    found
}

/// Processes in the sandbox's cgroups or network, by program and not by number, except the holder.
fn processes(sandbox: &Sandbox) -> Vec<String> {
    let holder = sandbox.pid().to_string();
    let network = network_of(&holder);
    let inside = format!("/{}/", sandbox.name());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid.parse::<u32>().is_err() || pid == holder {
            continue;
        }
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let is_member = cgroups.contains(&inside) || (network.is_some() && network_of(&pid) == network);
        if is_member {
            let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(format!("process {} {pid}", program.trim()));
        }
    }
    found
}
