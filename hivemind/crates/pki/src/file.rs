//! Files that are there whole or not at all.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::Error;

/// Writes a file whole or not at all, and onto the disk.
///
/// # Errors
/// [`Error::File`].
pub fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let write = || {
        let half_made = path.with_extension("new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&half_made)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half_made, path)?;
        match path.parent() {
            Some(directory) => fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| Error::File { path: path.into(), action: "written", source })
}

/// Makes a directory that others may pass through but not list.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|source| Error::File { path: path.into(), action: "made", source })
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), action: "read", source })
}
