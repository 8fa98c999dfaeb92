//! `cargo xtask images`: small real images for the tests, made of Debian packages, and a registry that serves them.
//!
//! A fixed list of packages of one Debian release is merged straight from the packages' archives into one layer each,
//! sorted and without times, so that the same packages give the same bytes. No maintainer script runs and nothing is
//! unpacked on disk, so no rights are needed. The archives are OCI layouts, `target/images/NAME.tar`; they are also
//! pushed once, through a registry on loopback, into `target/images/registry`, which a test serves as it is.

mod archive;
mod filesystem;
mod recipe;
mod registry;

use std::fs::{self, File};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::debian::{self, PackageSource};
use crate::workspace::Workspace;
use archive::Archive;
use filesystem::Filesystem;
use recipe::{RECIPES, Recipe};

/// The release whose packages the images are made of.
const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];

/// Makes the images and the registry's storage, unless they are there and made by these recipes.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let directory = workspace.images();
    fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join("lock")).context("cannot make the lock of the images")?;
    lock.lock().context("cannot lock the images")?;

    let made_by = fingerprint()?;
    let stamp = directory.join("made-by");
    let is_there = |recipe: &Recipe| directory.join(format!("{}.tar", recipe.name)).is_file();
    let complete = RECIPES.iter().all(is_there) && registry::is_complete(&directory, &RECIPES);
    if complete && fs::read_to_string(&stamp).is_ok_and(|text| text == made_by) {
        println!("The images in {} are up to date.", directory.display());
        return Ok(());
    }

    let scratch = directory.join("download");
    let source = PackageSource::open(&scratch.join("apt"), &SUITES)?;
    for recipe in &RECIPES {
        let archive = make(recipe, &source, &scratch.join(recipe.name))?;
        let file = directory.join(format!("{}.tar", recipe.name));
        archive.write(&file).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{} ({} kB, {})", file.display(), fs::metadata(&file)?.len() / 1000, archive.digest());
    }
    registry::fill(workspace, &directory, &RECIPES)?;
    fs::write(&stamp, made_by)?;
    fs::remove_dir_all(&scratch).context("cannot remove the downloaded packages")
}

fn make(recipe: &Recipe, source: &PackageSource, scratch: &std::path::Path) -> Result<Archive> {
    let mut filesystem = Filesystem::default();
    for package in source.download(recipe.packages, scratch)? {
        filesystem.add_package(&package).with_context(|| format!("cannot read {}", package.display()))?;
    }
    filesystem.add_busybox_applets(scratch)?;
    for (path, content) in recipe.files {
        filesystem.add_file(path, content.as_bytes());
    }
    for path in recipe.directories {
        filesystem.add_directory(path, 0o755);
    }
    filesystem.add_directory("tmp", 0o1777);
    Archive::new(recipe, &filesystem.into_layer()?)
}

/// Changes when a recipe, this program's way of packing, or the machine's architecture does.
fn fingerprint() -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(debian::architecture()?);
    hash.update(format!("{RECIPES:?}"));
    for source in [include_str!("images/archive.rs"), include_str!("images/filesystem.rs")] {
        hash.update(source);
    }
    Ok(hex(&hash.finalize()))
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
