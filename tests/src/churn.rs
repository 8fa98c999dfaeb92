//! Identities that come and go, and what stands on the node before and after.
//!
//! A server with two real replicas, which talk, and simulated nodes beside it. Apps of one replica are deployed there and removed
//! again, each with a label that no app had before and that a policy names, so that each has an identity of its own: the
//! server makes and removes it, and its node's data path knows the replica's address and lets it through to a real replica.

mod driver;
mod standing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_client::Client;
use tokio::runtime::{Builder, Runtime};

use crate::maps::PinnedMaps;
use crate::node::{Node, policy};
use crate::simulated::SimulatedNodes;
use crate::traffic::{Traffic, TrafficReport};

pub use driver::{Churn, Churned};
pub use standing::Standing;

/// How many simulated nodes there are: each has room for 253 replicas.
const SIMULATED: u8 = 2;

/// Long connections of the traffic, besides a stream of new ones.
const LONG: usize = 2;

/// How long the node gets to be as it was.
const SETTLE_LIMIT: Duration = Duration::from_secs(100);

/// The label that each app has another value of.
pub(crate) const GENERATION: &str = "generation";

/// A server with an app `server` that serves pages and an app `client`, and simulated nodes for all further apps.
pub struct ChurnNode {
    // Dropped before the node: they are its members.
    pub(crate) simulated: SimulatedNodes,
    pub(crate) node: Node,
    pub(crate) executor: Runtime,
    /// How many apps were ever made.
    pub(crate) generation: u64,
}

impl ChurnNode {
    /// Makes it, with the policy that names the label: pods that have it, and the client, reach the server.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn start() -> Result<Self> {
        let (node, registry) = Node::with_daemon()?;
        node.hivemind_ok(&["app", "deploy", "server", "--image", "nginx"])?;
        node.deploy_waiting("client", &[])?;
        registry.stop()?;
        let peers = format!(
            "[{{podSelector: {{matchExpressions: [{{key: {GENERATION}, operator: Exists}}]}}}}, \
             {{podSelector: {{matchLabels: {{app: client}}}}}}]"
        );
        let spec = format!("{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: {peers}}}]}}");
        node.apply(&policy("server", &spec))?;
        node.hivemind_ok(&["node", "cordon", node.name()])?;
        let simulated = SimulatedNodes::join(&node, SIMULATED)?;
        let executor = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { simulated, node, executor, generation: 0 })
    }

    /// The server's node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The nodes without containers.
    #[must_use]
    pub fn simulated(&self) -> &SimulatedNodes {
        &self.simulated
    }

    pub(crate) fn client(&self) -> Client {
        Client::unix(self.node.sandbox().outside(&self.node.socket()))
    }

    /// Has the client ask the server, by its own address, until the traffic is stopped.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn talk(&self) -> Result<Traffic> {
        let client = self.node.replica("client")?;
        let id = client["metadata"]["id"].as_str().context("no id")?;
        let server = self.node.replica("server")?;
        let address = server["status"]["ipv4"].as_str().context("no address")?.parse()?;
        Traffic::start(&self.node, SocketAddr::new(address, 80), LONG, Some(id))
    }

    /// The maps of the node.
    pub(crate) fn maps(&self) -> PinnedMaps {
        let bpffs = self.node.sandbox().outside(&self.node.sandbox().directory().join("bpf/hivemind"));
        PinnedMaps::of_version(&bpffs, hivemind_common::ABI_VERSION)
    }
}

/// Ends traffic that was to go on without a fault.
///
/// # Errors
/// What failed of it, or that there was none.
pub(crate) fn end_traffic(traffic: Traffic) -> Result<TrafficReport> {
    let report = traffic.stop()?;
    ensure!(report.failures.is_empty(), "traffic failed: {:?}", report.failures);
    ensure!(report.long_requests > 0 && report.new_connections > 0, "there was no traffic: {report:?}");
    Ok(report)
}

/// The labels of the app number `generation`.
pub(crate) fn labels(generation: u64) -> BTreeMap<String, String> {
    [(GENERATION.to_owned(), format!("g{generation}"))].into()
}
