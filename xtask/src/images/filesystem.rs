//! A file tree in memory, merged from Debian packages and files of our own, and written out as one image layer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

use crate::{debian, process};

/// Parts of packages that no program reads at run time, and what only Debian's own service scripts read.
const LEFT_OUT: [&str; 13] = [
    "etc/cron.daily",
    "etc/default",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/ufw",
    "lib/systemd",
    "usr/lib/systemd",
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
];

/// A file tree; paths have no leading slash.
#[derive(Default)]
pub(super) struct Filesystem {
    nodes: BTreeMap<PathBuf, Node>,
}

struct Node {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
}

enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(PathBuf),
}

impl Filesystem {
    /// Adds all that a Debian package installs, owners and modes included.
    pub(super) fn add_package(&mut self, package: &Path) -> Result<()> {
        let mut dpkg = debian::contents(package).stdout(Stdio::piped()).spawn()?;
        let output = dpkg.stdout.take().context("dpkg-deb has no output")?;
        let mut archive = tar::Archive::new(BufReader::new(output));
        for entry in archive.entries()? {
            self.add_entry(&mut entry?)?;
        }
        // A tar ends before its padding does; dpkg-deb must be able to write all of it.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
        if !dpkg.wait()?.success() {
            bail!("dpkg-deb failed");
        }
        Ok(())
    }

    /// Adds a file of root's that all may read.
    pub(super) fn add_file(&mut self, path: &str, content: &[u8]) {
        self.insert(path.into(), Node { kind: Kind::File(content.to_vec()), mode: 0o644, owner: (0, 0) });
    }

    /// Adds a directory of root's.
    pub(super) fn add_directory(&mut self, path: &str, mode: u32) {
        self.insert(path.into(), Node { kind: Kind::Directory, mode, owner: (0, 0) });
    }

    /// Adds `/bin/NAME` for everything that the tree's busybox can do and that is not there yet.
    pub(super) fn add_busybox_applets(&mut self, scratch: &Path) -> Result<()> {
        let Some(Node { kind: Kind::File(program), .. }) = self.nodes.get(Path::new("bin/busybox")) else {
            bail!("no package holds bin/busybox");
        };
        let busybox = scratch.join("busybox");
        fs::write(&busybox, program)?;
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))?;
        let applets = process::capture(Command::new(&busybox).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            let path = Path::new("bin").join(applet);
            if !self.nodes.contains_key(&path) {
                let kind = Kind::Symlink("/bin/busybox".into());
                self.insert(path, Node { kind, mode: 0o777, owner: (0, 0) });
            }
        }
        Ok(())
    }

    /// The tree as an uncompressed tar: sorted, every time zero.
    pub(super) fn into_layer(self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, node) in self.nodes {
            let mut header = Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.owner.0);
            header.set_gid(node.owner.1);
            header.set_mtime(0);
            header.set_size(0);
            match node.kind {
                Kind::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    builder.append_data(&mut header, path, std::io::empty())?;
                }
                Kind::File(content) => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, content.as_slice())?;
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }

    fn add_entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let path = normal(&entry.path()?)?;
        if path == Path::new("") || LEFT_OUT.iter().any(|left_out| path.starts_with(left_out)) {
            return Ok(());
        }
        let header = entry.header();
        let (mode, owner) = (header.mode()? & 0o7777, (header.uid()?, header.gid()?));
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link_target(entry)?),
            EntryType::Link => self.copy_of(&normal(&link_target(entry)?)?)?,
            EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Kind::File(content)
            }
            other => bail!("{} is of a kind that no image needs: {other:?}", path.display()),
        };
        self.insert(path, Node { kind, mode, owner });
        Ok(())
    }

    /// What a hard link stands for; packages name the file before its links.
    fn copy_of(&self, path: &Path) -> Result<Kind> {
        match self.nodes.get(path) {
            Some(Node { kind: Kind::File(content), .. }) => Ok(Kind::File(content.clone())),
            _ => bail!("a hard link to {}, which is no file of the package", path.display()),
        }
    }

    fn insert(&mut self, path: PathBuf, node: Node) {
        for parent in path.ancestors().skip(1).filter(|parent| *parent != Path::new("")) {
            let directory = || Node { kind: Kind::Directory, mode: 0o755, owner: (0, 0) };
            self.nodes.entry(parent.to_path_buf()).or_insert_with(directory);
        }
        self.nodes.insert(path, node);
    }
}

fn link_target(entry: &tar::Entry<'_, impl Read>) -> Result<PathBuf> {
    Ok(entry.link_name()?.context("a link without a target")?.into_owned())
}

/// The path without `./`; a path that leaves the tree is an error.
fn normal(path: &Path) -> Result<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("{} leaves the package", path.display()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_sorted_timeless_and_has_every_parent() {
        let mut filesystem = Filesystem::default();
        filesystem.add_file("z/y/x", b"content");
        filesystem.add_directory("tmp", 0o1777);
        let layer = filesystem.into_layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            seen.push((entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()));
        }
        let names: Vec<_> = seen.iter().map(|(name, _)| name.trim_end_matches('/')).collect();
        assert_eq!(names, ["tmp", "z", "z/y", "z/y/x"]);
        assert_eq!(seen[0].1, 0o1777);
    }

    #[test]
    fn a_path_that_leaves_the_tree_is_refused() {
        assert_eq!(normal(Path::new("./usr/bin")).unwrap(), Path::new("usr/bin"));
        assert!(normal(Path::new("../etc/passwd")).is_err());
    }
}
