//! The tarball: the program, the files that a service needs, and an installer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder, write::GzEncoder};

use super::Release;

/// Writes `NAME.tar.gz` with everything below a directory `NAME`.
pub(super) fn pack(release: &Release, directory: &Path) -> Result<PathBuf> {
    let file = directory.join(format!("{}.tar.gz", release.name()));
    let encoder = GzBuilder::new().mtime(0).write(File::create(&file)?, Compression::best());
    let mut tarball = Tarball { builder: tar::Builder::new(encoder), release };
    tarball.add_file("hivemind", &release.program, 0o755)?;
    for (name, mode) in [("install.sh", 0o755), ("hivemind.service", 0o644), ("config.toml", 0o644)] {
        tarball.add_file(name, &release.packaging.join(name), mode)?;
    }
    for name in super::PROMETHEUS {
        let name = format!("prometheus/{name}");
        tarball.add_file(&name, &release.packaging.join(&name), 0o644)?;
    }
    for document in &release.documents {
        let name = document.file_name().context("a document without a name")?.to_string_lossy();
        tarball.add_file(&name, document, 0o644)?;
    }
    for (shell, text) in &release.completions {
        tarball.add(&format!("completions/hivemind.{shell}"), text.as_bytes(), 0o644)?;
    }
    tarball.builder.into_inner()?.finish()?.sync_all()?;
    Ok(file)
}

struct Tarball<'a> {
    builder: tar::Builder<GzEncoder<File>>,
    release: &'a Release,
}

impl Tarball<'_> {
    fn add_file(&mut self, name: &str, from: &Path, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(name, &content, mode)
    }

    fn add(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(self.release.timestamp);
        header.set_size(content.len() as u64);
        let path = format!("{}/{name}", self.release.name());
        Ok(self.builder.append_data(&mut header, path, content)?)
    }
}
