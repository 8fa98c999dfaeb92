//! What other policies would make of recorded flows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AppliedPolicy, NetworkPolicy, flow::RuleRef};

/// The body of a request to simulate policies: as if these were applied, and those deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulatePolicies {
    /// The policies; each replaces the one of its name and namespace.
    #[serde(default)]
    pub items: Vec<NetworkPolicy>,
    /// The policies without which the others are.
    #[serde(default)]
    pub delete: Vec<PolicyName>,
}

/// A policy by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyName {
    /// Its namespace; `hivemind-system` of one of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What would become of recorded flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySimulation {
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
    /// What would change, the most connections first; at most 10,000.
    pub changes: Vec<SimulatedPair>,
    /// How many more would change.
    pub more_changes: u64,
    /// Of what nothing would change.
    pub unchanged: SimulatedRest,
    /// Of what it depends on something that was not recorded: an address outside, or its name.
    pub unknown: SimulatedRest,
    /// What one end of is no more, such as an app that has no replica now.
    pub gone: SimulatedRest,
    /// Connections for which there was no room: they are in none of the others.
    pub beyond: u64,
    /// What would become of each policy, with what its author should know, in the order of the request.
    pub items: Vec<AppliedPolicy>,
}

/// From when to when a node has records, within the time that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimulationReach {
    /// The node.
    pub node: String,
    /// The minute of its first record, by its beginning; none if there is no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first: Option<Timestamp>,
    /// The minute of its last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
}

/// Two ends between which something would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedPair {
    /// What would.
    pub change: PolicyChange,
    /// Who began the connections: `namespace/app`, `host on <node>`, `node` with its address, `dns`, `world`, an address or a block.
    pub source: String,
    /// With whom; as `source`.
    pub destination: String,
    /// The name for which the destination's address was last answered; empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// As of flows.
    pub protocol: String,
    /// The port that was asked, of a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How many connections and attempts there were.
    pub connections: TrafficCount,
    /// Bytes of IP packets in both directions; with `hasMoreBytes` there were more.
    pub bytes: TrafficCount,
    /// Whether there are bytes that were counted only together with those of other addresses.
    pub has_more_bytes: bool,
    /// The minute of the first, by its beginning.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// The minute of the last.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// The rules that decide now, of one connection that would change: those that deny it, or those of both ends that allow it; empty
    /// where no policy governs it.
    pub before: Vec<RuleRef>,
    /// The rules that would decide, in the same way.
    pub after: Vec<RuleRef>,
}

/// What would change of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyChange {
    /// They are allowed, and would be denied.
    Denied,
    /// They are denied, and would be allowed.
    Allowed,
    /// It is not the same for all replicas of the apps; which of them had the connections was not recorded.
    Depends,
}

/// A number; where the records of several nodes may have the same connections, bounds of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficCount {
    /// It is no less.
    pub least: u64,
    /// It is no more.
    pub most: u64,
}

/// What is told in sum only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedRest {
    /// Pairs of ends with protocol and port.
    pub pairs: u64,
    /// Their connections and attempts.
    pub connections: TrafficCount,
}
