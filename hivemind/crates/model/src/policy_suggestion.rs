//! Policies that allow what was seen, and no more.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::network_policy::NetworkPolicy;

/// The least policies that allow what was seen of some apps, with what speaks for them. Nothing of it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySuggestion {
    /// The minute that the oldest record is of, by its beginning.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The end of the minute that the newest record is of.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// One for each app of which something was seen, in the order of their names.
    pub policies: Vec<SuggestedPolicy>,
    /// What is true of all of them, and apps that have none, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The policy of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuggestedPolicy {
    /// As it can be applied; it governs both directions.
    pub policy: NetworkPolicy,
    /// What speaks for each ingress rule, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<RuleEvidence>,
    /// What speaks for each egress rule, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<RuleEvidence>,
    /// What it does not allow, or what its reader should know besides, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What speaks for a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleEvidence {
    /// The connections that it was made for; some of them, if they are very many: `untold` says how many more.
    pub seen: Vec<SeenConnections>,
    /// In what it is wider than what was seen, in sentences; empty if it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wider: Vec<String>,
    /// How many more lines of connections there are than are told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: u64,
}

/// Connections between the same ends over the same protocol and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenConnections {
    /// Who made them: `namespace/app`, `host`, `node`, or a block of addresses.
    pub source: String,
    /// With whom: as `source`, or `dns`, or the name of a domain.
    pub destination: String,
    /// `tcp`, `udp`, `sctp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// The port that was asked, of a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How many began, summed up over the nodes: what goes from node to node is counted on both. Zero if they began before.
    pub connections: u64,
    /// The first minute of them, by its beginning.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// The last minute of them, by its beginning.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// The nodes that counted them.
    pub nodes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
