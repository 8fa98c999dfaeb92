//! Debian packages that are unpacked and not installed: installing them would enable services of theirs.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::PackageSource;
use crate::process;
use crate::workspace::Workspace;

/// A Debian package of which only programs are taken, into `target/tools/bin`.
pub(super) struct UnpackedPackage {
    /// Debian's name for it.
    pub(super) name: &'static str,
    /// What it is for, in a few words.
    pub(super) purpose: &'static str,
    programs: &'static [&'static str],
}

impl UnpackedPackage {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [
        Self {
            name: "docker-registry",
            purpose: "serves images to the tests",
            programs: &["docker-registry"],
        },
        Self {
            name: "prometheus",
            purpose: "scrapes the daemon in tests",
            programs: &["prometheus", "promtool"],
        },
    ];

    pub(super) fn is_present(&self, workspace: &Workspace) -> bool {
        self.programs.iter().all(|program| workspace.find_program(program).is_some())
    }

    pub(super) fn install(&self, workspace: &Workspace) -> Result<()> {
        let scratch = workspace.tools().join(format!("{}-download", self.name));
        let source = PackageSource::open(&scratch.join("apt"), &["bookworm"])?;
        let packages = source.download(&[self.name], &scratch.join("packages"))?;
        let unpacked = scratch.join("unpacked");
        for package in packages {
            process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
        }
        let programs = workspace.tools().join("bin");
        fs::create_dir_all(&programs)?;
        for program in self.programs {
            fs::rename(unpacked.join("usr/bin").join(program), programs.join(program))
                .with_context(|| format!("the package {} does not hold {program}", self.name))?;
        }
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }
}
