//! The harness that makes nodes out of namespaces, so that end-to-end tests run several machines on one, beside one
//! another and without rights over the host's network.
//!
//! A [`Sandbox`] is a machine: its own network, mount and host-name namespaces, a tmpfs, a bpffs and a cgroup of its
//! own. A [`Fabric`] is a router with a machine outside, and a [`Node`] is a sandbox on it in which a Hivemind daemon,
//! a containerd and a registry can run. Its [`Link`] to the fabric can be cut, delayed and made lossy. A [`Cluster`] is
//! some nodes on one fabric. Everything a sandbox made goes when it is dropped, and also when the test is killed. It
//! does not mock anything: what runs in a node is what runs on a machine. Where systemd would run the daemon, the harness
//! does: it keeps its sockets while it is away ([`Node::fd_store`]).
//!
//! Start at [`Node::start`] or [`Cluster::start`]; [`eventually`] is how to wait. All of it needs root.
#![forbid(unsafe_code)]

mod background;
pub mod bench;
mod browser;
mod churn;
mod cluster;
pub mod echo;
mod fabric;
mod http;
mod inventory;
pub mod life;
mod link;
mod load;
mod maps;
mod node;
mod probe;
mod programs;
mod prometheus;
mod question;
mod registry;
mod sandbox;
mod simulated;
mod story;
mod traffic;
mod upstream;
mod wait;

pub use background::Background;
pub use browser::Browser;
pub use churn::{Churn, ChurnNode, Churned, Standing};
pub use cluster::{Cluster, ClusterOptions, both_addresses};
pub use fabric::{Addresses, Fabric, FabricOptions, Layout};
pub use http::{Response, get, get_accepting, get_unix};
pub use inventory::Inventory;
pub use life::LifeNode;
pub use link::{Direction, Link, LinkKind, LinkOptions, LinkQuality, forward};
pub use load::{Load, LoadReport, Plan, serve};
pub use maps::{Dropped, PinnedMaps, Translations};
pub use node::{Containerd, Node, NodeOptions, check_refusal, policy, policy_letting_in, policy_only};
pub use probe::{Held, Place};
pub use programs::{Build, artifacts, hivemind_binary, hivemind_of, image_archive};
pub use prometheus::{Prometheus, Sample, tool};
pub use question::Question;
pub use registry::Registry;
pub use sandbox::{Sandbox, hold, remains};
pub use simulated::{Simulated, SimulatedNodes, simulated_app};
pub use story::{play, play_cluster};
pub use traffic::{Traffic, TrafficReport};
pub use upstream::{UPSTREAM, start_upstream};
pub use wait::eventually;
