//! The meaning of policies, written down as Kubernetes' documentation tells it and as slowly as that reads.
//!
//! Nothing here is shared with the compiler: tests hold the two against each other. Who wants to know why a connection may
//! pass asks [`judge`].

use std::{collections::BTreeMap, net::IpAddr};

use hivemind_common::policy::{EGRESS, RULE_HOST, RULE_NONE, rule_number};
use hivemind_model::{
    ClusterAction, ClusterPeer, ClusterPort, ClusterPorts, ClusterProtocol, ClusterTier, Entity,
    ExtendedPeer, IcmpFamily, IcmpMessage, Identity, IdentitySpec, IpBlock, LabelSelector, NetworkPolicy,
    PolicyAction, PolicyPeer, PolicyPort, PolicyProtocol, PolicySpec, PolicyType, PortRef,
};
use ipnet::IpNet;

use crate::{domain, world::World};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherEnd {
    /// Its identity; zero if it has none that is known.
    pub identity: u32,
    /// Its address.
    pub address: IpAddr,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// The transport protocol's IP number.
    pub protocol: u8,
    /// The port of the end that takes the connection, in host order; of ICMP the type in the higher byte and the code in the
    /// lower.
    pub port: u16,
}

/// Whether one end's policies let a connection pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether they do.
    pub allowed: bool,
    /// The rules that say so, by number, in the order of policies and rules: all that allow it, or deny it; if no rule says
    /// anything, the defaults of the policies that govern; [`RULE_NONE`] if no policy governs.
    pub rules: Vec<u32>,
    /// The rules, in the same way, of policies that would deny what is allowed if they did not only tell.
    pub audit: Vec<u32>,
    /// What was asked on the way, in its order, and what it said.
    pub steps: Vec<Step>,
}

/// What one tier of policies said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which tier.
    pub tier: Tier,
    /// What it said.
    pub outcome: Outcome,
    /// The rules that said so, by number.
    pub rules: Vec<u32>,
}

/// The tiers of policies, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The node's own processes reach its replicas, whatever policies say.
    Node,
    /// Policies of the whole cluster, before those of namespaces.
    Admin,
    /// Policies of the replica's namespace.
    Namespace,
    /// Policies of the whole cluster, after those of namespaces.
    Baseline,
}

/// What a tier says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is allowed.
    Allowed,
    /// It is denied.
    Denied,
    /// The next tier decides: a rule says so, or none matches.
    Passed,
}

/// One end's view of a connection.
struct Question<'a> {
    world: &'a World,
    own: &'a IdentitySpec,
    direction: PolicyType,
    other: OtherEnd,
    speaks: Speaks,
}

/// Whether the policies of `identity` let it take (or make, by `direction`) a connection with `other`. An identity that the
/// world does not have is governed by no policy.
pub fn judge(
    world: &World,
    identity: u32,
    direction: PolicyType,
    other: OtherEnd,
    speaks: Speaks,
) -> Judgement {
    Governing::of(world, identity, direction).judge(other, speaks)
}

/// The policies that govern a direction of one identity, found once, for who asks of many connections.
#[derive(Debug)]
pub(crate) struct Governing<'a> {
    world: &'a World,
    /// `None` if the world does not have it.
    own: Option<&'a IdentitySpec>,
    direction: PolicyType,
    applying: Vec<&'a NetworkPolicy>,
}

impl<'a> Governing<'a> {
    pub(crate) fn of(world: &'a World, identity: u32, direction: PolicyType) -> Self {
        let own = world.identity(identity);
        let governs = |policy: &&NetworkPolicy| {
            own.is_some_and(|own| applies(world, own, policy)) && policy.spec.governs(direction)
        };
        Governing { world, own, direction, applying: world.policies().filter(governs).collect() }
    }

    /// The policies, by namespace and name; those that only tell among them.
    pub(crate) fn policies(&self) -> &[&'a NetworkPolicy] {
        &self.applying
    }

    /// Whether everything is allowed since no policy says otherwise: those that only tell do not.
    pub(crate) fn is_open(&self) -> bool {
        self.applying.iter().all(|policy| policy.spec.is_audit())
    }

    pub(crate) fn judge(&self, other: OtherEnd, speaks: Speaks) -> Judgement {
        let open = Judgement { allowed: true, rules: vec![RULE_NONE], audit: Vec::new(), steps: Vec::new() };
        let Some(own) = self.own else { return open };
        let (direction, applying) = (self.direction, self.applying.as_slice());
        let question = Question { world: self.world, own, direction, other, speaks };
        if self.is_open() {
            return question.audited(open, applying);
        }
        question.decided(applying)
    }
}

/// "Each NetworkPolicy includes a podSelector which selects the grouping of pods to which the policy applies", of those in
/// its own namespace; "Subject defines the pods to which this ClusterNetworkPolicy applies."
fn applies(world: &World, own: &IdentitySpec, policy: &NetworkPolicy) -> bool {
    let is_in_own = own.namespace == policy.metadata.namespace;
    match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => is_in_own && spec.pod_selector.selects(&own.labels),
        PolicySpec::Policy(spec) => is_in_own && spec.pod_selector.selects(&own.labels),
        PolicySpec::ClusterNetworkPolicy(spec) => {
            let namespace = world.namespace_labels(&own.namespace);
            let by_namespace = spec.subject.namespaces.iter().any(|selector| selector.selects(&namespace));
            let by_pods = spec.subject.pods.iter().any(|pods| {
                pods.namespace_selector.selects(&namespace) && pods.pod_selector.selects(&own.labels)
            });
            by_namespace || by_pods
        }
    }
}

impl Question<'_> {
    /// What the tiers of the policies that apply say.
    fn decided(&self, applying: &[&NetworkPolicy]) -> Judgement {
        // "[...] the only allowed connections into the pod are those from the pod's node and those allowed [...]"
        if self.direction == PolicyType::Ingress && self.other.identity == Identity::HOST {
            let rules = vec![RULE_HOST];
            let steps = vec![Step { tier: Tier::Node, outcome: Outcome::Allowed, rules: rules.clone() }];
            return Judgement { allowed: true, rules, audit: Vec::new(), steps };
        }
        let mut steps = Vec::new();
        // "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier."
        for tier in [Tier::Admin, Tier::Namespace, Tier::Baseline] {
            let step = match tier {
                Tier::Namespace => self.namespaces(applying, |policy| !policy.spec.is_audit()),
                _ => self.first_match(applying, tier),
            };
            let Some(step) = step else { continue };
            let (outcome, rules) = (step.outcome, step.rules.clone());
            steps.push(step);
            if outcome == Outcome::Passed {
                continue;
            }
            let judgement =
                Judgement { allowed: outcome == Outcome::Allowed, rules, audit: Vec::new(), steps };
            return if tier == Tier::Admin { judgement } else { self.audited(judgement, applying) };
        }
        // "If a given connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which
        // says that all pods can communicate with each other." The last rule that passed it on is what is told of it, of the last
        // tier that there is.
        let last = steps.last().filter(|step| step.tier == Tier::Baseline).map(|step| step.rules.clone());
        let rules = last.unwrap_or_else(|| vec![RULE_NONE]);
        self.audited(Judgement { allowed: true, rules, audit: Vec::new(), steps }, applying)
    }

    /// Adds what policies that only tell would deny.
    fn audited(&self, judgement: Judgement, applying: &[&NetworkPolicy]) -> Judgement {
        let comes_from_host = self.direction == PolicyType::Ingress && self.other.identity == Identity::HOST;
        if !judgement.allowed || comes_from_host || !applying.iter().any(|policy| policy.spec.is_audit()) {
            return judgement;
        }
        match self.namespaces(applying, |_| true) {
            Some(step) if step.outcome == Outcome::Denied => Judgement { audit: step.rules, ..judgement },
            _ => judgement,
        }
    }

    fn bit(&self) -> u32 {
        if self.direction == PolicyType::Egress { EGRESS } else { 0 }
    }

    fn number(&self, policy: &NetworkPolicy, index: Option<usize>) -> u32 {
        let index = index.and_then(|index| u32::try_from(index).ok());
        rule_number(policy.status.number, self.bit(), index)
    }

    /// "Policies with lower priority values have higher precedence"; "a rule that appears at the top of the [...] rules would
    /// take the highest precedence."
    fn first_match(&self, applying: &[&NetworkPolicy], tier: Tier) -> Option<Step> {
        let mut asked = Vec::new();
        for policy in applying {
            if let PolicySpec::ClusterNetworkPolicy(spec) = &policy.spec
                && (spec.tier == ClusterTier::Admin) == (tier == Tier::Admin)
            {
                asked.push((spec.priority, &policy.metadata.name, *policy, spec));
            }
        }
        asked.sort_by_key(|(priority, name, ..)| (*priority, (*name).clone()));
        if asked.is_empty() {
            return None;
        }
        for (_, _, policy, spec) in asked {
            let rules: Vec<(ClusterAction, &[ClusterProtocol], &[ClusterPeer])> = match self.direction {
                PolicyType::Ingress => {
                    spec.ingress.iter().map(|r| (r.action, &r.protocols[..], &r.from[..])).collect()
                }
                PolicyType::Egress => {
                    spec.egress.iter().map(|r| (r.action, &r.protocols[..], &r.to[..])).collect()
                }
            };
            for (index, (action, protocols, peers)) in rules.into_iter().enumerate() {
                let matches = peers.iter().any(|peer| {
                    let is_address =
                        peer.nodes.is_some() || !peer.networks.is_empty() || !peer.domain_names.is_empty();
                    let names = self.may_have_names(is_address);
                    let speaks = |said: &ClusterProtocol| self.speaks_cluster(said, names);
                    (protocols.is_empty() || protocols.iter().any(speaks)) && self.is_cluster_peer(peer)
                });
                if matches {
                    let outcome = match action {
                        ClusterAction::Accept => Outcome::Allowed,
                        ClusterAction::Deny => Outcome::Denied,
                        ClusterAction::Pass => Outcome::Passed,
                    };
                    return Some(Step { tier, outcome, rules: vec![self.number(policy, Some(index))] });
                }
            }
        }
        Some(Step { tier, outcome: Outcome::Passed, rules: vec![RULE_NONE] })
    }

    /// "Network policies do not conflict; they are additive. [...] the connections allowed in that direction from that pod
    /// is the union of what the applicable policies allow." What a Policy denies is denied all the same, and one of which all
    /// rules deny leaves alone what they do not.
    fn namespaces(
        &self,
        applying: &[&NetworkPolicy],
        counts: impl Fn(&NetworkPolicy) -> bool,
    ) -> Option<Step> {
        let (mut denying, mut allowing, mut closing) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_governed = false;
        for policy in applying.iter().filter(|policy| counts(policy)) {
            let (closes, matching) = match &policy.spec {
                PolicySpec::ClusterNetworkPolicy(_) => continue,
                PolicySpec::NetworkPolicy(_) => (true, self.matching_rules(policy)),
                PolicySpec::Policy(spec) => (spec.closes(self.direction), self.matching_rules(policy)),
            };
            is_governed = true;
            for (index, action) in matching {
                let list = if action == PolicyAction::Deny { &mut denying } else { &mut allowing };
                list.push(self.number(policy, Some(index)));
            }
            if closes {
                closing.push(self.number(policy, None));
            }
        }
        let (outcome, rules) = if !denying.is_empty() {
            (Outcome::Denied, denying)
        } else if !allowing.is_empty() {
            (Outcome::Allowed, allowing)
        } else if !closing.is_empty() {
            (Outcome::Denied, closing)
        } else if is_governed {
            (Outcome::Passed, vec![RULE_NONE])
        } else {
            return None;
        };
        Some(Step { tier: Tier::Namespace, outcome, rules })
    }

    /// The rules of a policy of a namespace that match.
    fn matching_rules(&self, policy: &NetworkPolicy) -> Vec<(usize, PolicyAction)> {
        let namespace = &policy.metadata.namespace;
        let plain = |ports: &[PolicyPort], peers: &[PolicyPeer]| {
            let speaks = |names| ports.is_empty() || ports.iter().any(|port| self.speaks_port(port, names));
            match peers.is_empty() {
                true => speaks(true),
                false => peers.iter().any(|peer| {
                    speaks(self.may_have_names(peer.ip_block.is_some())) && self.is_peer(peer, namespace)
                }),
            }
        };
        let extended = |ports: &[PolicyPort], icmp: &[IcmpMessage], peers: &[ExtendedPeer]| {
            let speaks = |names| {
                (ports.is_empty() && icmp.is_empty())
                    || ports.iter().any(|port| self.speaks_port(port, names))
                    || icmp.iter().any(|message| self.speaks_message(message))
            };
            match peers.is_empty() {
                true => speaks(true),
                false => peers.iter().any(|peer| {
                    let is_address = peer.ip_block.is_some() || peer.domain_name.is_some();
                    speaks(self.may_have_names(is_address)) && self.is_extended_peer(peer, namespace)
                }),
            }
        };
        let is_egress = self.direction == PolicyType::Egress;
        let found: Vec<(bool, PolicyAction)> = match &policy.spec {
            PolicySpec::NetworkPolicy(spec) if is_egress => {
                spec.egress.iter().map(|r| (plain(&r.ports, &r.to), PolicyAction::Allow)).collect()
            }
            PolicySpec::NetworkPolicy(spec) => {
                spec.ingress.iter().map(|r| (plain(&r.ports, &r.from), PolicyAction::Allow)).collect()
            }
            PolicySpec::Policy(spec) if is_egress => {
                spec.egress.iter().map(|r| (extended(&r.ports, &r.icmp, &r.to), r.action)).collect()
            }
            PolicySpec::Policy(spec) => {
                spec.ingress.iter().map(|r| (extended(&r.ports, &r.icmp, &r.from), r.action)).collect()
            }
            PolicySpec::ClusterNetworkPolicy(_) => Vec::new(),
        };
        found.into_iter().enumerate().filter(|(_, (is, _))| *is).map(|(i, (_, action))| (i, action)).collect()
    }

    /// Whether names of ports mean something: who is meant by an address has none. Those that a replica has itself, it has.
    fn may_have_names(&self, is_address: bool) -> bool {
        self.direction == PolicyType::Ingress || !is_address
    }

    /// Whether the end that takes the connection calls its port so.
    fn is_called(&self, name: &str, protocol: Option<PolicyProtocol>) -> bool {
        let taker = match self.direction {
            PolicyType::Ingress => Some(self.own),
            PolicyType::Egress => self.world.identity(self.other.identity),
        };
        taker.is_some_and(|taker| {
            taker.ports.iter().any(|port| {
                port.name == name
                    && protocol.is_none_or(|protocol| protocol == port.protocol)
                    && number_of(port.protocol) == self.speaks.protocol
                    && port.port == self.speaks.port
            })
        })
    }

    fn speaks_port(&self, port: &PolicyPort, names: bool) -> bool {
        if let Some(PortRef::Name(name)) = &port.port {
            return names && self.is_called(name, Some(port.protocol));
        }
        let in_range = match &port.port {
            Some(PortRef::Number(first)) => {
                let last = port.end_port.map_or(*first, i64::from);
                (*first..=last).contains(&i64::from(self.speaks.port))
            }
            _ => true,
        };
        number_of(port.protocol) == self.speaks.protocol && in_range
    }

    fn speaks_message(&self, message: &IcmpMessage) -> bool {
        let protocol = if message.family == IcmpFamily::IPv4 { 1 } else { 58 };
        let [kind, code] = self.speaks.port.to_be_bytes().map(i64::from);
        protocol == self.speaks.protocol
            && message.kind.is_none_or(|wanted| wanted == kind)
            && message.code.is_none_or(|wanted| wanted == code)
    }

    fn speaks_cluster(&self, said: &ClusterProtocol, names: bool) -> bool {
        let port = i64::from(self.speaks.port);
        let is_port = |port_is: &ClusterPort| match (port_is.number, port_is.range) {
            (Some(number), _) => number == port,
            (_, Some(range)) => (range.start..=range.end).contains(&port),
            _ => false,
        };
        let is = |protocol: u8, said: &Option<ClusterPorts>| {
            said.as_ref().is_some_and(|ports| {
                protocol == self.speaks.protocol && ports.destination_port.as_ref().is_none_or(is_port)
            })
        };
        is(6, &said.tcp)
            || is(17, &said.udp)
            || is(132, &said.sctp)
            || said.destination_named_port.as_ref().is_some_and(|name| names && self.is_called(name, None))
    }

    fn is_peer(&self, peer: &PolicyPeer, namespace: &str) -> bool {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), None, None) => in_block(block, self.other.address),
            (None, Some(namespaces), pods) => self.is_replica(|there, labels| {
                namespaces.selects(&self.world.namespace_labels(there)) && all_or(pods.as_ref(), labels)
            }),
            (None, None, Some(pods)) => {
                self.is_replica(|there, labels| there == namespace && pods.selects(labels))
            }
            _ => false,
        }
    }

    fn is_extended_peer(&self, peer: &ExtendedPeer, namespace: &str) -> bool {
        if let Some(entity) = peer.entity {
            let is_replica = self.is_replica(|_, _| true);
            let is_node = matches!(self.other.identity, Identity::HOST | Identity::NODE);
            return match entity {
                Entity::Host => self.other.identity == Identity::HOST,
                Entity::Node => is_node,
                Entity::World => self.other.identity == Identity::WORLD,
                Entity::Cluster => is_replica || is_node,
            };
        }
        if let Some(name) = &peer.domain_name {
            return self.is_domain(name);
        }
        let ExtendedPeer { pod_selector, namespace_selector, ip_block, .. } = peer.clone();
        self.is_peer(&PolicyPeer { pod_selector, namespace_selector, ip_block }, namespace)
    }

    fn is_cluster_peer(&self, peer: &ClusterPeer) -> bool {
        let by_namespace = |selector: &LabelSelector| {
            self.is_replica(|there, _| selector.selects(&self.world.namespace_labels(there)))
        };
        let by_pods = || {
            peer.pods.as_ref().is_some_and(|pods| {
                self.is_replica(|there, labels| {
                    pods.namespace_selector.selects(&self.world.namespace_labels(there))
                        && pods.pod_selector.selects(labels)
                })
            })
        };
        let by_node = |selector: &LabelSelector| {
            self.world.node_addresses(selector).any(|address| address == self.other.address)
        };
        peer.namespaces.as_ref().is_some_and(by_namespace)
            || by_pods()
            || peer.nodes.as_ref().is_some_and(by_node)
            || peer.networks.iter().any(|text| in_net(text, self.other.address))
            || peer.domain_names.iter().any(|name| self.is_domain(name))
    }

    fn is_domain(&self, name: &str) -> bool {
        domain::parse(name)
            .is_some_and(|pattern| self.world.domain_addresses(&pattern).contains(&self.other.address))
    }

    fn is_replica(&self, holds: impl Fn(&str, &BTreeMap<String, String>) -> bool) -> bool {
        let peer = self.world.identity(self.other.identity);
        peer.is_some_and(|peer| holds(&peer.namespace, &peer.labels))
    }
}

fn number_of(protocol: PolicyProtocol) -> u8 {
    match protocol {
        PolicyProtocol::Tcp => 6,
        PolicyProtocol::Udp => 17,
        PolicyProtocol::Sctp => 132,
    }
}

fn all_or(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| selector.selects(labels))
}

fn in_net(text: &str, address: IpAddr) -> bool {
    text.parse::<IpNet>().is_ok_and(|net| net.contains(&address))
}

fn in_block(block: &IpBlock, address: IpAddr) -> bool {
    in_net(&block.cidr, address) && !block.except.iter().any(|text| in_net(text, address))
}
