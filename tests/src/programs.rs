//! Where the programs and files that tests need lie, relative to the test that runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The `hivemind` program to test: `HIVEMIND_BIN`, else the one beside the running test in cargo's target directory.
///
/// # Errors
/// When neither is there; says how to build it.
pub fn hivemind_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HIVEMIND_BIN") {
        return Ok(path.into());
    }
    beside("hivemind").context("build it with `cargo build -p hivemind`, or set HIVEMIND_BIN")
}

/// The program that holds a sandbox.
pub(crate) fn holder() -> Result<PathBuf> {
    beside("hivemind-sandbox").context("build it with `cargo build -p hivemind-tests`")
}

/// The program that makes traffic.
pub(crate) fn traffic() -> Result<PathBuf> {
    beside("hivemind-traffic").context("build it with `cargo build -p hivemind-tests`")
}

/// The program that loads a network with connections, and answers them.
pub(crate) fn load() -> Result<PathBuf> {
    beside("hivemind-load").context("build it with `cargo build -p hivemind-tests`")
}

/// The program that keeps a data path by itself.
pub(crate) fn life(build: Build) -> Result<PathBuf> {
    of_build("hivemind-life", build)
}

/// The layout that a build's maps have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// That of the code.
    Current,
    /// One that does not exist, the next: `cargo xtask build-next` makes the programs.
    NextLayout,
}

/// The `hivemind` program of a build.
///
/// # Errors
/// As [`hivemind_binary`].
pub fn hivemind_of(build: Build) -> Result<PathBuf> {
    match build {
        Build::Current => hivemind_binary(),
        Build::NextLayout => of_build("hivemind", build),
    }
}

fn of_build(name: &str, build: Build) -> Result<PathBuf> {
    match build {
        Build::Current => beside(name).context("build it with `cargo build -p hivemind-tests`"),
        Build::NextLayout => {
            beside(&format!("{name}-next")).context("build it with `cargo xtask build-next`")
        }
    }
}

/// The program that opens connections and sends datagrams.
pub(crate) fn probe() -> Result<PathBuf> {
    beside("hivemind-probe").context("build it with `cargo build -p hivemind-tests`")
}

/// The program that relays frames of a link.
pub(crate) fn relay() -> Result<PathBuf> {
    beside("hivemind-relay").context("build it with `cargo build -p hivemind-tests`")
}

/// `target/` of the checkout, where `cargo xtask` puts what it makes.
#[must_use]
pub fn artifacts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}

/// The archive of a test image (`busybox`, `nginx`, `redis`).
///
/// # Errors
/// When it was not made; says how to make it.
pub fn image_archive(name: &str) -> Result<PathBuf> {
    let file = artifacts().join("images").join(format!("{name}.tar"));
    if !file.is_file() {
        bail!("{} is missing; run `cargo xtask images`", file.display());
    }
    Ok(file)
}

/// A program among the directories that cargo puts this profile's programs in.
fn beside(name: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("cannot tell where this program lies")?;
    running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no program {name} beside {}", running.display()))
}
