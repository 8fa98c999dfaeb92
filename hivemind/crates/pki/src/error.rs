//! What can go wrong with certificates.

use std::{io, path::PathBuf};

/// Why a certificate could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate, a key or TLS cannot be made of what there is. Nothing was changed.
    #[error("{0}")]
    Unusable(String),
    /// A signing request is none, or was not made by who has the key. Nothing was signed.
    #[error("the signing request cannot be used: {0}")]
    Request(String),
    /// A file cannot be read or written. One that was to be written is as it was before.
    #[error("{} cannot be {action}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was tried: read, written, made.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file was read and does not hold what it should.
    #[error("{} does not hold {what}: {detail}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
}

impl Error {
    pub(crate) fn unusable(error: impl std::fmt::Display) -> Self {
        Error::Unusable(error.to_string())
    }
}
