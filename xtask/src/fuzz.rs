//! `cargo xtask fuzz`: feeds what parses bytes with inputs that lead ever further into it.
//!
//! The fuzzer is LLVM's libFuzzer, as cargo-fuzz has it: the programs are told to count which of their branches were taken, and
//! to watch over their memory. The compiler has that only for nightly, or if it is told that it is one. What was found useful is
//! kept in `target/fuzz/corpus`; what a target fails by goes to `target/fuzz/found`, and from there, once it is mended, to the
//! crate's `fuzz/regressions`, which its tests feed on every run.

use std::env;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// How long one target is fuzzed if nothing is said.
const SECONDS: u32 = 60;

/// No input is longer, in bytes: a datagram, and some.
const INPUT_BYTES_MAX: u32 = 2_048;

/// What the compiler is to build in.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1 \
                     -Cdebug-assertions";

/// Something that is fuzzed.
struct Target {
    name: &'static str,
    /// The crate of which it is a part.
    directory: &'static str,
}

const TARGETS: [Target; 11] = [
    Target { name: "packet", directory: "hivemind-common" },
    Target { name: "event", directory: "hivemind/crates/datapath" },
    Target { name: "netlink", directory: "hivemind/crates/datapath" },
    Target { name: "query", directory: "hivemind/crates/dns" },
    Target { name: "answer", directory: "hivemind/crates/dns" },
    Target { name: "datagram", directory: "hivemind/crates/membership" },
    Target { name: "join", directory: "hivemind/crates/api" },
    Target { name: "segment", directory: "hivemind/crates/flowlog" },
    Target { name: "manifest", directory: "hivemind/crates/manifest" },
    Target { name: "compose", directory: "hivemind/crates/compose" },
    Target { name: "message", directory: "supervisor" },
];

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    target: String,
    seconds: u32,
}

impl Options {
    /// Reads the arguments after `fuzz`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let (mut target, mut seconds) = (None, SECONDS);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--seconds" => {
                    let count = arguments.next().and_then(|count| count.parse().ok());
                    seconds = count
                        .filter(|&count| count > 0)
                        .context("--seconds wants how many, as a whole number above zero")?;
                }
                flag if flag.starts_with('-') => bail!("unknown flag {flag}; `cargo xtask help` lists them"),
                name if target.is_none() && TARGETS.iter().any(|target| target.name == name) => {
                    target = Some(name.to_owned());
                }
                _ if target.is_some() => bail!("one target at a time"),
                unknown => bail!("nothing that is fuzzed is called {unknown}; there are {}", names()),
            }
        }
        let target = target.with_context(|| format!("say what is to be fuzzed: {}", names()))?;
        Ok(Self { target, seconds })
    }
}

fn names() -> String {
    TARGETS.map(|target| target.name).join(", ")
}

/// Builds a target and feeds it; fails if it does.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let Some(target) = TARGETS.iter().find(|target| target.name == options.target) else {
        bail!("nothing that is fuzzed is called {}", options.target);
    };
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let package = workspace.root().join(target.directory).join("fuzz");
    let built = workspace.artifacts().join("fuzz");
    let mut cargo = workspace.cargo()?;
    cargo.current_dir(&package).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS);
    cargo
        .args(["build", "--release", "--bin", target.name, "--target", &platform, "--target-dir"])
        .arg(&built);
    process::run(&mut cargo)?;

    let (corpus, found) = (built.join("corpus").join(target.name), built.join("found").join(target.name));
    for directory in [&corpus, &found] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let program = built.join(&platform).join("release").join(target.name);
    let mut fuzzer = workspace.command(&program.to_string_lossy())?;
    fuzzer.arg(format!("-max_total_time={}", options.seconds));
    fuzzer.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer.arg(format!("-artifact_prefix={}/", found.display()));
    fuzzer.arg("-print_final_stats=1").arg(&corpus);
    for seeds in ["seeds", "regressions"] {
        let directory = package.join(seeds).join(target.name);
        if directory.is_dir() {
            fuzzer.arg(directory);
        }
    }
    process::run(&mut fuzzer).with_context(|| {
        format!(
            "{} fails by the input in {}; once that is mended, put it into {}",
            target.name,
            found.display(),
            package.join("regressions").join(target.name).display()
        )
    })
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_target_is_asked_for_by_name() {
        let options = Options::parse(&["packet", "--seconds", "5"]).unwrap();
        assert_eq!(options, Options { target: "packet".to_owned(), seconds: 5 });
        assert_eq!(Options::parse(&["query"]).unwrap().seconds, SECONDS);
        assert!(Options::parse(&["nothing"]).unwrap_err().to_string().contains("packet, event"));
        for wrong in [&[][..], &["packet", "event"], &["packet", "--seconds"], &["packet", "--seconds", "0"]]
        {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_lies_where_it_is_said_to() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for Target { name, directory } in TARGETS {
            let file = format!("{root}/{directory}/fuzz/fuzz_targets/{name}.rs");
            assert!(fs::exists(&file).unwrap(), "{file} is missing");
        }
    }
}
