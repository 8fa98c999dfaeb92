//! A node whose services are rules of the kernel's packet filter, as kube-proxy writes them.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::super::pair::Pair;
use super::super::wires::{Layout, Wires};
use super::{iptables, nftables};
use crate::Sandbox;

/// The port of all services and of their endpoints.
pub(super) const PORT: u16 = 7;

/// The addresses of replicas. Who is none of them is masqueraded.
pub(super) const REPLICAS: &str = "10.9.0.0/16";

/// The addresses of services.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// How many endpoints services have that lead elsewhere than to the server.
const ENDPOINTS_OF_OTHERS: u8 = 2;

/// In what the rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Iptables,
    Nftables,
}

/// One service and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// From 1.
    pub(super) number: usize,
    pub(super) address: Ipv4Addr,
    pub(super) endpoints: Vec<Ipv4Addr>,
}

/// A client, a server, and the node between them.
pub(super) struct Proxied {
    wires: Wires,
    /// How what the rules are for is called in names of metrics.
    rules_by: &'static str,
}

impl Proxied {
    /// With so many services; the last one and the [`middle`] one lead to the server.
    pub(super) fn start(rules: Rules, count: usize) -> Result<Self> {
        let wires = Wires::lay(Layout::Routed)?;
        let services = services(count, wires.address(0));
        let node = wires.middle()?;
        let rules_by = match rules {
            Rules::Nftables => {
                load(node, &["nft", "-f", "-"], &nftables::ruleset(&services), "nftables")?;
                "nftables"
            }
            Rules::Iptables => {
                let (program, rules_by) = backend(node)?;
                load(node, &[program], &iptables::rules(&services), "iptables")?;
                rules_by
            }
        };
        Ok(Self { wires, rules_by })
    }

    /// From the client to the server itself.
    pub(super) fn pair(&self) -> Result<Pair> {
        self.wires.pair()
    }

    pub(super) fn rules_by(&self) -> &'static str {
        self.rules_by
    }
}

/// The service in the middle of so many, unless that is the last one.
pub(super) fn middle(count: usize) -> Option<usize> {
    (count > 1).then_some(count / 2)
}

/// The address of a service.
pub(super) fn service_v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, (number >> 8) as u8, number as u8)
}

/// In the order in which they are written.
fn services(count: usize, server: Ipv4Addr) -> Vec<Service> {
    let service = |number: usize| {
        let leads_to_server = number == count || Some(number) == middle(count);
        // Addresses of nobody.
        let other = |endpoint: u8| Ipv4Addr::new(10, 10 + endpoint, (number >> 8) as u8, number as u8);
        let endpoints = match leads_to_server {
            true => vec![server],
            false => (0..ENDPOINTS_OF_OTHERS).map(other).collect(),
        };
        Service { number, address: service_v4(number), endpoints }
    };
    (1..=count).map(service).collect()
}

/// What loads rules of iptables, and how that is called: the kernel's own tables where it has them, nftables otherwise.
fn backend(node: &Sandbox) -> Result<(&'static str, &'static str)> {
    let legacy = node.run(&["iptables-legacy", "--table", "nat", "--list-rules"])?;
    if legacy.status.success() {
        return Ok(("iptables-legacy-restore", "iptables_legacy"));
    }
    if node.run(&["iptables-nft", "--version"])?.status.success() {
        return Ok(("iptables-nft-restore", "iptables_nft"));
    }
    bail!("there is no iptables: install the package iptables")
}

/// Has a program read rules inside the node.
fn load(node: &Sandbox, words: &[&str], rules: &str, package: &str) -> Result<()> {
    let [program, arguments @ ..] = words else { bail!("no program to load rules with") };
    if !node.run(&[program, "--version"])?.status.success() {
        bail!("there is no program {program}: install the package {package}");
    }
    let mut child = node
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let written = child.stdin.take().context("no input")?.write_all(rules.as_bytes());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} refused the rules: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(written?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two services: the first one of two endpoints, the last one of the server.
    pub(in super::super) fn two() -> Vec<Service> {
        let mut two = services(2, Ipv4Addr::new(10, 9, 0, 2));
        two[0].endpoints = vec![Ipv4Addr::new(10, 10, 0, 1), Ipv4Addr::new(10, 11, 0, 1)];
        two
    }

    #[test]
    fn the_last_service_and_the_middle_one_lead_to_the_server() {
        let server = Ipv4Addr::new(10, 9, 0, 2);
        let many = services(10_000, server);
        let leading: Vec<usize> = many
            .iter()
            .filter(|service| service.endpoints == [server])
            .map(|service| service.number)
            .collect();
        assert_eq!(leading, [5_000, 10_000]);
        assert_eq!(many[9_999].address, Ipv4Addr::new(10, 96, 39, 16));
        assert!(
            many.iter().all(|service| service.endpoints.len() == 1 || !service.endpoints.contains(&server))
        );
        assert_eq!(services(1, server)[0].endpoints, [server]);
    }
}
