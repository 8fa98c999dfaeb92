//! The sources of `core` for the compiler in use, of exactly its version: the eBPF target has no prebuilt `core`.
//!
//! The toolchain's own `rust-src` is taken if it is there. Otherwise Debian's `rust-src` package of the same version is
//! unpacked into this checkout, and neither the toolchain nor the system changes.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::debian::{self, PackageSource};
use crate::process;
use crate::workspace::Workspace;

/// Suites that carry recent compilers, the likeliest first.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// Where the sources of `core` are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RustSource {
    /// In the toolchain, where cargo looks by itself.
    Toolchain,
    /// In this `library` directory, which cargo must be told.
    Directory(PathBuf),
}

/// The compiler in use.
pub(crate) struct Compiler {
    /// Its version, such as `1.95.0`.
    pub(crate) release: String,
    /// The major version of the LLVM inside it.
    pub(crate) llvm_major: String,
    /// Its directory.
    pub(crate) sysroot: PathBuf,
}

impl Compiler {
    /// Asks `rustc` in the checkout, so that rust-toolchain.toml counts.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        let rustc = || workspace.command("rustc");
        let description = process::capture(rustc()?.arg("-vV"))
            .context("no Rust toolchain; see https://rustup.rs, or install Debian's rustc and cargo")?;
        let field = |name: &str| {
            description.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned)
        };
        let llvm = field("LLVM version:").context("rustc does not tell its LLVM version")?;
        Ok(Self {
            release: field("release:").context("rustc does not tell its version")?,
            llvm_major: llvm.split('.').next().unwrap_or_default().to_owned(),
            sysroot: process::capture(rustc()?.args(["--print", "sysroot"]))?.into(),
        })
    }
}

/// The sources that fit the compiler in use, if they are there.
pub(crate) fn find(workspace: &Workspace) -> Result<Option<RustSource>> {
    let compiler = Compiler::of(workspace)?;
    if compiler.sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
        return Ok(Some(RustSource::Toolchain));
    }
    let directory = directory(workspace);
    let version = fs::read_to_string(directory.join("version")).unwrap_or_default();
    let library = directory.join("library");
    let fits = version.trim() == compiler.release && library.join("Cargo.lock").is_file();
    Ok(fits.then_some(RustSource::Directory(library)))
}

/// Fetches Debian's package of the compiler's version.
pub(super) fn fetch(workspace: &Workspace) -> Result<()> {
    let release = Compiler::of(workspace)?.release;
    let scratch = workspace.ebpf_tools().join("rust-src-download");
    let source = PackageSource::open(&scratch.join("apt"), &SUITES)?;
    let prefix = format!("{release}+");
    let Some(version) = source.versions("rust-src")?.into_iter().find(|version| version.starts_with(&prefix))
    else {
        bail!(
            "Debian has no rust-src {release} now; run `rustup component add rust-src` and then this again"
        );
    };
    let packages = source.download(&[&format!("rust-src={version}")], &scratch.join("packages"))?;

    let directory = directory(workspace);
    debian::recreate(&directory)?;
    for package in &packages {
        unpack_library(package, &directory)?;
    }
    if !directory.join("library/Cargo.lock").is_file() {
        bail!("Debian's rust-src {version} does not hold the library's sources where they were expected");
    }
    // Written last: without it the directory counts as missing.
    fs::write(directory.join("version"), format!("{release}\n"))?;
    fs::remove_dir_all(&scratch).context("cannot remove the downloaded package")
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.ebpf_tools().join("rust-src")
}

/// Unpacks `usr/src/rustc-VERSION/library` of the package into `directory/library`.
fn unpack_library(package: &Path, directory: &Path) -> Result<()> {
    println!("unpacking {}", package.display());
    let mut dpkg =
        debian::contents(package).stdout(Stdio::piped()).spawn().context("cannot start dpkg-deb")?;
    let output = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let mut archive = tar::Archive::new(BufReader::new(output));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(inside) = path_in_library(&path) else { continue };
        let target = directory.join("library").join(inside);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
        } else if kind.is_file() {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            std::io::copy(&mut entry, &mut File::create(&target)?)?;
        }
    }
    // A tar ends before its padding does; dpkg-deb must be able to write all of it.
    std::io::copy(&mut archive.into_inner().by_ref(), &mut std::io::sink())?;
    if !dpkg.wait()?.success() {
        bail!("dpkg-deb could not read {}", package.display());
    }
    Ok(())
}

/// The part of a package's path below `library/`, for what building `core` needs.
fn path_in_library(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    for expected in ["usr", "src", "rustc-", "library"] {
        let Component::Normal(name) = parts.next()? else { return None };
        let name = name.to_str()?;
        if name != expected && !(expected.ends_with('-') && name.starts_with(expected)) {
            return None;
        }
    }
    let inside: PathBuf = parts.collect();
    let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !inside.starts_with("vendor") && inside != Path::new("")).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_is_taken_from_the_package() {
        let path = |text: &str| path_in_library(Path::new(text));
        assert_eq!(path("./usr/src/rustc-1.95.0/library/core/src/lib.rs"), Some("core/src/lib.rs".into()));
        assert_eq!(path("./usr/src/rustc-1.95.0/library/vendor/x/lib.rs"), None);
        assert_eq!(path("./usr/src/rustc-1.95.0/src/library/core"), None);
        assert_eq!(path("./usr/share/doc/rust-src/library"), None);
        assert_eq!(path("./usr/src/rustc-1.95.0/library/../../x"), None);
    }
}
