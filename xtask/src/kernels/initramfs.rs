//! The file system of a guest: a cpio archive as the kernel unpacks it at its start (`newc`, see cpio(5) and the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// A file tree in memory; paths have no leading slash.
#[derive(Default)]
pub(super) struct Initramfs {
    nodes: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Initramfs {
    /// Adds an empty directory.
    pub(super) fn add_directory(&mut self, path: &str) {
        self.insert(Path::new(path), DIRECTORY, Vec::new());
    }

    /// Adds a file that all may read and run.
    pub(super) fn add_file(&mut self, path: &str, content: Vec<u8>) {
        self.insert(Path::new(path), EXECUTABLE, content);
    }

    /// Adds a symbolic link.
    pub(super) fn add_link(&mut self, path: &str, target: &str) {
        self.insert(Path::new(path), SYMLINK, target.as_bytes().to_vec());
    }

    /// Adds a program of this machine under another path, and the shared libraries that it is linked with under their own.
    pub(super) fn add_program(&mut self, path: &str, program: &Path) -> Result<()> {
        let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        self.add_file(path, read(program)?);
        let listed = process::capture(Command::new("ldd").arg(program))?;
        for library in
            libraries(&listed).with_context(|| format!("{} cannot be taken along", program.display()))?
        {
            let inside = library.strip_prefix("/").context("a library without an absolute path")?;
            if !self.nodes.contains_key(inside) {
                self.insert(inside, EXECUTABLE, read(&library)?);
            }
        }
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let write = || {
            let mut out = BufWriter::new(File::create(file)?);
            self.write_to(&mut out)?;
            out.flush()
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    fn insert(&mut self, path: &Path, mode: u32, content: Vec<u8>) {
        for parent in path.ancestors().skip(1).filter(|parent| *parent != Path::new("")) {
            self.nodes.entry(parent.to_path_buf()).or_insert((DIRECTORY, Vec::new()));
        }
        self.nodes.insert(path.to_path_buf(), (mode, content));
    }

    /// Sorted, so that a directory comes before what is in it.
    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, (path, (mode, content))) in (1..).zip(&self.nodes) {
            write_node(out, number, &path.to_string_lossy(), *mode, content)?;
        }
        write_node(out, 0, "TRAILER!!!", 0, &[])
    }
}

fn write_node(out: &mut impl Write, number: usize, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let (name_bytes, content_bytes) = (name.len() + 1, content.len());
    // Inode, mode, owner, group, links, time, size, the device's and the node's own numbers, the name's length, no sum.
    write!(out, "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{content_bytes:08x}", 0, 0, 1, 0)?;
    write!(out, "{:08x}{:08x}{:08x}{:08x}{name_bytes:08x}{:08x}", 0, 0, 0, 0, 0)?;
    out.write_all(name.as_bytes())?;
    // The header has 110 bytes; name and content are both filled up to a multiple of four.
    out.write_all(&[0; 4][..1 + padding(110 + name_bytes)])?;
    out.write_all(content)?;
    out.write_all(&[0; 4][..padding(content_bytes)])
}

fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(4) - bytes
}

/// The files that ldd(1) lists, the loader among them.
fn libraries(listed: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for line in listed.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("a library is missing: {line}");
        }
        let file = line.split_once("=> ").map_or(line, |(_, file)| file);
        if file.starts_with('/') {
            found.insert(file.split_whitespace().next().unwrap_or(file).into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn what_a_program_is_linked_with_is_found_with_its_loader_and_without_what_is_no_file() {
        let listed = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x7f)\n";
        let found: Vec<_> = libraries(listed).unwrap().into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld.so.2")]);
        assert!(libraries("\tlibx.so => not found\n").is_err());
        assert!(libraries("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn an_archive_has_parents_first_and_all_its_parts_at_multiples_of_four() {
        let mut tree = Initramfs::default();
        tree.add_file("bin/tool", b"12345".to_vec());
        tree.add_link("bin/sh", "tool");
        let mut archive = Vec::new();
        tree.write_to(&mut archive).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let names: Vec<_> = ["bin\0", "bin/sh\0", "bin/tool\0", "TRAILER!!!\0"]
            .map(|name| archive.windows(name.len()).position(|window| window == name.as_bytes()).unwrap())
            .to_vec();
        assert!(names.is_sorted(), "{names:?}");
        for (at, _) in archive.windows(6).enumerate().filter(|(_, window)| *window == b"070701") {
            assert_eq!(at % 4, 0);
        }
        // The size of the file, seventh of the fields of eight digits behind the magic.
        let header = names[2] - 110;
        assert_eq!(&archive[header + 6 + 6 * 8..][..8], b"00000005");
    }
}
