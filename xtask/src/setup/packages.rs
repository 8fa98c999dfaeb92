//! The Debian packages that are installed into the system, and only where what they bring is missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernels;
use crate::process;
use crate::workspace::Workspace;

/// A Debian package and what tells that it is not needed.
pub(super) struct SystemPackage {
    /// Debian's name for it.
    pub(super) name: &'static str,
    /// What it is for, in a few words.
    pub(super) purpose: &'static str,
    present_if: Presence,
}

enum Presence {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

const PACKAGES: [SystemPackage; 21] = [
    program("gcc", "gcc", "links Rust programs"),
    file("libc6-dev", "/usr/include/stdlib.h", "links Rust programs"),
    program("containerd", "containerd", "runs containers"),
    program("runc", "runc", "runs containers, below containerd"),
    program("protobuf-compiler", "protoc", "builds the client of containerd's API"),
    program("nftables", "nft", "is what services are measured beside, and a witness in tests"),
    program("iptables", "iptables-nft", "is what services are measured beside"),
    program("iproute2", "ip", "lays out networks in tests"),
    program("skopeo", "skopeo", "pushes images to the registry of the tests"),
    program("debootstrap", "debootstrap", "makes the bare Debian in which a release is tried"),
    program("procps", "ps", "looks at processes"),
    program("curl", "curl", "asks web servers in tests"),
    program("iputils-ping", "ping", "reaches replicas in tests"),
    program("chromium", "chromium", "looks at the dashboard in its test"),
    program("bind9-dnsutils", "dig", "asks the DNS server in tests"),
    program("dnsperf", "dnsperf", "asks it many times"),
    program("dnsmasq-base", "dnsmasq", "is its upstream, and what it is measured beside"),
    program("util-linux", "nsenter", "enters namespaces"),
    program(
        kernels::EMULATOR_PACKAGE,
        kernels::EMULATOR,
        "boots other kernels for the tests of the data path",
    ),
    program("xz-utils", "xz", "unpacks the modules of those"),
    file("ca-certificates", "/etc/ssl/certs/ca-certificates.crt", "registries over HTTPS"),
];

/// Needed only to fetch the cargo tools and Node.js, so only where one of those is missing.
const PIP: SystemPackage = program("python3-pip", "pip3", "fetches prebuilt tools");

const fn program(name: &'static str, program: &'static str, purpose: &'static str) -> SystemPackage {
    SystemPackage { name, purpose, present_if: Presence::Program(program) }
}

const fn file(name: &'static str, file: &'static str, purpose: &'static str) -> SystemPackage {
    SystemPackage { name, purpose, present_if: Presence::File(file) }
}

/// The packages whose program or file is not there.
pub(super) fn missing(workspace: &Workspace, with_pip: bool) -> Vec<&'static SystemPackage> {
    let is_missing = |package: &&SystemPackage| match package.present_if {
        Presence::Program(name) => workspace.find_program(name).is_none(),
        Presence::File(path) => !Path::new(path).exists(),
    };
    PACKAGES.iter().chain(with_pip.then_some(&PIP)).filter(is_missing).collect()
}

/// Installs packages by apt, as root or through sudo.
pub(super) fn install(packages: &[&SystemPackage]) -> Result<()> {
    if let Err(error) = process::run(apt().arg("update")) {
        // A broken third-party source must not stop what Debian's own mirror can serve.
        println!("apt-get update had errors; going on with the lists that are there ({error:#})");
    }
    let names = packages.iter().map(|package| package.name);
    process::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(names))
        .context("apt could not install the packages; install them by hand and run this again")
}

/// `apt-get` with the rights it needs, asking nothing and starting no service.
fn apt() -> Command {
    // systemctl does nothing under SYSTEMD_OFFLINE, so a package's maintainer scripts cannot start its unit.
    let environment = ["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1"];
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("env")
    } else {
        let mut command = Command::new("sudo");
        command.arg("env");
        command
    };
    command.args(environment).args(["apt-get", "-q"]);
    command
}
