//! Nodes: machines with a daemon.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{error::Problem, metadata::Metadata};

/// A machine with a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name and its labels; nodes are in no namespace.
    pub metadata: Metadata,
    /// What was given to it.
    pub spec: NodeSpec,
    /// What it is.
    #[serde(default)]
    pub status: NodeStatus,
}

impl Node {
    /// The highest number of a node.
    pub const LAST: u16 = 1023;

    /// The images that a node tells of, at most.
    pub const IMAGES_MAX: usize = 256;
    /// The addresses that a node tells of, at most.
    pub const ADDRESSES_MAX: usize = 64;

    /// Whether new replicas may be put there, as far as its state goes.
    pub fn is_ready(&self) -> bool {
        self.status.state == NodeState::Ready
    }
}

/// What was given to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Its number in the cluster, 1 to 1023: the data path's name for it.
    #[serde(default)]
    pub number: u16,
    /// The range of its replicas' IPv4 addresses, for example `10.200.0.0/24`.
    pub replica_range_v4: String,
    /// The range of its replicas' IPv6 addresses, a /64.
    pub replica_range_v6: String,
    /// Where the other nodes reach it; left out as long as it is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv4Addr>,
    /// Whether it serves the API and the controllers, besides running replicas.
    #[serde(default)]
    pub server: bool,
    /// The SHA-256 of the public key of its certificate, in hex: no other is let in under its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// No new replicas are put there; those that are there stay.
    #[serde(default)]
    pub cordoned: bool,
    /// Its replicas are being moved to other nodes.
    #[serde(default)]
    pub draining: bool,
    /// What keeps replicas away that do not tolerate it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// What keeps replicas away from a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Its name, in the form of a label's key.
    pub key: String,
    /// Its value, in the form of a label's; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to replicas that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum TaintEffect {
    /// New ones are not put there.
    NoSchedule,
    /// New ones are put there only if no other node has room.
    PreferNoSchedule,
}

impl TaintEffect {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        }
    }
}

/// How a node is, as the cluster sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum NodeState {
    /// It has joined, and has not been heard of since.
    Joining,
    /// It answers.
    #[default]
    Ready,
    /// It has not answered for a moment.
    Suspect,
    /// It does not answer, to nobody.
    Dead,
    /// It said goodbye.
    Left,
}

impl NodeState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Joining => "Joining",
            NodeState::Ready => "Ready",
            NodeState::Suspect => "Suspect",
            NodeState::Dead => "Dead",
            NodeState::Left => "Left",
        }
    }

    /// Whether its replicas are taken to run.
    pub fn is_up(self) -> bool {
        matches!(self, NodeState::Ready | NodeState::Suspect | NodeState::Joining)
    }
}

/// What a node is. `state` and `since` are written by the server, the rest by the node's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// How it is, as the cluster sees it.
    #[serde(default)]
    pub state: NodeState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
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
    /// Its addresses on the networks outside, the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The images that are there, the first 256 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// What keeps it from carrying traffic between nodes, if something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
