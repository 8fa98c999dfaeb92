//! bpf-linker, built against the LLVM that rustc itself carries: no LLVM to install, and never one older than rustc's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::rust_source::Compiler;
use crate::process;
use crate::workspace::Workspace;

const VERSION: &str = "0.13.0";

/// Whether it is there and starts, which it does not once the toolchain that it was built against is gone.
pub(super) fn is_present(workspace: &Workspace) -> bool {
    Command::new(workspace.ebpf_tools().join("bin/bpf-linker"))
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Builds it.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let compiler = Compiler::of(workspace)?;
    let tools = workspace.ebpf_tools();
    let prefix = tools.join("llvm");
    link_llvm(&llvm_library(&compiler)?, &prefix.join("lib"))?;
    let build = tools.join("build");
    process::run(
        workspace
            .cargo()?
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{}", compiler.llvm_major), "--root"])
            .arg(&tools)
            .arg("--target-dir")
            .arg(&build)
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    )
    .context("cannot build bpf-linker; its messages are above")?;
    fs::remove_dir_all(&build).context("cannot remove bpf-linker's build directory")
}

/// Makes rustc's LLVM look like an installed one: under its own name and under the one that the linker asks for.
fn link_llvm(library: &Path, directory: &Path) -> Result<()> {
    crate::debian::recreate(directory)?;
    let name = library.file_name().context("libLLVM has no file name")?;
    symlink(library, directory.join(name))?;
    symlink(library, directory.join("libLLVM.so"))?;
    Ok(())
}

/// The file of rustc's own LLVM, which bpf-linker is built against.
pub(super) fn llvm_library(compiler: &Compiler) -> Result<PathBuf> {
    let directory = compiler.sysroot.join("lib");
    let mut found: Vec<PathBuf> = fs::read_dir(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("libLLVM"))
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 1 << 20))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().next().with_context(|| {
        format!("no libLLVM in {}; use a toolchain from rustup, which carries one", directory.display())
    })
}
