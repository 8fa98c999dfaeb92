//! The Debian package on a bare Debian 12: it installs with its dependencies, the daemon in it runs an app, and purging
//! it leaves nothing. Run by `cargo xtask dist --check`, which builds the package; it needs the network.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hivemind_tests::{Background, Sandbox, artifacts, get_unix, image_archive};

const LIMIT: Duration = Duration::from_secs(60);
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Debian 12 with nothing but what `debootstrap --variant=minbase` puts there, in a sandbox.
struct BareDebian {
    sandbox: Sandbox,
    root: PathBuf,
}

impl BareDebian {
    fn start() -> Result<Self> {
        let archive = bare_debian()?;
        let sandbox = Sandbox::start()?;
        let root = sandbox.directory().join("root");
        let (at, from) = (root.display().to_string(), archive.display().to_string());
        sandbox.check(&["mkdir", &at])?;
        // A mount point, since runc could not change its root otherwise.
        sandbox.check(&["mount", "-t", "tmpfs", "tmpfs", &at])?;
        sandbox.check(&["tar", "--extract", "--numeric-owner", "--file", &from, "--directory", &at])?;
        let debian = Self { sandbox, root };
        for part in ["dev", "sys"] {
            debian.sandbox.check(&["mount", "--rbind", &format!("/{part}"), &format!("{at}/{part}")])?;
            debian.sandbox.check(&["mount", "--make-rslave", &format!("{at}/{part}")])?;
        }
        debian.sandbox.check(&["mount", "-t", "proc", "proc", &format!("{at}/proc")])?;
        debian.sandbox.check(&["mount", "-t", "tmpfs", "tmpfs", &format!("{at}/run")])?;
        // Its own, over the machine's: the default directory of pins is then inside this sandbox.
        debian.sandbox.check(&["mount", "-t", "bpf", "bpf", &format!("{at}/sys/fs/bpf")])?;
        fs::copy("/etc/resolv.conf", debian.outside("etc/resolv.conf"))?;
        let package = env::var_os("HIVEMIND_DEB")
            .context("HIVEMIND_DEB names no package; run `cargo xtask dist --check`")?;
        fs::copy(package, debian.outside("hivemind.deb"))?;
        Ok(debian)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.sandbox.outside(&self.root.join(path))
    }

    /// Runs a program in the bare Debian, without a network, and returns what it printed.
    fn check(&self, words: &[&str]) -> Result<String> {
        let root = self.root.display().to_string();
        let mut all = vec!["chroot", &root, "env", "-i", SEARCH_PATH, "HOME=/root"];
        all.extend(words);
        self.sandbox.check(&all)
    }

    /// Runs a program in the bare Debian with the machine's network, to reach the Debian mirror.
    fn check_online(&self, words: &[&str]) -> Result<()> {
        let output = Command::new("nsenter")
            .args(["--target", &self.sandbox.pid().to_string(), "--mount", "--", "chroot"])
            .arg(&self.root)
            .args(["env", "-i", SEARCH_PATH, "HOME=/root", "DEBIAN_FRONTEND=noninteractive"])
            .args(words)
            .output()?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{} failed ({}): {}", words.join(" "), output.status, String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    fn install(&self) -> Result<()> {
        self.check_online(&["apt-get", "-qq", "update"])?;
        self.check_online(&["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "/hivemind.deb"])
    }

    fn purge(&self) -> Result<String> {
        self.check(&["dpkg", "--purge", "hivemind"])
    }

    /// Starts the daemon as the unit does, with the package's configuration.
    fn start_daemon(&self) -> Result<Background> {
        let root = self.root.display().to_string();
        let words = ["chroot", &root, "env", "-i", SEARCH_PATH, "HOME=/root", "/usr/bin/hivemind", "daemon"];
        let mut daemon = self.sandbox.spawn(&words, Some(&self.root.join("daemon.log")))?;
        daemon
            .until_ready(LIMIT, "the daemon's API", || {
                let response = get_unix(&self.outside("run/hivemind/api.sock"), "/healthz", LIMIT)?;
                if response.status != 200 {
                    bail!("status {}", response.status);
                }
                Ok(())
            })
            .with_context(|| fs::read_to_string(self.outside("daemon.log")).unwrap_or_default())?;
        Ok(daemon)
    }
}

/// A tar of the bare Debian, made once and kept.
fn bare_debian() -> Result<PathBuf> {
    let directory = artifacts().join("dist-check");
    fs::create_dir_all(&directory)?;
    let lock = fs::File::create(directory.join("lock"))?;
    lock.lock()?;
    let archive = directory.join(format!("bookworm-{}.tar", env::consts::ARCH));
    if archive.is_file() {
        return Ok(archive);
    }
    let mirror =
        env::var("HIVEMIND_DEBIAN_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".to_owned());
    let (root, unfinished) = (directory.join("root"), directory.join("unfinished.tar"));
    // In mounts of its own, so that what debootstrap mounts goes with it if it is killed.
    let make = r#"rm -rf "$1" && debootstrap --variant=minbase bookworm "$1" "$2" &&
        rm -rf "$1"/var/cache/apt/archives/*.deb && tar --create --numeric-owner --file "$3" --directory "$1" ."#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "slave", "sh", "-c", make, "sh"])
        .args([&root, Path::new(&mirror), &unfinished])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let end: Vec<_> = said.lines().rev().take(5).collect();
        bail!("debootstrap failed: {} {}", end.join(" / "), String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&unfinished, &archive)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

#[test]
fn the_package_installs_on_a_bare_debian_and_purging_it_leaves_nothing() -> Result<()> {
    let debian = BareDebian::start()?;
    for compiler in ["rustc", "cargo", "cc"] {
        assert!(
            debian.check(&["sh", "-c", &format!("command -v {compiler}")]).is_err(),
            "{compiler} must not be here"
        );
    }
    debian.install()?;
    for program in ["hivemind", "containerd", "runc"] {
        debian.check(&["sh", "-c", &format!("command -v {program}")])?;
    }
    // Starts on this Debian's C library.
    debian.check(&["hivemind", "--help"])?;
    assert!(debian.check(&["getent", "group", "hivemind"])?.starts_with("hivemind:"));
    assert_eq!(
        debian.check(&["dpkg-query", "--show", "--showformat=${db:Status-Status}", "hivemind"])?,
        "installed"
    );
    let conffiles = debian.check(&["dpkg-query", "--show", "--showformat=${Conffiles}", "hivemind"])?;
    assert!(conffiles.contains("/etc/hivemind/config.toml"), "{conffiles}");
    let wanted = "etc/systemd/system/multi-user.target.wants/hivemind.service";
    assert!(debian.outside(wanted).symlink_metadata().is_ok(), "the service must be enabled");

    debian.purge()?;
    assert!(debian.check(&["getent", "group", "hivemind"]).is_err(), "the group must be gone");
    let search =
        "find / -xdev -iname '*hivemind*' ! -name hivemind.deb ! -path '/proc/*' ! -path '/var/log/*'";
    assert_eq!(debian.check(&["sh", "-c", search])?, "");
    debian.sandbox.stop()
}

#[test]
fn removing_the_package_keeps_what_the_purge_needs_and_an_edited_configuration() -> Result<()> {
    let debian = BareDebian::start()?;
    debian.install()?;
    let config = debian.outside("etc/hivemind/config.toml");
    fs::OpenOptions::new().append(true).open(&config)?.write_all(b"log-level = \"debug\"\n")?;
    debian.check(&["dpkg", "--remove", "hivemind"])?;
    assert!(!debian.outside("usr/bin/hivemind").exists());
    assert!(debian.outside("var/lib/hivemind/purge/hivemind").exists());
    debian.check(&["dpkg", "--install", "/hivemind.deb"])?;
    assert!(fs::read_to_string(&config)?.ends_with("log-level = \"debug\"\n"), "the edit must survive");
    assert!(!debian.outside("var/lib/hivemind/purge").exists());
    debian.sandbox.stop()
}

#[test]
fn an_installed_daemon_runs_an_app_and_the_purge_takes_all_of_it_away() -> Result<()> {
    let debian = BareDebian::start()?;
    debian.install()?;
    let config = debian.outside("etc/hivemind/config.toml");
    let cgroup = debian.sandbox.cgroup().display().to_string();
    let lines = format!("cgroup-root = \"{cgroup}\"\ndns-upstream = [\"127.0.0.1\"]\n");
    fs::OpenOptions::new().append(true).open(&config)?.write_all(lines.as_bytes())?;

    let mut daemon = debian.start_daemon()?;
    debian.check(&["hivemind", "status"])?;
    fs::copy(image_archive("busybox")?, debian.outside("busybox.tar"))?;
    debian.check(&["hivemind", "image", "import", "/busybox.tar"])?;
    debian.check(&[
        "hivemind",
        "app",
        "deploy",
        "--name",
        "box",
        "--image",
        "busybox:latest",
        "--command",
        "sleep 100000",
    ])?;
    assert_eq!(debian.check(&["hivemind", "app", "exec", "box", "--", "echo", "inside"])?.trim(), "inside");

    // A daemon that is stopped detaches: the app goes on, and the next daemon has it.
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    daemon.wait(LIMIT)?;
    let mut daemon = debian.start_daemon()?;
    assert_eq!(debian.check(&["hivemind", "app", "exec", "box", "--", "echo", "still"])?.trim(), "still");

    let apps = debian.check(&["hivemind", "app", "ls", "-o", "name"])?;
    assert!(apps.contains("box"), "{apps}");
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    daemon.wait(LIMIT)?;
    debian.purge()?;

    let containers = debian.sandbox.cgroup().join("hivemind");
    assert!(!containers.exists(), "the containers' cgroups must be gone");
    let links = debian.sandbox.check(&["ip", "-brief", "link"])?;
    assert_eq!(links.lines().count(), 1, "only the loopback device: {links}");
    assert!(!debian.outside("sys/fs/bpf/hivemind").exists(), "the pins must be gone");
    assert!(!debian.outside("var/lib/hivemind").exists());
    debian.sandbox.stop()
}
