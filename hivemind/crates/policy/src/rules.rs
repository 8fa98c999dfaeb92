//! A policy in the form that the compiler works with: everything parsed.

use hivemind_common::policy::EGRESS;
use hivemind_model::{
    LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PolicyProtocol, PolicyType, PortRef,
};
use ipnet::IpNet;

use crate::{check::RULES_MAX, cidr};

/// A policy. What [`crate::check`] refuses is read as what allows nothing.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(crate) number: u32,
    pub(crate) selector: LabelSelector,
    /// `None` where the direction is not governed.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// A rule: any of the ports, with any of the peers.
#[derive(Debug)]
pub(crate) struct Rule {
    /// `None`: every protocol and port.
    pub(crate) ports: Option<Vec<PortRange>>,
    /// `None`: everybody.
    pub(crate) peers: Option<Vec<Peer>>,
}

/// Ports of one protocol, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Other ends of connections.
#[derive(Debug)]
pub(crate) enum Peer {
    Replicas { namespaces: Option<LabelSelector>, pods: Option<LabelSelector> },
    Block { whole: IpNet, except: Vec<IpNet> },
}

impl Policy {
    pub(crate) fn of(policy: &NetworkPolicy) -> Self {
        let NetworkPolicy { metadata, spec, status } = policy;
        let ingress = spec.ingress.iter().map(|rule| Rule::of(&rule.ports, &rule.from));
        let egress = spec.egress.iter().map(|rule| Rule::of(&rule.ports, &rule.to));
        Policy {
            namespace: metadata.namespace.clone(),
            number: status.number,
            selector: spec.pod_selector.clone(),
            ingress: spec.governs(PolicyType::Ingress).then(|| ingress.take(RULES_MAX).collect()),
            egress: spec.governs(PolicyType::Egress).then(|| egress.take(RULES_MAX).collect()),
        }
    }

    /// The rules of a direction ([`EGRESS`] or zero), if it is governed.
    pub(crate) fn rules(&self, direction: u32) -> Option<&[Rule]> {
        if direction == EGRESS { self.egress.as_deref() } else { self.ingress.as_deref() }
    }

    /// All peers of all rules that have a say.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        [&self.ingress, &self.egress]
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|r| r.peers.as_ref())
            .flatten()
    }
}

impl Rule {
    fn of(ports: &[PolicyPort], peers: &[PolicyPeer]) -> Self {
        Rule {
            ports: (!ports.is_empty()).then(|| ports.iter().filter_map(PortRange::of).collect()),
            peers: (!peers.is_empty()).then(|| peers.iter().filter_map(Peer::of).collect()),
        }
    }
}

/// A protocol's IP number.
pub(crate) fn protocol_number(protocol: PolicyProtocol) -> u8 {
    match protocol {
        PolicyProtocol::Tcp => hivemind_common::packet::TCP,
        PolicyProtocol::Udp => hivemind_common::packet::UDP,
        PolicyProtocol::Sctp => hivemind_common::packet::SCTP,
    }
}

impl PortRange {
    fn of(port: &PolicyPort) -> Option<Self> {
        let protocol = protocol_number(port.protocol);
        match &port.port {
            None => Some(PortRange { protocol, first: 0, last: u16::MAX }),
            Some(PortRef::Number(number)) => {
                let first = u16::try_from(*number).ok().filter(|first| *first > 0)?;
                let last = port.end_port.unwrap_or(first);
                (first <= last).then_some(PortRange { protocol, first, last })
            }
            Some(PortRef::Name(_)) => None,
        }
    }
}

impl Peer {
    fn of(peer: &PolicyPeer) -> Option<Self> {
        match peer {
            PolicyPeer { pod_selector: None, namespace_selector: None, ip_block: Some(block) } => {
                let whole = cidr::parse(&block.cidr).ok()?;
                let except: Result<Vec<_>, _> = block.except.iter().map(|text| cidr::parse(text)).collect();
                Some(Peer::Block { whole, except: except.ok()? })
            }
            PolicyPeer { pod_selector, namespace_selector, ip_block: None }
                if pod_selector.is_some() || namespace_selector.is_some() =>
            {
                Some(Peer::Replicas { namespaces: namespace_selector.clone(), pods: pod_selector.clone() })
            }
            _ => None,
        }
    }
}
