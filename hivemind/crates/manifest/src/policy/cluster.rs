//! Reads the spec of a ClusterNetworkPolicy. Its versions v1alpha2 and v1beta1 have the same fields.

use hivemind_model::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortRange, ClusterPorts, ClusterProtocol, ClusterSubject, ClusterTier, NamespacedPods,
};

use crate::{
    fields::cluster as fields,
    reader::{At, Reader},
};

const TIERS: &[(&str, ClusterTier)] = &[("Admin", ClusterTier::Admin), ("Baseline", ClusterTier::Baseline)];
const ACTIONS: &[(&str, ClusterAction)] =
    &[("Accept", ClusterAction::Accept), ("Deny", ClusterAction::Deny), ("Pass", ClusterAction::Pass)];

/// What the parts of a rule are that both directions have.
struct Rule {
    name: String,
    action: ClusterAction,
    peers: Vec<ClusterPeer>,
    protocols: Vec<ClusterProtocol>,
}

impl Reader<'_> {
    pub(super) fn cluster_spec(&mut self, at: &At<'_>) -> ClusterNetworkPolicySpec {
        if !self.map(at, fields::SPEC) {
            return ClusterNetworkPolicySpec::default();
        }
        let tier = self.required(at, "tier", "say when it is asked: tier: Admin or tier: Baseline");
        let priority = self.required(at, "priority", "give a number from 0, asked first, to 1000");
        let subject =
            self.required(at, "subject", "say whom it applies to; to all: subject: {namespaces: {}}");
        ClusterNetworkPolicySpec {
            tier: tier.and_then(|at| self.choice(&at, TIERS)).unwrap_or_default(),
            priority: priority.and_then(|at| self.integer(&at)).unwrap_or_default(),
            subject: subject.map(|at| self.subject(&at)).unwrap_or_default(),
            ingress: self.each(at, "ingress", |reader, at| {
                let Rule { name, action, peers: from, protocols } = reader.rule(at, fields::INGRESS, "from");
                Some(ClusterIngressRule { name, action, from, protocols })
            }),
            egress: self.each(at, "egress", |reader, at| {
                let Rule { name, action, peers: to, protocols } = reader.rule(at, fields::EGRESS, "to");
                Some(ClusterEgressRule { name, action, to, protocols })
            }),
        }
    }

    fn subject(&mut self, at: &At<'_>) -> ClusterSubject {
        self.map(at, fields::SUBJECT);
        ClusterSubject {
            namespaces: at.get("namespaces").map(|at| self.selector(&at)),
            pods: at.get("pods").map(|at| self.pods(&at)),
        }
    }

    fn pods(&mut self, at: &At<'_>) -> NamespacedPods {
        if !self.map(at, fields::PODS) {
            return NamespacedPods::default();
        }
        let pods = self.required(at, "podSelector", "say which replicas; for all write podSelector: {}");
        NamespacedPods {
            namespace_selector: at.get("namespaceSelector").map(|at| self.selector(&at)).unwrap_or_default(),
            pod_selector: pods.map(|at| self.selector(&at)).unwrap_or_default(),
        }
    }

    fn rule(&mut self, at: &At<'_>, known: &[&str], peers: &str) -> Rule {
        let mut action = None;
        if self.map(at, known) {
            action = self.required(at, "action", "use Accept, Deny or Pass");
            let hint = format!("for all replicas write {peers}: [{{namespaces: {{}}}}]");
            self.required(at, peers, &hint);
        }
        Rule {
            name: at.get("name").and_then(|at| self.text(&at)).unwrap_or_default(),
            action: action.and_then(|at| self.choice(&at, ACTIONS)).unwrap_or_default(),
            peers: self.each(at, peers, |reader, at| Some(reader.cluster_peer(at))),
            protocols: self.some(at, "protocols", "for all protocols leave it out", |reader, at| {
                Some(reader.cluster_protocol(at))
            }),
        }
    }

    fn cluster_peer(&mut self, at: &At<'_>) -> ClusterPeer {
        self.map(at, fields::PEER);
        // An entry that cannot be read keeps its place, so that the fields of the others are called rightly.
        let text = |reader: &mut Self, at: &At<'_>| Some(reader.text(at).unwrap_or_default());
        ClusterPeer {
            namespaces: at.get("namespaces").map(|at| self.selector(&at)),
            pods: at.get("pods").map(|at| self.pods(&at)),
            nodes: at.get("nodes").map(|at| self.selector(&at)),
            networks: self.some(at, "networks", "name a block, for example 192.0.2.0/24", text),
            domain_names: self.some(at, "domainNames", "name one, for example example.org", text),
        }
    }

    fn cluster_protocol(&mut self, at: &At<'_>) -> ClusterProtocol {
        self.map(at, fields::PROTOCOL);
        ClusterProtocol {
            tcp: at.get("tcp").map(|at| self.cluster_ports(&at)),
            udp: at.get("udp").map(|at| self.cluster_ports(&at)),
            sctp: at.get("sctp").map(|at| self.cluster_ports(&at)),
            destination_named_port: at
                .get("destinationNamedPort")
                .map(|at| self.text(&at).unwrap_or_default()),
        }
    }

    fn cluster_ports(&mut self, at: &At<'_>) -> ClusterPorts {
        let hint = "for all ports write destinationPort: {range: {start: 1, end: 65535}}";
        let port = self.map(at, fields::PORTS).then(|| self.required(at, "destinationPort", hint)).flatten();
        ClusterPorts {
            destination_port: port.map(|at| {
                self.map(&at, fields::PORT);
                ClusterPort {
                    number: at.get("number").map(|at| self.integer(&at).unwrap_or_default()),
                    range: at.get("range").map(|at| self.range(&at)),
                }
            }),
        }
    }

    fn range(&mut self, at: &At<'_>) -> ClusterPortRange {
        let (mut start, mut end) = (None, None);
        if self.map(at, fields::RANGE) {
            start = self.required(at, "start", "give the first port of the range");
            end = self.required(at, "end", "give the last port of the range");
        }
        ClusterPortRange {
            start: start.and_then(|at| self.integer(&at)).unwrap_or_default(),
            end: end.and_then(|at| self.integer(&at)).unwrap_or_default(),
        }
    }
}
