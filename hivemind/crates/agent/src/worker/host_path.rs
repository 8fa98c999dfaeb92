//! Files and directories of the node that a container sees.
//!
//! A path is resolved once, from the directory that the namespace permits on, and may not leave it by any symbolic link. What was
//! found is mounted at a place of our own until runc has mounted it from there: whoever can write below the directory cannot put
//! another in its place in between. (runc mounts from within the container's new mount namespace, where a descriptor of ours would
//! be of no use to it.)

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use hivemind_model::{ErrorCode, HostPath, NamespaceSpec, Problem};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
};
use tracing::warn;

use crate::fault::problem;

/// A file or directory of the node, mounted at a place of our own until this is dropped.
pub(super) struct HeldPath {
    place: PathBuf,
}

impl HeldPath {
    /// Mounts what `mount` means, within what is permitted, at `place`, where there is nothing.
    pub(super) async fn hold(
        permitted: &NamespaceSpec,
        mount: &HostPath,
        place: PathBuf,
    ) -> Result<Self, Problem> {
        let source = mount.source.clone();
        let Some(root) = permitted.host_path_of(&source).map(str::to_owned) else {
            // It was checked before; a path without a permission has none to be resolved from.
            let message = format!("{source} of the node is not permitted");
            return Err(problem(ErrorCode::NotPermitted, message, "see `hivemind namespace permit`"));
        };
        let held = tokio::task::spawn_blocking(move || hold(&open(&root, &source)?, place)).await;
        let held = held.unwrap_or_else(|error| Err(io::Error::other(error)));
        held.map_err(|error| explain(&mount.source, &error))
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for HeldPath {
    fn drop(&mut self) {
        if let Err(error) = release(&self.place) {
            warn!(place = %self.place.display(), %error, "What a container mounts could not be let go");
        }
    }
}

/// Lets go what paths of the node an earlier daemon held in `directory`, the [`crate::AgentConfig::host_path_dir`] of its agent.
///
/// # Errors
/// What the kernel refused. Nothing that is mounted there is ever removed.
pub fn release_host_paths(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    entries.into_iter().try_for_each(|entry| release(&entry?.path()))
}

fn release(place: &Path) -> io::Result<()> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Not mounted, or gone.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Never with what is in it: should it still be mounted, this fails, and what is the user's stays.
    match fs::remove_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(place),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn hold(file: &OwnedFd, place: PathBuf) -> io::Result<HeldPath> {
    release(&place)?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match fs::metadata(&source)?.is_dir() {
        true => fs::create_dir(&place)?,
        false => drop(File::create_new(&place)?),
    }
    let held = HeldPath { place };
    let how = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&source), &held.place, None::<&str>, how, None::<&str>)?;
    Ok(held)
}

/// Opens `source` from `root` on, which is `source` itself or above it. Blocking.
fn open(root: &str, source: &str) -> io::Result<OwnedFd> {
    let held: OwnedFd = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(root)?.into();
    let rest = Path::new(source).strip_prefix(root).map_err(io::Error::other)?;
    if rest.as_os_str().is_empty() {
        return Ok(held);
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&held, rest, how)?)
}

fn explain(source: &str, error: &io::Error) -> Problem {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => problem(
            ErrorCode::InvalidMount,
            format!("there is no {source} on the node"),
            "make it there; it is tried again",
        ),
        Some(Errno::EXDEV | Errno::ELOOP) => problem(
            ErrorCode::NotPermitted,
            format!("{source} leads by a symbolic link to where the namespace may not mount anything"),
            "name the place itself, and see `hivemind namespace permit`",
        ),
        _ => problem(
            ErrorCode::InvalidMount,
            format!("{source} of the node cannot be opened: {error}"),
            "it is tried again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_what_it_was_when_it_was_opened_and_never_outside() {
        let directory = tempfile::tempdir().unwrap();
        let allowed = directory.path().join("allowed");
        fs::create_dir_all(allowed.join("data")).unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        fs::write(allowed.join("data/file"), "mine").unwrap();
        symlink("data/file", allowed.join("inside")).unwrap();
        symlink("../secret", allowed.join("outside")).unwrap();
        symlink("/etc", allowed.join("absolute")).unwrap();
        let open = |path: &Path| super::open(allowed.to_str().unwrap(), path.to_str().unwrap());
        let read =
            |file: &OwnedFd| fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();

        let held = open(&allowed.join("inside")).unwrap();
        fs::remove_file(allowed.join("data/file")).unwrap();
        symlink(directory.path().join("secret"), allowed.join("data/file")).unwrap();
        assert_eq!(read(&held), "mine");
        assert!(open(&allowed).is_ok() && open(&allowed.join("data")).is_ok());

        let code = |path: &Path| open(path).err().map(|error| explain("x", &error).code);
        for name in ["outside", "absolute", "data/file", "absolute/passwd"] {
            assert_eq!(code(&allowed.join(name)), Some(ErrorCode::NotPermitted), "{name}");
        }
        assert_eq!(code(&allowed.join("nothing")), Some(ErrorCode::InvalidMount));
    }

    #[test]
    fn what_is_let_go_is_never_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("precious"), "").unwrap();
        assert!(release(&place).is_err(), "it is not empty, so it is not ours");
        assert!(place.join("precious").exists());
        fs::remove_file(place.join("precious")).unwrap();
        release_host_paths(directory.path()).unwrap();
        assert!(!place.exists());
        release_host_paths(&place).unwrap();
    }
}
