//! `cargo xtask build-ebpf`: builds the eBPF programs and puts their object where the program embeds it from.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};

use crate::process;
use crate::setup::rust_source::{self, Compiler, RustSource};
use crate::workspace::Workspace;

/// The binary of the package `hivemind-ebpf`.
const BINARY: &str = "hivemind";

/// What must not reach the build for another target.
const FOREIGN: [&str; 4] = ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "CARGO_INCREMENTAL"];

/// The feature of `hivemind-common` and `hivemind-ebpf` with the layout that does not exist.
const NEXT_LAYOUT: &str = "next-layout";

/// Builds for this machine's architecture: what the program embeds, and for tests of upgrades the same with another layout of
/// the maps. Quick, and leaves the objects untouched, if nothing changed.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    // Each in a directory of its own, so that neither is built again because of the other.
    build_one(workspace, "ebpf-build", &[], &workspace.ebpf_object())?;
    build_one(workspace, "ebpf-build-next", &["--features", NEXT_LAYOUT], &workspace.next_ebpf_object())
}

fn build_one(workspace: &Workspace, directory: &str, features: &[&str], destination: &Path) -> Result<()> {
    let package = workspace.root().join("hivemind-ebpf");
    if !package.join("Cargo.toml").is_file() {
        bail!("{} holds no package", package.display());
    }
    let target = target();
    let directory = workspace.artifacts().join(directory);
    let mut cargo = cargo(workspace, &package)?;
    compile(&mut cargo, "build", &directory, target);
    cargo.args(features);
    process::run(&mut cargo).context("the eBPF programs do not build")?;

    let built = directory.join(target).join("release").join(BINARY);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let stripped = without_dwarf(&object).context("cannot strip the eBPF object")?;
    write_if_changed(destination, &stripped)?;
    println!("{} ({} kB)", destination.display(), stripped.len() / 1000);
    Ok(())
}

/// Checks how the programs are written: format, and clippy's lints as errors. The workspace's own checks do not reach them.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let package = workspace.root().join("hivemind-ebpf");
    let mut format = workspace.cargo()?;
    process::run(format.current_dir(&package).args(["fmt", "--check"]))?;
    let mut clippy = cargo(workspace, &package)?;
    compile(&mut clippy, "clippy", &workspace.artifacts().join("ebpf-build"), target());
    process::run(clippy.args(["--all-features", "--", "-D", "warnings"]))
}

/// The eBPF target of this machine's byte order.
fn target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// A cargo that finds what building for the eBPF target needs.
fn cargo(workspace: &Workspace, package: &Path) -> Result<Command> {
    let compiler = Compiler::of(workspace)?;
    let Some(source) = rust_source::find(workspace)? else {
        bail!("no sources of core for rustc {}; run `cargo xtask setup`", compiler.release);
    };
    let linkers = workspace.ebpf_tools().join("bin");
    if !linkers.join("bpf-linker").is_file() {
        bail!("no bpf-linker; run `cargo xtask setup`");
    }
    let mut path = OsString::from(&linkers);
    path.push(":");
    path.push(workspace.search_path()?);

    let mut cargo = workspace.cargo()?;
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    // build-std is unstable; the stable compiler accepts it under this variable.
    cargo.current_dir(package).env("PATH", path).env("RUSTC_BOOTSTRAP", "1");
    if let RustSource::Directory(library) = source {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    Ok(cargo)
}

fn compile(cargo: &mut Command, command: &str, directory: &Path, target: &str) {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // With jumps on "less than" (Linux 4.14). Without, the compiler turns such a comparison round, with the constant in a
        // register, and of that the verifier of Linux 6.1 learns nothing.
        "-Ctarget-cpu=v2".to_owned(),
    ];
    cargo
        .args([command, "--release", "--target", target, "-Z", "build-std=core", "--target-dir"])
        .arg(directory)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
}

/// The object without DWARF, which only made BTF possible; `.BTF` and `.BTF.ext`, which the kernel reads, stay.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete =
            [".debug_", ".rel.debug_", ".rela.debug_"].iter().any(|prefix| name.starts_with(prefix));
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; the writer wants one for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// Writes the file only if its content differs: cargo rebuilds what embeds it when its time changes.
fn write_if_changed(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let directory = file.parent().context("the eBPF object has no directory")?;
    fs::create_dir_all(directory)?;
    let temporary = file.with_extension("new");
    fs::write(&temporary, content).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, file).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relocatable object with code, BTF and DWARF, whose names all stand in one table, as LLVM writes it.
    fn object_with_dwarf() -> Vec<u8> {
        let mut builder = Builder::new(object::Endianness::Little, true);
        builder.header.e_type = object::elf::ET_REL;
        builder.header.e_machine = object::elf::EM_BPF;
        for name in ["classifier", ".BTF", ".debug_info", ".debug_str"] {
            let section = builder.sections.add();
            section.name = name.into();
            section.sh_type = object::elf::SHT_PROGBITS;
            section.sh_addralign = 1;
            section.data = SectionData::Data(b"12345678".as_slice().into());
        }
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.data = SectionData::SectionString;
        let mut object = Vec::new();
        builder.write(&mut object).unwrap();
        object
    }

    #[test]
    fn stripping_takes_dwarf_and_leaves_code_and_btf() {
        let stripped = without_dwarf(&object_with_dwarf()).unwrap();
        let builder = Builder::read(stripped.as_slice()).unwrap();
        let names: Vec<_> = builder.sections.iter().map(|section| section.name.to_string()).collect();
        assert_eq!(names, ["classifier", ".BTF", ".shstrtab"]);
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ebpf/x.bpf.o");
        write_if_changed(&file, b"one").unwrap();
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        write_if_changed(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
        write_if_changed(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }
}
