//! What can go wrong with containerd and containers.

use std::{io, path::PathBuf, time::Duration};

use hivemind_model::ImageReference;

use crate::{ContainerId, logs::LogError};

/// A failed call of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No containerd answers and none may be started. Nothing was changed; start containerd and connect again.
    #[error("no containerd answers at {socket}")]
    ContainerdUnreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// What connecting to it said.
        source: io::Error,
    },
    /// No containerd answers, and there is no `containerd` program to start. Install it, or name another socket.
    #[error("no containerd answers at {socket}, and there is no program {binary}")]
    BinaryMissing {
        /// The socket that was tried.
        socket: PathBuf,
        /// The program that was looked for.
        binary: PathBuf,
    },
    /// The private containerd was started and did not become ready. It is stopped again; its directories stay.
    #[error("the private containerd did not start: {detail}")]
    StartFailed {
        /// The end of what it logged.
        detail: String,
    },
    /// containerd does not answer at the moment. What was asked for may or may not have happened: list, then
    /// ask again. The connection comes back by itself.
    #[error("containerd is unavailable ({call})")]
    Unavailable {
        /// The call that failed.
        call: &'static str,
        /// What gRPC said.
        source: Box<tonic::Status>,
    },
    /// containerd took too long. As with [`Error::Unavailable`], the outcome is unknown.
    #[error("containerd did not answer {call} within {} s", after.as_secs())]
    TimedOut {
        /// The call that was given up.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no such container, or it has no task. Nothing was changed.
    #[error("no container {id}")]
    NoSuchContainer {
        /// The container asked for.
        id: ContainerId,
    },
    /// A container of that id exists. Nothing was changed; delete it first.
    #[error("a container {id} exists already")]
    ContainerExists {
        /// The container asked for.
        id: ContainerId,
    },
    /// The image is not on this node, or lost its snapshots. Nothing was changed; pull it.
    #[error("image {reference} is not on this node")]
    ImageMissing {
        /// The image asked for.
        reference: ImageReference,
    },
    /// Neither the image nor the container says what to run. Nothing is left behind; give a command.
    #[error("image {reference} has no command and none was given")]
    NoCommand {
        /// The image.
        reference: ImageReference,
    },
    /// The container's command is not in its image. Nothing is left behind; correct the command.
    #[error("command {command:?} was not found in the container: {detail}")]
    CommandNotFound {
        /// The first word of the command.
        command: String,
        /// What runc said.
        detail: String,
    },
    /// The container's command may not be executed. Nothing is left behind; correct the command or its mode.
    #[error("command {command:?} cannot be executed: {detail}")]
    CommandNotExecutable {
        /// The first word of the command.
        command: String,
        /// What runc said.
        detail: String,
    },
    /// The container did not fit its memory limit while it started. Nothing is left behind; raise the limit.
    #[error("a memory limit of {limit_bytes} bytes is too small to start the container: {detail}")]
    MemoryLimitTooSmall {
        /// The limit.
        limit_bytes: u64,
        /// What runc said.
        detail: String,
    },
    /// The user or group is not in the image's `/etc/passwd` or `/etc/group`. Nothing is left behind.
    #[error("the image has no user or group {name:?}")]
    UnknownUser {
        /// The name, as it was given.
        name: String,
    },
    /// The container cannot be made as described. Nothing is left behind; the message says what to change.
    #[error("invalid container: {reason}")]
    InvalidSpec {
        /// What is wrong.
        reason: String,
    },
    /// runc refused the container or the process. Nothing is left behind.
    #[error("runc failed: {detail}")]
    Runc {
        /// What runc said.
        detail: String,
    },
    /// The disk under containerd is full. What was half-written is removed; make room and try again.
    #[error("no space left for containerd ({call})")]
    NoSpace {
        /// The call that failed.
        call: &'static str,
    },
    /// containerd answered with something else. The message is its own.
    #[error("containerd refused {call}: {}", status.message())]
    Call {
        /// The call that failed.
        call: &'static str,
        /// containerd's answer.
        #[source]
        status: Box<tonic::Status>,
    },
    /// containerd holds something that cannot be understood, such as an image's broken configuration. Nothing was
    /// changed; remove it and pull it again.
    #[error("{what} cannot be read")]
    Malformed {
        /// What was being read.
        what: String,
        /// The parser's complaint.
        source: serde_json::Error,
    },
    /// A system call failed beside containerd. Nothing is left behind.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The container's output has nowhere to go. Nothing is left behind.
    #[error(transparent)]
    Logs(#[from] LogError),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    /// Sorts an answer of containerd by what the caller can do about it.
    pub(crate) fn from_status(call: &'static str, status: tonic::Status) -> Self {
        use tonic::Code;
        if status.message().contains("no space left on device") {
            return Self::NoSpace { call };
        }
        match status.code() {
            Code::Unavailable => Self::Unavailable { call, source: Box::new(status) },
            // A connection that breaks during a call surfaces as a transport error of unspecific code.
            Code::Unknown | Code::Cancelled | Code::Internal
                if std::error::Error::source(&status).is_some() =>
            {
                Self::Unavailable { call, source: Box::new(status) }
            }
            _ => Self::Call { call, status: Box::new(status) },
        }
    }

    /// gRPC code of containerd's answer, where there was one.
    pub(crate) fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            Self::Unavailable { source, .. } => Some(source.code()),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.code() == Some(tonic::Code::AlreadyExists)
    }
}

/// Turns "there is none" into success, for calls that remove something.
pub(crate) fn allow_missing<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
