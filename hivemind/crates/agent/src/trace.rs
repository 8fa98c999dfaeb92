//! What would become of a packet, in words.

use std::net::{IpAddr, SocketAddr};

use hivemind_datapath::{
    DropReason, FlowKind, Protocol as Transport, Trace, TraceDone, TraceFrom, TraceSpec, TraceStep,
    TraceVerdict,
};
use hivemind_model::{ApiError, ErrorCode, FlowVerdict, NetStep, NetTrace, Protocol, Replica};

use crate::{
    Agent,
    agent::replica_id,
    fault,
    flows::{names::Names, round_trips::RoundTrips, told},
    services::protocol,
};

/// Which packet is traced.
#[derive(Clone, Debug)]
pub struct TraceQuery {
    /// Who sends it.
    pub from: TraceEnd,
    /// Where it is sent to.
    pub to: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it is sent from; none: one from which nothing is known.
    pub source_port: Option<u16>,
}

/// Who sends a packet.
#[derive(Clone, Debug)]
pub enum TraceEnd {
    /// A replica of this node.
    Replica(Box<Replica>),
    /// This node's own processes.
    Host,
    /// Somebody outside.
    Outside(IpAddr),
}

impl Agent {
    /// An address under which the node is known outside.
    ///
    /// # Errors
    /// `NothingRunning` if it has none of the family.
    pub fn own_address(&self, ipv6: bool) -> Result<IpAddr, ApiError> {
        let own = self.shared.datapath.uplink_addresses().map_err(|error| fault::explain_datapath(&error))?;
        own.into_iter().find(|address| address.is_ipv6() == ipv6).ok_or_else(|| {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            let what = format!("no interface of the node that leads outside has an {family} address");
            ApiError::new(ErrorCode::NothingRunning, what, "name an address of the node")
        })
    }

    /// What would become of a packet of this node's, there and back. Nothing is sent, and nothing changed.
    ///
    /// # Errors
    /// When the sender has no network here, or no packet can come from there; what the kernel refused.
    pub async fn trace(&self, query: TraceQuery) -> Result<NetTrace, ApiError> {
        let from = match &query.from {
            TraceEnd::Replica(replica) => TraceFrom::Endpoint(replica_id(replica).as_str().to_owned()),
            TraceEnd::Host => TraceFrom::Host,
            TraceEnd::Outside(address) if self.is_own(*address) => TraceFrom::Host,
            TraceEnd::Outside(address) => TraceFrom::Outside(*address),
        };
        let (to, source_port) = (query.to, query.source_port);
        let spec = TraceSpec { from, to, protocol: protocol(query.protocol), source_port };
        let trace = self.shared.datapath.trace(spec).await.map_err(|error| match (&query.from, error) {
            (TraceEnd::Replica(replica), hivemind_datapath::Error::Spec { .. }) => ApiError::new(
                ErrorCode::NothingRunning,
                format!("replica {} has no network on this node", replica.metadata.name),
                "see `hivemind app info`",
            ),
            (_, hivemind_datapath::Error::Spec { what, reason }) => {
                let hint = "name an app, a replica, host, or an address from which packets come";
                ApiError::new(ErrorCode::Malformed, format!("{what}: {reason}"), hint)
            }
            (_, error) => fault::explain_datapath(&error),
        })?;
        let flows = &self.shared.flows;
        Ok(in_words(&trace, &flows.names(), &self.shared.config.node))
    }
}

impl Agent {
    fn is_own(&self, address: IpAddr) -> bool {
        self.shared.datapath.uplink_addresses().is_ok_and(|own| own.contains(&address))
    }
}

fn in_words(trace: &Trace, names: &Names, node: &str) -> NetTrace {
    let (verdict, reason, explanation) = verdict(trace, names, node);
    NetTrace {
        node: node.to_owned(),
        source: trace.packet.source,
        destination: trace.packet.destination,
        protocol: match trace.packet.protocol {
            Transport::Tcp => "tcp".to_owned(),
            Transport::Udp => "udp".to_owned(),
        },
        steps: trace.steps.iter().map(|step| step_in_words(step, names, node)).collect(),
        verdict,
        reason,
        explanation,
    }
}

/// The verdict as flows have it.
fn verdict(trace: &Trace, names: &Names, node: &str) -> (FlowVerdict, String, String) {
    let (reason, is_reply) = match trace.verdict {
        TraceVerdict::Passes => return (FlowVerdict::Allowed, String::new(), String::new()),
        TraceVerdict::Dropped { reason, is_reply } => (reason, is_reply),
    };
    let whose = if is_reply { "the answer: " } else { "" };
    let Some(reason) = reason else {
        let what = format!("{whose}the node's routes lead nowhere");
        return (FlowVerdict::Dropped, "no_route".to_owned(), what);
    };
    // The event says by which policy it was refused.
    let told = trace.steps.iter().rev().find_map(|step| {
        let flow = step.flow.filter(|flow| flow.kind == FlowKind::Dropped(reason))?;
        Some(told::flow(&flow, names, &RoundTrips::default(), node))
    });
    let verdict = if reason.is_denial() { FlowVerdict::Denied } else { FlowVerdict::Dropped };
    let explanation = told.map_or_else(|| reason.meaning().to_owned(), |flow| flow.explanation);
    (verdict, reason.name().to_owned(), format!("{whose}{explanation}"))
}

fn step_in_words(step: &TraceStep, names: &Names, node: &str) -> NetStep {
    let flow = step.flow.map(|flow| told::flow(&flow, names, &RoundTrips::default(), node));
    let mut found = Vec::new();
    match step.flow.map(|flow| flow.kind) {
        Some(FlowKind::Live) if step.is_reply => found.push("the connection".to_owned()),
        Some(FlowKind::Live) => found.push("a connection that stands".to_owned()),
        Some(FlowKind::New) => found.push("a new connection".to_owned()),
        _ => {}
    }
    if step.came.source != step.went.source {
        found.push(format!("its source becomes {}", step.went.source));
    }
    if step.came.destination != step.went.destination {
        found.push(format!("its destination becomes {}", step.went.destination));
    }
    let (source, destination, egress_rule, ingress_rule) = match flow {
        Some(flow) => (Some(flow.source), Some(flow.destination), flow.egress_rule, flow.ingress_rule),
        None => (None, None, None, None),
    };
    NetStep {
        is_reply: step.is_reply,
        program: step.program.to_owned(),
        interface: step.interface.clone(),
        found: found.join(", "),
        did: did(step, names),
        source,
        destination,
        egress_rule,
        ingress_rule,
    }
}

fn did(step: &TraceStep, names: &Names) -> String {
    match &step.done {
        TraceDone::AsAsked => "no service: goes where it was sent".to_owned(),
        TraceDone::Backend { remembered: true } => {
            "the service sends this client where it was before".to_owned()
        }
        TraceDone::Backend { remembered: false } => "the service sends it to one of its endpoints".to_owned(),
        TraceDone::Refused => format!("refused: {}", DropReason::NoBackend.meaning()),
        TraceDone::Dropped(reason) => format!("dropped: {}", reason.meaning()),
        TraceDone::Endpoint { interface, .. } => {
            let whose = names.at(step.went.destination.ip()).map(|name| format!("replica {name}"));
            format!("delivered to {} by {interface}", whose.unwrap_or_else(|| "its endpoint".to_owned()))
        }
        TraceDone::Queued { interface } => format!("goes to {interface}"),
        TraceDone::ToHost => "left to the node's own stack".to_owned(),
        TraceDone::Host => "delivered to the node's own processes".to_owned(),
        TraceDone::ToNode { address, interface, overlay: true } => {
            format!("sent to node {address} in the overlay by {interface}")
        }
        TraceDone::ToNode { address, interface, overlay: false } => {
            format!("sent to node {address} as it is by {interface}")
        }
        TraceDone::Out { interface, next_hop: Some(hop) } => format!("leaves by {interface} to {hop}"),
        TraceDone::Out { interface, next_hop: None } => format!("leaves by {interface}"),
        TraceDone::NoRoute => "no route leads on".to_owned(),
    }
}
