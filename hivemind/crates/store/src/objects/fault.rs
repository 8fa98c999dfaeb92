//! The store's errors as users see them.

use hivemind_model::{ApiError, ErrorCode};

use super::object::Object;
use crate::Error;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (code, hint) = match &error {
            Error::DiskFull { .. } => {
                (ErrorCode::DiskFull, "free some space on the disk of the data directory and try again")
            }
            Error::Compacted { .. } | Error::FutureRevision { .. } => {
                (ErrorCode::Stale, "list again and continue from the list's resourceVersion")
            }
            Error::ValueTooLarge { .. } => (ErrorCode::OutOfRange, "make the object smaller than 1 MiB"),
            Error::TooManyOps { .. } | Error::TooManyKeys => {
                (ErrorCode::OutOfRange, "ask for less in one request")
            }
            Error::InvalidKey { .. } => (ErrorCode::InvalidName, "use a shorter name"),
            Error::Locked => {
                (ErrorCode::DataDirLocked, "stop the other daemon, or give this one a --data-dir")
            }
            Error::OutcomeUnknown { .. } => {
                (ErrorCode::StoreFailed, "the write may have happened: look before trying again")
            }
            Error::Closed => (ErrorCode::StoreFailed, "the daemon is stopping: try again once it runs"),
            Error::Io { .. } => {
                (ErrorCode::StoreFailed, "look at the daemon's log and at the disk of the data directory")
            }
            Error::Corrupted { .. } | Error::Malformed { .. } => {
                (ErrorCode::StoreFailed, "restore the data directory from a backup")
            }
            Error::DuplicateKey { .. }
            | Error::InvalidTtl { .. }
            | Error::LeaseNotFound { .. }
            | Error::TooManyLeases => (ErrorCode::Internal, ""),
        };
        ApiError::new(code, error.to_string(), hint)
    }
}

/// There is no such object.
pub(super) fn not_found<T: Object>(namespace: &str, word: &str) -> ApiError {
    let kind = T::ID_PREFIX;
    let (place, all) =
        if T::NAMESPACED { (format!(" in namespace {namespace:?}"), " -A") } else { (String::new(), "") };
    let what = format!("no {kind} named {word:?}{place}");
    ApiError::new(T::NOT_FOUND, what, format!("`hivemind {kind} ls{all}` shows all that there are"))
}

/// An object changed since it was read.
pub(super) fn stale(kind: &str, name: &str) -> ApiError {
    let what = format!("{} {name} was changed by somebody else", kind.to_ascii_lowercase());
    ApiError::new(ErrorCode::Stale, what, "read it again and repeat the change")
}
