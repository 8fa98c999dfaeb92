//! Debian packages that are fetched but not installed, through an apt directory of our own: the machine's own sources,
//! lists and cache stay as they are, and a fixed release is used on whatever release the machine runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEFAULT_HOST: &str = "http://deb.debian.org";

/// An apt directory of our own.
pub(crate) struct PackageSource {
    directory: PathBuf,
}

impl PackageSource {
    /// Makes `directory` an apt directory for these suites and fetches their lists. Needs a network, no rights.
    pub(crate) fn open(directory: &Path, suites: &[&str]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing; install the package debian-archive-keyring");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part)).context("cannot make the apt directory")?;
        }
        let sources: String = suites.iter().map(|suite| source_line(suite)).collect();
        fs::write(directory.join("sources.list"), sources).context("cannot write the apt sources")?;
        fs::write(directory.join("status"), "").context("cannot write the apt status file")?;

        let directory = fs::canonicalize(directory)?;
        fs::write(directory.join("apt.conf"), configuration(&directory)).context("cannot write apt.conf")?;

        let source = Self { directory };
        process::run(source.apt("apt-get").arg("update")).context(
            "cannot fetch Debian's package lists; check the network, or the Debian mirror in /etc/apt",
        )?;
        Ok(source)
    }

    /// The versions of a package that the suites have, the first suite's first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::capture(self.apt("apt-cache").args(["madison", package]))?;
        Ok(table.lines().filter_map(|line| line.split('|').nth(1)).map(|v| v.trim().to_owned()).collect())
    }

    /// A field of a package, `NAME` or `NAME=VERSION`, such as `Depends`; empty if it has none.
    pub(crate) fn field(&self, package: &str, field: &str) -> Result<String> {
        let record = process::capture(self.apt("apt-cache").args(["show", package]))?;
        Ok(field_of(&record, field).unwrap_or_default().to_owned())
    }

    /// Downloads packages, `NAME` or `NAME=VERSION`, into an empty directory and returns their files, sorted.
    pub(crate) fn download(&self, packages: &[&str], into: &Path) -> Result<Vec<PathBuf>> {
        recreate(into)?;
        process::run(self.apt("apt-get").arg("download").args(packages).current_dir(into))?;
        let mut files = Vec::new();
        for entry in fs::read_dir(into)? {
            files.push(entry?.path());
        }
        files.sort();
        if files.len() != packages.len() {
            bail!("apt-get downloaded {} files for {} packages", files.len(), packages.len());
        }
        Ok(files)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-qq").env("APT_CONFIG", self.directory.join("apt.conf"));
        command
    }
}

/// The value of a field of one line in a package's record.
fn field_of<'a>(record: &'a str, field: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

/// An apt configuration that keeps everything in one directory.
fn configuration(directory: &Path) -> String {
    let at = |part: &str| directory.join(part).display().to_string();
    format!(
        r#"Dir::Etc::sourcelist "{sources}";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{lists}";
Dir::State::status "{status}";
Dir::Cache "{cache}";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
APT::Sandbox::User "root";
"#,
        sources = at("sources.list"),
        lists = at("lists"),
        status = at("status"),
        cache = at("cache"),
    )
}

/// Starts `dpkg-deb` on a package; its standard output is the package's files as an uncompressed tar.
pub(crate) fn contents(package: &Path) -> Command {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(package);
    command
}

/// Debian's name for this machine's architecture (`amd64`, `arm64`).
pub(crate) fn architecture() -> Result<String> {
    process::capture(Command::new("dpkg").arg("--print-architecture"))
        .context("this command needs Debian's dpkg")
}

/// Makes `directory` exist and be empty.
pub(crate) fn recreate(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// Where the machine's own apt gets `archive` (`debian`, `debian-security`), so that a mirror that its owner chose is
/// honoured; Debian's own address if it names none.
pub(crate) fn mirror(archive: &str) -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text, archive))
        .unwrap_or_else(|| format!("{DEFAULT_HOST}/{archive}"))
}

/// The first address of the archive in a sources file of either format.
fn mirror_in(sources: &str, archive: &str) -> Option<String> {
    let ending = format!("/{archive}");
    sources
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.contains("://") && word.ends_with(&ending))
        .map(str::to_owned)
}

fn source_line(suite: &str) -> String {
    let archive = mirror(if suite.ends_with("-security") { "debian-security" } else { "debian" });
    format!("deb [signed-by={KEYRING}] {archive} {suite} main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_read_from_both_formats_of_sources() {
        let deb822 = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\n";
        let one_line =
            "# deb http://no.example/debian x\ndeb [arch=amd64] https://a.example/debian bookworm main\n";
        assert_eq!(mirror_in(deb822, "debian").as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in(one_line, "debian").as_deref(), Some("https://a.example/debian"));
        assert_eq!(mirror_in("URIs: https://deb.example/node_20.x\n", "debian"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let record = "Package: linux\nPre-Depends: x\nDepends: a (= 1), b\nDescription: y\n";
        assert_eq!(field_of(record, "Depends"), Some("a (= 1), b"));
        assert_eq!(field_of(record, "Recommends"), None);
    }

    #[test]
    fn security_updates_come_from_their_own_archive() {
        assert!(source_line("bookworm-security").contains("/debian-security bookworm-security main"));
        assert!(source_line("bookworm").contains("/debian bookworm main"));
    }
}
