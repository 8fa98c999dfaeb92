//! The data path of one node: it loads the eBPF programs, pins their maps and links, and owns everything they stand
//! on: endpoints' network namespaces and veth pairs, addresses and routes, services, published ports, the interfaces to the outside.
//!
//! It does not decide anything: which replica has which address, which endpoints a service has and when they enter
//! it is the agent's business. It does not start containers; they join the namespaces made here. It answers no DNS;
//! it only gives the DNS server an interface to listen on.
//!
//! Everything outlives the process. Dropping a [`Datapath`], or killing its process, leaves all traffic running, and
//! [`Datapath::open`] adopts what it finds. Only [`Datapath::teardown`] removes it.
//!
//! Start with [`Datapath`]; what it is told is in [`Config`], [`EndpointSpec`] and [`ServiceSpec`].

mod addresses;
mod bpf;
mod bpffs;
mod change;
mod cluster;
mod config;
mod datapath;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod grace;
mod host;
mod identity_bits;
mod links;
mod maglev;
mod maps;
mod netlink;
mod netns;
mod network_changes;
mod node;
mod policy;
mod programs;
mod requirements;
mod reservation;
mod service;
mod slab;
mod sockets;
mod statistics;
mod teardown;
mod telemetry;
mod trace;
mod uplink;
mod worker;

pub use cluster::{ClusterSpec, RemoteEndpoint, RemoteNode, Routing};
pub use config::{Config, Guarded, MapSizes};
pub use datapath::Datapath;
pub use endpoint::{Endpoint, EndpointInfo, EndpointSpec};
pub use error::Error;
pub use hivemind_common::{drop_reason::DropReason, overlay::PORT as OVERLAY_PORT};
pub use network_changes::NetworkChanges;
#[doc(hidden)]
pub use programs::measure::{ProgramTime, program_times};
pub use service::{BackendSpec, Protocol, PublishedPort, ServicePort, ServicePorts, ServiceSpec};
pub use statistics::{ConnectionUse, DropStatistics, EndpointDrops, MapStatistics, Statistics, Whose};
pub use telemetry::{
    EventStatistics, FlowEvent, FlowItem, FlowKind, FlowPeer, PairStatistics, PairTotals,
    RoundTripStatistics, VerdictStatistics,
    feed::{FlowEvents, FlowFeed},
};
pub use trace::{Trace, TraceDone, TraceFrom, TraceSpec, TraceStep, TraceTuple, TraceVerdict};
