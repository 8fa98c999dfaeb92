//! Rules as policies say them.

use std::collections::BTreeMap;

use hivemind_model::{
    EgressRule, Entity, ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec,
    IcmpMessage, IngressRule, IpBlock, LabelSelector, NAMESPACE_NAME_LABEL, NetworkPolicySpec, PolicyAction,
    PolicyPeer, PolicyPort, PolicySpec, PolicyType, PortRef, RuleEvidence,
};

use super::peers::{Heard, Peer};

/// The label that every replica has its app's name in.
pub(super) const APP_LABEL: &str = "app";

/// A rule, before it is decided in which kind of policy it is said.
#[derive(Debug)]
pub(super) struct Ruling {
    pub(super) peers: Vec<Peer>,
    pub(super) heard: Vec<Heard>,
    pub(super) evidence: RuleEvidence,
}

/// What a policy of `app` says: in Kubernetes' kind if that can say it, and else in Hivemind's.
pub(super) fn spec(namespace: &str, app: &str, ingress: &[Ruling], egress: &[Ruling]) -> PolicySpec {
    let pod_selector = label(APP_LABEL, app);
    let policy_types = vec![PolicyType::Ingress, PolicyType::Egress];
    if ingress.iter().chain(egress).any(Ruling::is_extended) {
        let peers = |rule: &Ruling| rule.peers.iter().map(|peer| extended(peer, namespace)).collect();
        let taking = |rule: &Ruling| ExtendedIngressRule {
            action: PolicyAction::Allow,
            from: peers(rule),
            ports: rule.ports(),
            icmp: rule.messages(),
        };
        let making = |rule: &Ruling| ExtendedEgressRule {
            action: PolicyAction::Allow,
            to: peers(rule),
            ports: rule.ports(),
            icmp: rule.messages(),
        };
        return PolicySpec::Policy(ExtendedPolicySpec {
            pod_selector,
            policy_types,
            ingress: ingress.iter().map(taking).collect(),
            egress: egress.iter().map(making).collect(),
            ..ExtendedPolicySpec::default()
        });
    }
    let peers = |rule: &Ruling| rule.peers.iter().map(|peer| plain(peer, namespace)).collect();
    PolicySpec::NetworkPolicy(NetworkPolicySpec {
        pod_selector,
        policy_types,
        ingress: ingress.iter().map(|rule| IngressRule { ports: rule.ports(), from: peers(rule) }).collect(),
        egress: egress.iter().map(|rule| EgressRule { ports: rule.ports(), to: peers(rule) }).collect(),
    })
}

impl Ruling {
    /// Whether only Hivemind's kind can say it.
    fn is_extended(&self) -> bool {
        let is_extended = |peer: &Peer| matches!(peer, Peer::Host | Peer::Node | Peer::Domain(_));
        self.peers.iter().any(is_extended)
            || self.heard.iter().any(|heard| matches!(heard, Heard::Messages(_)))
    }

    fn ports(&self) -> Vec<PolicyPort> {
        let port = |heard: &Heard| match heard {
            Heard::Ports { protocol, first, last } => Some(PolicyPort {
                protocol: *protocol,
                port: Some(PortRef::Number(i64::from(*first))),
                end_port: (first != last).then_some(*last),
            }),
            Heard::Messages(_) => None,
        };
        self.heard.iter().filter_map(port).collect()
    }

    fn messages(&self) -> Vec<IcmpMessage> {
        let message = |heard: &Heard| match heard {
            Heard::Messages(family) => Some(IcmpMessage { family: *family, kind: None, code: None }),
            Heard::Ports { .. } => None,
        };
        self.heard.iter().filter_map(message).collect()
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    let match_labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector { match_labels, ..LabelSelector::default() }
}

/// A peer that Kubernetes' kind can say; one that it cannot means nobody.
fn plain(peer: &Peer, own: &str) -> PolicyPeer {
    match peer {
        Peer::App { namespace, app } => PolicyPeer {
            pod_selector: Some(label(APP_LABEL, app)),
            namespace_selector: (namespace != own).then(|| label(NAMESPACE_NAME_LABEL, namespace)),
            ip_block: None,
        },
        Peer::Block(block) => {
            let ip_block = Some(IpBlock { cidr: block.to_string(), except: Vec::new() });
            PolicyPeer { ip_block, ..PolicyPeer::default() }
        }
        Peer::Host | Peer::Node | Peer::Domain(_) => PolicyPeer::default(),
    }
}

fn extended(peer: &Peer, own: &str) -> ExtendedPeer {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = plain(peer, own);
    let entity = match peer {
        Peer::Host => Some(Entity::Host),
        Peer::Node => Some(Entity::Node),
        _ => None,
    };
    let domain_name = match peer {
        Peer::Domain(name) => Some(name.clone()),
        _ => None,
    };
    ExtendedPeer { pod_selector, namespace_selector, ip_block, entity, domain_name }
}
