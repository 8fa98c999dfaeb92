//! What a guest runs: the test programs of the data path, and the file system with all that they call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Kernel;
use super::image::Image;
use super::initramfs::Initramfs;
use super::report::RUNS;
use crate::process;
use crate::workspace::Workspace;

/// The first process of a guest.
const INIT: &str = include_str!("init.sh");

/// Programs that the data path or its tests call.
const CALLED: [&str; 6] = ["ip", "tc", "nft", "nsenter", "nstat", "ping"];

const DIRECTORIES: [&str; 10] =
    ["proc", "sys", "dev", "tmp", "run", "mnt", "etc", "busybox", "var/tmp", "root"];

/// The packet table.
const PACKETS: &str = "programs::tests";

/// The test programs of `hivemind-datapath`.
pub(super) struct TestPrograms {
    /// The tests within the crate.
    unit: PathBuf,
    /// The tests that make nodes.
    node: PathBuf,
}

impl TestPrograms {
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let mut cargo = workspace.cargo()?;
        cargo.args(["test", "--no-run", "--package", "hivemind-datapath", "--lib", "--test", "datapath"]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        println!("+ {}", process::line(&cargo));
        // Its messages for people go where this program's go.
        let messages = process::capture(cargo.stderr(Stdio::inherit()))?;
        let find = |kind: &str| {
            executable(&messages, kind).with_context(|| format!("cargo built no tests of the kind {kind}"))
        };
        Ok(Self { unit: find("lib")?, node: find("test")? })
    }
}

/// The test program of a target of this kind among cargo's messages.
fn executable(messages: &str, kind: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(
        |message| {
            let is_kind = message["target"]["kind"].as_array()?.iter().any(|found| found == kind);
            let executable = message["executable"].as_str()?;
            is_kind.then(|| executable.into())
        },
    )
}

/// The file system of a guest that boots this kernel and runs these tests.
pub(super) fn archive(
    workspace: &Workspace,
    programs: &TestPrograms,
    image: &Image,
    busybox: &Path,
    runs: &str,
) -> Result<Initramfs> {
    let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let mut tree = Initramfs::default();
    for directory in DIRECTORIES {
        tree.add_directory(directory);
    }
    tree.add_file("bin/busybox", read(busybox)?);
    tree.add_link("bin/sh", "busybox");
    for name in CALLED {
        let program = workspace.find_program(name);
        let program = program.with_context(|| format!("{name} is missing; run `cargo xtask setup`"))?;
        tree.add_program(&format!("bin/{name}"), &program)?;
    }
    tree.add_program("tests/unit", &programs.unit)?;
    tree.add_program("tests/node", &programs.node)?;
    for module in &image.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        tree.add_file(&format!("modules/{name}"), read(module)?);
    }
    tree.add_file("init", INIT.as_bytes().to_vec());
    tree.add_file("runs", runs.as_bytes().to_vec());
    Ok(tree)
}

/// What the first process runs, as its shell reads it: name, what the names of tests must contain, program, which of its
/// tests.
pub(super) fn runs(kernel: &Kernel, filter: Option<&str>) -> String {
    let [packets, endpoints] = RUNS;
    let left_out = kernel.left_out.iter().flat_map(|left_out| left_out.tests);
    let skip: String = left_out.map(|test| format!(" --skip {test}")).collect();
    let filter = format!("'{}'", filter.unwrap_or_default().replace('\'', ""));
    format!(
        "run {packets} {filter} /tests/unit {PACKETS}{skip}\nrun {endpoints} {filter} /tests/node{skip}\n"
    )
}

#[cfg(test)]
mod checks {
    use super::*;
    use crate::kernels::LeftOut;

    #[test]
    fn the_test_programs_are_told_apart_by_their_kind() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":"/t/unit"}
{"reason":"compiler-artifact","target":{"kind":["test"]},"executable":"/t/node"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "lib"), Some("/t/unit".into()));
        assert_eq!(executable(messages, "test"), Some("/t/node".into()));
        assert_eq!(executable(messages, "bench"), None);
    }

    #[test]
    fn what_a_kernel_cannot_do_is_left_out_of_its_tests() {
        let kernel = Kernel {
            name: "x",
            suites: &[],
            series: "",
            left_out: &[LeftOut { why: "", tests: &["cluster::"] }],
        };
        assert!(runs(&kernel, None).contains("/tests/node --skip cluster::\n"));
        assert!(runs(&kernel, Some("it's")).contains("run packets 'its' /tests/unit"));
    }
}
