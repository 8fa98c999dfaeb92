//! What the API needs of the node that runs the replicas.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use hivemind_model::{
    ApiError, ErrorCode, ExecExit, FlowLine, FlowVerdict, ImageSummary, ImportResult, LogLine, NetCheck,
    NetTrace, Port, Problems, Protocol, Replica, Status, TerminalSize, Volume, check_name,
};
use hivemind_observe::Format;
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::statistics::Statistics;

/// How many pieces of input may wait between a session and its process.
pub const EXEC_QUEUE: usize = 16;

/// A node, as far as requests reach through to it. Every method may fail with any [`ApiError`], which the caller sees as
/// it is.
#[async_trait]
pub trait NodeAccess: Send + Sync + 'static {
    /// The lines of a replica: the last `tail` (all that are kept if `None`), then new ones as they come if `follow`.
    /// Dropping the stream ends it.
    async fn logs(
        &self,
        replica: &Replica,
        tail: Option<usize>,
        follow: bool,
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
    /// Only those that this began.
    pub from: Option<FlowFilter>,
    /// Only those with this at the other end.
    pub to: Option<FlowFilter>,
    /// Only those that were judged so.
    pub verdict: Option<FlowVerdict>,
    /// Whether to go on with new ones.
    pub follow: bool,
    /// At most this many of those that are remembered, the newest.
    pub tail: usize,
}

/// One end of the flows to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowFilter {
    /// Replicas of an app, in one namespace or in any.
    App {
        /// The namespace; `None`: any.
        namespace: Option<String>,
        /// The app's name.
        app: String,
    },
    /// The node's own processes.
    Host,
    /// The DNS server that replicas ask.
    Dns,
    /// Whatever is neither a replica nor a node.
    World,
    /// What could not be told.
    Unknown,
    /// These addresses.
    Net(IpNet),
}

/// As [`FlowFilter::from_str`] reads it.
impl fmt::Display for FlowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowFilter::App { namespace: Some(namespace), app } => write!(f, "{namespace}/{app}"),
            FlowFilter::App { namespace: None, app } => f.write_str(app),
            FlowFilter::Host => f.write_str("host"),
            FlowFilter::Dns => f.write_str("dns"),
            FlowFilter::World => f.write_str("world"),
            FlowFilter::Unknown => f.write_str("unknown"),
            FlowFilter::Net(net) => net.fmt(f),
        }
    }
}

impl FromStr for FlowFilter {
    type Err = ApiError;

    /// Reads `host`, `dns`, `world`, `unknown`, an address, a CIDR, `app` or `namespace/app`.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "host" => return Ok(FlowFilter::Host),
            "dns" => return Ok(FlowFilter::Dns),
            "world" => return Ok(FlowFilter::World),
            "unknown" => return Ok(FlowFilter::Unknown),
            _ => {}
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(FlowFilter::Net(address.into()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(FlowFilter::Net(net.trunc()));
        }
        let (namespace, app) = match text.split_once('/') {
            Some((namespace, app)) => (Some(namespace.to_owned()), app.to_owned()),
            None => (None, text.to_owned()),
        };
        let mut problems = Problems::default();
        for name in namespace.iter().chain([&app]) {
            check_name("", name, 63, &mut problems);
        }
        if problems.is_empty() {
            return Ok(FlowFilter::App { namespace, app });
        }
        let what = format!("{text:?} is no end of a flow");
        let hint = "name an app (or namespace/app), host, dns, world, unknown, an address or a CIDR";
        Err(ApiError::new(ErrorCode::Malformed, what, hint))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_flow_is_read_as_people_write_it() {
        let app = |namespace: Option<&str>, app: &str| FlowFilter::App {
            namespace: namespace.map(str::to_owned),
            app: app.to_owned(),
        };
        for (text, filter) in [
            ("host", FlowFilter::Host),
            ("dns", FlowFilter::Dns),
            ("world", FlowFilter::World),
            ("unknown", FlowFilter::Unknown),
            ("web", app(None, "web")),
            ("team/web", app(Some("team"), "web")),
            ("team/host", app(Some("team"), "host")),
            ("192.0.2.1", FlowFilter::Net("192.0.2.1/32".parse().unwrap())),
            ("192.0.2.1/24", FlowFilter::Net("192.0.2.0/24".parse().unwrap())),
            ("2001:db8::1", FlowFilter::Net("2001:db8::1/128".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<FlowFilter>().unwrap(), filter, "{text}");
            assert_eq!(filter.to_string().parse::<FlowFilter>().unwrap(), filter, "{filter}");
        }
        for text in ["", "/", "a/", "/a", "a/b/c", "Web", "192.0.2.1/33", "a b"] {
            assert_eq!(text.parse::<FlowFilter>().unwrap_err().code, ErrorCode::Malformed, "{text}");
        }
    }
}
