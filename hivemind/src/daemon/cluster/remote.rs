//! What the API needs of the nodes that run replicas: this one, and those that are asked over the network.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use hivemind_api::{
    EXEC_QUEUE, ExecInput, ExecOutput, ExecRequest, ExecStreams, FlowsRequest, LogRequest, NodeAccess,
    Statistics, TraceFrom, TraceRequest, TraceTo,
};
use hivemind_client::{Client, ExecEvent, FlowOptions, LogOptions, NodeLink, TraceOptions};
use hivemind_model::{
    ApiError, ErrorCode, ExecExit, FlowLine, FlowLoss, FlowSelection, ImageSummary, ImportResult, LogLine,
    NetCheck, NetTrace, Node, Port, Replica, Status, Volume,
};
use hivemind_observe::Format;
use hivemind_pki::node_name;
use hivemind_store::Objects;
use tokio::sync::mpsc;
use tracing::warn;

use super::open::Opener;
use crate::daemon::access::LocalNode;

/// All nodes, seen from a server.
pub(crate) struct Nodes {
    local: LocalNode,
    name: String,
    port: u16,
    objects: Objects,
    opener: Arc<Opener>,
    is_server: bool,
}

impl Nodes {
    pub(crate) fn new(
        local: LocalNode,
        name: String,
        port: u16,
        objects: Objects,
        opener: Arc<Opener>,
        is_server: bool,
    ) -> Self {
        Nodes { local, name, port, objects, opener, is_server }
    }

    /// A client of `node`; `None`: it is this one.
    async fn client(&self, node: &str) -> Result<Option<Client>, ApiError> {
        if node == self.name {
            return Ok(None);
        }
        if !self.is_server {
            let what = format!("that is on node {node:?}, and this node asks no other");
            return Err(ApiError::new(ErrorCode::NotServer, what, "ask a server, or on that node"));
        }
        let found: Node = self.objects.get("", node).await?;
        self.client_of(&found).map(Some)
    }

    fn client_of(&self, node: &Node) -> Result<Client, ApiError> {
        let name = &node.metadata.name;
        let address = node.spec.address.ok_or_else(|| {
            let what = format!("the address of node {name:?} is not known");
            ApiError::new(ErrorCode::NodeUnreachable, what, "see hivemind node info")
        })?;
        Client::node(NodeLink {
            address: SocketAddrV4::new(address, self.port),
            certificate_name: node_name(name),
            tls: self.opener.tls.client(),
        })
    }

    /// The other nodes that are up.
    async fn others(&self) -> Result<Vec<(String, Client)>, ApiError> {
        if !self.is_server {
            return Ok(Vec::new());
        }
        let nodes = self.objects.list::<Node>(None).await?.items;
        let others = nodes.iter().filter(|node| node.metadata.name != self.name && node.is_ready());
        others.map(|node| Ok((node.metadata.name.clone(), self.client_of(node)?))).collect()
    }
}

#[async_trait]
impl NodeAccess for Nodes {
    async fn logs(
        &self,
        replica: &Replica,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError> {
        let Some(client) = self.client(&replica.spec.node).await? else {
            return self.local.logs(replica, request).await;
        };
        let LogRequest { container, tail, follow } = request;
        let options = LogOptions { container, tail: tail.map(|tail| tail as u64), follow };
        let (namespace, name) = (&replica.metadata.namespace, &replica.metadata.name);
        Ok(client.logs(namespace, name, options).await?.boxed())
    }

    async fn exec(&self, replica: &Replica, request: ExecRequest) -> Result<ExecStreams, ApiError> {
        let Some(client) = self.client(&replica.spec.node).await? else {
            return self.local.exec(replica, request).await;
        };
        let ExecRequest { command, tty, user, container } = request;
        let request = hivemind_client::ExecRequest { command, tty, user, container };
        let (namespace, name) = (&replica.metadata.namespace, &replica.metadata.name);
        let (input, output) = client.exec(namespace, name, &request).await?;
        Ok(connect(input, output))
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, ApiError> {
        self.local.images().await
    }

    async fn import(&self, archive: BoxStream<'static, io::Result<Bytes>>) -> Result<ImportResult, ApiError> {
        self.local.import(archive).await
    }

    async fn status(&self) -> Result<Status, ApiError> {
        self.local.status().await
    }

    async fn check_ports(&self, ports: &[Port]) -> Result<(), ApiError> {
        self.local.check_ports(ports).await
    }

    async fn delete_volume(&self, volume: &Volume) -> Result<(), ApiError> {
        match self.client(&volume.spec.node).await {
            Ok(None) => self.local.delete_volume(volume).await,
            Ok(Some(client)) => client.delete_volume(&volume.metadata.namespace, &volume.metadata.name).await,
            // The node is no more, and its volumes with it.
            Err(error) if error.code == ErrorCode::NodeNotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn flows(
        &self,
        request: FlowsRequest,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        let options = FlowOptions {
            words: request.selection.words(),
            follow: request.follow,
            tail: Some(request.tail as u64),
        };
        let (follow, tail) = (request.follow, request.tail);
        let mut streams = vec![self.local.flows(request).await?];
        for (node, client) in self.others().await? {
            match client.flows(&options).await {
                Ok(stream) => streams.push(stream.map(move |line| Ok(line_or_loss(line, &node))).boxed()),
                Err(error) => {
                    warn!(node, error = error.message, "The flows of a node cannot be told");
                    let lost = FlowLine::Lost(FlowLoss { events: 0, place: format!("node {node}") });
                    streams.push(stream::iter([Ok(lost)]).boxed());
                }
            }
        }
        if streams.len() == 1 || follow {
            return Ok(stream::select_all(streams).boxed());
        }
        Ok(newest(streams, tail).await)
    }

    async fn flow_history(
        &self,
        selection: FlowSelection,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        let words = selection.words();
        let mut streams = vec![self.local.flow_history(selection).await?];
        for (node, client) in self.others().await? {
            match client.flow_history(&words).await {
                Ok(stream) => streams.push(stream.map(move |line| Ok(line_or_loss(line, &node))).boxed()),
                Err(error) => {
                    warn!(node, error = error.message, "The past flows of a node cannot be told");
                    let lost = FlowLine::Lost(FlowLoss { events: 0, place: format!("node {node}") });
                    streams.push(stream::iter([Ok(lost)]).boxed());
                }
            }
        }
        Ok(stream::select_all(streams).boxed())
    }

    async fn trace(&self, request: TraceRequest) -> Result<NetTrace, ApiError> {
        let node = match &request.from {
            TraceFrom::Replica(replica) => Some(replica.spec.node.clone()),
            _ => request.node.clone(),
        };
        let client = match &node {
            Some(node) => self.client(node).await?,
            None => None,
        };
        let Some(client) = client else { return self.local.trace(request).await };
        // By addresses: the other node need not know apps.
        let ipv6 = match request.to {
            TraceTo::Address(address) => address.is_ipv6(),
            TraceTo::Host { ipv6 } => ipv6,
        };
        let from = match &request.from {
            TraceFrom::Host => "host".to_owned(),
            TraceFrom::Address(address) => address.to_string(),
            TraceFrom::Replica(replica) => {
                let address = replica.status.ipv4.map(|address| address.to_string());
                address.ok_or_else(|| {
                    let what = format!("replica {} has no address", replica.metadata.name);
                    ApiError::new(ErrorCode::NothingRunning, what, "see `hivemind app info`")
                })?
            }
        };
        let to = match request.to {
            TraceTo::Address(address) => address.to_string(),
            TraceTo::Host { .. } => "host".to_owned(),
        };
        let options = TraceOptions {
            from,
            to,
            port: request.port,
            protocol: request.protocol.as_str().to_owned(),
            source_port: request.source_port,
            ipv6,
            ..TraceOptions::default()
        };
        client.trace(&options).await
    }

    async fn check_network(
        &self,
        node: Option<&str>,
        outside: Option<SocketAddr>,
    ) -> Result<NetCheck, ApiError> {
        let client = match node {
            Some(node) => self.client(node).await?,
            None => None,
        };
        match client {
            Some(client) => {
                client.check_network(None, outside.map(|outside| outside.to_string()).as_deref()).await
            }
            None => self.local.check_network(node, outside).await,
        }
    }

    async fn metrics(&self, format: Format, api: Statistics) -> Result<Bytes, ApiError> {
        self.local.metrics(format, api).await
    }
}

/// A node that can tell no more is no reason for the others to fall silent.
fn line_or_loss(line: Result<FlowLine, ApiError>, node: &str) -> FlowLine {
    line.unwrap_or_else(|error| {
        warn!(node, error = error.message, "The flows of a node ended early");
        FlowLine::Lost(FlowLoss { events: 0, place: format!("node {node}") })
    })
}

/// The newest `tail` of all streams together, which end by themselves, in the order of time.
async fn newest(
    streams: Vec<BoxStream<'static, Result<FlowLine, ApiError>>>,
    tail: usize,
) -> BoxStream<'static, Result<FlowLine, ApiError>> {
    let lines: Vec<_> = stream::select_all(streams).collect().await;
    let (mut flows, mut others) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Ok(FlowLine::Flow(flow)) => flows.push(flow),
            other => others.push(other),
        }
    }
    flows.sort_by_key(|flow| flow.time);
    let skip = flows.len().saturating_sub(tail);
    let flows = flows.into_iter().skip(skip).map(|flow| Ok(FlowLine::Flow(flow)));
    stream::iter(others.into_iter().chain(flows)).boxed()
}

/// A session on another node as one of this.
fn connect(mut input: hivemind_client::ExecInput, mut output: hivemind_client::ExecOutput) -> ExecStreams {
    let (sender, mut inputs) = mpsc::channel(EXEC_QUEUE);
    tokio::spawn(async move {
        while let Some(next) = inputs.recv().await {
            let passed = match next {
                ExecInput::Stdin(bytes) => input.write(&bytes).await,
                ExecInput::StdinEnd => input.end().await,
                ExecInput::Resize(size) => input.resize(size).await,
            };
            if passed.is_err() {
                return;
            }
        }
    });
    let events = async_stream(move |events| async move {
        loop {
            let event = match output.next().await {
                Ok(ExecEvent::Stdout(bytes)) => ExecOutput::Stdout(bytes),
                Ok(ExecEvent::Stderr(bytes)) => ExecOutput::Stderr(bytes),
                Ok(ExecEvent::Exit(exit)) => ExecOutput::Exit(exit),
                Err(error) => {
                    let error = hivemind_model::ApiError { ..error };
                    ExecOutput::Exit(ExecExit { code: None, error: Some(error) })
                }
            };
            let is_last = matches!(event, ExecOutput::Exit(_));
            if events.send(event).await.is_err() || is_last {
                return;
            }
        }
    });
    ExecStreams { input: sender, output: events }
}

/// What `work` sends, as a stream; a reader that goes away ends it.
fn async_stream<T: Send + 'static, F>(work: impl FnOnce(mpsc::Sender<T>) -> F) -> BoxStream<'static, T>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(EXEC_QUEUE);
    tokio::spawn(work(sender));
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
}
