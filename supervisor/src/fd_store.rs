//! The store of descriptors: a socket at which they arrive, and what is handed to the next program.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::stat::fstat;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::message::Message;

/// How many descriptors are kept; further ones are closed.
pub const DESCRIPTORS_MAX: usize = 16;

/// How many descriptors may come with one message; with more, some are lost.
const PER_MESSAGE_MAX: usize = DESCRIPTORS_MAX;

/// The longest message, in bytes; the rest of a longer one is cut off.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// Words that a program is started by so that it takes what [`FdStore::equip`] hands it: the variable `LISTEN_PID` has to hold
/// its process id, which nobody knows before it is there.
pub const AS_MAIN_PROCESS: [&str; 4] = ["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"];

/// Keeps what a program gives it, until it is dropped.
#[derive(Debug)]
pub struct FdStore {
    /// Where its socket is, seen from here and from the program.
    path: PathBuf,
    told: PathBuf,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixDatagram,
    kept: Mutex<Vec<Kept>>,
    /// A program has said that it is ready.
    was_ready: AtomicBool,
    is_ending: AtomicBool,
}

#[derive(Debug)]
struct Kept {
    name: String,
    descriptor: OwnedFd,
}

impl FdStore {
    /// An empty store that listens at `path`, which the program sees as `told`. What was at `path` is removed.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub fn start(path: &Path, told: &Path) -> Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        let socket =
            UnixDatagram::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        let shared = Arc::new(Shared {
            socket,
            kept: Mutex::default(),
            was_ready: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        });
        let reading = Arc::clone(&shared);
        let reader = thread::Builder::new()
            .name("fd-store".to_owned())
            .spawn(move || reading.read())
            .context("cannot start a thread")?;
        Ok(Self { path: path.to_owned(), told: told.to_owned(), shared, reader: Some(reader) })
    }

    /// Hands `command` the socket and all that is kept. It must begin with [`AS_MAIN_PROCESS`], if not as its program then so
    /// that the process stays the same, and be started once.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn equip(&self, command: &mut Command) -> Result<()> {
        command.env("NOTIFY_SOCKET", &self.told);
        let kept = self.shared.kept();
        if kept.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = kept.iter().map(|kept| kept.name.as_str()).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let mapping = |(child_fd, kept): (i32, &Kept)| -> io::Result<FdMapping> {
            Ok(FdMapping { parent_fd: kept.descriptor.try_clone()?, child_fd })
        };
        let mappings: io::Result<Vec<FdMapping>> = (FIRST..).zip(kept.iter()).map(mapping).collect();
        command.fd_mappings(mappings.context("a descriptor cannot be duplicated")?)?;
        Ok(())
    }

    /// The names of what is kept, in the order in which it came.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.kept().iter().map(|kept| kept.name.clone()).collect()
    }

    /// Whether a program has said that it is ready, be it this one or an earlier one.
    pub(crate) fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Acquire)
    }

    /// Closes all that is kept, as when a service is stopped.
    pub fn clear(&self) {
        self.shared.kept().clear();
    }
}

impl Drop for FdStore {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Release);
        // Wakes the reader. What fails here would have failed before.
        drop(self.shared.socket.shutdown(Shutdown::Both));
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        drop(fs::remove_file(&self.path));
    }
}

impl Shared {
    /// What is guarded is whole between calls, so that a panic elsewhere does not spoil it.
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) {
        while !self.is_ending.load(Ordering::Acquire) {
            match self.receive() {
                Ok((message, descriptors)) => self.act(message, descriptors),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut text = [0; MESSAGE_BYTES_MAX];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut text)];
        let length = recvmsg(&self.socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        Ok((Message::parse(&String::from_utf8_lossy(&text[..length])), descriptors))
    }

    fn act(&self, message: Message, descriptors: Vec<OwnedFd>) {
        let mut kept = self.kept();
        match message {
            Message::Keep(name) => {
                for descriptor in descriptors {
                    let is_here =
                        kept.iter().any(|kept| are_same(kept.descriptor.as_fd(), descriptor.as_fd()));
                    if !is_here && kept.len() < DESCRIPTORS_MAX {
                        kept.push(Kept { name: name.clone(), descriptor });
                    }
                }
            }
            Message::Remove(name) => kept.retain(|kept| kept.name != name),
            Message::Ready => self.was_ready.store(true, Ordering::Release),
            Message::Nothing => {}
        }
    }
}

/// Whether both are of one file or socket.
fn are_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let id = |descriptor| fstat(descriptor).ok().map(|status| (status.st_dev, status.st_ino));
    id(one).is_some_and(|one| id(other) == Some(one))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, PipeWriter, Read};
    use std::net::UdpSocket;
    use std::process::Stdio;
    use tempfile::TempDir;

    pub(crate) fn store() -> (TempDir, FdStore) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("notify");
        let store = FdStore::start(&path, &path).unwrap();
        (directory, store)
    }

    pub(crate) fn send(path: &Path, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(path).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(&socket, &text, &mut control, SendFlags::empty()).unwrap();
    }

    /// Waits until all that was sent before is done, as sd_notify_barrier(3) does.
    pub(crate) fn barrier(path: &Path) {
        let (mut reader, writer): (_, PipeWriter) = io::pipe().unwrap();
        send(path, "BARRIER=1", &[writer.as_fd()]);
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn what_is_sent_is_kept_by_name_and_let_go_by_name() {
        let (_directory, store) = store();
        let (one, two, three) = (socket(), socket(), socket());
        send(&store.path, "FDSTORE=1\nFDNAME=a\nFDPOLL=0\n", &[one.as_fd()]);
        send(&store.path, "FDSTORE=1\nFDNAME=a\n", &[two.as_fd()]);
        send(&store.path, "FDSTORE=1\nFDNAME=b\n", &[three.as_fd()]);
        send(&store.path, "FDSTORE=1\nFDNAME=again\n", &[one.as_fd()]);
        send(&store.path, "READY=1\n", &[socket().as_fd()]);
        barrier(&store.path);
        assert_eq!(store.names(), ["a", "a", "b"]);
        send(&store.path, "FDSTOREREMOVE=1\nFDNAME=a\n", &[]);
        send(&store.path, "FDSTOREREMOVE=1\nFDNAME=unknown\n", &[]);
        barrier(&store.path);
        assert_eq!(store.names(), ["b"]);
        store.clear();
        assert!(store.names().is_empty());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let (_directory, store) = store();
        for number in 0..DESCRIPTORS_MAX + 3 {
            send(&store.path, &format!("FDSTORE=1\nFDNAME={number}\n"), &[socket().as_fd()]);
        }
        barrier(&store.path);
        assert_eq!(store.names().len(), DESCRIPTORS_MAX);
        assert_eq!(store.names().last().map(String::as_str), Some("15"));
    }

    #[test]
    fn a_socket_is_open_as_long_as_it_is_kept() {
        let (_directory, store) = store();
        let kept = socket();
        let address = kept.local_addr().unwrap();
        send(&store.path, "FDSTORE=1\nFDNAME=a\n", &[kept.as_fd()]);
        barrier(&store.path);
        drop(kept);
        assert!(UdpSocket::bind(address).is_err());
        drop(store);
        UdpSocket::bind(address).unwrap();
    }

    #[test]
    fn a_program_gets_what_is_kept_with_its_names_and_its_own_process_id() {
        let (_directory, store) = store();
        let (one, two) = (socket(), socket());
        send(&store.path, "FDSTORE=1\nFDNAME=a\n", &[one.as_fd()]);
        send(&store.path, "FDSTORE=1\nFDNAME=b\n", &[two.as_fd()]);
        barrier(&store.path);
        let script = "test $LISTEN_PID = $$ && test -S /dev/fd/3 && test -S /dev/fd/4 && ! test -e /dev/fd/5 && \
                      echo $LISTEN_FDS $LISTEN_FDNAMES $NOTIFY_SOCKET";
        let mut command = Command::new(AS_MAIN_PROCESS[0]);
        command.args(&AS_MAIN_PROCESS[1..]).args(["sh", "-c", script]).stdin(Stdio::null());
        store.equip(&mut command).unwrap();
        let output = command.output().unwrap();
        let expected = format!("2 a:b {}\n", store.path.display());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    }
}
