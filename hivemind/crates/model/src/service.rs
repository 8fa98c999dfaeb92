//! Services: a stable name and virtual address in front of an app's replicas.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{app::Protocol, error::Problem, metadata::Metadata};

/// The name and virtual addresses of an app; made and removed with the app, whose name it bears.
///
/// A connection to a service address goes to the same port of one of its endpoints, whatever the port is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The app's name and namespace.
    pub metadata: Metadata,
    /// Addresses, names and ports.
    pub spec: ServiceSpec,
    /// Where connections go now.
    #[serde(default)]
    pub status: ServiceStatus,
}

/// Addresses, names and ports of a service; they stay for its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// The data path's number for it, never 0.
    pub number: u32,
    /// Its IPv4 address.
    #[schema(value_type = String)]
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    #[schema(value_type = String)]
    pub ipv6: Ipv6Addr,
    /// Names besides `<app>.<namespace>.svc.<cluster domain>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Ports published on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedPort>,
}

/// A port of the host that leads to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Where connections go now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Replicas that take connections.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Why a node could not set the service up, for example because a host port is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The same of each node that could not, by the node's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_problems: BTreeMap<String, Problem>,
}

impl ServiceStatus {
    /// Notes what is in the way on `node`, or that nothing is.
    pub fn note(&mut self, node: &str, problem: Option<Problem>) {
        match problem {
            Some(problem) => drop(self.node_problems.insert(node.to_owned(), problem)),
            None => drop(self.node_problems.remove(node)),
        }
        self.sum_up();
    }

    /// Forgets the nodes for which `stays` does not hold.
    pub fn retain_nodes(&mut self, stays: impl Fn(&str) -> bool) {
        self.node_problems.retain(|node, _| stays(node));
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.problem = self.node_problems.values().next().cloned();
    }
}

/// A replica that takes connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The replica's name.
    pub replica: String,
    /// The node it is on.
    pub node: String,
    /// Its IPv4 address.
    #[schema(value_type = String)]
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    #[schema(value_type = String)]
    pub ipv6: Ipv6Addr,
}
