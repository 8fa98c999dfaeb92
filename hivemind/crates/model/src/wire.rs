//! What the API sends and takes besides objects: log lines, the channels of an exec session, images, the daemon's status.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// The replica that wrote it.
    pub replica: String,
    /// Its container that wrote it, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// When it was read from the container.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub message: String,
}

/// The first byte of every message of an exec session, a WebSocket with binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExecChannel {
    /// To the process.
    Stdin = 0,
    /// From the process.
    Stdout = 1,
    /// From the process.
    Stderr = 2,
    /// The last message from the server: [`ExecExit`] as JSON.
    Exit = 3,
    /// To the server: [`TerminalSize`] as JSON.
    Resize = 4,
    /// To the server, empty: no more input will come.
    StdinEnd = 5,
}

impl ExecChannel {
    /// The channel of a message's first byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        use ExecChannel::{Exit, Resize, Stderr, Stdin, StdinEnd, Stdout};
        [Stdin, Stdout, Stderr, Exit, Resize, StdinEnd].into_iter().find(|c| *c as u8 == byte)
    }
}

/// How the process of an exec session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecExit {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Why it could not be started or followed to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ApiError>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The body of a scale request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// 0 to 1,000.
    pub replicas: u32,
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// Its full reference.
    pub reference: String,
    /// The manifest's digest.
    pub digest: String,
    /// Bytes of its compressed layers.
    pub size_bytes: u64,
}

/// What an import brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportResult {
    /// The references that can be deployed now.
    pub references: Vec<String>,
}

/// How the daemon and its node are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When the daemon began to serve.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// The domain of services' names.
    pub cluster_domain: String,
    /// The kernel's release.
    pub kernel: String,
    /// The store's last revision.
    pub store_revision: u64,
    /// The store's size on disk in bytes.
    pub store_bytes: u64,
    /// containerd's version; `None` while it does not answer.
    pub containerd: Option<String>,
    /// The version of the data path's maps.
    pub datapath_abi: u32,
    /// Apps, replicas wanted, replicas ready.
    pub apps: u32,
    /// Replicas that are wanted.
    pub replicas: u32,
    /// Replicas that take connections.
    pub ready_replicas: u32,
    /// Fill of the data path's maps.
    pub maps: Vec<MapFill>,
    /// Packets dropped, by reason; reasons that never occurred are left out.
    pub drops: Vec<DropCount>,
    /// The same by whose packets they were: of each replica that there is, of the node itself, and of what came in from
    /// outside and was no replica's.
    #[serde(default)]
    pub end_drops: Vec<EndDropCount>,
    /// Who has the most connections, the heaviest first; empty while the tables of connections have room.
    #[serde(default)]
    pub heaviest: Vec<EndConnections>,
    /// Events about flows, by class; classes that never occurred are left out.
    #[serde(default)]
    pub events: Vec<EventCount>,
    /// What is wrong now and what to do about it.
    pub problems: Vec<crate::Problem>,
}

/// How full a map of the data path is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapFill {
    /// The map's name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// Packets dropped for one reason since the maps were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropCount {
    /// The reason, in words.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// One end of the node's connections: a replica; or, without a namespace, `host` (the node's own processes) or `outside`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// The replica's namespace.
    pub namespace: String,
    /// The replica's app; `host`, `outside`, or `unknown` of a replica that is no object any more.
    pub app: String,
    /// The replica's name.
    pub replica: String,
}

/// Packets of one end that were dropped for one reason since the end is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndDropCount {
    /// Whose they were: of a replica, what it sent and what was on its way to it.
    pub end: End,
    /// The reason, by its stable name.
    pub reason: String,
    /// What the reason means.
    pub explanation: String,
    /// Packets.
    pub packets: u64,
}

/// How many connections one end has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndConnections {
    /// Whose they are; one between two replicas counts for both.
    pub end: End,
    /// Connections.
    pub connections: u64,
}

/// Events about flows of one class since the maps were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventCount {
    /// `new`, `closed`, or the reason of a drop.
    pub class: String,
    /// Events that were told.
    pub told: u64,
    /// Events that were not: more came at once than are told.
    pub lost: u64,
}
