//! The devices of the machine, for containers that get all of them.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The most devices of one container: a machine with more has something odd in `/dev`.
const DEVICES_MAX: usize = 4_096;

/// How deep directories below `/dev` are looked into.
const DEPTH_MAX: usize = 8;

/// What a container has of its own below `/dev`.
const OWN: [&str; 5] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/ptmx"];

/// A device of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) path: PathBuf,
    pub(super) is_block: bool,
    pub(super) major: u64,
    pub(super) minor: u64,
    /// Its permissions.
    pub(super) mode: u32,
}

/// All devices below `/dev`, save for those that a container has of its own. Blocking.
pub(super) fn all() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found)?;
    Ok(found)
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<Device>) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // One that goes meanwhile is none.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if OWN.iter().any(|own| path == Path::new(own)) || found.len() >= DEVICES_MAX {
            continue;
        }
        if kind.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Device {
                path,
                is_block: kind.is_block_device(),
                major: nix::sys::stat::major(metadata.rdev()),
                minor: nix::sys::stat::minor(metadata.rdev()),
                mode: metadata.mode() & 0o777,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_with_their_numbers() {
        let devices = all().unwrap();
        let null = devices.iter().find(|device| device.path == Path::new("/dev/null")).unwrap();
        assert_eq!((null.is_block, null.major, null.minor), (false, 1, 3));
        assert!(!devices.iter().any(|device| device.path.starts_with("/dev/pts")));
    }
}
