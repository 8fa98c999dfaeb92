//! Several nodes on one fabric, whose daemons make one cluster: node 0 is the server, and the others join it.

mod apps;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::fabric::{Fabric, FabricOptions};
use crate::node::{Node, NodeOptions};
use crate::registry::Registry;
use crate::wait::eventually;

pub use apps::both_addresses;

/// How long nodes get to be ready once their daemons run.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How to make a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// The network between its nodes.
    pub fabric: FabricOptions,
    /// How each node is made; its fabric is the cluster's.
    pub node: NodeOptions,
}

/// Some nodes on one fabric. Dropping it removes all of it.
#[derive(Debug)]
pub struct Cluster {
    registries: Mutex<Vec<Registry>>,
    nodes: Vec<Node>,
    fabric: Arc<Fabric>,
}

impl Cluster {
    /// Makes `nodes` nodes, each with a containerd, all at once; no daemons yet.
    ///
    /// # Errors
    /// As [`Node::start`]; what was made is removed.
    pub fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, &ClusterOptions::default())
    }

    /// As [`Cluster::start`], of another kind.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(nodes: usize, options: &ClusterOptions) -> Result<Self> {
        let fabric = Fabric::start_with(options.fabric)?;
        let node = || Node::start(NodeOptions { fabric: Some(fabric.clone()), ..options.node.clone() });
        let nodes = at_once((0..nodes).map(|_| node))?;
        Ok(Self { registries: Mutex::default(), nodes, fabric })
    }

    /// The network between the nodes.
    #[must_use]
    pub fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// Node 0, whose daemon the others join.
    ///
    /// # Panics
    /// In a cluster without nodes.
    #[must_use]
    pub fn server(&self) -> &Node {
        self.node(0)
    }

    /// A node by its number from 0.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// All nodes, the server first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Starts a registry on every node, the server's daemon, and then the others' all at once; returns when the server
    /// says that every node is ready.
    ///
    /// # Errors
    /// When one of them does not start or join; the error holds the end of its daemon's log.
    pub fn start_daemons(&self) -> Result<()> {
        let registries = at_once(self.nodes.iter().map(|node| || node.registry()))?;
        self.registries.lock().unwrap_or_else(PoisonError::into_inner).extend(registries);
        self.server().daemon_start()?;
        at_once(self.nodes.iter().skip(1).map(|node| || self.join(node, &self.token()?)))?;
        self.until_ready(self.nodes.len())
    }

    /// A token by which one daemon joins.
    ///
    /// # Errors
    /// When the server's daemon gives none.
    pub fn token(&self) -> Result<String> {
        let said = self.server().hivemind_ok(&["node", "token", "create"])?;
        let token = said.trim();
        ensure!(
            token.starts_with("hmj_") && !token.contains(char::is_whitespace),
            "this is no token: {said:?}"
        );
        Ok(token.to_owned())
    }

    /// Says whether new replicas are put on a node; if they are, it is not drained any more either.
    ///
    /// # Errors
    /// When the server does not know the node, or does not answer.
    pub fn cordon(&self, number: usize, is_cordoned: bool) -> Result<()> {
        let command = if is_cordoned { "cordon" } else { "uncordon" };
        self.server().hivemind_ok(&["node", command, self.node(number).name()]).map(drop)
    }

    /// Starts a node's daemon for the first time, as an agent of the server's.
    ///
    /// # Errors
    /// As [`Node::daemon_start`].
    pub fn join(&self, node: &Node, token: &str) -> Result<()> {
        let server = self.server().addresses().ipv4.to_string();
        node.daemon_start_with(&["--join", &server, "--token", token])
    }

    /// Waits until the server knows just so many nodes, and all of them are ready.
    ///
    /// # Errors
    /// When that does not become true.
    pub fn until_ready(&self, nodes: usize) -> Result<()> {
        eventually(READY_LIMIT, "every node to be ready", || {
            let listed = self.server().json(&["node", "ls"])?;
            let listed = listed["items"].as_array().context("`node ls` prints no list")?;
            let ready = listed.iter().filter(|node| node["status"]["state"] == "Ready").count();
            if (listed.len(), ready) != (nodes, nodes) {
                bail!("{ready} of {} nodes are ready; there should be {nodes}", listed.len());
            }
            Ok(())
        })
    }

    /// Waits until the server says of a node that it is in this state.
    ///
    /// # Errors
    /// When that does not become true.
    pub fn until_state(&self, number: usize, state: &str, limit: Duration) -> Result<()> {
        let name = self.node(number).name();
        eventually(limit, &format!("{name} to be {state}"), || {
            let node = self.server().json(&["node", "info", name])?;
            ensure!(node["status"]["state"] == state, "it is {}", node["status"]["state"]);
            Ok(())
        })
    }

    /// Where a port of a node is reached over IPv4.
    ///
    /// # Panics
    /// When there are not so many nodes.
    #[must_use]
    pub fn at(&self, number: usize, port: u16) -> SocketAddr {
        (self.node(number).addresses().ipv4, port).into()
    }

    /// Removes everything and waits until it is gone.
    ///
    /// # Errors
    /// When something of a node could not be removed; names it.
    pub fn stop(self) -> Result<()> {
        drop(self.registries);
        self.nodes.into_iter().try_for_each(Node::stop)
    }
}

/// Does all of it at the same time, each on a thread of its own, and waits for all.
fn at_once<T, F>(functions: impl Iterator<Item = F>) -> Result<Vec<T>>
where
    T: Send,
    F: FnOnce() -> Result<T> + Send,
{
    let results: Vec<Result<T>> = thread::scope(|scope| {
        let threads: Vec<_> = functions.map(|function| scope.spawn(function)).collect();
        let result = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(result).collect()
    });
    results.into_iter().collect()
}
