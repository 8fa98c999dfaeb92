//! What the API needs of the node that runs the replicas.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use hivemind_model::{
    ApiError, ExecExit, FlowLine, FlowSelection, ImageSummary, ImportResult, LogLine, NetCheck, NetTrace,
    Port, Protocol, Replica, Status, TerminalSize, Volume,
};
use hivemind_observe::Format;
use tokio::sync::mpsc;

use crate::statistics::Statistics;

/// How many pieces of input may wait between a session and its process.
pub const EXEC_QUEUE: usize = 16;

/// A node, as far as requests reach through to it. Every method may fail with any [`ApiError`], which the caller sees as
/// it is.
#[async_trait]
pub trait NodeAccess: Send + Sync + 'static {
    /// The lines of a replica's container. Dropping the stream ends it.
    async fn logs(
        &self,
        replica: &Replica,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError>;

    /// Starts a process in a replica. An error means that there is none.
    async fn exec(&self, replica: &Replica, request: ExecRequest) -> Result<ExecStreams, ApiError>;

    /// The images that are on the node.
    async fn images(&self) -> Result<Vec<ImageSummary>, ApiError>;

    /// Takes images from an archive (OCI or Docker, a tar) that is read as it arrives. If the future is dropped or the
    /// stream fails, nothing half-made may stay.
    async fn import(&self, archive: BoxStream<'static, io::Result<Bytes>>) -> Result<ImportResult, ApiError>;

    /// How the daemon and its node are.
    async fn status(&self) -> Result<Status, ApiError>;

    /// Whether `ports` can be published on the node. Those that an app publishes already are not looked at: the store
    /// knows whose they are.
    ///
    /// # Errors
    /// `PortTaken` for every port that a program outside Hivemind has, at `ports[i]`.
    async fn check_ports(&self, ports: &[Port]) -> Result<(), ApiError>;

    /// Removes a volume's content; it is fine if there is none. No app mounts it as far as the store knows.
    ///
    /// # Errors
    /// `VolumeInUse` while a replica still uses it.
    async fn delete_volume(&self, volume: &Volume) -> Result<(), ApiError>;

    /// The flows that the node saw: of those that it remembers the last `tail` that fit, then new ones as they come if
    /// `follow`. A reader that is too slow is told how many it lost. Dropping the stream ends it.
    async fn flows(
        &self,
        request: FlowsRequest,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError>;

    /// What went in past minutes: [`FlowLine::Minute`]s in the order in which they were written, and losses. Dropping the stream
    /// ends it.
    async fn flow_history(
        &self,
        selection: FlowSelection,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError>;

    /// What would become of a packet. Nothing is sent, and nothing changed.
    async fn trace(&self, request: TraceRequest) -> Result<NetTrace, ApiError>;

    /// Walks every path of the network of a node (`None`: this one), and to somebody `outside` who takes TCP connections.
    /// Dropping the future ends it, and nothing of it stays.
    ///
    /// # Errors
    /// `Busy` while another check goes on.
    async fn check_network(
        &self,
        node: Option<&str>,
        outside: Option<SocketAddr>,
    ) -> Result<NetCheck, ApiError>;

    /// What the node measures, and what was asked of the API.
    async fn metrics(&self, format: Format, api: Statistics) -> Result<Bytes, ApiError>;
}

/// Which packet to trace.
#[derive(Clone, Debug)]
pub struct TraceRequest {
    /// The node whose programs are asked, if that does not follow from who sends it; `None`: this one.
    pub node: Option<String>,
    /// Who sends it.
    pub from: TraceFrom,
    /// Where it is sent to.
    pub to: TraceTo,
    /// The port that it is sent to.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it is sent from; `None`: one from which nothing is known.
    pub source_port: Option<u16>,
}

/// Who sends a packet.
#[derive(Clone, Debug)]
pub enum TraceFrom {
    /// A replica.
    Replica(Box<Replica>),
    /// The node's own processes.
    Host,
    /// Whoever has this address.
    Address(IpAddr),
}

/// Where a packet is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceTo {
    /// An address.
    Address(IpAddr),
    /// The node's own processes, by IPv6 or else by IPv4.
    Host {
        /// By which of the two.
        ipv6: bool,
    },
}

/// Which flows to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsRequest {
    /// Only these.
    pub selection: FlowSelection,
    /// Whether to go on with new ones.
    pub follow: bool,
    /// At most this many of those that are remembered, the newest.
    pub tail: usize,
}

/// Which lines of a replica to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Those of its container of this name; `None`: of its first one.
    pub container: Option<String>,
    /// The last so many; all that are kept if `None`.
    pub tail: Option<usize>,
    /// Whether to go on with new ones as they come.
    pub follow: bool,
}

/// What to run in a replica, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// Whether it gets a terminal; its two outputs are one then.
    pub tty: bool,
    /// As which user, in the form of an image's USER; `None`: as the container's.
    pub user: Option<String>,
    /// In its container of this name; `None`: in its first one.
    pub container: Option<String>,
}

/// A process that was started, from the session's side. When both are dropped, the session is over: the process is to
/// be ended.
pub struct ExecStreams {
    /// The way to the process, bounded ([`EXEC_QUEUE`] is a good size). Dropping it ends the input.
    pub input: mpsc::Sender<ExecInput>,
    /// The way from the process. [`ExecOutput::Exit`] is the last item; a stream that ends without is a fault.
    pub output: BoxStream<'static, ExecOutput>,
}

/// What goes to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Bytes),
    /// No more input will come.
    StdinEnd,
    /// Its terminal has this size now.
    Resize(TerminalSize),
}

/// What comes from a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// It wrote this to its standard output, or to its terminal.
    Stdout(Bytes),
    /// It wrote this to its standard error.
    Stderr(Bytes),
    /// It ended; nothing comes after it.
    Exit(ExecExit),
}
