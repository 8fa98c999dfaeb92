//! `cargo xtask COMMAND`: every command that CI or a person runs on this repository.
//!
//! It prepares a machine (`setup`), makes what cargo alone cannot make (`build-ebpf`, `ui`, `images`), checks everything
//! (`test`), on other kernels too (`kernels`), measures (`bench`) and packs a release (`dist`). It holds no logic of the product itself. Start at
//! [`workspace`] for where things lie, then at the module named after the command.
#![forbid(unsafe_code)]

mod bench;
mod debian;
mod dist;
mod ebpf;
mod fuzz;
mod images;
mod kernels;
mod next;
mod process;
mod setup;
mod test;
mod ui;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup [--check]         install what a bare Debian 12 with Rust lacks; --check only reports
  build-ebpf              build the eBPF programs into target/ebpf/hivemind.bpf.o
  build-next              build the programs for the tests, and beside them those with other maps to which tests upgrade
  ui                      check and build the dashboard into ui/dist, from where the program embeds it
  images                  make the images that the tests run, and a registry that serves them
  up [--nodes N | --check] start the daemon with a demo app until Ctrl-C; --nodes makes a cluster in namespaces instead;
                          --check plays the stories of a node and of a cluster and tears them down
  test [--fast] [FILTER]  everything that must pass before a change lands; --fast leaves out the end-to-end tests
                          and other kernels
  kernels [--update] [--emulate] [KERNEL [FILTER]]
                          boot Debian's kernels 6.1, 6.12 and newest in virtual machines and run the data path's tests there;
                          --update fetches newer packages of them, --emulate leaves /dev/kvm alone
  fuzz TARGET [--seconds N]
                          feed what parses bytes (packet, event, netlink, query, answer, datagram, join, message) for a minute or
                          N seconds, led by which branches are taken
  bench NAME [--json] [--check]
                          measure footprint, containers, datapath, services, telemetry, dns, policy, cluster, all of these, or churn,
                          which takes ten minutes; --check fails if a promise is broken
  dist [--check]          pack a release into dist/; --check installs and runs it in a bare Debian 12
  help                    this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::locate()?;
    match words.as_slice() {
        ["setup"] => setup::install(&workspace),
        ["setup", "--check"] => setup::check(&workspace),
        ["build-ebpf"] => ebpf::build(&workspace),
        ["build-next"] => next::build(&workspace),
        ["ui"] => ui::build(&workspace),
        ["images"] => images::build(&workspace),
        ["up"] => up::run(&workspace),
        ["up", "--check"] => up::check(&workspace),
        ["up", "--nodes", nodes] => up::cluster(&workspace, nodes),
        ["test", rest @ ..] => test::run(&workspace, &test::Options::parse(rest)?),
        ["kernels", rest @ ..] => kernels::run(&workspace, &kernels::Options::parse(rest)?),
        ["fuzz", rest @ ..] => fuzz::run(&workspace, &fuzz::Options::parse(rest)?),
        ["bench", rest @ ..] => bench::run(&workspace, &bench::Options::parse(rest)?),
        ["dist"] => dist::build(&workspace).map(drop),
        ["dist", "--check"] => dist::check(&workspace),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        [unknown, ..] => bail!("unknown command or arguments: {unknown}\n\n{USAGE}"),
    }
}
