//! A cluster's apps: where their replicas are, and what is seen from there.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::Cluster;
use crate::node::Node;
use crate::wait::eventually;

/// How long an answer may take that comes at all.
const ANSWER_LIMIT_S: &str = "2";

impl Cluster {
    /// Deploys an app, wherever its replicas are put.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn deploy(&self, name: &str, image: &str, further: &[&str]) -> Result<()> {
        let words = ["app", "deploy", name, "--image", image];
        self.server().hivemind_ok(&[&words, further].concat()).map(drop)
    }

    /// Deploys an app whose replicas are all put on one node.
    ///
    /// # Errors
    /// When it does not come up, or somewhere else.
    pub fn deploy_on(&self, number: usize, name: &str, image: &str, further: &[&str]) -> Result<()> {
        let chosen = self.node(number).name();
        let others = || (0..self.nodes().len()).filter(|other| *other != number);
        others().try_for_each(|other| self.cordon(other, true))?;
        let deployed = self.deploy(name, image, further);
        others().try_for_each(|other| self.cordon(other, false))?;
        deployed?;
        for replica in self.server().replicas(name)? {
            ensure!(replica["spec"]["node"] == chosen, "{name} has a replica elsewhere: {replica}");
        }
        Ok(())
    }

    /// As [`Self::deploy_on`], an app that only waits.
    ///
    /// # Errors
    /// As [`Self::deploy_on`].
    pub fn deploy_waiting_on(&self, number: usize, name: &str, further: &[&str]) -> Result<()> {
        self.deploy_on(number, name, "busybox", &[&["--command", "sleep 3600"], further].concat())
    }

    /// The node that a replica, given as the API's JSON, is on.
    ///
    /// # Errors
    /// When it is on none of these nodes.
    pub fn node_of(&self, replica: &Value) -> Result<&Node> {
        let name = &replica["spec"]["node"];
        let node = self.nodes().iter().find(|node| name == node.name());
        node.with_context(|| format!("the replica is on no node of the cluster: {replica}"))
    }

    /// Does something, such as opening a socket, in a replica's network, on a thread of its own.
    ///
    /// # Errors
    /// When the network cannot be entered.
    ///
    /// # Panics
    /// When the function does.
    pub fn in_network_of<T: Send>(&self, replica: &Value, function: impl FnOnce() -> T + Send) -> Result<T> {
        let node = self.node_of(replica)?;
        let path = node.sandbox().outside(&node.network_of_replica(replica)?);
        let network = File::open(path).context("the replica has no network")?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).context("cannot enter the replica's network")?;
                Ok(function())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gets a page as a program of a replica does: in its network, and in a cgroup in which services' addresses are known.
    ///
    /// # Errors
    /// When no page comes within two seconds.
    pub fn get_from(&self, replica: &Value, address: SocketAddr, path: &str) -> Result<String> {
        let node = self.node_of(replica)?;
        let network = format!("--net={}", node.network_of_replica(replica)?.display());
        let url = format!("http://{address}{path}");
        node.sandbox().check(&["nsenter", &network, "curl", "-sSf", "-m", ANSWER_LIMIT_S, &url])
    }

    /// The addresses of an app's service, IPv4 and IPv6.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn service(&self, name: &str) -> Result<[IpAddr; 2]> {
        let service = self.server().json(&["service", "info", name])?;
        both_addresses(&service["spec"])
    }

    /// Waits until an app has so many replicas, all ready, and its service as many endpoints; returns the replicas.
    ///
    /// # Errors
    /// When that does not become true.
    pub fn until_up(&self, app: &str, count: usize, limit: Duration) -> Result<Vec<Value>> {
        eventually(limit, &format!("{app} to be up with {count}"), || {
            let ready = self.server().ready_replicas(app)?;
            ensure!(ready == count, "{ready} replicas");
            let service = self.server().json(&["service", "info", app])?;
            let endpoints = service["status"]["endpoints"].as_array().map_or(0, Vec::len);
            ensure!(endpoints == count, "{endpoints} endpoints");
            self.server().replicas(app)
        })
    }
}

/// The addresses in `ipv4` and `ipv6` of a JSON object, such as a replica's status.
///
/// # Errors
/// When it has none.
pub fn both_addresses(object: &Value) -> Result<[IpAddr; 2]> {
    let address = |family: &str| -> Result<IpAddr> {
        object[family]
            .as_str()
            .with_context(|| format!("no {family} in {object}"))?
            .parse()
            .context("no address")
    };
    Ok([address("ipv4")?, address("ipv6")?])
}
