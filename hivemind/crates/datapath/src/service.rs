//! Services: stable addresses in front of endpoints.

pub(crate) mod lifecycle;
pub(crate) mod table;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

/// A transport protocol that can be balanced or published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a service shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// A stable number, not zero, unique among services.
    pub id: u32,
    /// The virtual IPv4 address.
    pub address_v4: Ipv4Addr,
    /// The virtual IPv6 address.
    pub address_v6: Ipv6Addr,
    /// Which ports it answers on.
    pub ports: ServicePorts,
    /// Where its connections go. Without any, connecting fails with ECONNREFUSED.
    pub backends: Vec<BackendSpec>,
    /// Ports of the node that lead to it.
    pub published: Vec<PublishedPort>,
    /// For how many seconds after it last opened a connection a client is sent to the same backend; without, each
    /// connection is a new one. The client of a socket is the network namespace that it is in, that of a packet its source
    /// address. A change keeps what is remembered; a backend that is gone is forgotten.
    pub affinity_s: Option<NonZeroU32>,
}

/// The ports of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServicePorts {
    /// Every port of every protocol, kept as it is.
    All,
    /// These ports only.
    List(Vec<ServicePort>),
}

/// One port of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServicePort {
    /// The port at the service's address, not zero.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port of the endpoints, not zero.
    pub target_port: u16,
}

/// One endpoint behind a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendSpec {
    /// The endpoint's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The endpoint's IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Its share of new connections, relative to the others'; zero takes none.
    pub weight: u16,
}

/// One port published on the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublishedPort {
    /// The port at the node's addresses, not zero.
    pub host_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port of the endpoints, not zero.
    pub target_port: u16,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
