//! Endpoints: the replicas as the data path sees them.

pub(crate) mod lifecycle;
pub(crate) mod table;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// What an endpoint shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSpec {
    /// Names the endpoint and the file of its network namespace: 1 to 200 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`, not
    /// beginning with a dot.
    pub id: String,
    /// Its IPv4 address, within the node's replica range.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, within the node's replica range.
    pub ipv6: Ipv6Addr,
    /// Its workload identity, 24 bits.
    pub identity: u32,
}

/// An endpoint that stands: its namespace may be joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its index in the maps.
    pub index: u32,
    /// The name of the host end of its veth pair, `hm<index>`.
    pub interface: String,
    /// The file at which its network namespace is mounted.
    pub netns: PathBuf,
}

/// An endpoint as it was made or adopted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointInfo {
    /// What it was asked to be.
    pub spec: EndpointSpec,
    /// What it is.
    pub endpoint: Endpoint,
}
