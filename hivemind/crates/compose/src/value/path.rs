//! Paths on the machine that the files are on.

use std::path::{Path, PathBuf};

use crate::{
    print::Out,
    reader::{At, Reader},
    record::Yaml,
};

/// A path on the machine that the files are on: what is relative in a file is seen from the file's project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath(pub PathBuf);

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Yaml for HostPath {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        Some(HostPath(reader.sources.resolve(at.node.file, &text)))
    }

    fn print(&self) -> Out {
        Out::Text(self.0.display().to_string())
    }
}
