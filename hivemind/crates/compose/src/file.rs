//! The files that a reading asks its caller for.

use std::path::Path;

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// It is there and cannot be read; why.
    #[error("{0}")]
    Unreadable(String),
}

/// What the caller knows of files. Paths are absolute if those of the [`crate::Request`] are.
pub trait Files {
    /// The bytes of a file, or at least the first `bytes_max` + 1 of one that is longer.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError>;

    /// Whether there is a file.
    fn exists(&self, path: &Path) -> bool;
}
