//! The bench `cluster`: what a connection from one node to another costs, how soon what changes is known everywhere, and
//! what a cluster takes of memory.
//!
//! Replicas of two nodes on one cable are compared with the nodes themselves, and those with two hosts without Hivemind;
//! beside them stands what the kernel's own VXLAN does for containers on bridges. A cable is a pair of virtual interfaces,
//! with no switch between. Everything is on: policies that govern both ends, tracking and telemetry.

mod death;
mod spread;
mod underlay;

use std::time::Instant;

use anyhow::Result;

use super::figure::Figure;
use super::memory;
use super::pair::{Kind, Pair, Turns};
use crate::{Cluster, ClusterOptions, FabricOptions, Layout, Node, NodeOptions};
use underlay::{Hosts, KernelVxlan, cable};

pub use spread::ask;

/// How each way is measured.
const TURNS: Turns = Turns { rounds: 9, stretch_ms: 400 };

/// Of the nodes' own requests and responses a second, and of their throughput.
const OVERLAY_RR_MIN: f64 = 0.85;
const DIRECT_RR_MIN: f64 = 0.92;
const THROUGHPUT_MIN: f64 = 0.95;

/// The nodes of the cluster whose memory is looked at, and its apps of one replica.
const NODES: usize = 3;
const APPS: usize = 10;

/// How often a node joins.
const JOINS: usize = 5;

/// MB are 10^6 bytes.
const MEGABYTE: f64 = 1e6;

/// Governs both apps in both directions and allows what the bench does.
const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}],
    ports: [{port: 7}, {port: 8}, {port: 7, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: server}}}]}]
";

/// The figures of one kind, by way: hosts, kernel VXLAN, and the nodes and the replicas of either routing.
struct Names {
    kind: Kind,
    host: &'static str,
    kernel_vxlan: &'static str,
    overlay: [&'static str; 2],
    direct: [&'static str; 2],
    /// The replicas of either routing against hosts without Hivemind.
    of_host: [&'static str; 2],
    /// Of the nodes' own: over the overlay, by direct routing.
    promised: Option<[f64; 2]>,
}

const NAMES: [Names; 4] = [
    Names {
        kind: Kind::TcpRr,
        host: "host_tcp_rr",
        kernel_vxlan: "kernel_vxlan_tcp_rr",
        overlay: ["overlay_node_tcp_rr", "overlay_tcp_rr"],
        direct: ["direct_node_tcp_rr", "direct_tcp_rr"],
        of_host: ["overlay_vs_host_tcp_rr", "direct_vs_host_tcp_rr"],
        promised: Some([OVERLAY_RR_MIN, DIRECT_RR_MIN]),
    },
    Names {
        kind: Kind::UdpRr,
        host: "host_udp_rr",
        kernel_vxlan: "kernel_vxlan_udp_rr",
        overlay: ["overlay_node_udp_rr", "overlay_udp_rr"],
        direct: ["direct_node_udp_rr", "direct_udp_rr"],
        of_host: ["overlay_vs_host_udp_rr", "direct_vs_host_udp_rr"],
        promised: Some([OVERLAY_RR_MIN, DIRECT_RR_MIN]),
    },
    Names {
        kind: Kind::TcpCrr,
        host: "host_tcp_crr",
        kernel_vxlan: "kernel_vxlan_tcp_crr",
        overlay: ["overlay_node_tcp_crr", "overlay_tcp_crr"],
        direct: ["direct_node_tcp_crr", "direct_tcp_crr"],
        of_host: ["overlay_vs_host_tcp_crr", "direct_vs_host_tcp_crr"],
        promised: None,
    },
    Names {
        kind: Kind::Throughput,
        host: "host_throughput",
        kernel_vxlan: "kernel_vxlan_throughput",
        overlay: ["overlay_node_throughput", "overlay_throughput"],
        direct: ["direct_node_throughput", "direct_throughput"],
        of_host: ["overlay_vs_host_throughput", "direct_vs_host_throughput"],
        promised: Some([THROUGHPUT_MIN, THROUGHPUT_MIN]),
    },
];

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let mut figures = across(progress)?;
    figures.extend(joins(progress)?);
    figures.extend(death::run(progress)?);
    progress(&format!("cluster: {NODES} nodes with {APPS} apps"));
    let cluster = Cluster::start(NODES)?;
    cluster.start_daemons()?;
    for app in 0..APPS {
        cluster.deploy(&format!("app-{app}"), "busybox", &["--command", "sleep 3600"])?;
    }
    let resident = |node: &Node| Ok(memory::settled(node.daemon_pid()?)? as f64 / MEGABYTE);
    let agents: Vec<f64> = cluster.nodes().iter().skip(1).map(resident).collect::<Result<_>>()?;
    figures.push(Figure::new("daemon_rss_server", "MB", vec![resident(cluster.server())?]));
    figures.push(Figure::new("daemon_rss_agent", "MB", agents));
    figures.extend(spread::run(&cluster, progress)?);
    Ok(figures)
}

/// From one machine to another, in all ways.
fn across(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("cluster: two hosts, kernel VXLAN, and two clusters of two nodes");
    let hosts = Hosts::start()?;
    let vxlan = KernelVxlan::start(&hosts)?;
    let (overlay, direct) = (cabled("overlay")?, cabled("direct")?);
    let pairs = [
        hosts.pair()?,
        vxlan.pair()?,
        of_nodes(&overlay)?,
        of_replicas(&overlay)?,
        of_nodes(&direct)?,
        of_replicas(&direct)?,
    ];
    let mut figures = Vec::new();
    for names in &NAMES {
        let samples = TURNS.measure("cluster", &pairs, names.kind, progress)?;
        figures.extend(compared(names, samples));
    }
    Ok(figures)
}

fn compared(names: &Names, samples: [Vec<f64>; 6]) -> Vec<Figure> {
    let unit = names.kind.unit();
    let [host, vxlan, overlay_nodes, overlay, direct_nodes, direct] = &samples;
    let ours = |[nodes, replicas]: [&'static str; 2], theirs: &[f64], samples: &[f64], least: Option<f64>| {
        let figure = Figure::paired(replicas, unit, samples, (nodes, theirs));
        match least {
            Some(least) => figure.at_least_times(least),
            None => figure,
        }
    };
    vec![
        ours(names.overlay, overlay_nodes, overlay, names.promised.map(|[overlay, _]| overlay)),
        ours(names.direct, direct_nodes, direct, names.promised.map(|[_, direct]| direct)),
        Figure::paired(names.of_host[0], unit, overlay, (names.host, host)),
        Figure::paired(names.of_host[1], unit, direct, (names.host, host)),
        Figure::paired(names.overlay[0], unit, overlay_nodes, (names.host, host)),
        Figure::paired(names.direct[0], unit, direct_nodes, (names.host, host)),
        Figure::paired(names.kernel_vxlan, unit, vxlan, (names.host, host)),
        Figure::new(names.host, unit, host.clone()),
    ]
}

/// Two nodes on one cable, each with a replica that only waits: the ends are put beside them.
fn cabled(routing: &str) -> Result<Cluster> {
    let fabric = FabricOptions { layout: Layout::Bridged, ..FabricOptions::default() };
    let daemon_flags = vec!["--routing".to_owned(), routing.to_owned()];
    let node = NodeOptions { daemon_flags, ..NodeOptions::default() };
    let cluster = Cluster::start_with(2, &ClusterOptions { fabric, node })?;
    let machines = [cluster.node(0).sandbox(), cluster.node(1).sandbox()];
    let addresses = [cluster.node(0).addresses().ipv4, cluster.node(1).addresses().ipv4];
    for machine in machines {
        machine.check(&["ip", "link", "del", "eth0"])?;
    }
    cable(machines, addresses)?;
    for (machine, other) in machines.into_iter().zip([addresses[1], addresses[0]]) {
        machine.check(&["ip", "route", "add", "default", "via", &other.to_string()])?;
    }
    cluster.start_daemons()?;
    cluster.deploy_waiting_on(0, "server", &[])?;
    cluster.deploy_waiting_on(1, "client", &[])?;
    cluster.server().apply(POLICY)?;
    Ok(cluster)
}

fn of_nodes(cluster: &Cluster) -> Result<Pair> {
    let server = cluster.node(0);
    Pair::of_sandboxes([server.sandbox(), cluster.node(1).sandbox()], server.addresses().ipv4.into())
}

fn of_replicas(cluster: &Cluster) -> Result<Pair> {
    let (server, client) = (cluster.server().replica("server")?, cluster.server().replica("client")?);
    Pair::of_replicas([(cluster.node(0), &server), (cluster.node(1), &client)])
}

/// From the start of a daemon that joins until a replica that waited for a node is ready there.
fn joins(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let mut samples = Vec::new();
    for number in 1..=JOINS {
        progress(&format!("cluster: join {number} of {JOINS}"));
        let cluster = Cluster::start(2)?;
        samples.push(join(&cluster)?);
    }
    Ok(vec![Figure::new("join_to_first_replica", "s", samples)])
}

fn join(cluster: &Cluster) -> Result<f64> {
    let (server, node) = (cluster.server(), cluster.node(1));
    let _registries = [server.registry()?, node.registry()?];
    server.daemon_start()?;
    cluster.cordon(0, true)?;
    // Nobody waits for it: as yet there is no node for it.
    cluster.deploy("first", "busybox", &["--command", "sleep 3600", "--detach"])?;
    let token = cluster.token()?;
    let began = Instant::now();
    cluster.join(node, &token)?;
    spread::until_ready(cluster, "first")?;
    Ok(began.elapsed().as_secs_f64())
}
