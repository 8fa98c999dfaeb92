//! What the daemon tells the data path at start.

use crate::Protocol;
use hivemind_common::telemetry::FEATURES_ALL;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

/// Where and with what the data path runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's short name, 1 to 11 of `a-z`, `0-9`, `-`, beginning with a letter: names the interface of the services and
    /// of the DNS addresses (`<name>0`) and, as a prefix of the alias, the endpoints' interfaces.
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
    /// Destinations outside of the cluster that replicas reach under their own addresses, since they know the way back: at most
    /// 256 in each family. To all others replicas are known by the address of the interface by which the node reaches them.
    pub unmasked: Vec<IpNet>,
    /// The first and the last port of the node's addresses that connections of replicas to the outside get. The node's own
    /// connections never get one of them.
    pub masquerade_ports: (u16, u16),
    /// What replicas reach only if a policy names its address.
    pub guarded: Guarded,
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

/// Destinations that are no replica's business: a replica reaches them only by a rule of a policy for a block of addresses that
/// holds theirs, not because nothing was said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guarded {
    /// These addresses, whatever the port.
    pub addresses: Vec<IpAddr>,
    /// These ports of every node.
    pub ports: Vec<(u16, Protocol)>,
}

impl Config {
    /// Where clouds tell a machine its secrets, IPv4 and IPv6.
    pub const METADATA: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    ];
    /// The ports above those that Linux gives to the node's own connections by default.
    pub const MASQUERADE_PORTS: (u16, u16) = (61_000, 65_535);
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
    /// Connections that are translated packet by packet, for each family: those that leave under the node's address, those by
    /// published ports, and those with services that no socket hook saw.
    pub translations: u32,
    /// Packets that come in fragments and are not yet whole, for each family; the least recently seen give way.
    pub fragments: u32,
    /// Clients that services with session affinity remember, all together; the least recently seen give way.
    pub affinity: u32,
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
    /// Rules of policies for which it is counted what they decided, once for each verdict. What finds no room counts for all
    /// others together.
    pub verdicts: u32,
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
            translations: 32_768,
            fragments: 4_096,
            affinity: 16_384,
            node_addresses: 256,
            policies: 65_536,
            prefixes: 16_384,
            pairs: 16_384,
            round_trips: 4_096,
            verdicts: 8_192,
            events_bytes: 1 << 19,
        }
    }
}
