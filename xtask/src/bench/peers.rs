//! The programs that benches compare with and nothing else needs: unpacked, not installed, since installing them would
//! enable services.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::debian::PackageSource;
use crate::process;
use crate::workspace::Workspace;

/// unbound, and those of its libraries that few machines have.
const UNBOUND: [&str; 4] = ["unbound", "libprotobuf-c1", "libevent-2.1-7", "libpython3.11"];

/// Where unbound's program is, fetched first if it is not there.
pub(super) fn unbound(workspace: &Workspace) -> Result<PathBuf> {
    let unpacked = workspace.tools().join("unbound");
    let program = unpacked.join("usr/sbin/unbound");
    if program.is_file() {
        return Ok(program);
    }
    let scratch = workspace.tools().join("unbound-download");
    let source = PackageSource::open(&scratch.join("apt"), &["bookworm"])?;
    for package in source.download(&UNBOUND, &scratch.join("packages"))? {
        process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    }
    fs::remove_dir_all(&scratch)?;
    ensure!(program.is_file(), "the package unbound does not hold its program");
    Ok(program)
}
