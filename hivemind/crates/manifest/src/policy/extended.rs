//! Reads the spec of a Policy.

use hivemind_model::{
    Entity, ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily,
    IcmpMessage, PolicyAction,
};

use super::POLICY_TYPES;
use crate::{
    fields::extended as fields,
    reader::{At, Reader},
};

const ACTIONS: &[(&str, PolicyAction)] = &[("Allow", PolicyAction::Allow), ("Deny", PolicyAction::Deny)];
const FAMILIES: &[(&str, IcmpFamily)] = &[("IPv4", IcmpFamily::IPv4), ("IPv6", IcmpFamily::IPv6)];
const ENTITIES: &[(&str, Entity)] =
    &[("host", Entity::Host), ("node", Entity::Node), ("world", Entity::World), ("cluster", Entity::Cluster)];

impl Reader<'_> {
    pub(super) fn extended_spec(&mut self, at: &At<'_>) -> ExtendedPolicySpec {
        if !self.map(at, fields::SPEC) {
            return ExtendedPolicySpec::default();
        }
        ExtendedPolicySpec {
            pod_selector: at.get("podSelector").map(|at| self.selector(&at)).unwrap_or_default(),
            policy_types: self.each(at, "policyTypes", |reader, at| reader.choice(at, POLICY_TYPES)),
            ingress: self.each(at, "ingress", |reader, at| {
                reader.map(at, fields::INGRESS);
                Some(ExtendedIngressRule {
                    action: reader.action(at),
                    from: reader.extended_peers(at, "from"),
                    ports: reader.ports(at),
                    icmp: reader.messages(at),
                })
            }),
            egress: self.each(at, "egress", |reader, at| {
                reader.map(at, fields::EGRESS);
                Some(ExtendedEgressRule {
                    action: reader.action(at),
                    to: reader.extended_peers(at, "to"),
                    ports: reader.ports(at),
                    icmp: reader.messages(at),
                })
            }),
            audit: at.get("audit").and_then(|at| self.boolean(&at)).unwrap_or_default(),
            log: at.get("log").and_then(|at| self.boolean(&at)).unwrap_or_default(),
            until: at.get("until").and_then(|at| self.time(&at)),
        }
    }

    fn action(&mut self, at: &At<'_>) -> PolicyAction {
        at.get("action").and_then(|at| self.choice(&at, ACTIONS)).unwrap_or_default()
    }

    fn extended_peers(&mut self, at: &At<'_>, key: &str) -> Vec<ExtendedPeer> {
        self.each(at, key, |reader, at| {
            reader.map(at, fields::PEER);
            Some(ExtendedPeer {
                pod_selector: at.get("podSelector").map(|at| reader.selector(&at)),
                namespace_selector: at.get("namespaceSelector").map(|at| reader.selector(&at)),
                ip_block: at.get("ipBlock").map(|at| reader.ip_block(&at)),
                entity: at.get("entity").and_then(|at| reader.choice(&at, ENTITIES)),
                domain_name: at.get("domainName").map(|at| reader.text(&at).unwrap_or_default()),
            })
        })
    }

    fn messages(&mut self, at: &At<'_>) -> Vec<IcmpMessage> {
        self.each(at, "icmp", |reader, at| {
            reader.map(at, fields::ICMP);
            Some(IcmpMessage {
                family: at.get("family").and_then(|at| reader.choice(&at, FAMILIES)).unwrap_or_default(),
                kind: at.get("type").and_then(|at| reader.integer(&at)),
                code: at.get("code").and_then(|at| reader.integer(&at)),
            })
        })
    }
}
