//! Debian's docker-registry, unpacked and not installed: installing it would enable a service on port 5000.

use std::fs;

use anyhow::{Context, Result};

use crate::debian::PackageSource;
use crate::process;
use crate::workspace::Workspace;

const PROGRAM: &str = "docker-registry";

pub(super) fn is_present(workspace: &Workspace) -> bool {
    workspace.find_program(PROGRAM).is_some()
}

pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let scratch = workspace.tools().join("registry-download");
    let source = PackageSource::open(&scratch.join("apt"), &["bookworm"])?;
    let packages = source.download(&[PROGRAM], &scratch.join("packages"))?;
    let unpacked = scratch.join("unpacked");
    for package in packages {
        process::run(std::process::Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    }
    let programs = workspace.tools().join("bin");
    fs::create_dir_all(&programs)?;
    fs::rename(unpacked.join("usr/bin").join(PROGRAM), programs.join(PROGRAM))
        .context("the package docker-registry does not hold its program")?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}
