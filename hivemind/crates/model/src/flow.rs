//! Flows: who spoke to whom, and what became of it.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SYSTEM_NAMESPACE;

/// A connection, or an attempt at one, as a node saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When this was seen.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The node that saw it.
    pub node: String,
    /// What happened.
    pub event: FlowEvent,
    /// Whether it may pass.
    pub verdict: FlowVerdict,
    /// Why not: a stable word such as `policy_ingress` or `spoofed_source`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same in a sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub explanation: String,
    /// The rule that let it leave its source, or did not; none where no policy governs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_rule: Option<RuleRef>,
    /// The rule that let it enter its destination, or did not; none where no policy governs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_rule: Option<RuleRef>,
    /// Who began it.
    pub source: FlowEnd,
    /// With whom.
    pub destination: FlowEnd,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or the protocol's number; empty where the packet could not be read.
    pub protocol: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub began: Option<Timestamp>,
    /// Bytes of IP packets that the source sent so far.
    pub bytes_sent: u64,
    /// Bytes of IP packets that the destination sent back so far.
    pub bytes_received: u64,
    /// Packets that the source sent so far.
    pub packets_sent: u64,
    /// Packets that the destination sent back so far.
    pub packets_received: u64,
    /// The mean round trip, in microseconds, that the kernel's TCP measured between the workloads of the two ends since
    /// the data path was made. Left out where it measured none, and of flows with the world, whose round trips are many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// What went between two ends over one protocol and port within a minute.
///
/// If `exact`, connections, bytes and packets are those of the kernel's counters, and none is missing or told twice. The shares say
/// more of the connections, as far as they were told one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowMinute {
    /// The minute at whose end it was counted, by its beginning.
    #[schema(value_type = String, format = DateTime)]
    pub minute: Timestamp,
    /// How many seconds the count covers: since the last one on disk, also while no daemon ran or the disk was full, or since the machine's
    /// boot.
    pub seconds: u32,
    /// The node that counted. What goes from node to node is counted on both.
    pub node: String,
    /// Whether it may pass: `allowed`, `denied` or `dropped`. Which of what is `allowed` is `audited` is said by the shares.
    pub verdict: FlowVerdict,
    /// Who began it; without address, port and replica.
    pub source: FlowEnd,
    /// With whom; the port is the one that was asked. Without address and replica.
    pub destination: FlowEnd,
    /// As [`Flow::protocol`].
    pub protocol: String,
    /// Whether the numbers are the kernel's totals. If not, they are those of events that were told.
    pub exact: bool,
    /// Connections that began; of what was denied, attempts; of what was dropped, packets.
    pub connections: u64,
    /// Bytes of IP packets that the source sent.
    pub bytes_sent: u64,
    /// Bytes of IP packets that the destination sent back.
    pub bytes_received: u64,
    /// Packets that the source sent.
    pub packets_sent: u64,
    /// Packets that the destination sent back.
    pub packets_received: u64,
    /// The mean of the round trips, in microseconds, that were measured between the two meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// The connections by verdict, addresses outside, reason and rules, as far as they were told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<FlowShare>,
    /// Connections that are in no share: events that were lost, or found no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: u64,
}

impl FlowMinute {
    /// How the connections of one of its shares were judged.
    pub fn verdict_of(&self, share: &FlowShare) -> FlowVerdict {
        share.verdict.unwrap_or(self.verdict)
    }
}

/// Connections that have the same verdict, addresses outside, reason and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowShare {
    /// How they were judged; left out where that is the record's verdict. The kernel counts what is `audited` with what is `allowed`,
    /// so that only the shares of a record can tell the two apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<FlowVerdict>,
    /// The source's address or block of addresses, if it is no replica; none where there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<IpNet>,
    /// The same of the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub destination: Option<IpNet>,
    /// As [`FlowEnd::domain`], of the destination when it was told; empty where the destination is a block of addresses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Why they did not pass; empty if they did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The rule of the source's side that decided, by its name at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_rule: Option<RuleRef>,
    /// The rule of the destination's side that decided, by its name at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_rule: Option<RuleRef>,
    /// How many.
    pub connections: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far back a node's events reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowReach {
    /// The node.
    pub node: String,
    /// Since when its events are known; older ones were forgotten.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Whether that is as far as was asked for.
    pub complete: bool,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowEvent {
    /// Its first packet passed.
    New,
    /// It is going on.
    Live,
    /// It ended, or was silent for too long.
    Closed,
    /// A packet of it was refused by a policy.
    Denied,
    /// A packet was dropped for another reason.
    Dropped,
}

/// Whether a flow may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowVerdict {
    /// It may.
    Allowed,
    /// A policy says no.
    Denied,
    /// It cannot be carried.
    Dropped,
    /// It may, and a policy that only tells would say no.
    Audited,
}

impl FlowVerdict {
    /// The word in queries and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowVerdict::Allowed => "allowed",
            FlowVerdict::Denied => "denied",
            FlowVerdict::Dropped => "dropped",
            FlowVerdict::Audited => "audited",
        }
    }
}

/// One end of a flow, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowEnd {
    /// What it is: `replica`, `host` (the node's own processes), `node` (another node's), `dns`, `world`, `check`
    /// (an end of a check of the network), or `unknown`.
    pub kind: String,
    /// The namespace, of a replica.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The app, of a replica.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// The replica's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replica: String,
    /// The node that it is on; left out where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The workload identity.
    pub identity: u32,
    /// The address, if the packet could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The port, if the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The domain name, without a dot at its end, for which the node's DNS server last answered with this address; empty if it did
    /// not, and for a replica.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleRef {
    /// The policy's namespace.
    pub namespace: String,
    /// The policy's name; `policy <number>` if it is gone.
    pub policy: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Which rule of that direction, from 0; none if the policy governs the replica and none of its rules allows the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

impl RuleRef {
    /// The rule of no policy by which a node's own processes always reach its replicas.
    pub fn node_to_replicas() -> Self {
        RuleRef {
            namespace: SYSTEM_NAMESPACE.to_owned(),
            policy: "node-to-replicas".to_owned(),
            direction: "ingress".to_owned(),
            index: None,
        }
    }
}

/// One line of a stream of flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "object", rename_all = "lowercase")]
pub enum FlowLine {
    /// A flow.
    Flow(Box<Flow>),
    /// So many events were lost before this line, in the kernel or on the way.
    Lost(FlowLoss),
    /// What went within a minute; in answers about history only.
    Minute(Box<FlowMinute>),
    /// How far back a node's events reach; first, where the request says since when.
    Reach(FlowReach),
}

/// Events that could not be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowLoss {
    /// How many.
    pub events: u64,
    /// Where: `kernel` (more a second than the kernel tells, or than fit its buffer) or `stream` (the reader was too slow).
    pub place: String,
}
