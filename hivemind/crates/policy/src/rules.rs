//! A policy in the form that the compiler works with: everything parsed, whichever kind it was written as.

use hivemind_common::{
    packet::{ICMP, ICMPV6, SCTP, TCP, UDP},
    policy::{ADMIN, BASELINE, EGRESS, NAMESPACE},
};
use hivemind_model::{
    ClusterAction, ClusterNetworkPolicySpec, ClusterPeer, ClusterPorts, ClusterProtocol, ClusterSubject,
    ClusterTier, Entity, ExtendedPeer, ExtendedPolicySpec, IcmpFamily, IcmpMessage, IpBlock, LabelSelector,
    NamespacedPods, NetworkPolicy, NetworkPolicySpec, PolicyAction, PolicyPeer, PolicyPort, PolicyProtocol,
    PolicySpec, PolicyType, PortRef,
};
use ipnet::IpNet;

use crate::{check::RULES_MAX, cidr, domain};

/// A policy. A rule that [`crate::check`] refuses allows nothing, or denies everybody.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) number: u32,
    /// [`ADMIN`], [`NAMESPACE`] or [`BASELINE`].
    pub(crate) tier: u32,
    /// Within the tier lower ones are asked first.
    pub(crate) priority: i64,
    /// Whether what it would deny is only told.
    pub(crate) is_audit: bool,
    pub(crate) subject: Subject,
    /// `None` where the direction is not governed.
    ingress: Option<Direction>,
    egress: Option<Direction>,
}

/// Whom a policy applies to.
#[derive(Debug)]
pub(crate) struct Subject {
    /// `None`: the policy's own.
    pub(crate) namespaces: Option<LabelSelector>,
    pub(crate) pods: LabelSelector,
}

/// What a policy says about one direction.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Whether what no rule allows is denied.
    pub(crate) closes: bool,
    pub(crate) rules: Vec<Rule>,
}

/// A rule: any of the transports, with any of the peers.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    /// `None`: every protocol and port.
    pub(crate) transports: Option<Vec<Speech>>,
    /// `None`: everybody.
    pub(crate) peers: Option<Vec<Peer>>,
}

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Pass,
}

/// What connections speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Ports(PortRange),
    /// The port that the end which takes the connection calls so; of this protocol, if one is said.
    Named {
        name: String,
        protocol: Option<u8>,
    },
}

/// Ports of one protocol, first to last; of ICMP the type is the higher byte of the port and the code the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Other ends of connections.
#[derive(Debug)]
pub(crate) enum Peer {
    /// `namespaces: None` is the policy's own.
    Replicas {
        namespaces: Option<LabelSelector>,
        pods: Option<LabelSelector>,
    },
    Block {
        whole: IpNet,
        except: Vec<IpNet>,
    },
    Entity(Entity),
    /// Nodes with these labels, by their addresses.
    Nodes(LabelSelector),
    /// A pattern, as [`domain::parse`] writes it.
    Domain(String),
}

impl Policy {
    pub(crate) fn of(policy: &NetworkPolicy) -> Self {
        let NetworkPolicy { metadata, spec, status } = policy;
        let (tier, priority, subject, [ingress, egress]) = match spec {
            PolicySpec::NetworkPolicy(spec) => (NAMESPACE, 0, own(&spec.pod_selector), kubernetes(spec)),
            PolicySpec::Policy(spec) => (NAMESPACE, 0, own(&spec.pod_selector), extended(spec)),
            PolicySpec::ClusterNetworkPolicy(spec) => {
                let tier = if spec.tier == ClusterTier::Admin { ADMIN } else { BASELINE };
                (tier, spec.priority, Subject::of(&spec.subject), cluster(spec))
            }
        };
        Policy {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            number: status.number,
            tier,
            priority,
            is_audit: spec.is_audit(),
            subject,
            ingress,
            egress,
        }
    }

    /// What it says about a direction ([`EGRESS`] or zero), if that is governed.
    pub(crate) fn direction(&self, direction: u32) -> Option<&Direction> {
        if direction == EGRESS { self.egress.as_ref() } else { self.ingress.as_ref() }
    }

    /// All rules, each with its direction.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (u32, &Rule)> {
        [(0, &self.ingress), (EGRESS, &self.egress)].into_iter().flat_map(|(direction, said)| {
            said.iter().flat_map(|said| &said.rules).map(move |rule| (direction, rule))
        })
    }

    /// All peers of all rules.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.rules().filter_map(|(_, rule)| rule.peers.as_ref()).flatten()
    }
}

impl Rule {
    /// Whether it means the ports of whoever takes the connection by their names.
    pub(crate) fn has_names(&self) -> bool {
        self.transports.iter().flatten().any(|speech| matches!(speech, Speech::Named { .. }))
    }
}

fn own(pods: &LabelSelector) -> Subject {
    Subject { namespaces: None, pods: pods.clone() }
}

impl Subject {
    /// One that says nothing, or too much, applies to everybody.
    fn of(subject: &ClusterSubject) -> Self {
        match subject {
            ClusterSubject { namespaces: Some(namespaces), pods: None } => {
                Subject { namespaces: Some(namespaces.clone()), pods: LabelSelector::default() }
            }
            ClusterSubject { namespaces: None, pods: Some(pods) } => {
                Subject { namespaces: Some(pods.namespace_selector.clone()), pods: pods.pod_selector.clone() }
            }
            _ => Subject { namespaces: Some(LabelSelector::default()), pods: LabelSelector::default() },
        }
    }
}

/// The two directions of a NetworkPolicy.
fn kubernetes(spec: &NetworkPolicySpec) -> [Option<Direction>; 2] {
    let rule = |ports: &[PolicyPort], peers: &[PolicyPeer]| Rule {
        action: Action::Allow,
        transports: (!ports.is_empty()).then(|| ports.iter().filter_map(Speech::of).collect()),
        peers: (!peers.is_empty()).then(|| peers.iter().filter_map(Peer::of).collect()),
    };
    let of =
        |direction, rules: Vec<Rule>| spec.governs(direction).then_some(Direction { closes: true, rules });
    let ingress = spec.ingress.iter().take(RULES_MAX).map(|r| rule(&r.ports, &r.from)).collect();
    let egress = spec.egress.iter().take(RULES_MAX).map(|r| rule(&r.ports, &r.to)).collect();
    [of(PolicyType::Ingress, ingress), of(PolicyType::Egress, egress)]
}

/// The two directions of a Policy.
fn extended(spec: &ExtendedPolicySpec) -> [Option<Direction>; 2] {
    let rule = |action, ports: &[PolicyPort], icmp: &[IcmpMessage], peers: &[ExtendedPeer]| {
        let speaks = || {
            let messages = icmp.iter().filter_map(PortRange::of_message).map(Speech::Ports);
            ports.iter().filter_map(Speech::of).chain(messages).collect()
        };
        let action = if action == PolicyAction::Deny { Action::Deny } else { Action::Allow };
        let transports = (!ports.is_empty() || !icmp.is_empty()).then(speaks);
        Rule { action, transports, peers: some(action, peers.iter().map(Peer::of_extended)) }
    };
    let of = |direction, rules: Vec<Rule>| {
        spec.governs(direction).then(|| Direction { closes: spec.closes(direction), rules })
    };
    let ingress = spec.ingress.iter().take(RULES_MAX).map(|r| rule(r.action, &r.ports, &r.icmp, &r.from));
    let egress = spec.egress.iter().take(RULES_MAX).map(|r| rule(r.action, &r.ports, &r.icmp, &r.to));
    [of(PolicyType::Ingress, ingress.collect()), of(PolicyType::Egress, egress.collect())]
}

/// The two directions of a ClusterNetworkPolicy.
fn cluster(spec: &ClusterNetworkPolicySpec) -> [Option<Direction>; 2] {
    let rule = |action, protocols: &[ClusterProtocol], peers: &[ClusterPeer]| {
        let action = match action {
            ClusterAction::Accept => Action::Allow,
            ClusterAction::Deny => Action::Deny,
            ClusterAction::Pass => Action::Pass,
        };
        let transports =
            (!protocols.is_empty()).then(|| protocols.iter().filter_map(Speech::of_cluster).collect());
        let peers: Vec<Option<Vec<Peer>>> = peers.iter().map(Peer::of_cluster).collect();
        if peers.iter().any(Option::is_none) && action != Action::Allow {
            return Rule { action: Action::Deny, transports, peers: None };
        }
        Rule { action, transports, peers: Some(peers.into_iter().flatten().flatten().collect()) }
    };
    let of = |rules: Vec<Rule>| (!rules.is_empty()).then_some(Direction { closes: false, rules });
    let ingress = spec.ingress.iter().take(RULES_MAX).map(|r| rule(r.action, &r.protocols, &r.from));
    let egress = spec.egress.iter().take(RULES_MAX).map(|r| rule(r.action, &r.protocols, &r.to));
    [of(ingress.collect()), of(egress.collect())]
}

/// The peers of a rule, of which an empty list means everybody. If one cannot be meant, nobody is allowed by it, and everybody
/// denied.
fn some(action: Action, peers: impl ExactSizeIterator<Item = Option<Peer>>) -> Option<Vec<Peer>> {
    if peers.len() == 0 {
        return None;
    }
    let peers: Vec<Option<Peer>> = peers.collect();
    if action != Action::Allow && peers.iter().any(Option::is_none) {
        return None;
    }
    Some(peers.into_iter().flatten().collect())
}

/// A protocol's IP number.
pub(crate) fn protocol_number(protocol: PolicyProtocol) -> u8 {
    match protocol {
        PolicyProtocol::Tcp => TCP,
        PolicyProtocol::Udp => UDP,
        PolicyProtocol::Sctp => SCTP,
    }
}

impl Speech {
    fn of(port: &PolicyPort) -> Option<Self> {
        let protocol = protocol_number(port.protocol);
        match &port.port {
            None => Some(Speech::Ports(PortRange { protocol, first: 0, last: u16::MAX })),
            Some(PortRef::Number(number)) => {
                PortRange::of(protocol, *number, port.end_port.map_or(*number, i64::from)).map(Speech::Ports)
            }
            Some(PortRef::Name(name)) => Some(Speech::Named { name: name.clone(), protocol: Some(protocol) }),
        }
    }

    fn of_cluster(said: &ClusterProtocol) -> Option<Self> {
        let ports = |protocol, ports: &ClusterPorts| match &ports.destination_port {
            None => Some(PortRange { protocol, first: 0, last: u16::MAX }),
            Some(port) => match (port.number, port.range) {
                (Some(number), None) => PortRange::of(protocol, number, number),
                (None, Some(range)) => PortRange::of(protocol, range.start, range.end),
                _ => None,
            },
        };
        match said {
            ClusterProtocol { tcp: Some(said), udp: None, sctp: None, destination_named_port: None } => {
                ports(TCP, said).map(Speech::Ports)
            }
            ClusterProtocol { tcp: None, udp: Some(said), sctp: None, destination_named_port: None } => {
                ports(UDP, said).map(Speech::Ports)
            }
            ClusterProtocol { tcp: None, udp: None, sctp: Some(said), destination_named_port: None } => {
                ports(SCTP, said).map(Speech::Ports)
            }
            ClusterProtocol { tcp: None, udp: None, sctp: None, destination_named_port: Some(name) } => {
                Some(Speech::Named { name: name.clone(), protocol: None })
            }
            _ => None,
        }
    }
}

impl PortRange {
    fn of(protocol: u8, first: i64, last: i64) -> Option<Self> {
        let first = u16::try_from(first).ok().filter(|first| *first > 0)?;
        let last = u16::try_from(last).ok()?;
        (first <= last).then_some(PortRange { protocol, first, last })
    }

    fn of_message(message: &IcmpMessage) -> Option<Self> {
        let protocol = if message.family == IcmpFamily::IPv4 { ICMP } else { ICMPV6 };
        let byte = |number: i64| u8::try_from(number).ok().map(u16::from);
        Some(match (message.kind, message.code) {
            (None, None) => PortRange { protocol, first: 0, last: u16::MAX },
            (Some(kind), None) => {
                let first = byte(kind)? << 8;
                PortRange { protocol, first, last: first | 0xff }
            }
            (Some(kind), Some(code)) => {
                let only = byte(kind)? << 8 | byte(code)?;
                PortRange { protocol, first: only, last: only }
            }
            (None, Some(_)) => return None,
        })
    }
}

impl Peer {
    fn of(peer: &PolicyPeer) -> Option<Self> {
        match peer {
            PolicyPeer { pod_selector: None, namespace_selector: None, ip_block: Some(block) } => {
                Peer::of_block(block)
            }
            PolicyPeer { pod_selector, namespace_selector, ip_block: None }
                if pod_selector.is_some() || namespace_selector.is_some() =>
            {
                Some(Peer::Replicas { namespaces: namespace_selector.clone(), pods: pod_selector.clone() })
            }
            _ => None,
        }
    }

    fn of_block(block: &IpBlock) -> Option<Self> {
        let whole = cidr::parse(&block.cidr).ok()?;
        let except: Result<Vec<_>, _> = block.except.iter().map(|text| cidr::parse(text)).collect();
        Some(Peer::Block { whole, except: except.ok()? })
    }

    fn of_extended(peer: &ExtendedPeer) -> Option<Self> {
        let ExtendedPeer { pod_selector, namespace_selector, ip_block, entity, domain_name } = peer;
        let plain = PolicyPeer {
            pod_selector: pod_selector.clone(),
            namespace_selector: namespace_selector.clone(),
            ip_block: ip_block.clone(),
        };
        match (entity, domain_name) {
            (None, None) => Peer::of(&plain),
            (Some(entity), None) if plain == PolicyPeer::default() => Some(Peer::Entity(*entity)),
            (None, Some(name)) if plain == PolicyPeer::default() => domain::parse(name).map(Peer::Domain),
            _ => None,
        }
    }

    /// One peer may name several blocks or names.
    fn of_cluster(peer: &ClusterPeer) -> Option<Vec<Self>> {
        let ClusterPeer { namespaces, pods, nodes, networks, domain_names } = peer;
        match (namespaces, pods, nodes, networks.as_slice(), domain_names.as_slice()) {
            (Some(namespaces), None, None, [], []) => {
                Some(vec![Peer::Replicas { namespaces: Some(namespaces.clone()), pods: None }])
            }
            (None, Some(NamespacedPods { namespace_selector, pod_selector }), None, [], []) => {
                Some(vec![Peer::Replicas {
                    namespaces: Some(namespace_selector.clone()),
                    pods: Some(pod_selector.clone()),
                }])
            }
            (None, None, Some(nodes), [], []) => Some(vec![Peer::Nodes(nodes.clone())]),
            (None, None, None, networks @ [_, ..], []) => networks
                .iter()
                .map(|text| Some(Peer::Block { whole: cidr::parse(text).ok()?, except: Vec::new() }))
                .collect(),
            (None, None, None, [], names @ [_, ..]) => {
                names.iter().map(|name| domain::parse(name).map(Peer::Domain)).collect()
            }
            _ => None,
        }
    }
}
