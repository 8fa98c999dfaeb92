//! Copying a directory tree as it is: owners, modes, times, links, extended attributes and holes.
//!
//! The source is an image's root filesystem and may contain anything: every path is opened component by component
//! within it, so that no symbolic link leads to the host's files.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat},
    sys::time::TimeSpec,
    unistd::{Gid, Uid, fchownat},
};

/// Deeper trees are refused: following them would exhaust the thread's stack.
const DEPTH_MAX: usize = 256;

/// Copies the content of the directory `path` of `rootfs`, and its own owner, mode and times, to the existing directory
/// `target`. Where the image has no such directory, `target` stays empty.
pub(crate) fn copy_directory(rootfs: &Path, path: &Path, target: &Path) -> io::Result<()> {
    let root = File::open(rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let relative: PathBuf = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
    let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
    let source = match openat2(&root, &relative, how) {
        Ok(descriptor) => File::from(descriptor),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // By its descriptor, which stays open: what is below is never reached through a link.
    let path = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_fd().as_raw_fd()));
    Copier::default().directory(&path, target, DEPTH_MAX)
}

/// The files with several names that were copied so far, by device and inode.
#[derive(Default)]
struct Copier {
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn directory(&mut self, source: &Path, target: &Path, depth: usize) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::other("the directories are nested too deeply"));
        }
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            self.entry(&entry.path(), &target.join(entry.file_name()), depth)?;
        }
        // Last, for copying into it changes its times.
        keep_attributes(source, target, &fs::symlink_metadata(source)?)
    }

    fn entry(&mut self, source: &Path, target: &Path, depth: usize) -> io::Result<()> {
        let metadata = fs::symlink_metadata(source)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(target)?;
            return self.directory(source, target, depth - 1);
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&key) {
                return fs::hard_link(first, target);
            }
            self.linked.insert(key, target.to_owned());
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(source)?, target)?;
        } else if kind.is_file() {
            // Copies within the kernel, and shares blocks where the file system can.
            fs::copy(source, target)?;
        } else if kind.is_fifo() {
            mknod(target, SFlag::S_IFIFO, Mode::empty(), 0)?;
        } else {
            // Devices and sockets mean nothing in a volume.
            return Ok(());
        }
        keep_attributes(source, target, &metadata)
    }
}

fn keep_attributes(source: &Path, target: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let owner = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    fchownat(AT_FDCWD, target, Some(owner.0), Some(owner.1), flags)?;
    // After the owner: a change of owner takes capabilities and set-user-id bits away.
    for name in xattr::list(source)? {
        if let Some(value) = xattr::get(source, &name)? {
            match xattr::set(target, &name, &value) {
                // Labels of security modules, and overlayfs's own, are not for a volume on this file system.
                Err(error) if is_foreign(&name, &error) => {}
                other => other?,
            }
        }
    }
    if !metadata.file_type().is_symlink() {
        fs::set_permissions(target, metadata.permissions())?;
    }
    let time = |seconds: i64, nanoseconds: i64| TimeSpec::new(seconds, nanoseconds);
    let accessed = time(metadata.atime(), metadata.atime_nsec());
    let modified = time(metadata.mtime(), metadata.mtime_nsec());
    utimensat(AT_FDCWD, target, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

fn is_foreign(name: &std::ffi::OsStr, error: &io::Error) -> bool {
    let name = name.to_string_lossy();
    error.kind() == io::ErrorKind::Unsupported
        || name == "security.selinux"
        || name.starts_with("trusted.overlay.")
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, chown, symlink},
        time::{Duration, SystemTime},
    };

    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib/data/sub")).unwrap();
        root
    }

    #[test]
    fn everything_about_a_file_is_kept() {
        let (root, target) = (rootfs(), tempfile::tempdir().unwrap());
        let data = root.path().join("var/lib/data");
        fs::write(data.join("file"), "content").unwrap();
        chown(data.join("file"), Some(101), Some(102)).unwrap();
        fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
        xattr::set(data.join("file"), "user.note", b"kept").unwrap();
        fs::hard_link(data.join("file"), data.join("sub/same")).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        std::os::unix::fs::lchown(data.join("link"), Some(7), Some(8)).unwrap();
        nix::unistd::mkfifo(&data.join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
        chown(&data, Some(55), Some(66)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1770)).unwrap();
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(data.join("file")).unwrap().set_modified(past).unwrap();
        File::open(&data).unwrap().set_modified(past).unwrap();

        copy_directory(root.path(), Path::new("/var/lib/data"), target.path()).unwrap();
        let at = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap();
        let file = at("file");
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()),
            (101, 102, 0o4751, 1_000_000)
        );
        assert_eq!(fs::read(target.path().join("file")).unwrap(), b"content");
        assert_eq!(xattr::get(target.path().join("file"), "user.note").unwrap().unwrap(), b"kept");
        assert_eq!(at("sub/same").ino(), file.ino());
        assert_eq!(fs::read_link(target.path().join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!((at("link").uid(), at("link").gid()), (7, 8));
        assert!(at("pipe").file_type().is_fifo() && at("pipe").mode() & 0o777 == 0o640);
        let directory = at(".");
        assert_eq!((directory.uid(), directory.gid(), directory.mode() & 0o7777), (55, 66, 0o1770));
        assert_eq!(directory.mtime(), 1_000_000);
    }

    #[test]
    fn a_link_in_the_image_never_leads_to_the_hosts_files() {
        let (root, outside) = (rootfs(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "of the host").unwrap();
        symlink(outside.path(), root.path().join("var/escape")).unwrap();
        symlink("../../../../../../../..", root.path().join("var/up")).unwrap();
        symlink("/var/lib", root.path().join("srv")).unwrap();
        let copied = |path: &str| {
            let target = tempfile::tempdir().unwrap();
            copy_directory(root.path(), Path::new(path), target.path()).unwrap();
            let names = fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(copied("/var/escape"), [""; 0]);
        assert_eq!(copied("/srv"), ["data"], "within the image the link is followed");
        let mut top = copied("/var/up");
        top.sort();
        assert_eq!(top, ["srv", "var"], "above its root there is nothing");
    }

    #[test]
    fn what_the_image_does_not_have_leaves_the_volume_empty() {
        let (root, target) = (rootfs(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("var/file"), "no directory").unwrap();
        for path in ["/none", "/var/file", "/var/file/below"] {
            copy_directory(root.path(), Path::new(path), target.path()).unwrap();
            assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
        }
    }
}
