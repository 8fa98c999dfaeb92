//! Debian packages that are unpacked and not installed: installing them would enable services of theirs, or change what the
//! machine's own programs find.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::PackageSource;
use crate::process;
use crate::workspace::Workspace;

/// A Debian package of which only programs are taken, into `target/tools/bin`, and modules of Python, into
/// `target/tools/python`.
pub(super) struct UnpackedPackage {
    /// Debian's name for it.
    pub(super) name: &'static str,
    /// What it is for, in a few words.
    pub(super) purpose: &'static str,
    programs: &'static [&'static str],
    modules: &'static [&'static str],
}

impl UnpackedPackage {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [
        Self {
            name: "docker-registry",
            purpose: "serves images to the tests",
            programs: &["docker-registry"],
            modules: &[],
        },
        Self {
            name: "prometheus",
            purpose: "scrapes the daemon in tests",
            programs: &["prometheus", "promtool"],
            modules: &[],
        },
        Self {
            name: "python3-prometheus-client",
            purpose: "reads scrapes in tests",
            programs: &[],
            modules: &["prometheus_client"],
        },
        Self {
            name: "python3-decorator",
            purpose: "is needed by the one before",
            programs: &[],
            modules: &["decorator.py"],
        },
    ];

    pub(super) fn is_present(&self, workspace: &Workspace) -> bool {
        self.programs.iter().all(|program| workspace.find_program(program).is_some())
            && self.modules.iter().all(|module| workspace.tools().join("python").join(module).exists())
    }

    pub(super) fn install(&self, workspace: &Workspace) -> Result<()> {
        let scratch = workspace.tools().join(format!("{}-download", self.name));
        let source = PackageSource::open(&scratch.join("apt"), &["bookworm"])?;
        let packages = source.download(&[self.name], &scratch.join("packages"))?;
        let unpacked = scratch.join("unpacked");
        for package in packages {
            process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
        }
        self.take(self.programs, &unpacked.join("usr/bin"), &workspace.tools().join("bin"))?;
        self.take(
            self.modules,
            &unpacked.join("usr/lib/python3/dist-packages"),
            &workspace.tools().join("python"),
        )?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }

    fn take(&self, names: &[&str], from: &Path, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for name in names {
            fs::rename(from.join(name), to.join(name))
                .with_context(|| format!("the package {} does not hold {name}", self.name))?;
        }
        Ok(())
    }
}
