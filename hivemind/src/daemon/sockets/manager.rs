//! What is said to the service manager about descriptors (sd_notify(3)). Without one, all of it does nothing.

use std::{io, os::fd::AsFd, os::fd::BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::{NotifyState, notify, notify_with_fds};

/// How long the service manager may take, in milliseconds: as long as its own programs wait.
const BARRIER_LIMIT_MS: u16 = 5_000;

/// Stores a descriptor under a name. It is not watched for errors, which a socket of datagrams has whenever a client is gone
/// before its answer comes.
pub(super) fn store(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let state = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    notify_with_fds(false, &state, &[descriptor])
}

/// Removes all descriptors with this name. They may be closed a little later: see [`barrier`].
pub(super) fn remove(name: &str) -> io::Result<()> {
    notify(false, &[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// Waits until all that was said before is done: then the service manager closes what is sent with this message.
///
/// # Errors
/// `TimedOut` when it does not within some seconds.
pub(super) fn barrier() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    notify_with_fds(false, &[NotifyState::Custom("BARRIER=1")], &[writer.as_fd()])?;
    drop(writer);
    // The other end being closed is told whatever is asked for.
    let mut awaited = [PollFd::new(reader.as_fd(), PollFlags::empty())];
    match poll(&mut awaited, PollTimeout::from(BARRIER_LIMIT_MS))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
