//! What policies say of a connection between two ends that people name.
//!
//! It is what the policies mean, by the evaluator that reads as their specification does, and not what a node's tables say: that
//! is what a trace tells.

use std::{collections::BTreeMap, net::IpAddr};

use hivemind_common::{
    packet::{ICMP, ICMPV6, SCTP, TCP, UDP},
    policy::{RULE_HOST, RULE_NONE, rule_parts},
};
use hivemind_model::{
    ApiError, App, ErrorCode, Identity, Namespace, NetworkPolicy, Node, PolicyCheck, PolicyCheckStep,
    PolicyCheckVerdict, PolicyJudgement, PolicyType, Problems, Replica, RuleRef,
};
use hivemind_policy::{Judgement, OtherEnd, Outcome, Speaks, Step, Tier, World, judge};
use hivemind_store::Objects;
use jiff::Timestamp;

use crate::identities::told_apart;

/// How many replicas of an app are looked at.
const REPLICAS_MAX: usize = 256;
/// Which connection is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// `app`, `namespace/app`, `host`, or an address.
    pub(crate) from: &'a str,
    /// In the same way.
    pub(crate) to: &'a str,
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub(crate) protocol: &'a str,
    pub(crate) port: Option<u16>,
    /// Of apps that are named without one.
    pub(crate) namespace: &'a str,
}

/// One end, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    name: String,
    /// Identities with the addresses that have them.
    places: Vec<(u32, IpAddr)>,
}

/// Judges a connection by what the store holds.
///
/// # Errors
/// All faults of the question at once; `AppNotFound` and `NothingRunning` for an end that has no address; those of the store.
pub(crate) async fn check(objects: &Objects, question: &Question<'_>) -> Result<PolicyCheck, ApiError> {
    let protocols = protocols(question)?;
    let Known { world, policies, nodes, replicas } = known(objects).await?;
    let ends = Ends { replicas: &replicas, nodes: &nodes, namespace: question.namespace };
    let from = ends.find(objects, question.from).await.map_err(|error| error.at("from"))?;
    let to = ends.find(objects, question.to).await.map_err(|error| error.at("to"))?;
    let names = policies
        .iter()
        .map(|policy| (policy.status.number, (&*policy.metadata.namespace, &*policy.metadata.name)))
        .collect();
    Ok(Checking { world: &world, names, protocols }.check(&from, &to, question))
}

/// What connections are judged by.
pub(crate) struct Known {
    pub(crate) world: World,
    /// Those that are in force.
    policies: Vec<NetworkPolicy>,
    pub(crate) nodes: Vec<Node>,
    /// With the identities that they have in the world.
    pub(crate) replicas: Vec<Replica>,
}

/// What connections are judged by, as the store has it.
///
/// # Errors
/// Those of the store.
pub(crate) async fn known(objects: &Objects) -> Result<Known, ApiError> {
    let namespaces = objects.list::<Namespace>(None).await?.items;
    let (identities, replicas) = told_apart(objects).await?;
    let nodes = objects.list::<Node>(None).await?.items;
    let now = Timestamp::now();
    let mut policies = objects.list::<NetworkPolicy>(None).await?.items;
    policies.retain(|policy| !policy.spec.has_ended(now));
    let mut world = World::of(&namespaces, &identities, &policies);
    for node in &nodes {
        world.set_node(&node.metadata.name, &node.metadata.labels, &addresses_of(node));
    }
    Ok(Known { world, policies, nodes, replicas })
}

/// The protocol's numbers for IPv4 and IPv6 and the port, with the type of an echo request in its place.
fn protocols(question: &Question<'_>) -> Result<[Speaks; 2], ApiError> {
    let mut problems = Problems::default();
    let (numbers, has_ports) = match question.protocol {
        "tcp" => ([TCP; 2], true),
        "udp" => ([UDP; 2], true),
        "sctp" => ([SCTP; 2], true),
        "icmp" => ([ICMP, ICMPV6], false),
        other => {
            let what = format!("{other:?} is no protocol that policies know");
            problems.add(ErrorCode::Malformed, "protocol", what, "use tcp, udp, sctp or icmp");
            ([TCP; 2], true)
        }
    };
    match question.port {
        None if has_ports => {
            problems.add(ErrorCode::OutOfRange, "port", "no port is given", "say which, for example 80/tcp");
        }
        Some(_) if !has_ports => {
            problems.add(ErrorCode::OutOfRange, "port", "ICMP has no ports", "leave the port out");
        }
        Some(0) => problems.add(ErrorCode::OutOfRange, "port", "0 is no port", "give one from 1 to 65535"),
        _ => {}
    }
    problems.into_result()?;
    let echo = [8 << 8, 128 << 8];
    Ok([0, 1].map(|i| Speaks { protocol: numbers[i], port: question.port.unwrap_or(echo[i]) }))
}

/// The addresses of a node.
pub(crate) fn addresses_of(node: &Node) -> Vec<IpAddr> {
    node.spec.address.map(IpAddr::from).into_iter().chain(node.status.addresses.iter().copied()).collect()
}

/// What ends can be.
struct Ends<'a> {
    replicas: &'a [Replica],
    nodes: &'a [Node],
    namespace: &'a str,
}

impl Ends<'_> {
    async fn find(&self, objects: &Objects, word: &str) -> Result<End, ApiError> {
        if word == "host" {
            let addresses = self.nodes.iter().flat_map(addresses_of);
            let places: Vec<_> = addresses.map(|address| (Identity::HOST, address)).collect();
            return match places.is_empty() {
                true => Err(without_address(word)),
                false => Ok(End { name: word.to_owned(), places }),
            };
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return Ok(End { name: word.to_owned(), places: vec![(self.identity_of(address), address)] });
        }
        let (namespace, name) = word.split_once('/').unwrap_or((self.namespace, word));
        let app: App = objects.find(namespace, name).await?;
        let (namespace, name) = (app.metadata.namespace, app.metadata.name);
        let own = self.replicas.iter().filter(|r| r.metadata.namespace == namespace && r.spec.app == name);
        let places: Vec<_> = own
            .filter(|replica| replica.spec.identity != 0)
            .take(REPLICAS_MAX)
            .flat_map(|replica| addresses(replica).map(|address| (replica.spec.identity, address)))
            .collect();
        if places.is_empty() {
            return Err(without_address(word));
        }
        Ok(End { name: format!("{namespace}/{name}"), places })
    }

    fn identity_of(&self, address: IpAddr) -> u32 {
        let replica = self.replicas.iter().find(|replica| addresses(replica).any(|own| own == address));
        let is_of_node = || self.nodes.iter().any(|node| addresses_of(node).contains(&address));
        match replica {
            Some(replica) => replica.spec.identity,
            None if is_of_node() => Identity::HOST,
            None => Identity::WORLD,
        }
    }
}

/// The addresses of a replica.
pub(crate) fn addresses(replica: &Replica) -> impl Iterator<Item = IpAddr> {
    let status = &replica.status;
    [status.ipv4.map(IpAddr::from), status.ipv6.map(IpAddr::from)].into_iter().flatten()
}

fn without_address(word: &str) -> ApiError {
    let what = format!("{word:?} has no replica with an address");
    ApiError::new(ErrorCode::NothingRunning, what, "see `hivemind app info`")
}

/// What connections are judged by.
struct Checking<'a> {
    world: &'a World,
    /// Namespace and name of policies by number.
    names: BTreeMap<u32, (&'a str, &'a str)>,
    /// For IPv4 and for IPv6.
    protocols: [Speaks; 2],
}

impl Checking<'_> {
    fn check(&self, from: &End, to: &End, question: &Question<'_>) -> PolicyCheck {
        let egress = self.judgements(from, to, PolicyType::Egress);
        let ingress = self.judgements(to, from, PolicyType::Ingress);
        let all = egress.iter().chain(&ingress);
        let verdict = match (all.clone().all(|one| one.allowed), is_denied(&egress) || is_denied(&ingress)) {
            (true, _) => PolicyCheckVerdict::Allowed,
            (_, true) => PolicyCheckVerdict::Denied,
            _ => PolicyCheckVerdict::Depends,
        };
        PolicyCheck {
            verdict,
            source: from.name.clone(),
            destination: to.name.clone(),
            protocol: question.protocol.to_owned(),
            port: question.port,
            egress,
            ingress,
        }
    }

    /// What the policies of one end say of each address of the other, those of which the same is said together.
    fn judgements(&self, own: &End, other: &End, direction: PolicyType) -> Vec<PolicyJudgement> {
        let mut found: Vec<PolicyJudgement> = Vec::new();
        let mut identities: Vec<u32> = own.places.iter().map(|(identity, _)| *identity).collect();
        identities.sort_unstable();
        identities.dedup();
        for identity in identities.into_iter().filter(|identity| *identity >= Identity::FIRST) {
            for (number, address) in &other.places {
                // Both ends are of one family.
                if !own.places.iter().any(|(_, own)| own.is_ipv4() == address.is_ipv4()) {
                    continue;
                }
                let speaks = self.protocols[usize::from(address.is_ipv6())];
                let end = OtherEnd { identity: *number, address: *address };
                let judged = self.told(judge(self.world, identity, direction, end, speaks));
                let same = |known: &&mut PolicyJudgement| {
                    PolicyJudgement { addresses: Vec::new(), ..(**known).clone() } == judged
                };
                match found.iter_mut().find(same) {
                    Some(known) if known.addresses.contains(address) => {}
                    Some(known) => known.addresses.push(*address),
                    None => found.push(PolicyJudgement { addresses: vec![*address], ..judged }),
                }
            }
        }
        found
    }

    fn told(&self, judgement: Judgement) -> PolicyJudgement {
        let Judgement { allowed, rules, audit, steps } = judgement;
        let step = |Step { tier, outcome, rules }: Step| PolicyCheckStep {
            tier: match tier {
                Tier::Node => "node",
                Tier::Admin => "admin",
                Tier::Namespace => "namespace",
                Tier::Baseline => "baseline",
            }
            .to_owned(),
            outcome: match outcome {
                Outcome::Allowed => "allowed",
                Outcome::Denied => "denied",
                Outcome::Passed => "passed",
            }
            .to_owned(),
            rules: self.rules(&rules),
        };
        PolicyJudgement {
            allowed,
            addresses: Vec::new(),
            rules: self.rules(&rules),
            audit: self.rules(&audit),
            steps: steps.into_iter().map(step).collect(),
        }
    }

    fn rules(&self, numbers: &[u32]) -> Vec<RuleRef> {
        numbers
            .iter()
            .filter(|number| **number != RULE_NONE)
            .filter_map(|number| rule(*number, &self.names))
            .collect()
    }
}

/// A rule by its number; `names` are namespace and name of policies by number.
pub(crate) fn rule(number: u32, names: &BTreeMap<u32, (&str, &str)>) -> Option<RuleRef> {
    if number == RULE_HOST {
        return Some(RuleRef::node_to_replicas());
    }
    let parts = rule_parts(number)?;
    let (namespace, policy) = names.get(&parts.policy)?;
    let direction = if parts.egress { "egress" } else { "ingress" };
    Some(RuleRef {
        namespace: (*namespace).to_owned(),
        policy: (*policy).to_owned(),
        direction: direction.to_owned(),
        index: parts.index,
    })
}

fn is_denied(judgements: &[PolicyJudgement]) -> bool {
    !judgements.is_empty() && judgements.iter().all(|one| !one.allowed)
}
