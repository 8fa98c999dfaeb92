//! Other nodes: how they are reached, and the replicas that they have.
//!
//! [`lifecycle`] makes what packets between nodes need, of a [`plan`]; [`endpoints`] keeps the addresses of other nodes'
//! replicas. Without a cluster nothing of it exists.

pub(crate) mod endpoints;
pub(crate) mod lifecycle;
mod plan;
mod port_holder;

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// How packets get from a replica of one node to one of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routing {
    /// In VXLAN packets from node to node, over whatever network is between them.
    Overlay,
    /// As they are, over a network that knows which node has which addresses, or on which all nodes are neighbours.
    Direct,
}

/// The cluster as one of its nodes sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterSpec {
    /// How packets travel between nodes.
    pub routing: Routing,
    /// This node's number, 1 to 1023.
    pub own: u16,
    /// This node's cluster address, one of its own.
    pub address: Ipv4Addr,
    /// The other nodes.
    pub nodes: Vec<RemoteNode>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteNode {
    /// Its number, 1 to 1023.
    pub number: u16,
    /// Its name, for messages.
    pub name: String,
    /// Its cluster address.
    pub address: Ipv4Addr,
    /// The addresses of its replicas.
    pub ranges: (Ipv4Net, Ipv6Net),
}

/// A replica of another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteEndpoint {
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Its workload identity, 24 bits.
    pub identity: u32,
    /// The number of its node.
    pub node: u16,
}
