//! `cargo xtask setup`: what a bare Debian 12 with a Rust toolchain lacks to build and test Hivemind.
//!
//! What is missing is decided by looking for it, not by a stamp, so that a machine on which half of it is there, or on
//! which something was removed, is completed. A requirement that is met in another way (a `containerd` that is no
//! Debian package, say) counts as met and is left alone. No service is started: Debian's containerd package enables
//! its unit, which then starts with the next boot; the registry and Prometheus are only unpacked, never installed.

mod bpf_linker;
mod cargo_tools;
mod node;
mod packages;
pub(crate) mod rust_source;
mod unpacked;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use cargo_tools::CargoTool;
use packages::SystemPackage;
use unpacked::UnpackedPackage;

/// Something that is missing, and how it will be brought.
enum Step {
    /// Debian packages, installed by apt in one go.
    SystemPackages(Vec<&'static SystemPackage>),
    /// Programs of a Debian package, unpacked below `target/tools`.
    Unpacked(&'static UnpackedPackage),
    /// A cargo subcommand, below `target/tools`.
    CargoTool(&'static CargoTool),
    /// Node.js and npm, below `target/tools`.
    Node,
    /// The sources of `core`, below `target/ebpf-tools`.
    RustSource,
    /// bpf-linker, built below `target/ebpf-tools`.
    BpfLinker,
}

/// Installs what is missing, after saying what that is. Does nothing if nothing is missing.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let steps = missing(workspace)?;
    if steps.is_empty() {
        println!("Everything that building and testing needs is here.");
        return Ok(());
    }
    println!("Missing here, and about to be installed:");
    print(&steps);
    for step in &steps {
        step.install(workspace)?;
    }
    let left = missing(workspace)?;
    if !left.is_empty() {
        print(&left);
        bail!("the above is still missing after it was installed; see the output further up");
    }
    println!("Everything that building and testing needs is here now.");
    Ok(())
}

/// Reports what is missing and fails if anything is.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let steps = missing(workspace)?;
    if steps.is_empty() {
        println!("Everything that building and testing needs is here.");
        return Ok(());
    }
    println!("Missing here:");
    print(&steps);
    bail!("run `cargo xtask setup` to install it")
}

fn missing(workspace: &Workspace) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let tools: Vec<_> = CargoTool::ALL.iter().filter(|tool| !tool.is_present(workspace)).collect();
    let node_is_missing = !node::is_present(workspace);
    let packages = packages::missing(workspace, !tools.is_empty() || node_is_missing);
    if !packages.is_empty() {
        steps.push(Step::SystemPackages(packages));
    }
    let unpacked = UnpackedPackage::ALL.iter().filter(|package| !package.is_present(workspace));
    steps.extend(unpacked.map(Step::Unpacked));
    steps.extend(tools.into_iter().map(Step::CargoTool));
    if node_is_missing {
        steps.push(Step::Node);
    }
    if rust_source::find(workspace)?.is_none() {
        steps.push(Step::RustSource);
    }
    if !bpf_linker::is_present(workspace) {
        steps.push(Step::BpfLinker);
    }
    Ok(steps)
}

fn print(steps: &[Step]) {
    for step in steps {
        for line in step.description() {
            println!("  {line}");
        }
    }
}

impl Step {
    fn description(&self) -> Vec<String> {
        match self {
            Self::SystemPackages(packages) => packages
                .iter()
                .map(|package| format!("{:<22} Debian package: {}", package.name, package.purpose))
                .collect(),
            Self::Unpacked(package) => {
                vec![format!("{:<22} unpacked into target/tools: {}", package.name, package.purpose)]
            }
            Self::CargoTool(tool) => {
                vec![format!("{:<22} into target/tools: {}", tool.program, tool.purpose)]
            }
            Self::Node => {
                vec![format!("{:<22} into target/tools, with npm: builds the dashboard", "node")]
            }
            Self::RustSource => {
                vec![format!("{:<22} into target/ebpf-tools: core, to build for the eBPF target", "rust-src")]
            }
            Self::BpfLinker => {
                vec![format!("{:<22} built into target/ebpf-tools, about a minute: links eBPF", "bpf-linker")]
            }
        }
    }

    fn install(&self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::SystemPackages(packages) => packages::install(packages),
            Self::Unpacked(package) => package.install(workspace),
            Self::CargoTool(tool) => tool.install(workspace),
            Self::Node => node::install(workspace),
            Self::RustSource => rust_source::fetch(workspace),
            Self::BpfLinker => bpf_linker::install(workspace),
        }
    }
}
