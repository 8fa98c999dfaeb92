//! Reads the spec of a NetworkPolicy, and what the specs of all kinds have in common.

mod cluster;
mod extended;

use hivemind_model::{
    EgressRule, ErrorCode, IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector,
    NetworkPolicySpec, PolicyKind, PolicyPeer, PolicyPort, PolicyProtocol, PolicySpec, PolicyType, PortRef,
};
use hivemind_yaml::Value;

use crate::{
    fields,
    reader::{At, Reader},
};

pub(crate) const POLICY_TYPES: &[(&str, PolicyType)] =
    &[("Ingress", PolicyType::Ingress), ("Egress", PolicyType::Egress)];
const PROTOCOLS: &[(&str, PolicyProtocol)] =
    &[("TCP", PolicyProtocol::Tcp), ("UDP", PolicyProtocol::Udp), ("SCTP", PolicyProtocol::Sctp)];
const OPERATORS: &[(&str, LabelOperator)] = &[
    ("In", LabelOperator::In),
    ("NotIn", LabelOperator::NotIn),
    ("Exists", LabelOperator::Exists),
    ("DoesNotExist", LabelOperator::DoesNotExist),
];

impl Reader<'_> {
    /// The spec of a policy of that kind, as far as it can be.
    pub(crate) fn policy_spec(&mut self, kind: PolicyKind, at: &At<'_>) -> PolicySpec {
        match kind {
            PolicyKind::NetworkPolicy => self.network_spec(at).into(),
            PolicyKind::ClusterNetworkPolicy => self.cluster_spec(at).into(),
            PolicyKind::Policy => self.extended_spec(at).into(),
        }
    }

    fn network_spec(&mut self, at: &At<'_>) -> NetworkPolicySpec {
        if !self.map(at, fields::network::SPEC) {
            return NetworkPolicySpec::default();
        }
        NetworkPolicySpec {
            pod_selector: at.get("podSelector").map(|at| self.selector(&at)).unwrap_or_default(),
            policy_types: self.each(at, "policyTypes", |reader, at| reader.choice(at, POLICY_TYPES)),
            ingress: self.each(at, "ingress", |reader, at| {
                reader.map(at, fields::network::INGRESS);
                Some(IngressRule { ports: reader.ports(at), from: reader.peers(at, "from") })
            }),
            egress: self.each(at, "egress", |reader, at| {
                reader.map(at, fields::network::EGRESS);
                Some(EgressRule { ports: reader.ports(at), to: reader.peers(at, "to") })
            }),
        }
    }

    pub(crate) fn ports(&mut self, at: &At<'_>) -> Vec<PolicyPort> {
        self.each(at, "ports", |reader, at| {
            reader.map(at, fields::PORT);
            Some(PolicyPort {
                protocol: at.get("protocol").and_then(|at| reader.choice(&at, PROTOCOLS)).unwrap_or_default(),
                port: at.get("port").and_then(|at| reader.port(&at)),
                end_port: at.get("endPort").and_then(|at| reader.end_port(&at)),
            })
        })
    }

    fn port(&mut self, at: &At<'_>) -> Option<PortRef> {
        match &at.node.value {
            // A text that is no number is the name of a port, which the check of policies has its own words for.
            Value::Scalar { text, .. } if text.bytes().any(|b| b.is_ascii_alphabetic()) => {
                self.text(at).map(PortRef::Name)
            }
            _ => self.integer(at).map(PortRef::Number),
        }
    }

    fn end_port(&mut self, at: &At<'_>) -> Option<u16> {
        let number = self.integer(at)?;
        let port = u16::try_from(number).ok();
        if port.is_none() {
            let message = format!("{number} is not a port");
            self.fault(at, ErrorCode::OutOfRange, message, "ports are 1 to 65535");
        }
        port
    }

    fn peers(&mut self, at: &At<'_>, key: &str) -> Vec<PolicyPeer> {
        self.each(at, key, |reader, at| {
            reader.map(at, fields::network::PEER);
            Some(PolicyPeer {
                pod_selector: at.get("podSelector").map(|at| reader.selector(&at)),
                namespace_selector: at.get("namespaceSelector").map(|at| reader.selector(&at)),
                ip_block: at.get("ipBlock").map(|at| reader.ip_block(&at)),
            })
        })
    }

    pub(crate) fn ip_block(&mut self, at: &At<'_>) -> IpBlock {
        if !self.map(at, fields::IP_BLOCK) {
            return IpBlock::default();
        }
        let cidr = self.required(at, "cidr", "write a block of addresses, for example cidr: 10.0.0.0/8");
        IpBlock {
            cidr: cidr.and_then(|at| self.text(&at)).unwrap_or_default(),
            // An entry that cannot be read keeps its place, so that the fields of the others are called rightly.
            except: self.each(at, "except", |reader, at| Some(reader.text(at).unwrap_or_default())),
        }
    }

    pub(crate) fn selector(&mut self, at: &At<'_>) -> LabelSelector {
        if !self.map(at, fields::SELECTOR) {
            return LabelSelector::default();
        }
        LabelSelector {
            match_labels: at
                .get("matchLabels")
                .map(|at| self.labels(&at, ErrorCode::InvalidSelector))
                .unwrap_or_default(),
            match_expressions: self.each(at, "matchExpressions", |reader, at| Some(reader.expression(at))),
        }
    }

    fn expression(&mut self, at: &At<'_>) -> LabelExpression {
        let (mut key, mut operator) = (None, None);
        if self.map(at, fields::EXPRESSION) {
            key = self.required(at, "key", "name the label, for example key: tier");
            operator = self.required(at, "operator", "use In, NotIn, Exists or DoesNotExist");
        }
        LabelExpression {
            key: key.and_then(|at| self.text(&at)).unwrap_or_default(),
            operator: operator.and_then(|at| self.choice(&at, OPERATORS)).unwrap_or(LabelOperator::Exists),
            values: self.each(at, "values", |reader, at| Some(reader.text(at).unwrap_or_default())),
        }
    }
}
