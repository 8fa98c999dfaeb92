//! `cargo xtask kernels`: whether the data path works on other kernels than that of this machine.
//!
//! Each kernel of Debian's is booted in a virtual machine that has nothing but memory: its file system is an archive
//! ([`initramfs`]) of the kernel's modules, busybox, and the test programs of `hivemind-datapath` with what they call. The
//! machine loads every eBPF program, runs the packet table and then the tests that make endpoints, tells on its serial
//! console how that went, and ends. Nothing is installed and nothing leaves the machine.

mod guest;
mod image;
mod initramfs;
mod modules;
mod report;
mod tests;

use std::env;
use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use guest::{Accelerator, Guest};
pub(crate) use guest::{EMULATOR, EMULATOR_PACKAGE};
use image::Image;
use report::Report;
use tests::TestPrograms;

/// A kernel of Debian's.
struct Kernel {
    /// What it is called here.
    name: &'static str,
    /// The suites that have it, or a newer one of its kind.
    suites: &'static [&'static str],
    /// How its version begins; nothing for the newest of the suites.
    series: &'static str,
    /// What it cannot do.
    left_out: &'static [LeftOut],
}

/// Tests that are not run on a kernel.
struct LeftOut {
    /// Why not.
    why: &'static str,
    /// Parts of their names.
    tests: &'static [&'static str],
}

/// Left out everywhere: tens of thousands of connections take minutes where the processor is emulated.
const COUNTED: LeftOut =
    LeftOut { why: "shares of connections are counted on the machine's own kernel", tests: &["weights::"] };

/// The oldest kernel that the product takes, that of the Debian that is stable, and the newest.
const KERNELS: [Kernel; 3] = [
    Kernel {
        name: "6.1",
        suites: &["bookworm", "bookworm-security"],
        series: "6.1.",
        left_out: &[
            COUNTED,
            LeftOut {
                why: "nodes are joined from 6.3 on, and refused before",
                tests: &[
                    "cluster::",
                    "elsewhere::",
                    "sockets::connections_with_another_nodes_replica_end_when_that_is_gone",
                    "trace::a_replica_of_another_node_is_reached_through_the_overlay_or_as_it_is",
                    "nodes::a_packet_from_another_node_is_unwrapped_and_redirected_to_its_endpoint",
                    "overlay::a_packet_from_another_node_is_taken_out_of_its_headers_and_handed_to_the_endpoint",
                ],
            },
            LeftOut {
                why: "interfaces have links from 6.6 on, and filters before",
                tests: &[
                    "endpoints::no_packet_of_the_node_is_lost_while_an_endpoint_changes_over_to_its_lasting_links",
                    "life::a_kernel_without_links_for_interfaces_is_served_by_filters",
                    "life::connections_old_and_new_go_on_while_the_data_path_is_closed_and_opened_again",
                    "policies::an_endpoint_made_after_its_policy_is_judged_by_it_from_its_first_packet",
                ],
            },
        ],
    },
    Kernel { name: "6.12", suites: &["trixie", "trixie-security"], series: "6.12.", left_out: &[COUNTED] },
    Kernel { name: "newest", suites: &["trixie-backports", "sid"], series: "", left_out: &[COUNTED] },
];

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Ask Debian for newer packages of the kernels, though there are some here.
    update: bool,
    /// Emulate the processor even if it could be used.
    emulate: bool,
    /// Only the kernel of this name.
    kernel: Option<String>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

impl Options {
    /// Only whether each kernel loads every program.
    pub(crate) fn loading() -> Self {
        Self { filter: Some("loading".to_owned()), ..Self::default() }
    }

    /// Reads the arguments after `kernels`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match *argument {
                "--update" => options.update = true,
                "--emulate" => options.emulate = true,
                flag if flag.starts_with('-') => bail!("unknown flag {flag}; `cargo xtask help` lists them"),
                _ if options.filter.is_some() => bail!("one kernel and one filter at most"),
                filter if options.kernel.is_some() => options.filter = Some(filter.to_owned()),
                name if KERNELS.iter().any(|kernel| kernel.name == name) => {
                    options.kernel = Some(name.to_owned());
                }
                unknown => bail!("no kernel is called {unknown} here; there are {}", names().join(", ")),
            }
        }
        Ok(options)
    }
}

fn names() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// Boots the kernels one after the other and prints how each did; fails if anything failed on any.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("the kernels that are booted here are those of x86-64, which this machine is not");
    }
    let emulator = workspace.find_program(EMULATOR);
    let emulator = emulator.with_context(|| {
        format!("{EMULATOR} is missing; run `cargo xtask setup`, or install the package {EMULATOR_PACKAGE}")
    })?;
    let directory = workspace.kernels();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("cannot make the lock of the kernels")?;
    lock.lock().context("cannot lock the kernels")?;

    let programs = TestPrograms::build(workspace)?;
    let busybox = image::busybox(&directory)?;
    let mut accelerator =
        if options.emulate { Accelerator::Emulation } else { Accelerator::of_this_machine() };
    let mut reports = Vec::new();
    let is_asked_for = |kernel: &&Kernel| options.kernel.as_deref().is_none_or(|name| name == kernel.name);
    for kernel in KERNELS.iter().filter(is_asked_for) {
        let image = Image::fetch(kernel, &directory, options.update)?;
        println!("\n== Linux {} ({})", image.release, kernel.name);
        for LeftOut { why, tests } in kernel.left_out {
            println!("Left out, since {why}:\n  {}", tests.join("\n  "));
        }
        let filter = options.filter.as_deref();
        let content = tests::archive(workspace, &programs, &image, &busybox, &tests::runs(kernel, filter))?;
        let own = directory.join(kernel.name);
        let (initramfs, console) = (own.join("initramfs"), own.join("console.log"));
        content.write(&initramfs)?;
        let guest =
            Guest { emulator: &emulator, kernel: &image.kernel, initramfs: &initramfs, console: &console };
        let begun = Instant::now();
        // The others are booted all the same, so that one run tells of all faults.
        let lines = guest.run(&mut accelerator).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Vec::new()
        });
        fs::remove_file(&initramfs).context("cannot remove the guest's file system")?;
        let report = Report::read(&image.release, lines, begun.elapsed(), filter.is_some());
        report.print_failures();
        reports.push(report);
    }
    conclude(&reports, accelerator)
}

fn conclude(reports: &[Report], accelerator: Accelerator) -> Result<()> {
    println!("\n== summary ({})\n{}", accelerator.description(), report::table(reports));
    let failed: Vec<_> =
        reports.iter().filter(|report| !report.is_good()).map(|report| report.release.as_str()).collect();
    if !failed.is_empty() {
        bail!("failed on {}; what was said there is above and in target/kernels", failed.join(" and on "));
    }
    Ok(())
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_kernel_is_asked_for_by_name() {
        let options = Options::parse(&["--update", "6.1"]).unwrap();
        assert_eq!(options, Options { update: true, kernel: Some("6.1".to_owned()), ..Options::default() });
        assert!(Options::parse(&["5.15"]).unwrap_err().to_string().contains("6.1, 6.12, newest"));
        assert_eq!(Options::parse(&["6.1", "overlay"]).unwrap().filter.as_deref(), Some("overlay"));
        assert!(Options::parse(&["6.1", "overlay", "policy"]).is_err());
        assert!(Options::parse(&["--fast"]).is_err());
    }
}
