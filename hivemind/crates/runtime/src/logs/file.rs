//! A log file and its older generations.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file that has grown to this size becomes the first older generation.
pub(super) const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept, the current one included.
pub(super) const GENERATIONS: usize = 3;

/// The paths of a container's log, newest first, whether they exist or not.
pub(super) fn generations(log_dir: &Path, id: &str) -> Vec<PathBuf> {
    (0..GENERATIONS)
        .map(|age| match age {
            0 => log_dir.join(format!("{id}.log")),
            age => log_dir.join(format!("{id}.log.{age}")),
        })
        .collect()
}

/// The end of a container's log, to which records are added.
pub(super) struct LogFile {
    paths: Vec<PathBuf>,
    file: File,
    size: u64,
    size_max: u64,
}

impl LogFile {
    /// Opens or creates the log. A record that a crash left unfinished is ended, so that it spoils no other.
    pub(super) fn open(log_dir: &Path, id: &str, size_max: u64) -> io::Result<Self> {
        let paths = generations(log_dir, id);
        let (file, size) = open_end(&paths[0])?;
        Ok(Self { paths, file, size, size_max })
    }

    /// Adds whole records, in one write.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + records.len() as u64 > self.size_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(records) {
            // What a full disk took of it would spoil the next record.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..self.paths.len()).rev() {
            match fs::rename(&self.paths[age - 1], &self.paths[age]) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        (self.file, self.size) = open_end(&self.paths[0])?;
        Ok(())
    }
}

fn open_end(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), "c", 10).unwrap();
        for record in ["aaaaaa\n", "bbbbbb\n", "cccccc\n", "dddddd\n"] {
            log.append(record.as_bytes()).unwrap();
        }
        let held: Vec<String> =
            generations(dir.path(), "c").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(held, ["dddddd\n", "cccccc\n", "bbbbbb\n"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), GENERATIONS);
    }

    #[test]
    fn a_record_cut_off_by_a_crash_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c.log"), "whole\nhal").unwrap();
        LogFile::open(dir.path(), "c", 100).unwrap().append(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("c.log")).unwrap(), "whole\nhal\nnext\n");
    }
}
