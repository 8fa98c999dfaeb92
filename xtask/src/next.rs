//! `cargo xtask build-next`: the programs with a layout of the maps that does not exist, the next one, to which tests upgrade.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{ebpf, process};

/// The programs of which tests need both builds.
const PROGRAMS: [&str; 2] = ["hivemind", "hivemind-life"];

/// Builds them, puts them beside the others as `NAME-next`, and builds the others, which take their places again.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    ebpf::build(workspace)?;
    let packages = ["build", "--package", "hivemind", "--package", "hivemind-tests"];
    let mut next = workspace.cargo()?;
    next.args(packages).args(["--features", "hivemind/next-layout,hivemind-tests/next-layout"]);
    next.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    process::run(&mut next)?;
    let directory = workspace.artifacts().join("debug");
    for program in PROGRAMS {
        let (built, beside) = (directory.join(program), directory.join(format!("{program}-next")));
        // Not over one that runs.
        let temporary = beside.with_extension("new");
        let copied = fs::copy(&built, &temporary).and_then(|_| fs::rename(&temporary, &beside));
        copied.with_context(|| format!("cannot copy {} to {}", built.display(), beside.display()))?;
    }
    process::run(workspace.cargo()?.args(packages).arg("--bins"))
}
