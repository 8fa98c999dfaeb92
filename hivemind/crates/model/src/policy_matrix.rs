//! Who may speak to whom, beside who does.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    policy_check::PolicyCheckVerdict,
    policy_simulation::{SimulationReach, TrafficCount},
};

/// What today's policies allow, beside what was recorded. Ends are `namespace/app`, `host` (processes of nodes; as a source those of other
/// nodes than the replica's), `dns`, and `world`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatrix {
    /// From when on records were asked for.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Until when they were.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// How far the records of each node really reach.
    pub nodes: Vec<SimulationReach>,
    /// Whose records are missing, in whole or in part: `node <name>`, or `log` where some of a log cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// How many apps there are that have replicas.
    pub apps: u64,
    /// Pairs of which something was recorded: those with the most refused attempts first, then those with the most connections; at most
    /// 10,000.
    pub pairs: Vec<MatrixPair>,
    /// How many more pairs there are of which something was recorded.
    pub more_pairs: u64,
    /// What else is allowed, and was never used: first what everything is allowed of, then what is so of the most pairs; at most 10,000, with
    /// 100,000 ends in sum.
    pub open: Vec<MatrixOpen>,
    /// How many more there are that are put together like those.
    pub more_open: u64,
    /// Apps whose ingress no policy governs: they may be asked for everything by whoever no policy keeps from asking. Their pairs with one
    /// another are not in `open`.
    pub open_from_all: Vec<String>,
    /// Apps whose egress no policy governs: they may ask for everything whoever no policy keeps from being asked.
    pub open_to_all: Vec<String>,
    /// How many pairs have nothing allowed and nothing recorded.
    pub closed: u64,
    /// How many pairs without records were not judged, since there are too many, or since policies name too many domains.
    pub unjudged: u64,
    /// Recorded pairs, by port, of which one end is no more or has no replica.
    pub gone: u64,
    /// Recorded pairs, by port, of which nobody knows an end, or what it spoke.
    pub unknown: u64,
    /// Connections for which there was no room: they are in none of the others.
    pub beyond: u64,
}

/// A pair of ends of which something was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatrixPair {
    /// Who begins.
    pub source: String,
    /// With whom.
    pub destination: String,
    /// Whether it was judged what may pass; if not, everything that says so is empty.
    pub judged: bool,
    /// What may pass of all replicas and addresses of both ends.
    pub allowed: MatrixPorts,
    /// What may pass of some of them, and not of all.
    #[serde(default, skip_serializing_if = "MatrixPorts::is_empty")]
    pub some: MatrixPorts,
    /// What passed.
    pub used: Vec<MatrixUse>,
    /// How many more ports were used.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_used: u64,
    /// What was tried and refused.
    pub denied: Vec<MatrixUse>,
    /// How many more ports were tried and refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_denied: u64,
    /// Of what is allowed, what did not pass.
    pub unused: MatrixPorts,
    /// Of what is allowed for some, what did not pass.
    #[serde(default, skip_serializing_if = "MatrixPorts::is_empty")]
    pub unused_by_some: MatrixPorts,
}

/// Connections of one port that were recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatrixUse {
    /// As of flows.
    pub protocol: String,
    /// The port, of a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How many connections or attempts there were; none where they had begun before the records.
    pub connections: TrafficCount,
    /// Bytes of IP packets that the source sent; none of attempts that were refused. Those of connections that the destination's node
    /// refused after the source's had let them pass are in it where others passed.
    pub bytes_sent: TrafficCount,
    /// Bytes of IP packets that the source was sent back.
    pub bytes_received: TrafficCount,
    /// What today's policies say of them; none where they were not judged. Of ICMP, of which no types are recorded, they are judged as
    /// echo requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<PolicyCheckVerdict>,
}

/// Pairs of which the same is allowed and nothing was recorded: each source with each destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatrixOpen {
    /// Who may begin.
    pub sources: Vec<String>,
    /// With whom.
    pub destinations: Vec<String>,
    /// What may pass of all replicas and addresses.
    pub allowed: MatrixPorts,
    /// What may pass of some of them, and not of all.
    #[serde(default, skip_serializing_if = "MatrixPorts::is_empty")]
    pub some: MatrixPorts,
}

/// What connections may speak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatrixPorts {
    /// Protocols with ports, in order; at most 256. Everything that two ends can speak is one of the protocol `any`.
    pub ranges: Vec<MatrixRange>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

impl MatrixPorts {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// A protocol with some or all of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatrixRange {
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`; `other` for all besides these, and `any` for everything.
    pub protocol: String,
    /// The first port; none if all are meant. Of ICMP 256 times the type, and the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u16>,
    /// The last port, as `first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
