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

/// How that with which services are compared is called: iptables, whichever of its two ways is looked at first.
pub(super) const IPTABLES: &str = "iptables";

/// How the rules are written, and by what they are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Nftables,
    /// iptables, by the kernel's own tables for it.
    IptablesLegacy,
    /// iptables, translated for nftables: what `iptables` is on Debian 12 unless another one is chosen.
    IptablesNft,
}

impl Rules {
    /// In names of metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesLegacy => "iptables_legacy",
            Self::IptablesNft => "iptables_nft",
        }
    }

    /// Whether a service costs more the more others are before it.
    pub(super) fn are_linear(self) -> bool {
        self != Self::Nftables
    }

    /// What reads the rules.
    fn loader(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &["nft", "-f", "-"],
            Self::IptablesLegacy => &["iptables-legacy-restore"],
            Self::IptablesNft => &["iptables-nft-restore"],
        }
    }

    /// The Debian package of that.
    fn package(self) -> &'static str {
        if self == Self::Nftables { "nftables" } else { "iptables" }
    }

    fn text(self, services: &[Service]) -> String {
        if self == Self::Nftables { nftables::ruleset(services) } else { iptables::rules(services) }
    }
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
    rules: Rules,
    name: &'static str,
}

impl Proxied {
    /// All that there are, with so many services each; the last one and the [`middle`] one lead to the server. [`IPTABLES`]
    /// is the kernel's own tables where it has them.
    pub(super) fn start_all(count: usize) -> Result<Vec<Self>> {
        let mut all = vec![Self::start(Rules::Nftables, "nftables", count)?];
        let wires = Wires::lay(Layout::Routed)?;
        if has_legacy_tables(wires.middle()?)? {
            all.push(Self::start(Rules::IptablesLegacy, IPTABLES, count)?);
            all.push(Self::start(Rules::IptablesNft, Rules::IptablesNft.name(), count)?);
        } else {
            all.push(Self::start(Rules::IptablesNft, IPTABLES, count)?);
        }
        Ok(all)
    }

    fn start(rules: Rules, name: &'static str, count: usize) -> Result<Self> {
        let wires = Wires::lay(Layout::Routed)?;
        load(wires.middle()?, rules, &services(count, wires.address(0)))?;
        Ok(Self { wires, rules, name })
    }

    /// Its part in the names of ratios.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// From the client to the server itself.
    pub(super) fn pair(&self) -> Result<Pair> {
        self.wires.pair()
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

/// Whether the kernel has tables for iptables besides nftables.
fn has_legacy_tables(node: &Sandbox) -> Result<bool> {
    let listed = node.run(&["iptables-legacy", "--table", "nat", "--list-rules"])?;
    Ok(listed.status.success())
}

/// Has the rules read inside the node.
fn load(node: &Sandbox, rules: Rules, services: &[Service]) -> Result<()> {
    let [program, arguments @ ..] = rules.loader() else { bail!("no program to load rules with") };
    if !node.run(&[program, "--version"])?.status.success() {
        bail!("there is no program {program}: install the package {}", rules.package());
    }
    let mut child = node
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let written = child.stdin.take().context("no input")?.write_all(rules.text(services).as_bytes());
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
