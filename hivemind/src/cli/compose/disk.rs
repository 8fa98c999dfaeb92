//! The files of a project.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use hivemind_compose::{FileError, Files};

/// The files of this machine.
pub(super) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FileError::Missing),
            Err(error) => Err(FileError::Unreadable(error.to_string())),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.is_file()
    }
}
