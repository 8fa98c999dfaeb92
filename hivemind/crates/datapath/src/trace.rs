//! What would become of a packet: a second copy of the programs is run on it, one after the other as the kernel would
//! (`BPF_PROG_TEST_RUN`), there and back.
//!
//! [`walk`] follows the packet from program to program, [`tables`] looks up what is known of its connection, [`packet`] makes
//! frames and reads them. The socket hooks cannot be run by hand: what they would do is read from the maps ([`socket`]).

mod packet;
mod socket;
mod tables;
mod walk;

use crate::{DropReason, Error, FlowEvent, Protocol, node::Node};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Which packet is traced: the first one of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceSpec {
    /// Who sends it.
    pub from: TraceFrom,
    /// The address and the port that it is sent to.
    pub to: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it is sent from; if none is given, one from which nothing is known.
    pub source_port: Option<u16>,
}

/// Who sends a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TraceFrom {
    /// The endpoint of this name.
    Endpoint(String),
    /// A process of the node.
    Host,
    /// Somebody outside of the node, under this address.
    Outside(IpAddr),
}

/// A packet's ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceTuple {
    /// Who sends it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
}

impl TraceTuple {
    /// The ends of the answer.
    pub(crate) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// One thing that happens to a packet on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceStep {
    /// Whether this is the answer's way.
    pub is_reply: bool,
    /// The program, or the hook; `host` is the node's own stack.
    pub program: &'static str,
    /// The interface at which the program sits; empty for a hook.
    pub interface: String,
    /// The packet as it came.
    pub came: TraceTuple,
    /// The packet as it went on.
    pub went: TraceTuple,
    /// The connection, as the program judged it: who its ends are, and by which rules it may pass or may not.
    pub flow: Option<FlowEvent>,
    /// What became of the packet.
    pub done: TraceDone,
}

/// What became of a packet at one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TraceDone {
    /// The hook left the destination as it was.
    AsAsked,
    /// The hook sends the connection to a backend; `remembered`: to the one that this client had before.
    Backend {
        /// Whether session affinity chose it.
        remembered: bool,
    },
    /// The service has no backend: whoever asked is refused.
    Refused,
    /// It was dropped.
    Dropped(DropReason),
    /// It reached an endpoint.
    Endpoint {
        /// The endpoint's name, if it is this data path's.
        id: Option<String>,
        /// The host end of its pair.
        interface: String,
    },
    /// It goes before the program at an endpoint's interface.
    Queued {
        /// The host end of its pair.
        interface: String,
    },
    /// The host's stack goes on with it.
    ToHost,
    /// It reached the node's own processes.
    Host,
    /// It is sent to another node, whose programs go on with it.
    ToNode {
        /// The node's cluster address.
        address: Ipv4Addr,
        /// The interface by which it leaves.
        interface: String,
        /// Whether it goes in the overlay, or as it is.
        overlay: bool,
    },
    /// It leaves the node.
    Out {
        /// The interface by which it leaves.
        interface: String,
        /// The next hop.
        next_hop: Option<IpAddr>,
    },
    /// The node has no route for it.
    NoRoute,
}

/// What becomes of a packet in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceVerdict {
    /// It arrives, or leaves the node, and so would the answer.
    Passes,
    /// It does not, or the answer does not.
    Dropped {
        /// Why; `None`: the node has no route for it, or its stack takes it no further.
        reason: Option<DropReason>,
        /// Whether that happens to the answer.
        is_reply: bool,
    },
}

/// A packet's way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The packet as it was sent.
    pub packet: TraceTuple,
    /// What happened to it, in order, and then to the answer.
    pub steps: Vec<TraceStep>,
    /// What became of it.
    pub verdict: TraceVerdict,
}

/// Traces a packet. In the node's network namespace; blocks for some hundred milliseconds.
pub(crate) fn run(node: &Node, spec: &TraceSpec) -> Result<Trace, Error> {
    walk::Walk::begin(node)?.trace(spec)
}
