//! Networks as policies. All replicas of a cluster are in one network; who shares no network of the project is kept apart.
//!
//! Each network is a policy that lets its members reach each other, and closes them to everybody else. A service that publishes
//! ports is open at these to everybody. Services all of whose networks are internal reach nobody but other members, and the DNS
//! server.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{
    EgressRule, ErrorCode, IngressRule, LabelExpression, LabelOperator, LabelSelector, Metadata,
    NAMESPACE_NAME_LABEL, NetworkPolicy, NetworkPolicySpec, NetworkPolicyStatus, PolicyPeer, PolicyPort,
    PolicyProtocol, PolicyType, PortRef, SYSTEM_NAMESPACE,
};

use crate::{
    grant::External,
    network::Network,
    plan::{
        Planner,
        name::{is_label, label_of},
    },
    port::Protocol,
    service::Service,
};

/// The network of services that name none.
const DEFAULT: &str = "default";

/// The label that members of an external network have, which may be members of other projects.
pub(super) fn membership(network: &str) -> String {
    format!("network.compose/{network}")
}

impl<'p> Planner<'p> {
    /// The policies that keep the services of the project apart.
    pub(super) fn policies(&mut self, namespace: &str) -> Vec<NetworkPolicy> {
        let members = self.members();
        let mut policies: BTreeMap<String, NetworkPolicySpec> = BTreeMap::new();
        for (network, apps) in &members {
            let definition = self.project.networks.get(network).map(|network| &network.value);
            let name = format!("network-{}", label_of(network));
            let peers = peers(network, definition, apps);
            if is_internal(definition) {
                let shut: Vec<&str> = apps.iter().copied().filter(|app| self.is_shut(app)).collect();
                if !shut.is_empty() {
                    let name = format!("internal-{}", label_of(network));
                    self.add(&mut policies, network, name, internal(&shut, peers.clone()));
                }
            }
            let spec = NetworkPolicySpec {
                pod_selector: apps_of(apps),
                policy_types: vec![PolicyType::Ingress],
                ingress: vec![IngressRule { from: peers, ports: Vec::new() }],
                egress: Vec::new(),
            };
            self.add(&mut policies, network, name, spec);
        }
        for (name, service) in &self.project.services {
            let ports = published(service);
            if !ports.is_empty() {
                let spec = NetworkPolicySpec {
                    pod_selector: apps_of(&[name]),
                    policy_types: vec![PolicyType::Ingress],
                    ingress: vec![IngressRule { from: Vec::new(), ports }],
                    egress: Vec::new(),
                };
                policies.insert(format!("published-{}", label_of(name)), spec);
            }
        }
        let policy = |(name, spec): (String, NetworkPolicySpec)| NetworkPolicy {
            metadata: Metadata::new(namespace, name),
            spec: spec.into(),
            status: NetworkPolicyStatus::default(),
        };
        policies.into_iter().map(policy).collect()
    }

    fn add(
        &mut self,
        policies: &mut BTreeMap<String, NetworkPolicySpec>,
        network: &str,
        name: String,
        spec: NetworkPolicySpec,
    ) {
        let spot = self.project.networks.get(network).map(|network| network.spot.of_key());
        let spot = spot.unwrap_or_else(|| self.project.name.spot.clone());
        if !is_label(&name) {
            let message = format!("{name:?} cannot be the name of a policy");
            self.fault(&spot, ErrorCode::InvalidName, message, "give the network a shorter name");
        }
        if policies.insert(name.clone(), spec).is_some() {
            let message = format!("two networks would have the policy {name}");
            self.fault(&spot, ErrorCode::Repeated, message, "give one of them another name");
        }
    }

    /// The services of each network that has any.
    fn members(&self) -> BTreeMap<String, Vec<&'p str>> {
        let project = self.project;
        let mut members: BTreeMap<String, Vec<&'p str>> = BTreeMap::new();
        for (name, service) in &project.services {
            for network in networks(service) {
                members.entry(network.to_owned()).or_default().push(name);
            }
        }
        members
    }

    /// Whether all networks of a service are internal.
    fn is_shut(&self, app: &str) -> bool {
        let service = self.project.services.get(app);
        let definition = |network: &str| self.project.networks.get(network).map(|network| &network.value);
        service.is_some_and(|service| networks(service).iter().all(|name| is_internal(definition(name))))
    }

    /// The external networks of a service, as they are called outside of the project.
    pub(super) fn external_networks(&mut self, service: &Service) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for name in networks(service) {
            let definition = self.project.networks.get(name);
            let Some(definition) = definition.filter(|network| is_external(network)) else { continue };
            let outside = outside_name(name, definition);
            if is_label(&outside) {
                names.insert(outside);
            } else {
                let message = format!("{outside:?} cannot be the name of a network of several projects");
                let hint = format!("call it {}", label_of(&outside));
                self.fault(&definition.spot.of_key(), ErrorCode::InvalidName, message, hint);
            }
        }
        names
    }
}

/// The networks that a service is in.
pub(super) fn networks(service: &Service) -> BTreeSet<&str> {
    match service.networks.is_empty() {
        true => BTreeSet::from([DEFAULT]),
        false => service.networks.keys().map(String::as_str).collect(),
    }
}

fn is_internal(network: Option<&Network>) -> bool {
    network.and_then(|network| network.internal.as_ref()).is_some_and(|internal| internal.value)
}

fn is_external(network: &Network) -> bool {
    network.external.as_ref().is_some_and(|external| external.is_external())
}

fn outside_name(key: &str, network: &Network) -> String {
    match (&network.name, network.external.as_ref().map(|external| &external.value)) {
        (Some(name), _) => name.value.clone(),
        (None, Some(External::Named(name))) => name.clone(),
        (None, _) => key.to_owned(),
    }
}

/// The members of a network: apps of the project, and if it is external those of other projects too.
fn peers(key: &str, network: Option<&Network>, apps: &[&str]) -> Vec<PolicyPeer> {
    let own = PolicyPeer { pod_selector: Some(apps_of(apps)), ..PolicyPeer::default() };
    let Some(network) = network.filter(|network| is_external(network)) else { return vec![own] };
    let label = (membership(&outside_name(key, network)), "member".to_owned());
    let others = PolicyPeer {
        pod_selector: Some(LabelSelector { match_labels: [label].into(), ..LabelSelector::default() }),
        namespace_selector: Some(LabelSelector::default()),
        ip_block: None,
    };
    vec![own, others]
}

fn apps_of(apps: &[&str]) -> LabelSelector {
    let values = apps.iter().map(|app| (*app).to_owned()).collect();
    let expression = LabelExpression { key: "app".to_owned(), operator: LabelOperator::In, values };
    LabelSelector { match_expressions: vec![expression], ..LabelSelector::default() }
}

/// Lets `apps` reach `peers` and the DNS server, and nobody else.
fn internal(apps: &[&str], peers: Vec<PolicyPeer>) -> NetworkPolicySpec {
    let labels = |key: &str, value: &str| LabelSelector {
        match_labels: [(key.to_owned(), value.to_owned())].into(),
        ..LabelSelector::default()
    };
    let dns = PolicyPeer {
        pod_selector: Some(labels("app", "dns")),
        namespace_selector: Some(labels(NAMESPACE_NAME_LABEL, SYSTEM_NAMESPACE)),
        ip_block: None,
    };
    let port = |protocol| PolicyPort { protocol, port: Some(PortRef::Number(53)), end_port: None };
    let ports = vec![port(PolicyProtocol::Udp), port(PolicyProtocol::Tcp)];
    NetworkPolicySpec {
        pod_selector: apps_of(apps),
        policy_types: vec![PolicyType::Egress],
        ingress: Vec::new(),
        egress: vec![EgressRule { to: peers, ports: Vec::new() }, EgressRule { to: vec![dns], ports }],
    }
}

/// The ports of a service that everybody may reach; those that follow each other as a range.
fn published(service: &Service) -> Vec<PolicyPort> {
    let mut ranges: Vec<PolicyPort> = Vec::new();
    let protocols = [
        (Protocol::Tcp, PolicyProtocol::Tcp),
        (Protocol::Udp, PolicyProtocol::Udp),
        (Protocol::Sctp, PolicyProtocol::Sctp),
    ];
    for (own, protocol) in protocols {
        let ports = service.ports.iter().filter(|port| port.protocol == own);
        let ports: BTreeSet<u16> = ports.map(|port| port.target).collect();
        let mut last = None;
        for port in ports {
            match ranges.last_mut() {
                Some(range) if last.is_some_and(|last: u16| last + 1 == port) => range.end_port = Some(port),
                _ => {
                    let first = Some(PortRef::Number(port.into()));
                    ranges.push(PolicyPort { protocol, port: first, end_port: None });
                }
            }
            last = Some(port);
        }
    }
    ranges
}
