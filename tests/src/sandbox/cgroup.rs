//! A sandbox's directories in the machine's cgroup hierarchies, which are version 2, version 1, or both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The child in which the programs that the harness starts lie: a v2 cgroup with children must hold no processes.
const LEAF: &str = "host";

/// A mounted hierarchy.
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    /// The v1 controllers, separated by commas.
    controllers: String,
}

/// The directory in the v2 hierarchy.
pub(super) fn unified(name: &str) -> Result<PathBuf> {
    let unified = hierarchies()?.into_iter().find(|hierarchy| hierarchy.unified);
    Ok(unified.context("no cgroup v2 hierarchy is mounted")?.mount.join(name))
}

/// The sandbox's directory in each hierarchy, whether it exists or not.
pub(super) fn directories(name: &str) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|hierarchy| hierarchy.mount.join(name)).collect())
}

/// The directories that programs of the sandbox are put into.
pub(super) fn leaves(name: &str) -> Result<Vec<PathBuf>> {
    let useful = |hierarchy: &Hierarchy| {
        let counts = |controller: &str| matches!(controller, "pids" | "memory");
        hierarchy.unified || hierarchy.controllers.split(',').any(counts)
    };
    Ok(hierarchies()?.iter().filter(|h| useful(h)).map(|h| h.mount.join(name).join(LEAF)).collect())
}

/// Makes the sandbox's directories.
pub(super) fn create(name: &str) -> Result<()> {
    for leaf in leaves(name)? {
        fs::create_dir_all(&leaf).with_context(|| format!("cannot make the cgroup {}", leaf.display()))?;
    }
    Ok(())
}

/// The directory and everything below it, children before parents.
pub(super) fn depth_first(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        if let Ok(entries) = fs::read_dir(&directory) {
            found.push(directory);
            let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            pending.extend(entries.flatten().filter(is_directory).map(|entry| entry.path()));
        }
    }
    found.reverse();
    found
}

/// The cgroup mounts of this process, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    Ok(table.lines().filter_map(hierarchy).collect())
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount = PathBuf::from(mount.split(' ').nth(4)?);
    let mut fields = file_system.split(' ');
    let unified = match fields.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    Some(Hierarchy { mount, unified, controllers: fields.nth(1)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mounts_are_read_from_a_mount_table() {
        let line = "34 28 0:31 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids";
        let found = hierarchy(line).unwrap();
        assert_eq!(found.mount, Path::new("/sys/fs/cgroup/pids"));
        assert!(!found.unified && found.controllers.split(',').any(|controller| controller == "pids"));
        assert!(hierarchy("35 28 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw").unwrap().unified);
        assert!(hierarchy("22 27 0:21 / /proc rw,relatime - proc proc rw").is_none());
    }
}
