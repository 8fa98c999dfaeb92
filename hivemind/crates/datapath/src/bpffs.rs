//! The file system of pins: where it is mounted and how the directories below it are named.

use crate::{Config, Error};
use hivemind_common::ABI_VERSION;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The source of a mount that we made, by which teardown recognises it.
const OURS: &str = "hivemind";

/// The directories of pins of one version of the maps.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    maps: PathBuf,
    links: PathBuf,
}

impl Pins {
    /// Makes the directories, and mounts a bpffs first if there is none.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        ensure_mounted(&config.bpffs)?;
        let version = config.bpffs.join(format!("v{ABI_VERSION}"));
        let pins = Self { maps: version.join("maps"), links: version.join("links") };
        for directory in [&pins.maps, &pins.links] {
            fs::create_dir_all(directory)
                .map_err(Error::system(format!("create {}", directory.display())))?;
        }
        Ok(pins)
    }

    /// Removes the pins of other versions of the maps: their programs would go on beside ours.
    pub(crate) fn remove_other_versions(&self, config: &Config) -> Result<(), Error> {
        let own = format!("v{ABI_VERSION}");
        let failed = || Error::system(format!("remove old pins below {}", config.bpffs.display()));
        for entry in fs::read_dir(&config.bpffs).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_version =
                name.strip_prefix('v').is_some_and(|number| number.bytes().all(|c| c.is_ascii_digit()));
            if is_version && name != own {
                remove_tree(&entry.path()).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// The directory of the pinned maps. There is nothing else in it.
    pub(crate) fn map_directory(&self) -> &Path {
        &self.maps
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// Where a link is pinned.
    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }

    /// The names of all pinned links.
    pub(crate) fn links(&self) -> Result<Vec<String>, Error> {
        let list = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.links)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        list().map_err(Error::system(format!("list {}", self.links.display())))
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn ensure_mounted(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    if is_bpffs(path) || is_bpffs(parent) {
        return Ok(());
    }
    // Below sysfs no directory can be made: there the parent, /sys/fs/bpf, is what a bpffs belongs on.
    let target = if fs::create_dir_all(path).is_ok() { path } else { parent };
    mount(Some(OURS), target, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|error| Error::system(format!("mount a bpffs at {}", target.display()))(error.into()))
}

/// Removes all pins of all versions, the directories, and the mount if it is ours and nobody else uses it.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    remove_tree(path).map_err(Error::system(format!("remove the pins below {}", path.display())))?;
    for target in [Some(path), path.parent()].into_iter().flatten() {
        if is_bpffs(target) && is_our_mount(target) && is_empty(target) {
            umount2(target, MntFlags::MNT_DETACH)
                .map_err(|error| Error::system(format!("unmount {}", target.display()))(error.into()))?;
            // Fails where it is not ours to remove, below sysfs.
            let _ = fs::remove_dir(target);
        }
    }
    Ok(())
}

/// Removes what lies in a bpffs; what is not ours to remove (the kernel's `*.debug` files) is left alone.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else if !entry.file_name().to_string_lossy().ends_with(".debug") {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        // A mount point cannot be removed; whether it is unmounted is the caller's question.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        result => result,
    }
}

/// Whether nobody, another daemon for one, has pins there.
fn is_empty(path: &Path) -> bool {
    let is_kernels = |entry: fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".debug");
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_kernels)))
}

/// Whether the topmost mount at `path` is one that we made.
fn is_our_mount(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/thread-self/mountinfo") else { return false };
    let path = path.to_string_lossy();
    let source = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(&*path)).and_then(|line| {
        let (_, after) = line.split_once(" - ")?;
        after.split(' ').nth(1)
    });
    source == Some(OURS)
}
