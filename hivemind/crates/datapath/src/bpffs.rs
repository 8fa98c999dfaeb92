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
    programs: PathBuf,
    change: PathBuf,
}

impl Pins {
    /// Makes the directories, and mounts a bpffs first if there is none.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        ensure_mounted(&config.bpffs)?;
        let pins = Self::of(config, ABI_VERSION);
        pins.make_directories()?;
        Ok(pins)
    }

    /// Where the pins of a version of the maps are, if there are any.
    pub(crate) fn of(config: &Config, version: u32) -> Self {
        let version = directory_of(&config.bpffs, version);
        Self {
            maps: version.join("maps"),
            links: version.join("links"),
            programs: version.join("programs"),
            change: version.join("change"),
        }
    }

    /// Makes the directories that are not there.
    pub(crate) fn make_directories(&self) -> Result<(), Error> {
        for directory in [&self.maps, &self.links, &self.programs, &self.change] {
            fs::create_dir_all(directory)
                .map_err(Error::system(format!("create {}", directory.display())))?;
        }
        Ok(())
    }

    /// Removes the pins of other versions of the maps: their programs would go on beside ours. No program of theirs may be
    /// attached any more.
    pub(crate) fn remove_other_versions(&self, config: &Config) -> Result<(), Error> {
        for version in versions(config)? {
            if version != ABI_VERSION {
                let directory = directory_of(&config.bpffs, version);
                remove_tree(&directory)
                    .map_err(Error::system(format!("remove old pins at {}", directory.display())))?;
            }
        }
        Ok(())
    }

    /// Removes pins of maps and links, which leaves alone what is attached if it is pinned elsewhere.
    pub(crate) fn forget_maps_and_links(&self) -> Result<(), Error> {
        [&self.maps, &self.links].into_iter().try_for_each(|directory| {
            remove_tree(directory).map_err(Error::system(format!("empty {}", directory.display())))
        })?;
        self.make_directories()
    }

    /// Removes what a change from another version needed.
    pub(crate) fn end_change(&self) -> Result<(), Error> {
        remove_tree(&self.change).map_err(Error::system(format!("remove {}", self.change.display())))
    }

    /// The directory of the pinned maps. There is nothing else in it.
    pub(crate) fn map_directory(&self) -> &Path {
        &self.maps
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// Where a program is pinned, besides its links: for the build that changes over from this one.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Where a map is pinned that is needed while programs of another version are replaced.
    pub(crate) fn change(&self, name: &str) -> PathBuf {
        self.change.join(name)
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

fn directory_of(bpffs: &Path, version: u32) -> PathBuf {
    bpffs.join(format!("v{version}"))
}

/// The versions of the maps of which there are pins, in order. None where nothing is mounted yet.
pub(crate) fn versions(config: &Config) -> Result<Vec<u32>, Error> {
    let failed = || Error::system(format!("list {}", config.bpffs.display()));
    let entries = match fs::read_dir(&config.bpffs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
        versions.extend(name.strip_prefix('v').and_then(|number| number.parse::<u32>().ok()));
    }
    versions.sort_unstable();
    Ok(versions)
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
