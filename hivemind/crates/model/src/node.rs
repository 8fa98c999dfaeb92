//! Nodes: machines with a daemon.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::metadata::Metadata;

/// A machine with a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name; nodes are in no namespace.
    pub metadata: Metadata,
    /// What was given to it.
    pub spec: NodeSpec,
    /// What it is.
    #[serde(default)]
    pub status: NodeStatus,
}

/// What was given to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// The range of its replicas' IPv4 addresses, for example `10.200.0.0/24`.
    pub replica_range_v4: String,
    /// The range of its replicas' IPv6 addresses, a /64.
    pub replica_range_v6: String,
}

/// What a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The daemon's version.
    #[serde(default)]
    pub version: String,
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// containerd's version.
    #[serde(default)]
    pub containerd: String,
    /// Processors.
    #[serde(default)]
    pub cpus: u32,
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}
