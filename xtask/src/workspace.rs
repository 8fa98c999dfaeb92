//! Where the repository's files, the tools that it installed for itself, and the things that it builds lie.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Directories of programs that a person's `PATH` often lacks.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What cargo sets for a program that it runs, and what must not leak into a cargo that this program runs.
const INHERITED_FROM_CARGO: [&str; 4] =
    ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "LD_LIBRARY_PATH"];

/// The checkout that the command works on.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the checkout: the parent of this package's directory.
    pub(crate) fn locate() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("the xtask package has no parent directory")?;
        if !root.join("Cargo.toml").is_file() {
            bail!("{} is no checkout of Hivemind; run `cargo xtask` inside one", root.display());
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// The top of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `target/` of the checkout, whatever `CARGO_TARGET_DIR` says: what is made here is found by its path.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Programs that `setup` brought and that are not Debian packages of this machine; they lie in `bin/`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.artifacts().join("tools")
    }

    /// The eBPF toolchain: `bin/bpf-linker`, `llvm/lib`, `rust-src/library`.
    pub(crate) fn ebpf_tools(&self) -> PathBuf {
        self.artifacts().join("ebpf-tools")
    }

    /// The eBPF object that the program embeds.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.artifacts().join("ebpf/hivemind.bpf.o")
    }

    /// The eBPF object with a layout of the maps that does not exist, for tests of upgrades.
    pub(crate) fn next_ebpf_object(&self) -> PathBuf {
        self.artifacts().join("ebpf/hivemind-next.bpf.o")
    }

    /// The images for tests, `NAME.tar`, and `registry/`, the storage of a registry that serves them.
    pub(crate) fn images(&self) -> PathBuf {
        self.artifacts().join("images")
    }

    /// Kernels that are booted in virtual machines, and what was said there.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.artifacts().join("kernels")
    }

    /// Where cargo builds: `CARGO_TARGET_DIR` if it is set.
    pub(crate) fn cargo_target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.artifacts(), |path| self.root.join(path))
    }

    /// The version of the workspace, from the root manifest.
    pub(crate) fn version(&self) -> Result<String> {
        let manifest = fs::read_to_string(self.root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
        manifest
            .lines()
            .skip_while(|line| line.trim() != "[workspace.package]")
            .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
            .map(str::to_owned)
            .context("Cargo.toml has no version under [workspace.package]")
    }

    /// `PATH` with the tools of this checkout in front and the system's directories behind.
    pub(crate) fn search_path(&self) -> Result<OsString> {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let directories = std::iter::once(self.tools().join("bin"))
            .chain(env::split_paths(&inherited))
            .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from));
        env::join_paths(directories).context("PATH holds a directory with a colon in its name")
    }

    /// The program's file, searched as [`Self::search_path`] says.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let path = self.search_path().ok()?;
        env::split_paths(&path).map(|directory| directory.join(name)).find(|file| is_executable(file))
    }

    /// A command that runs in the root of the checkout and finds the tools of this checkout.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.find_program(program).unwrap_or_else(|| program.into()));
        command.current_dir(&self.root).env("PATH", self.search_path()?);
        Ok(command)
    }

    /// The cargo that runs this program, free of what it set for this program alone.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).env("PATH", self.search_path()?);
        for name in INHERITED_FROM_CARGO {
            command.env_remove(name);
        }
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        Ok(command)
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_knows_its_root_and_version() {
        let workspace = Workspace::locate().unwrap();
        assert!(workspace.root().join("xtask/Cargo.toml").is_file());
        assert_eq!(workspace.version().unwrap(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_program_that_nobody_has_is_not_found() {
        let workspace = Workspace::locate().unwrap();
        assert!(workspace.find_program("sh").is_some());
        assert_eq!(workspace.find_program("no-such-program-anywhere"), None);
    }
}
