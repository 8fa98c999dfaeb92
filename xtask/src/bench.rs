//! `cargo xtask bench NAME`: builds the release program and measures what it promises; `docs/SPECIFICATION.md` holds
//! the promises. The measuring itself is `hivemind-bench`, a program of the test harness.

mod peers;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{ebpf, images, process, setup, ui, up};

/// The benches, by name.
const BENCHES: [&str; 10] = [
    "footprint",
    "containers",
    "datapath",
    "services",
    "telemetry",
    "dns",
    "policy",
    "cluster",
    "churn",
    "all",
];

/// Those that measure the data path by itself, without the product's program and without images.
const WITHOUT_DAEMON: [&str; 2] = ["datapath", "services"];

/// What to measure, and how to tell it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    bench: String,
    /// One JSON object a line instead of a table; nothing else goes to standard output.
    json: bool,
    /// Fail if a figure breaks its bound.
    check: bool,
}

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let (mut bench, mut json, mut check) = (None, false, false);
        for argument in arguments {
            match *argument {
                "--json" => json = true,
                "--check" => check = true,
                name if bench.is_none() && BENCHES.contains(&name) => bench = Some(name.to_owned()),
                other => bail!("unknown bench or flag {other}; there are {}", BENCHES.join(", ")),
            }
        }
        let bench = bench.with_context(|| format!("which bench? There are {}", BENCHES.join(", ")))?;
        Ok(Self { bench, json, check })
    }
}

/// Builds, measures, and prints the figures.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let output = if options.json { Some(set_output_aside()?) } else { None };
    setup::install(workspace)?;
    ebpf::build(workspace)?;
    let mut cargo = workspace.cargo()?;
    cargo.args(["build", "--release", "--bins", "--package", "hivemind-tests"]);
    if !WITHOUT_DAEMON.contains(&options.bench.as_str()) {
        ui::build(workspace)?;
        images::build(workspace)?;
        cargo.args(["--package", "hivemind"]);
    }
    process::run(&mut cargo)?;
    let release = workspace.cargo_target().join("release");
    let program = format!("HIVEMIND_BIN={}", release.join("hivemind").display());
    let mut bench = up::as_root(Path::new("env"));
    bench.arg(program);
    if matches!(options.bench.as_str(), "dns" | "all") {
        bench.arg(format!("HIVEMIND_BENCH_UNBOUND={}", peers::unbound(workspace)?.display()));
    }
    bench.arg(release.join("hivemind-bench")).arg(&options.bench);
    bench.args(options.json.then_some("--json")).args(options.check.then_some("--check"));
    if let Some(output) = output {
        bench.stdout(output);
    }
    let status = bench.status().context("cannot start hivemind-bench")?;
    if !status.success() {
        bail!("the bench failed, or a bound is broken");
    }
    Ok(())
}

/// Standard output as it was, for the figures alone; what is printed from now on goes to standard error.
fn set_output_aside() -> Result<OwnedFd> {
    let output = io::stdout().as_fd().try_clone_to_owned().context("cannot duplicate standard output")?;
    nix::unistd::dup2_stdout(io::stderr()).context("cannot redirect standard output")?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_named_and_flags_come_in_any_order() {
        let options = Options::parse(&["--json", "containers", "--check"]).unwrap();
        assert_eq!(options, Options { bench: "containers".to_owned(), json: true, check: true });
        assert!(WITHOUT_DAEMON.iter().all(|bench| Options::parse(&[bench]).is_ok()));
        assert!(Options::parse(&["--json"]).unwrap_err().to_string().contains("footprint"));
        assert!(Options::parse(&["speed"]).is_err());
        assert!(Options::parse(&["footprint", "containers"]).is_err());
    }
}
