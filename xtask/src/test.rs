//! `cargo xtask test`: everything that must pass before a change lands, with a closing summary.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{dist, ebpf, images, kernels, next, process, setup, ui};

/// All of it ends within this.
const TOTAL_LIMIT: Duration = Duration::from_secs(80 * 60);

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Leave out the end-to-end tests, other kernels, and the check of the packages.
    fast: bool,
    /// Only tests whose name contains this, and none of the other checks.
    filter: Option<String>,
}

impl Options {
    /// Reads the arguments after `test`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match *argument {
                "--fast" => options.fast = true,
                flag if flag.starts_with('-') => bail!("unknown flag {flag}; `cargo xtask help` lists them"),
                _ if options.filter.is_some() => bail!("one filter at most"),
                filter => options.filter = Some(filter.to_owned()),
            }
        }
        Ok(options)
    }
}

/// What a step's failure means for the steps after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// They cannot run.
    Ends,
    /// They run, so that one run tells of all faults.
    Counts,
}

struct Step<'a> {
    name: &'static str,
    failure: Failure,
    action: Box<dyn Fn(Duration) -> Result<()> + 'a>,
}

/// Runs the steps and prints a summary; fails if any step did.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let started = Instant::now();
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for step in steps(workspace, options) {
        println!("\n== {}", step.name);
        let begun = Instant::now();
        let left = TOTAL_LIMIT.saturating_sub(started.elapsed());
        let result = if left.is_zero() {
            Err(anyhow::anyhow!("no time left of {} minutes", TOTAL_LIMIT.as_secs() / 60))
        } else {
            (step.action)(left)
        };
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!("  {:<24} {word:<6} {:>7.1} s", step.name, begun.elapsed().as_secs_f64()));
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(step.name);
            if step.failure == Failure::Ends {
                break;
            }
        }
    }
    println!("\n== summary\n{}", summary.join("\n"));
    println!("  {:<24} {:<6} {:>7.1} s", "all", "", started.elapsed().as_secs_f64());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn steps<'a>(workspace: &'a Workspace, options: &'a Options) -> Vec<Step<'a>> {
    let step =
        |name, failure, action: Box<dyn Fn(Duration) -> Result<()> + 'a>| Step { name, failure, action };
    let cargo = move |name, failure, arguments: &'static [&'static str]| {
        step(
            name,
            failure,
            Box::new(move |limit| process::run_within(workspace.cargo()?.args(arguments), limit)),
        )
    };
    let mut steps = vec![
        step("setup", Failure::Ends, Box::new(|_| setup::install(workspace))),
        step("build-ebpf", Failure::Ends, Box::new(|_| ebpf::build(workspace))),
        step("ui", Failure::Ends, Box::new(|_| ui::build(workspace))),
        step("images", Failure::Ends, Box::new(|_| images::build(workspace))),
    ];
    if options.filter.is_none() {
        steps.push(cargo("format", Failure::Counts, &["fmt", "--all", "--check"]));
        steps.push(step("format and clippy of eBPF", Failure::Counts, Box::new(|_| ebpf::check(workspace))));
        steps.push(cargo(
            "clippy",
            Failure::Counts,
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ));
        steps.push(cargo(
            "licences and sources",
            Failure::Counts,
            &["deny", "check", "licenses", "bans", "sources"],
        ));
    }
    // The end-to-end tests run programs that cargo builds only for their own packages' tests.
    steps.push(step("build", Failure::Ends, Box::new(|_| next::build(workspace))));
    steps.push(step("tests", Failure::Counts, Box::new(|limit| tests(workspace, options, limit))));
    if options.filter.is_none() {
        // Of a build with other maps: what it makes of those of this one, and whether the kernel takes its programs.
        steps.push(cargo(
            "tests of the next layout",
            Failure::Counts,
            &[
                "nextest",
                "run",
                "--package",
                "hivemind-common",
                "--package",
                "hivemind-datapath",
                "--features",
                "hivemind-common/next-layout,hivemind-datapath/next-layout",
                "--filterset",
                "package(hivemind-common) or test(change::) or test(loading::)",
            ],
        ));
        steps.push(cargo(
            "documentation tests",
            Failure::Counts,
            &["test", "--workspace", "--doc", "--quiet"],
        ));
        if !options.fast {
            // Those are kernels of x86-64. All that is tested there takes longer than there is time for here.
            if cfg!(target_arch = "x86_64") {
                let run = |_| kernels::run(workspace, &kernels::Options::loading());
                steps.push(step("kernels", Failure::Counts, Box::new(run)));
            }
            steps.push(step("packages", Failure::Counts, Box::new(|_| dist::check(workspace))));
        }
    }
    steps
}

fn tests(workspace: &Workspace, options: &Options, limit: Duration) -> Result<()> {
    let mut cargo = workspace.cargo()?;
    cargo.args(["nextest", "run", "--workspace"]);
    if options.fast {
        cargo.args(["--filterset", "not package(hivemind-tests)"]);
    }
    cargo.args(&options.filter);
    run_tests_as_root(&mut cargo)?;
    process::run_within(&mut cargo, limit)
}

/// Lets cargo, which stays who it is, run the test programs through sudo where this is not root.
pub(crate) fn run_tests_as_root(cargo: &mut Command) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    println!("The tests make network namespaces and load eBPF programs, so they run through sudo.");
    process::run(Command::new("sudo").arg("--validate"))
        .context("tests need root; run this as root, or as somebody who may use sudo")?;
    let version = process::capture(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    let path = cargo
        .get_envs()
        .find(|(name, _)| *name == "PATH")
        .and_then(|(_, value)| value)
        .context("the command has no PATH")?;
    // sudo sets a PATH of its own even with --preserve-env.
    let runner = format!("sudo --preserve-env env PATH={}", path.to_string_lossy());
    cargo.env(variable, runner);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_flag_and_one_filter_in_any_order() {
        let options = Options::parse(&["web", "--fast"]).unwrap();
        assert_eq!(options, Options { fast: true, filter: Some("web".to_owned()) });
        assert!(Options::parse(&["--slow"]).is_err());
        assert!(Options::parse(&["a", "b"]).is_err());
    }

    #[test]
    fn a_filter_leaves_out_the_checks_that_have_no_tests() {
        let workspace = Workspace::locate().unwrap();
        let names =
            |options: Options| steps(&workspace, &options).iter().map(|step| step.name).collect::<Vec<_>>();
        let filtered = names(Options { filter: Some("x".to_owned()), fast: false });
        assert_eq!(filtered, ["setup", "build-ebpf", "ui", "images", "build", "tests"]);
        assert!(names(Options::default()).contains(&"packages"));
        let fast = names(Options { fast: true, filter: None });
        assert!(!fast.contains(&"packages") && !fast.contains(&"kernels"));
    }
}
