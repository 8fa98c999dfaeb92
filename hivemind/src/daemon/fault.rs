//! What keeps a daemon from starting, in words.

use std::{io, path::Path};

use hivemind_model::{ApiError, ErrorCode};

/// A file, directory or socket of the daemon could not be used.
pub(crate) fn file(what: &str, error: &io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ApiError::new(
            ErrorCode::DiskFull,
            format!("{what}: {error}"),
            "make room, or use another directory with --data-dir",
        ),
        io::ErrorKind::PermissionDenied => {
            ApiError::new(ErrorCode::Privileges, format!("{what}: {error}"), "run the daemon as root")
        }
        io::ErrorKind::AddrInUse => ApiError::new(
            ErrorCode::AddressInUse,
            format!("{what}: {error}"),
            "another process uses it; choose another with a flag",
        ),
        _ => ApiError::new(
            ErrorCode::FileFailed,
            format!("{what}: {error}"),
            "see `hivemind daemon --help` for the flags that name files",
        ),
    }
}

/// The store could not be opened.
pub(crate) fn store(error: &hivemind_store::Error, path: &Path) -> ApiError {
    match error {
        hivemind_store::Error::Locked => ApiError::new(
            ErrorCode::DataDirLocked,
            format!("another daemon uses the data directory {}", path.display()),
            "stop it first, or give this one its own --data-dir, --run-dir, --bpffs and ranges",
        ),
        hivemind_store::Error::DiskFull { .. } => ApiError::new(
            ErrorCode::DiskFull,
            format!("the disk that holds {} is full", path.display()),
            "make room, or use another directory with --data-dir",
        ),
        other => ApiError::new(
            ErrorCode::StoreFailed,
            format!("the store in {} cannot be opened: {other}", path.display()),
            "the message says why; a backup can be put back in its place",
        ),
    }
}
