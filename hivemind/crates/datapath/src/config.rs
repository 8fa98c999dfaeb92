//! What the daemon tells the data path at start.

use hivemind_common::telemetry::FEATURES_ALL;
use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

/// Where and with what the data path runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's short name, 1 to 11 of `a-z`, `0-9`, `-`, beginning with a letter: names the nftables table
    /// (`<name>`), the interface of the DNS addresses (`<name>0`) and, as a prefix of the alias, the endpoints'
    /// interfaces.
    pub name: String,
    /// The directory of pins, `/sys/fs/bpf/hivemind` by default. A bpffs is mounted if there is none.
    pub bpffs: PathBuf,
    /// A directory of a cgroup v2 mount: its processes reach services.
    pub cgroup_root: PathBuf,
    /// The directory in which endpoints' network namespaces are mounted, one file each. Nothing else may live there.
    pub netns_dir: PathBuf,
    /// The addresses of this node's replicas.
    pub replica_range: (Ipv4Net, Ipv6Net),
    /// The addresses of all nodes' replicas.
    pub cluster_range: (Ipv4Net, Ipv6Net),
    /// The addresses of services.
    pub service_range: (Ipv4Net, Ipv6Net),
    /// The addresses at which replicas ask the DNS server.
    pub dns: (Ipv4Addr, Ipv6Addr),
    /// MTU of the replicas' interfaces in bytes, at least 1280; by default that of the interface with the default
    /// route (1500 without one) less the 50 that encapsulation between nodes takes.
    pub mtu: Option<u32>,
    /// How often expired connections are collected; the kernel goes on with it while no daemon runs.
    pub collect_interval: Duration,
    /// Which parts of the work the programs do, bits of [`hivemind_common::telemetry::FEATURES_ALL`]: to measure what each
    /// costs. Whatever is left out is not there at all, policy too.
    #[doc(hidden)]
    pub features: u32,
    /// Sizes of the maps. They take effect when a map is made; maps that are found pinned keep theirs.
    pub sizes: MapSizes,
}

impl Config {
    /// How often expired connections are collected by default.
    pub const COLLECT_INTERVAL: Duration = Duration::from_secs(10);
    /// Every part of the work.
    pub const FEATURES: u32 = FEATURES_ALL;
}

/// Capacities of the maps, in entries. The default fits a machine of 512 MB (about 60 MB if IPv4 and IPv6 are full).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSizes {
    /// Connections, for each family.
    pub conntrack: u32,
    /// Endpoints; one slot more is taken for the outside.
    pub endpoints: u32,
    /// Addresses with an identity, for each family.
    pub addresses: u32,
    /// Ports of services and published ports, for each family.
    pub services: u32,
    /// Backends, for each family.
    pub backends: u32,
    /// Cells of all services' tables together; a service takes at least 100 for each backend, twice while it changes.
    pub service_cells: u32,
    /// Sockets that are shown the service's address, for each family; the least recently used give way.
    pub reverse: u32,
    /// The node's own addresses, for each family.
    pub node_addresses: u32,
    /// Entries of all policies together; while a policy changes it takes room twice.
    pub policies: u32,
    /// Address blocks of all policies together, for each family.
    pub prefixes: u32,
    /// Pairs that are counted singly: source and destination identity, protocol, port, verdict. What finds no room counts
    /// into a collective one.
    pub pairs: u32,
    /// Pairs of identities whose round trips are measured.
    pub round_trips: u32,
    /// Bytes of the ring buffer through which flows are told; rounded up to a power of two. An event takes 144; the daemon
    /// maps the buffer twice in a row, and both count as its memory once they were used.
    pub events_bytes: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            conntrack: 65_536,
            endpoints: 1_024,
            addresses: 16_384,
            services: 4_096,
            backends: 16_384,
            service_cells: 262_144,
            reverse: 65_536,
            node_addresses: 256,
            policies: 65_536,
            prefixes: 16_384,
            pairs: 16_384,
            round_trips: 4_096,
            events_bytes: 1 << 19,
        }
    }
}
