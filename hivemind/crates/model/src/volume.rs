//! Volumes: named directories that outlive replicas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::metadata::Metadata;

/// A named volume on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Where it is.
    pub spec: VolumeSpec,
    /// What is in it.
    #[serde(default)]
    pub status: VolumeStatus,
}

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeSpec {
    /// The node that holds it.
    pub node: String,
}

/// What is in a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Whether it exists on the node's disk.
    #[serde(default)]
    pub ready: bool,
}
