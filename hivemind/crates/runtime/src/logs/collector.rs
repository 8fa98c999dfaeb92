//! The collector: one thread, one poll(2) over a socket for requests and two pipes a container.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    CollectorPaths, LogError,
    file::{FILE_BYTES_MAX, LogFile},
    line::{LineSplitter, Record},
};
use crate::ContainerId;

const STREAMS: [&str; 2] = ["stdout", "stderr"];
const READ_BYTES: usize = 64 << 10;
/// How much of one pipe is read before the others get their turn, and at most when it is closed.
const READS_PER_TURN: usize = 4;
const READS_TO_DRAIN: usize = 64;
const REQUEST_BYTES_MAX: usize = 256;
const CLIENTS_MAX: usize = 256;
/// How often it is looked whether the socket is still the collector's own.
const CHECK_INTERVAL_MS: u16 = 2000;

/// The collector process. Takes the arguments after [`super::COLLECTOR_COMMAND`] and returns when it is told to shut
/// down, when its socket's file is gone, or at once if another collector serves the same socket.
///
/// Call it before anything else in the process has started threads or opened files: it is to stay small.
///
/// # Errors
/// [`LogError::Refused`] for wrong arguments, [`LogError::Io`] if socket or directories cannot be used.
pub fn collector_main(arguments: impl IntoIterator<Item = OsString>) -> Result<(), LogError> {
    let paths = CollectorPaths::from_arguments(arguments)?;
    let lock_path = paths.socket.with_extension("lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock_path);
    let lock = lock.map_err(|error| LogError::io(format!("open {}", lock_path.display()), error))?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    let mut collector = Collector::start(paths)?;
    while collector.turn().map_err(|error| LogError::io("wait for output", error))? {}
    collector.finish();
    Ok(())
}

struct Collector {
    paths: CollectorPaths,
    listener: UnixListener,
    socket_inode: u64,
    clients: Vec<Client>,
    sources: BTreeMap<ContainerId, Source>,
    buffer: Vec<u8>,
    shutdown: bool,
}

/// A connection with the request that is arriving on it.
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    closed: bool,
}

/// A container's pipes, and the file into which they flow.
struct Source {
    pipes: [Option<Pipe>; 2],
    log: LogFile,
    records: Vec<u8>,
    lost_bytes: u64,
}

struct Pipe {
    file: File,
    lines: LineSplitter,
}

impl Collector {
    fn start(paths: CollectorPaths) -> Result<Self, LogError> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| LogError::io(format!("use {path}"), error)
        };
        fs::create_dir_all(&paths.pipe_dir).map_err(at(&paths.pipe_dir))?;
        fs::create_dir_all(&paths.log_dir).map_err(at(&paths.log_dir))?;
        let sources = find_sources(&paths);
        super::remove(&paths.socket)?;
        let listener = UnixListener::bind(&paths.socket).map_err(at(&paths.socket))?;
        fs::set_permissions(&paths.socket, fs::Permissions::from_mode(0o600)).map_err(at(&paths.socket))?;
        listener.set_nonblocking(true).map_err(at(&paths.socket))?;
        let socket_inode = fs::metadata(&paths.socket).map_err(at(&paths.socket))?.ino();
        let buffer = vec![0; READ_BYTES];
        Ok(Self { paths, listener, socket_inode, clients: Vec::new(), sources, buffer, shutdown: false })
    }

    /// Waits for something to do and does it. False when there is nothing more to be done.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(ready) = self.wait()? else {
            return Ok(fs::metadata(&self.paths.socket).is_ok_and(|file| file.ino() == self.socket_inode));
        };
        // Output first, so that a request finds the files up to date.
        let Self { sources, buffer, .. } = self;
        for (index, source) in sources.values_mut().enumerate() {
            for stream in 0..STREAMS.len() {
                if ready.pipes[index][stream] {
                    source.read(stream, READS_PER_TURN, buffer);
                }
            }
        }
        sources.retain(|_, source| source.pipes.iter().any(Option::is_some));
        for index in 0..ready.clients.len() {
            if ready.clients[index] {
                self.serve(index);
            }
        }
        self.clients.retain(|client| !client.closed);
        if ready.listener && self.clients.len() < CLIENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.clients.push(Client { stream, request: Vec::new(), closed: false });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!self.shutdown)
    }

    /// Which descriptors have something; `None` after a while without any.
    fn wait(&self) -> io::Result<Option<Ready>> {
        let pipes = self.sources.values().flat_map(|source| source.pipes.iter().flatten());
        let mut polled: Vec<PollFd> = [self.listener.as_fd()]
            .into_iter()
            .chain(self.clients.iter().map(|client| client.stream.as_fd()))
            .chain(pipes.map(|pipe| pipe.file.as_fd()))
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, PollTimeout::from(CHECK_INTERVAL_MS)) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = polled.iter().map(|entry| entry.any().unwrap_or(true));
        let mut next = || ready.next().unwrap_or(false);
        let listener = next();
        let clients = self.clients.iter().map(|_| next()).collect();
        let pipes =
            self.sources.values().map(|source| source.pipes.each_ref().map(|pipe| pipe.is_some() && next()));
        let pipes = pipes.collect();
        Ok(Some(Ready { listener, clients, pipes }))
    }

    fn serve(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let mut chunk = [0; REQUEST_BYTES_MAX];
        match client.stream.read(&mut chunk) {
            Ok(length) if length > 0 => client.request.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => {
                client.closed = true;
                return;
            }
        }
        let Some(end) = client.request.iter().position(|&byte| byte == b'\n') else {
            client.closed = client.request.len() > REQUEST_BYTES_MAX;
            return;
        };
        let request = String::from_utf8_lossy(&client.request[..end]).into_owned();
        client.request.drain(..=end);
        let answer = match self.obey(&request) {
            Ok(()) => "ok\n".to_owned(),
            Err(reason) => format!("{}\n", reason.replace('\n', " ")),
        };
        let client = &mut self.clients[index];
        client.closed |= client.stream.write_all(answer.as_bytes()).is_err();
    }

    fn obey(&mut self, request: &str) -> Result<(), String> {
        let (verb, id) = request.split_once(' ').unwrap_or((request, ""));
        match verb {
            "ping" => return Ok(()),
            "shutdown" => {
                self.shutdown = true;
                return Ok(());
            }
            _ => {}
        }
        let id: ContainerId = id.parse().map_err(|_| format!("{id:?} is no container id"))?;
        if let Some(mut source) = self.sources.remove(&id) {
            source.close(&mut self.buffer);
        }
        match verb {
            "attach" => {
                let source = Source::open(&self.paths, &id).map_err(|error| error.to_string())?;
                self.sources.insert(id, source);
                Ok(())
            }
            "detach" => Ok(()),
            _ => Err(format!("{verb:?} is no request")),
        }
    }

    /// Writes what is in the pipes now. They stay, for the next collector.
    fn finish(mut self) {
        for source in self.sources.values_mut() {
            source.close(&mut self.buffer);
        }
        let own = fs::metadata(&self.paths.socket).is_ok_and(|file| file.ino() == self.socket_inode);
        if own {
            let _ = fs::remove_file(&self.paths.socket);
        }
    }
}

struct Ready {
    listener: bool,
    clients: Vec<bool>,
    pipes: Vec<[bool; 2]>,
}

/// Containers that were attached to a collector before this one.
fn find_sources(paths: &CollectorPaths) -> BTreeMap<ContainerId, Source> {
    let names = fs::read_dir(&paths.pipe_dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let ids = names.filter_map(|name| name.to_str()?.rsplit_once('.')?.0.parse::<ContainerId>().ok());
    ids.filter_map(|id| Source::open(paths, &id).ok().map(|source| (id, source))).collect()
}

impl Source {
    fn open(paths: &CollectorPaths, id: &ContainerId) -> io::Result<Self> {
        let log = LogFile::open(&paths.log_dir, id.as_str(), FILE_BYTES_MAX)?;
        let open = |stream: &str| open_pipe(&paths.pipe_dir.join(format!("{id}.{stream}")));
        let pipes = [Some(open(STREAMS[0])?), Some(open(STREAMS[1])?)];
        Ok(Self { pipes, log, records: Vec::new(), lost_bytes: 0 })
    }

    /// Reads from a pipe what is there, at most `reads` times, and closes it when its last writer is gone.
    fn read(&mut self, stream: usize, reads: usize, buffer: &mut [u8]) {
        for _ in 0..reads {
            let Some(pipe) = &mut self.pipes[stream] else { return };
            match pipe.file.read(buffer) {
                Ok(0) => return self.end(stream),
                Ok(length) => {
                    let (time, records) = (Timestamp::now(), &mut self.records);
                    pipe.lines.feed(&buffer[..length], |line, partial| {
                        push_record(records, time, stream, line, partial);
                    });
                    self.flush();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.end(stream),
            }
        }
    }

    fn end(&mut self, stream: usize) {
        if let Some(mut pipe) = self.pipes[stream].take() {
            let records = &mut self.records;
            pipe.lines.finish(|line| push_record(records, Timestamp::now(), stream, line, false));
            self.flush();
        }
    }

    fn close(&mut self, buffer: &mut [u8]) {
        for stream in 0..STREAMS.len() {
            self.read(stream, READS_TO_DRAIN, buffer);
            self.end(stream);
        }
    }

    /// Writes the records. What a full disk does not take is dropped and counted, since containers must not wait for
    /// a disk; a record tells of the gap once there is room again.
    fn flush(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.records);
        let result = if self.lost_bytes == 0 {
            self.log.append(&records)
        } else {
            let notice =
                format!("hivemind: {} bytes of output were lost: the disk was full", self.lost_bytes);
            let mut noticed = Vec::new();
            push_record(&mut noticed, Timestamp::now(), 1, notice.as_bytes(), false);
            noticed.extend_from_slice(&records);
            self.log.append(&noticed)
        };
        match result {
            Ok(()) => self.lost_bytes = 0,
            Err(_) => self.lost_bytes += records.len() as u64,
        }
        // The buffer is used again unless it has grown for an unusual burst.
        if records.capacity() <= 4 * READ_BYTES {
            self.records = records;
            self.records.clear();
        }
    }
}

fn open_pipe(path: &PathBuf) -> io::Result<Pipe> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("not a pipe"));
    }
    Ok(Pipe { file, lines: LineSplitter::default() })
}

fn push_record(records: &mut Vec<u8>, time: Timestamp, stream: usize, line: &[u8], partial: bool) {
    let message = String::from_utf8_lossy(line);
    let record = Record { time, stream: STREAMS[stream].into(), message, partial };
    serde_json::to_writer(&mut *records, &record).expect("a record is always JSON, and memory takes it");
    records.push(b'\n');
}
