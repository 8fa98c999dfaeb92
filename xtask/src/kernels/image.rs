//! A kernel of Debian's: its packages fetched, and of them the kernel and the modules that a guest needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Kernel;
use super::modules::{Modules, NEEDED};
use crate::debian::{self, PackageSource};
use crate::process;

/// The flavour for virtual machines: the same source and the same options of networking and eBPF, a third of the size.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// No kernel is spread over more packages than this.
const PACKAGES_MAX: usize = 16;

/// A kernel that can be booted.
pub(super) struct Image {
    /// What `uname -r` says on it, with the version of its package.
    pub(super) release: String,
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// Its modules, in the order in which they can be loaded.
    pub(super) modules: Vec<PathBuf>,
}

impl Image {
    /// The kernel in `directory`, fetched if there is none, or if it shall be a newer one.
    pub(super) fn fetch(kernel: &Kernel, directory: &Path, update: bool) -> Result<Self> {
        let own = directory.join(kernel.name);
        if update || stamp(&own).is_none() {
            download(kernel, &own).with_context(|| format!("cannot fetch the kernel {}", kernel.name))?;
        }
        let release = stamp(&own).context("the kernel that was fetched is not complete")?;
        let mut modules = Vec::new();
        for entry in fs::read_dir(own.join("modules"))? {
            modules.push(entry?.path());
        }
        modules.sort();
        Ok(Self { release, kernel: own.join("vmlinuz"), modules })
    }
}

/// A static busybox.
pub(super) fn busybox(directory: &Path) -> Result<PathBuf> {
    let program = directory.join("busybox");
    if !program.is_file() {
        let scratch = directory.join("busybox-download");
        let source = PackageSource::open(&scratch.join("apt"), &["bookworm"])?;
        let unpacked = unpack(&source.download(&["busybox-static"], &scratch.join("packages"))?, &scratch)?;
        // Bookworm has it below `bin`, which is a link elsewhere.
        fs::rename(unpacked.join("bin/busybox"), &program).context("cannot keep busybox")?;
        fs::remove_dir_all(&scratch).context("cannot remove the downloaded package")?;
    }
    Ok(program)
}

/// The release of a kernel that is there, complete and with the modules that are needed now.
fn stamp(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join("complete")).ok()?;
    let (release, modules) = text.split_once('\n')?;
    (modules == NEEDED.join(" ")).then(|| release.to_owned())
}

fn download(kernel: &Kernel, own: &Path) -> Result<()> {
    debian::recreate(own)?;
    let scratch = own.join("download");
    let source = PackageSource::open(&scratch.join("apt"), kernel.suites)?;
    let versions = source.versions(PACKAGE)?;
    let Some(version) = newest(&versions, kernel.series) else {
        bail!("Debian's {} have no {PACKAGE} {}", kernel.suites.join(", "), kernel.series);
    };
    let packages = packages(&source, version)?;
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    let unpacked = unpack(&source.download(&packages, &scratch.join("packages"))?, &scratch)?;

    let vmlinuz =
        find(&unpacked, &|name| name.starts_with("vmlinuz"))?.context("no package holds a kernel")?;
    let built_in = find(&unpacked, &|name| name == "modules.builtin")?.context("no package holds modules")?;
    let tree = built_in.parent().context("modules without a directory")?;
    fs::create_dir_all(own.join("modules"))?;
    for (number, (name, content)) in (100..).zip(Modules::of(tree)?.in_order(&NEEDED)?) {
        fs::write(own.join("modules").join(format!("{number}-{name}.ko")), content)?;
    }
    fs::rename(vmlinuz, own.join("vmlinuz")).context("cannot keep the kernel")?;
    let release = tree.file_name().unwrap_or_default().to_string_lossy();
    fs::remove_dir_all(&scratch).context("cannot remove the downloaded packages")?;
    // Written last: without it the directory counts as empty.
    let stamp = format!("{release}, package {version}\n{}", NEEDED.join(" "));
    fs::write(own.join("complete"), stamp).context("cannot write down which kernel this is")
}

/// The highest version of a series.
fn newest<'a>(versions: &'a [String], series: &str) -> Option<&'a str> {
    let numbers = |version: &str| -> Vec<u64> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    let of_series = versions.iter().filter(|version| version.starts_with(series));
    of_series.max_by_key(|version| numbers(version)).map(String::as_str)
}

/// The packages that make up the kernel, `NAME=VERSION`: those of this very version that the first one leads to.
fn packages(source: &PackageSource, version: &str) -> Result<Vec<String>> {
    let mut all = vec![format!("{PACKAGE}={version}")];
    let mut next = 0;
    while let Some(package) = all.get(next) {
        for name in dependencies(&source.field(package, "Depends")?, version) {
            let package = format!("{name}={version}");
            if !all.contains(&package) {
                all.push(package);
            }
        }
        next += 1;
        if all.len() > PACKAGES_MAX {
            bail!("the kernel is spread over more than {PACKAGES_MAX} packages");
        }
    }
    Ok(all)
}

/// The names in a field `Depends` that must have this very version.
fn dependencies<'a>(field: &'a str, version: &str) -> Vec<&'a str> {
    let exact = format!("(= {version})");
    field.split(',').filter_map(|one| one.trim().strip_suffix(&exact)).map(str::trim).collect()
}

fn unpack(packages: &[PathBuf], scratch: &Path) -> Result<PathBuf> {
    let unpacked = scratch.join("unpacked");
    for package in packages {
        process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    }
    Ok(unpacked)
}

/// The first file below a directory whose name fits; links are not followed.
fn find(directory: &Path, fits: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), fits)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && fits(&entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_told_by_its_numbers() {
        let versions = ["7.3.4-1~bpo13+1", "6.1.99-1", "6.1.176-1", "6.12.9-1"].map(str::to_owned);
        assert_eq!(newest(&versions, "6.1."), Some("6.1.176-1"));
        assert_eq!(newest(&versions, "6.12."), Some("6.12.9-1"));
        assert_eq!(newest(&versions, ""), Some("7.3.4-1~bpo13+1"));
        assert_eq!(newest(&versions, "5."), None);
    }

    #[test]
    fn only_packages_of_the_same_version_belong_to_a_kernel() {
        let field = "kmod, linux-base (>= 4.3~), linux-base-7.3 (= 7.3.4-1), dracut | linux-initramfs-tool";
        assert_eq!(dependencies(field, "7.3.4-1"), ["linux-base-7.3"]);
    }
}
