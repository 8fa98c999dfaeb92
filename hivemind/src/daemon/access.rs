//! What the API needs of this node, from its agent.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use hivemind_agent::{Agent, CheckSpec, FlowQuery, TraceEnd, TraceQuery};
use hivemind_api::{
    ClusterAccess, EXEC_QUEUE, ExecInput, ExecOutput, ExecRequest, ExecStreams, FlowsRequest, LogRequest,
    NodeAccess, ServiceRanges, Statistics, TraceFrom, TraceRequest, TraceTo, check_addresses,
};
use hivemind_dns::DnsServer;
use hivemind_model::{
    ApiError, App, DropCount, ErrorCode, EventCount, ExecExit, FlowLine, FlowSelection, ImageSummary,
    ImportResult, LogLine, MapFill, NetCheck, NetTrace, Port, Replica, Status, Volume,
};
use hivemind_observe::Format;
use hivemind_runtime::{ExecSession, ExecSpec, TerminalSize};
use hivemind_store::Objects;
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_util::io::StreamReader;
use tracing::debug;

use super::{
    config::Config,
    metrics::{Figures, Scrapes, Sources},
    problems::{self, Seen},
};

/// How much of a process's output is passed on at once, in bytes.
const OUTPUT_PIECE: usize = 16 << 10;

/// The terminal's size until the client tells its own.
const TERMINAL: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// This node.
pub(crate) struct LocalNode {
    agent: Arc<Agent>,
    objects: Objects,
    cluster: Arc<dyn ClusterAccess>,
    config: Config,
    started_at: Timestamp,
    figures: Figures,
    scrapes: Arc<Scrapes>,
}

impl LocalNode {
    pub(crate) fn new(
        agent: Arc<Agent>,
        objects: Objects,
        dns: &Arc<DnsServer>,
        scrapes: Arc<Scrapes>,
        cluster: Arc<dyn ClusterAccess>,
        sources: Sources,
        config: &Config,
    ) -> Self {
        let figures = Figures {
            agent: Arc::clone(&agent),
            objects: objects.clone(),
            dns: Arc::downgrade(dns),
            cluster: Arc::clone(&cluster),
            sources,
            data_dir: config.data_dir.clone(),
            node: config.node_name.clone(),
        };
        LocalNode {
            agent,
            objects,
            cluster,
            config: config.clone(),
            started_at: Timestamp::now(),
            figures,
            scrapes,
        }
    }
}

impl LocalNode {
    fn is_this_node(&self, node: Option<&str>) -> Result<(), ApiError> {
        match node {
            Some(node) if node != self.config.node_name => {
                let what = format!("that is on node {node:?}, and this node asks no other");
                Err(ApiError::new(ErrorCode::NotServer, what, format!("ask a server, or on node {node:?}")))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl NodeAccess for LocalNode {
    async fn logs(
        &self,
        replica: &Replica,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError> {
        self.agent.logs(replica, request.container.as_deref(), request.tail, request.follow)
    }

    async fn exec(&self, replica: &Replica, request: ExecRequest) -> Result<ExecStreams, ApiError> {
        let spec = ExecSpec {
            args: request.command,
            terminal: request.tty.then_some(TERMINAL),
            user: request.user,
            ..ExecSpec::default()
        };
        Ok(connect(self.agent.exec(replica, request.container.as_deref(), &spec).await?))
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, ApiError> {
        self.agent.images().await
    }

    async fn import(&self, archive: BoxStream<'static, io::Result<Bytes>>) -> Result<ImportResult, ApiError> {
        let references = self.agent.import(StreamReader::new(archive)).await?;
        Ok(ImportResult { references })
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let containerd = self.agent.containerd_version().await;
        let statistics = self.agent.datapath_statistics().await?;
        let end_drops = self.agent.end_drops(&statistics).await?;
        // They are counted only when it matters: it takes a look at every connection.
        let heaviest = match statistics.maps.iter().any(problems::is_full_of_connections) {
            true => self.agent.heaviest().await?,
            false => Vec::new(),
        };
        let apps = self.objects.list::<App>(None).await?.items;
        let store = self.objects.store();
        let revision = store.revision().await.map_err(|e| {
            ApiError::new(ErrorCode::StoreFailed, format!("the store failed: {e}"), "see the daemon's log")
        })?;
        let problems = problems::all(Seen {
            apps: &apps,
            containerd: containerd.is_some(),
            maps: &statistics.maps,
            heaviest: &heaviest,
            losses: self.agent.flow_losses(),
            flow_log: self.agent.flow_log(),
            cluster: self.cluster.status().await?.problems,
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.config.node_name.clone(),
            pid: std::process::id(),
            started_at: self.started_at,
            cluster_domain: self.config.cluster_domain.clone(),
            kernel: nix::sys::utsname::uname()
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            store_revision: revision.0,
            store_bytes: tokio::fs::metadata(&self.figures.sources.store).await.map_or(0, |m| m.len()),
            containerd,
            datapath_abi: hivemind_common::ABI_VERSION,
            apps: u32::try_from(apps.len()).unwrap_or(u32::MAX),
            replicas: apps.iter().map(|app| app.spec.replicas).sum(),
            ready_replicas: apps.iter().map(|app| app.status.ready_replicas).sum(),
            maps: statistics
                .maps
                .iter()
                .map(|map| MapFill { name: map.name.into(), entries: map.entries, capacity: map.capacity })
                .collect(),
            drops: statistics
                .drops
                .iter()
                .filter(|drop| drop.packets > 0)
                .map(|drop| DropCount { reason: drop.reason.name().to_owned(), packets: drop.packets })
                .collect(),
            end_drops,
            heaviest,
            events: statistics
                .events
                .iter()
                .filter(|event| event.told + event.lost > 0)
                .map(|event| EventCount { class: event.class.into(), told: event.told, lost: event.lost })
                .collect(),
            problems,
        })
    }

    async fn check_ports(&self, ports: &[Port]) -> Result<(), ApiError> {
        self.agent.check_ports(ports).await
    }

    async fn delete_volume(&self, volume: &Volume) -> Result<(), ApiError> {
        self.agent.delete_volume(volume).await
    }

    async fn flows(
        &self,
        request: FlowsRequest,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        let FlowsRequest { selection, follow, tail } = request;
        self.agent.flows(&FlowQuery { selection, follow, tail }).await
    }

    async fn flow_history(
        &self,
        selection: FlowSelection,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        Ok(self.agent.flow_history(selection))
    }

    async fn trace(&self, request: TraceRequest) -> Result<NetTrace, ApiError> {
        let TraceRequest { node, from, to, port, protocol, source_port } = request;
        self.is_this_node(node.as_deref())?;
        let from = match from {
            TraceFrom::Replica(replica) => {
                self.is_this_node(Some(&replica.spec.node))?;
                TraceEnd::Replica(replica)
            }
            TraceFrom::Host => TraceEnd::Host,
            TraceFrom::Address(address) => TraceEnd::Outside(address),
        };
        let to = match to {
            TraceTo::Address(address) => address,
            TraceTo::Host { ipv6 } => self.agent.own_address(ipv6)?,
        };
        self.agent.trace(TraceQuery { from, to: SocketAddr::new(to, port), protocol, source_port }).await
    }

    async fn check_network(
        &self,
        node: Option<&str>,
        outside: Option<SocketAddr>,
    ) -> Result<NetCheck, ApiError> {
        self.is_this_node(node)?;
        let (ipv4, ipv6) = self.agent.service_range();
        let service = check_addresses(&ServiceRanges { ipv4, ipv6 });
        self.agent.check_network(CheckSpec { service, guarded_port: self.config.node_port, outside }).await
    }

    async fn metrics(&self, format: Format, api: Statistics) -> Result<Bytes, ApiError> {
        self.scrapes.text(format, || self.figures.gather(api)).await
    }
}

/// A session's streams over a process. The process is ended when both of the session's sides are gone.
fn connect(session: ExecSession) -> ExecStreams {
    let (input, inputs) = mpsc::channel(EXEC_QUEUE);
    let ExecStreamsParts { stdin, output } = split(session);
    tokio::spawn(feed(stdin, inputs));
    ExecStreams { input, output }
}

struct ExecStreamsParts {
    stdin: Stdin,
    output: BoxStream<'static, ExecOutput>,
}

struct Stdin {
    input: hivemind_runtime::ExecInput,
    control: hivemind_runtime::ExecControl,
    is_terminal: bool,
}

fn split(session: ExecSession) -> ExecStreamsParts {
    let control = session.control.clone();
    let (stdin, stdout, stderr, exit) = session.into_parts();
    let is_terminal = stderr.is_none();
    let stdout = pieces(stdout).map(ExecOutput::Stdout).boxed();
    let stderr = match stderr {
        Some(stderr) => pieces(stderr).map(ExecOutput::Stderr).boxed(),
        None => stream::empty().boxed(),
    };
    let exit = stream::once(async move {
        let exit = match exit.wait().await {
            Ok(code) => ExecExit { code: Some(code), error: None },
            Err(error) => ExecExit { code: None, error: Some(hivemind_agent::explain_runtime(&error)) },
        };
        ExecOutput::Exit(exit)
    });
    let output = stream::select(stdout, stderr).chain(exit).boxed();
    ExecStreamsParts { stdin: Stdin { input: stdin, control, is_terminal }, output }
}

/// What a process writes, in pieces, until it closes its end. A read error ends it as well: the exit code follows.
fn pieces(pipe: impl AsyncRead + Send + Unpin + 'static) -> BoxStream<'static, Bytes> {
    stream::unfold(pipe, |mut pipe| async move {
        let mut piece = vec![0; OUTPUT_PIECE];
        match pipe.read(&mut piece).await {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                piece.truncate(n);
                Some((Bytes::from(piece), pipe))
            }
        }
    })
    .boxed()
}

async fn feed(stdin: Stdin, mut inputs: mpsc::Receiver<ExecInput>) {
    let Stdin { input, control, is_terminal } = stdin;
    let mut input = Some(input);
    while let Some(next) = inputs.recv().await {
        let done = match (next, &mut input) {
            (ExecInput::Stdin(bytes), Some(pipe)) => pipe.write_all(&bytes).await,
            (ExecInput::Stdin(_), None) => Ok(()),
            // A terminal without a keyboard stays; to take its input away would be to hang it up (SIGHUP).
            (ExecInput::StdinEnd, _) if is_terminal => Ok(()),
            (ExecInput::StdinEnd, _) => match input.take() {
                Some(pipe) => pipe.close().await,
                None => Ok(()),
            },
            (ExecInput::Resize(size), _) => {
                control.resize(TerminalSize { columns: size.columns, rows: size.rows }).await
            }
        };
        if let Err(error) = done {
            debug!(%error, "Input for a process could not be passed on");
        }
    }
    if let Some(pipe) = input {
        let _ = pipe.close().await;
    }
}
