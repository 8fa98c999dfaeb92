//! Replicas: running copies of an app.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{error::Problem, metadata::Metadata, template::Template};

/// One running copy of an app, bound to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Its name is the app's and five letters.
    pub metadata: Metadata,
    /// What is wanted. Only its identity may become another.
    pub spec: ReplicaSpec,
    /// What is, as the node's agent sees it.
    #[serde(default)]
    pub status: ReplicaStatus,
}

/// What a replica is made of, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSpec {
    /// The app's name; it is in the same namespace.
    pub app: String,
    /// The node that runs it.
    pub node: String,
    /// The workload identity of its labels, by which policies and flows know it.
    #[serde(default)]
    pub identity: u32,
    /// Tells templates apart.
    pub template_hash: String,
    /// The app's template at the time.
    pub template: Template,
}

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// Seen by nobody yet.
    #[default]
    Pending,
    /// Its image is on the way.
    Pulling,
    /// Network and containers are being made.
    Starting,
    /// Its containers run.
    Running,
    /// It ended or did not start, and will be tried again.
    Backoff,
    /// All of its containers have ended well, and are not started again.
    Succeeded,
    /// All of its containers have ended, not all of them well, and are not started again.
    Failed,
    /// It is on its way out.
    Stopping,
}

impl Phase {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Pulling => "Pulling",
            Phase::Starting => "Starting",
            Phase::Running => "Running",
            Phase::Backoff => "Backoff",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Stopping => "Stopping",
        }
    }

    /// Whether nothing will run any more.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// What is, of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: Phase,
    /// Whether it takes connections of its service.
    #[serde(default)]
    pub ready: bool,
    /// What last went wrong, while it is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The identity that its endpoint has, as which it is judged and told: absent while it has no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv6: Option<Ipv6Addr>,
    /// The first process of its first container, as the host numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often its containers were started again, all together.
    #[serde(default)]
    pub restarts: u32,
    /// When a container of it started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// How a container of it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// Whether the containers that run first have done their work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub initialized: bool,
    /// Its containers one by one, those that run first before the others; empty where there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerStatus>,
    /// How far the pull is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,
    /// The digest of the first container's image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

/// What is, of one of several containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ContainerState,
    /// Whether it is well, by its probes.
    #[serde(default)]
    pub ready: bool,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// The first process of it, as the host numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ContainerState {
    /// It has not started yet, or will be started again.
    #[default]
    Waiting,
    /// Its process runs.
    Running,
    /// It has ended, and is not started again.
    Ended,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastExit {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: u32,
    /// Whether it ran out of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// How far a pull is, in bytes of compressed layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullProgress {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
}
