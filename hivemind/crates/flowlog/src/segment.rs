//! Segments: their names, and what stands at their beginning.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use crate::block::fill;

/// What a segment begins with, then the version (u16, little endian).
const MAGIC: &[u8; 6] = b"HMFLOW";
const VERSION: u16 = 1;

pub(crate) const HEADER_BYTES: usize = 8;

pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let [low, high] = VERSION.to_le_bytes();
    let [a, b, c, d, e, f] = *MAGIC;
    [a, b, c, d, e, f, low, high]
}

/// Whether this is the beginning of a segment that can be read.
pub(crate) fn check_header(from: &mut impl io::Read) -> io::Result<bool> {
    let mut found = [0; HEADER_BYTES];
    Ok(fill(from, &mut found)? == HEADER_BYTES && found == header())
}

pub(crate) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.flows"))
}

/// The numbers of a directory's segments, in order. Other files are not ours.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in directory.read_dir()? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".flows"));
        numbers
            .extend(number.filter(|number| number.len() == 20).and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a segment for reading; `None` if it went meanwhile.
pub(crate) fn open(directory: &Path, number: u64) -> io::Result<Option<BufReader<File>>> {
    match File::open(path(directory, number)) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
