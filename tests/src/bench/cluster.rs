//! The bench `cluster`: what a connection from one node to another costs.
//!
//! Two hosts on one cable are the baseline; beside it stand replicas of two nodes on such a cable, and what the kernel's
//! own VXLAN does for containers on bridges. A cable is a pair of virtual interfaces, with no switch between.

mod underlay;

use anyhow::Result;

use super::figure::Figure;
use super::pair::{self, Kind, Pair};
use underlay::{Hosts, KernelVxlan};

/// How often each way is measured.
const ROUNDS: usize = 9;

/// What is measured, and the names of the figures: host to host, kernel VXLAN.
const KINDS: [(Kind, [&str; 2]); 4] = [
    (Kind::TcpRr, ["host_tcp_rr", "kernel_vxlan_tcp_rr"]),
    (Kind::UdpRr, ["host_udp_rr", "kernel_vxlan_udp_rr"]),
    (Kind::TcpCrr, ["host_tcp_crr", "kernel_vxlan_tcp_crr"]),
    (Kind::Throughput, ["host_throughput", "kernel_vxlan_throughput"]),
];

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("cluster: two hosts and kernel VXLAN");
    let hosts = Hosts::start()?;
    let vxlan = KernelVxlan::start(&hosts)?;
    let pairs = [hosts.pair()?, vxlan.pair()?];
    let mut figures = Vec::new();
    for (kind, names) in KINDS {
        figures.extend(across(&pairs, kind, names, progress)?);
    }
    Ok(figures)
}

fn across(
    pairs: &[Pair; 2],
    kind: Kind,
    [host, kernel_vxlan]: [&'static str; 2],
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>> {
    let [hosts, vxlan] = pair::in_turns("cluster", pairs, kind, ROUNDS, progress)?;
    Ok(vec![
        Figure::paired(kernel_vxlan, kind.unit(), &vxlan, (host, &hosts)),
        Figure::new(host, kind.unit(), hosts),
    ])
}
