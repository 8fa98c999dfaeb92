//! `cargo xtask dist`: packs a release into `dist/`: a tarball with an installer, and a Debian package.
//!
//! What both hold comes from `packaging/`; the program is built with cargo's release profile. `--check` installs the
//! package in a bare Debian 12 and runs an app there.

mod deb;
mod glibc;
mod tarball;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{ebpf, images, process, setup, test, ui};

/// The shells that the program writes completions for.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Rules and alerts for Prometheus, in `packaging/prometheus`.
const PROMETHEUS: [&str; 3] = ["rules.yaml", "alerts.yaml", "tests.yaml"];

/// How long installing and trying the package may take.
const CHECK_LIMIT: Duration = Duration::from_secs(20 * 60);

/// What goes into a release.
struct Release {
    version: String,
    /// The program.
    program: PathBuf,
    /// Shells and their completions; empty if the program writes none.
    completions: Vec<(&'static str, String)>,
    /// Files of the checkout that both packages carry, licences first.
    documents: Vec<PathBuf>,
    /// `packaging/`.
    packaging: PathBuf,
    /// The time of everything packed, in seconds since 1970: that of the last commit.
    timestamp: u64,
}

/// What was packed.
pub(crate) struct Packages {
    /// The Debian package.
    pub(crate) deb: PathBuf,
}

/// Builds the program and packs it.
pub(crate) fn build(workspace: &Workspace) -> Result<Packages> {
    setup::install(workspace)?;
    ebpf::build(workspace)?;
    ui::build(workspace)?;
    process::run(workspace.cargo()?.args(["build", "--release", "--locked", "--package", "hivemind"]))?;
    let release = Release::of(workspace)?;
    let directory = workspace.root().join("dist");
    fs::create_dir_all(&directory)?;

    let tarball = tarball::pack(&release, &directory)?;
    let deb = deb::pack(workspace, &release, &directory)?;
    for file in [&tarball, &deb] {
        println!("{} ({} kB)", file.display(), fs::metadata(file)?.len() / 1000);
    }
    Ok(Packages { deb })
}

/// Packs a release, installs it in a bare Debian 12 and runs an app there.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let packages = build(workspace)?;
    images::build(workspace)?;
    let mut cargo = workspace.cargo()?;
    cargo
        // Of the whole workspace, as all other tests: what it has in common with them is built already.
        .args(["nextest", "run", "--workspace", "--filterset", "binary(dist)", "--ignore-default-filter"])
        .env("HIVEMIND_DEB", packages.deb)
        .env("HIVEMIND_DEBIAN_MIRROR", crate::debian::mirror("debian"));
    test::run_tests_as_root(&mut cargo)?;
    process::run_within(&mut cargo, CHECK_LIMIT)
}

impl Release {
    fn of(workspace: &Workspace) -> Result<Self> {
        let program = workspace.cargo_target().join("release/hivemind");
        if !program.is_file() {
            bail!("{} was not built", program.display());
        }
        let root = workspace.root();
        let documents = ["LICENSE-MIT", "LICENSE-APACHE", "README.md", "CHANGELOG.md"];
        let documents = documents.iter().map(|name| root.join(name)).filter(|file| file.is_file()).collect();
        Ok(Self {
            version: workspace.version()?,
            completions: completions(&program)?,
            program,
            documents,
            packaging: root.join("packaging"),
            timestamp: timestamp(root),
        })
    }

    /// The name of a release, as people say it, with the machine's own name of its architecture.
    fn name(&self) -> String {
        format!("hivemind-{}-{}", self.version, env::consts::ARCH)
    }
}

/// What `hivemind completions SHELL` prints, for a program that has the command.
fn completions(program: &Path) -> Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for shell in SHELLS {
        let output = Command::new(program).args(["completions", shell]).stdin(Stdio::null()).output();
        let output = output.context("the program that was built does not start")?;
        if output.status.success() && !output.stdout.is_empty() {
            all.push((shell, String::from_utf8(output.stdout).context("completions that are no text")?));
        } else {
            println!("no {shell} completions: `hivemind completions {shell}` prints none");
        }
    }
    Ok(all)
}

fn timestamp(root: &Path) -> u64 {
    let mut git = Command::new("git");
    git.current_dir(root).args(["log", "-1", "--format=%ct"]).stderr(Stdio::null());
    process::capture(&mut git).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}
