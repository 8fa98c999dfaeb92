//! Network namespaces that live as mounts, without a process in them.

use crate::{Error, netlink::Netlink};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
};

/// The namespace of the calling thread. Not of the process: threads may differ.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, and a netlink socket that talks to it from wherever it is used.
pub(crate) struct Namespace {
    pub(crate) file: OwnedFd,
    pub(crate) netlink: Netlink,
}

impl Namespace {
    /// Makes a namespace and mounts it at `path`, in place of a file that is there.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        remove(path)?;
        File::create_new(path).map_err(Error::system(format!("create {}", path.display())))?;
        let made = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(failed(format!("mount a network namespace at {}", path.display())))?;
            Self::current()
        });
        if made.is_err() {
            // The error at hand says more than one about cleaning up would.
            let _ = remove(path);
        }
        made
    }

    /// The namespace of the calling thread.
    fn current() -> Result<Self, Error> {
        let file = File::open(OWN).map_err(Error::system("open the thread's network namespace"))?;
        Ok(Self { file: file.into(), netlink: Netlink::open()? })
    }
}

/// Runs `work` in the namespace that is mounted at `path`.
pub(crate) fn within<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let file = File::open(path).map_err(Error::system(format!("open {}", path.display())))?;
    on_own_thread(|| {
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(failed(format!("enter {}", path.display())))?;
        work()
    })
}

/// Whether a namespace is mounted at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::FsType(libc::NSFS_MAGIC))
}

/// Removes the mount and its file, if they are there. The namespace ends with its last user.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    // Not mounted, or no such file: nothing to unmount.
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(failed(format!("unmount {}", path.display()))(error)),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Runs `work` in each of these namespaces, one after the other, on a thread of its own. One that is gone is left out.
pub(crate) fn in_each(
    paths: impl IntoIterator<Item = PathBuf, IntoIter: Send>,
    mut work: impl FnMut(&Path) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let mut paths = paths.into_iter().peekable();
    if paths.peek().is_none() {
        return Ok(());
    }
    on_own_thread(|| {
        for path in paths {
            let Ok(file) = File::open(&path) else { continue };
            match setns(&file, CloneFlags::CLONE_NEWNET) {
                Ok(()) => work(&path)?,
                // The file from before a namespace was mounted at it, or after.
                Err(nix::Error::EINVAL) => {}
                Err(error) => return Err(failed(format!("enter {}", path.display()))(error)),
            }
        }
        Ok(())
    })
}

/// Runs `work` on a thread that ends with it, so that no other work ever finds itself in a strange namespace.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(Error::system("start a thread"))?
            .join()
            .unwrap_or(Err(Error::Stopped))
    })
}

fn failed(action: impl Into<String>) -> impl FnOnce(nix::Error) -> Error {
    move |error| Error::system(action)(error.into())
}
