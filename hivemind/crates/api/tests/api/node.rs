//! A node that runs the commands it is given as plain processes of this machine.

use std::{
    io,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use hivemind_api::{
    EXEC_QUEUE, ExecInput, ExecOutput, ExecRequest, ExecStreams, FlowsRequest, LogRequest, NodeAccess,
    Statistics, TraceRequest, TraceTo,
};
use hivemind_model::{
    ApiError, ErrorCode, ExecExit, FlowLine, FlowLoss, FlowMinute, FlowSelection, FlowVerdict, ImageSummary,
    ImportResult, LogLine, NetCheck, NetOutcome, NetProbe, NetTrace, Port, Problems, Replica, Status, Volume,
};
use hivemind_observe::Format;
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::{broadcast, mpsc, watch},
};

pub(crate) struct TestNode {
    /// What followers of logs are told.
    pub(crate) lines: broadcast::Sender<Result<LogLine, ApiError>>,
    /// Whether removing a volume is to fail.
    pub(crate) volume_fault: Mutex<Option<ApiError>>,
    pub(crate) removed_volumes: Mutex<Vec<String>>,
    /// Ports that another program has.
    pub(crate) taken_ports: Mutex<Vec<u16>>,
    /// What followers of flows are told.
    pub(crate) flows: broadcast::Sender<Result<FlowLine, ApiError>>,
    pub(crate) last_flows: Mutex<Option<FlowsRequest>>,
    pub(crate) last_history: Mutex<Option<FlowSelection>>,
    /// What was recorded; told before a loss.
    pub(crate) recorded: Mutex<Vec<FlowMinute>>,
    pub(crate) last_exec: Mutex<Option<ExecRequest>>,
    pub(crate) last_trace: Mutex<Option<TraceRequest>>,
    pub(crate) resizes: watch::Sender<Vec<(u16, u16)>>,
    pub(crate) sessions: watch::Sender<usize>,
    pub(crate) imports_broken_off: AtomicUsize,
}

impl Default for TestNode {
    fn default() -> Self {
        TestNode {
            lines: broadcast::Sender::new(16),
            volume_fault: Mutex::default(),
            removed_volumes: Mutex::default(),
            taken_ports: Mutex::default(),
            flows: broadcast::Sender::new(16),
            last_flows: Mutex::default(),
            last_history: Mutex::default(),
            recorded: Mutex::default(),
            last_exec: Mutex::default(),
            last_trace: Mutex::default(),
            resizes: watch::Sender::default(),
            sessions: watch::Sender::default(),
            imports_broken_off: AtomicUsize::new(0),
        }
    }
}

pub(crate) fn line(replica: &str, message: &str) -> LogLine {
    LogLine {
        container: None,
        replica: replica.into(),
        time: Timestamp::UNIX_EPOCH,
        stream: "stdout".into(),
        message: message.into(),
    }
}

pub(crate) fn lost(events: u64) -> FlowLine {
    FlowLine::Lost(FlowLoss { events, place: "kernel".into() })
}

/// Ends the session's count when the process is done with.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl NodeAccess for TestNode {
    async fn logs(
        &self,
        replica: &Replica,
        LogRequest { tail, follow, .. }: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError> {
        let name = &replica.metadata.name;
        let kept: Vec<_> = ["one", "two", "three"].iter().map(|text| Ok(line(name, text))).collect();
        let skip = kept.len().saturating_sub(tail.unwrap_or(usize::MAX));
        let kept = stream::iter(kept.into_iter().skip(skip));
        if !follow {
            return Ok(kept.boxed());
        }
        let live = stream::unfold(self.lines.subscribe(), |mut lines| async {
            Some((lines.recv().await.ok()?, lines))
        });
        Ok(kept.chain(live).boxed())
    }

    async fn exec(&self, _: &Replica, request: ExecRequest) -> Result<ExecStreams, ApiError> {
        *self.last_exec.lock().unwrap() = Some(request.clone());
        let mut child = Command::new(&request.command[0])
            .args(&request.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                ApiError::new(ErrorCode::CommandFailed, error.to_string(), "check the command")
            })?;
        self.sessions.send_modify(|count| *count += 1);
        let counted = Counted(self.sessions.clone());
        let (input, mut inputs) = mpsc::channel(EXEC_QUEUE);
        let (outputs, output) = mpsc::channel(EXEC_QUEUE);
        let mut stdin = child.stdin.take();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let resizes = self.resizes.clone();
        tokio::spawn(async move {
            let _counted = counted;
            let write = async {
                while let Some(piece) = inputs.recv().await {
                    match piece {
                        ExecInput::Stdin(data) => {
                            if let Some(stdin) = &mut stdin {
                                let _ = stdin.write_all(&data).await;
                            }
                        }
                        ExecInput::StdinEnd => stdin = None,
                        ExecInput::Resize(size) => {
                            resizes.send_modify(|all| all.push((size.rows, size.columns)))
                        }
                    }
                }
                std::future::pending::<()>().await;
            };
            let read = async {
                let (mut out, mut err) = (vec![0; 8192], vec![0; 8192]);
                let (mut out_open, mut err_open) = (true, true);
                while out_open || err_open {
                    let piece = tokio::select! {
                        n = stdout.read(&mut out), if out_open => match n.unwrap() {
                            0 => { out_open = false; continue }
                            n => ExecOutput::Stdout(Bytes::copy_from_slice(&out[..n])),
                        },
                        n = stderr.read(&mut err), if err_open => match n.unwrap() {
                            0 => { err_open = false; continue }
                            n => ExecOutput::Stderr(Bytes::copy_from_slice(&err[..n])),
                        },
                    };
                    if outputs.send(piece).await.is_err() {
                        return;
                    }
                }
                let code = child.wait().await.unwrap().code().unwrap_or(137);
                let exit = ExecExit { code: Some(u32::try_from(code).unwrap()), error: None };
                let _ = outputs.send(ExecOutput::Exit(exit)).await;
            };
            tokio::select! {
                () = write => {}
                () = read => {}
                () = outputs.closed() => {}
            }
        });
        let output = stream::unfold(output, |mut output| async { Some((output.recv().await?, output)) });
        Ok(ExecStreams { input, output: output.boxed() })
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, ApiError> {
        let image = |reference: &str| ImageSummary {
            reference: reference.into(),
            digest: "sha256:00".into(),
            size_bytes: 1,
        };
        Ok(vec![image("registry.local/redis:7"), image("registry.local/nginx:latest")])
    }

    async fn import(
        &self,
        mut archive: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<ImportResult, ApiError> {
        let mut bytes = 0;
        while let Some(piece) = archive.next().await {
            match piece {
                Ok(piece) => bytes += piece.len(),
                Err(error) => {
                    self.imports_broken_off.fetch_add(1, Ordering::SeqCst);
                    return Err(ApiError::new(ErrorCode::ImageCorrupt, error.to_string(), "send it again"));
                }
            }
        }
        if bytes == 0 {
            return Err(ApiError::new(ErrorCode::ImageCorrupt, "the archive is empty", "send an archive"));
        }
        Ok(ImportResult { references: vec![format!("archive:{bytes}")] })
    }

    async fn status(&self) -> Result<Status, ApiError> {
        Ok(Status {
            version: "0.1.0".into(),
            node: "n1".into(),
            pid: std::process::id(),
            started_at: Timestamp::now(),
            cluster_domain: "hivemind.internal".into(),
            kernel: "6.1".into(),
            store_revision: 1,
            store_bytes: 1,
            containerd: None,
            datapath_abi: 1,
            apps: 0,
            replicas: 0,
            ready_replicas: 0,
            maps: vec![],
            drops: vec![],
            end_drops: vec![],
            heaviest: vec![],
            events: vec![],
            problems: vec![],
        })
    }

    async fn check_ports(&self, ports: &[Port]) -> Result<(), ApiError> {
        let taken = self.taken_ports.lock().unwrap();
        let mut problems = Problems::default();
        for (i, port) in ports.iter().enumerate().filter(|(_, port)| taken.contains(&port.host_port)) {
            let what = format!("port {} is taken", port.host_port);
            problems.add(ErrorCode::PortTaken, format!("ports[{i}]"), what, "choose another");
        }
        problems.into_result()
    }

    async fn delete_volume(&self, volume: &Volume) -> Result<(), ApiError> {
        if let Some(fault) = self.volume_fault.lock().unwrap().clone() {
            return Err(fault);
        }
        self.removed_volumes.lock().unwrap().push(volume.metadata.name.clone());
        Ok(())
    }

    async fn flows(
        &self,
        request: FlowsRequest,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        let follow = request.follow;
        *self.last_flows.lock().unwrap() = Some(request);
        let kept = stream::iter([Ok(lost(1))]);
        if !follow {
            return Ok(kept.boxed());
        }
        let live = stream::unfold(self.flows.subscribe(), |mut flows| async {
            Some((flows.recv().await.ok()?, flows))
        });
        Ok(kept.chain(live).boxed())
    }

    async fn flow_history(
        &self,
        selection: FlowSelection,
    ) -> Result<BoxStream<'static, Result<FlowLine, ApiError>>, ApiError> {
        *self.last_history.lock().unwrap() = Some(selection);
        let lost = FlowLine::Lost(FlowLoss { events: 7, place: "log".into() });
        let recorded = self.recorded.lock().unwrap().clone();
        let minutes = recorded.into_iter().map(|minute| FlowLine::Minute(Box::new(minute)));
        Ok(stream::iter(minutes.chain([lost]).map(Ok).collect::<Vec<_>>()).boxed())
    }

    async fn trace(&self, request: TraceRequest) -> Result<NetTrace, ApiError> {
        let TraceTo::Address(to) = request.to else { return Err(ApiError::new(ErrorCode::Internal, "", "")) };
        let trace = NetTrace {
            node: "test".into(),
            source: SocketAddr::from(([10, 200, 0, 1], request.source_port.unwrap_or(40_000))),
            destination: SocketAddr::new(to, request.port),
            protocol: request.protocol.as_str().into(),
            steps: Vec::new(),
            verdict: FlowVerdict::Allowed,
            reason: String::new(),
            explanation: String::new(),
        };
        *self.last_trace.lock().unwrap() = Some(request);
        Ok(trace)
    }

    async fn check_network(
        &self,
        node: Option<&str>,
        outside: Option<SocketAddr>,
    ) -> Result<NetCheck, ApiError> {
        let name = outside.map(|outside| outside.to_string()).unwrap_or_default();
        let outcome = NetOutcome::Passed;
        let probe = NetProbe { name, outcome, duration_us: 1, explanation: String::new() };
        Ok(NetCheck { node: node.unwrap_or("test").to_owned(), probes: vec![probe] })
    }

    async fn metrics(&self, format: Format, api: Statistics) -> Result<Bytes, ApiError> {
        let end = if format == Format::OpenMetrics { "# EOF\n" } else { "" };
        Ok(format!("hivemind_up {}\n{end}", api.requests[1]).into())
    }
}
