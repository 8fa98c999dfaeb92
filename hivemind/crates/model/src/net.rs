//! What the network would do with a packet, and whether every path of it works.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flow::{FlowEnd, FlowVerdict, RuleRef};

/// What would become of the first packet of a connection, and of the answer to it. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetTrace {
    /// The node whose programs were asked.
    pub node: String,
    /// Who sends it.
    #[schema(value_type = String)]
    pub source: SocketAddr,
    /// Where it is sent to.
    #[schema(value_type = String)]
    pub destination: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What happens to it, in order, and then to the answer.
    pub steps: Vec<NetStep>,
    /// Whether it arrives, or leaves the node, and the answer too.
    pub verdict: FlowVerdict,
    /// Why not: a stable word, as flows have it; `no_route` where the node's routes lead nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same in a sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub explanation: String,
}

/// One thing that happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetStep {
    /// Whether this is the way of the answer.
    pub is_reply: bool,
    /// The program or the hook of the data path; `host` is the node's own stack.
    pub program: String,
    /// The interface at which the program sits; empty for a hook.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// What it found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What it did.
    pub did: String,
    /// Who the connection was judged to be from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FlowEnd>,
    /// Who it was judged to be to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<FlowEnd>,
    /// The rule that let it leave its source, or did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_rule: Option<RuleRef>,
    /// The rule that let it enter its destination, or did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_rule: Option<RuleRef>,
}

/// How every path of a node's network was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetCheck {
    /// The node.
    pub node: String,
    /// Each path, in the order in which they were walked.
    pub probes: Vec<NetProbe>,
}

/// How one path was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetProbe {
    /// The path.
    pub name: String,
    /// How it was found.
    pub outcome: NetOutcome,
    /// How long that took, in microseconds.
    pub duration_us: u64,
    /// What is wrong and what to look at; why it was left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub explanation: String,
}

/// How a path was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetOutcome {
    /// It works.
    Passed,
    /// It does not.
    Failed,
    /// It was not walked.
    Skipped,
}
