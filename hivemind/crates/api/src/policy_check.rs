//! What policies say of a connection between two ends that people name.
//!
//! It is what the policies mean, by the evaluator that reads as their specification does, and not what a node's tables say: that
//! is what a trace tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_common::{
    packet::{ICMP, ICMPV6, SCTP, TCP, UDP},
    policy::{RULE_HOST, RULE_NONE, rule_parts},
};
use hivemind_model::{
    ApiError, App, ErrorCode, Identity, Namespace, NetworkPolicy, Node, PolicyCheck, PolicyCheckStep,
    PolicyCheckVerdict, PolicyJudgement, PolicyType, Problems, Replica, RuleRef,
};
use hivemind_policy::{
    Judgement, OtherEnd, Outcome, Outside, Speaks, Step, Tier, World, domain_matches, domain_pattern, judge,
};
use hivemind_store::Objects;
use jiff::Timestamp;

use crate::{api::ApiConfig, identities::told_apart};

/// How many replicas of an app are looked at.
const REPLICAS_MAX: usize = 256;

/// Which connection is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// `app`, `namespace/app`, `host`, `world`, or an address.
    pub(crate) from: &'a str,
    /// In the same way, or `dns`, or the name of a domain.
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
    what: What,
}

/// What an end is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Identities with the addresses that have them.
    Places(Vec<(u32, IpAddr)>),
    /// Any address outside, which has this name or, without one, whichever.
    Outside { domain: Option<String> },
}

impl End {
    /// The identities of its replicas.
    fn replicas(&self) -> BTreeSet<u32> {
        let identities = self.places().iter().map(|(identity, _)| *identity);
        identities.filter(|identity| *identity >= Identity::FIRST).collect()
    }

    fn places(&self) -> &[(u32, IpAddr)] {
        match &self.what {
            What::Places(places) => places,
            What::Outside { .. } => &[],
        }
    }

    fn is_of_family(&self, address: IpAddr) -> bool {
        match &self.what {
            What::Places(places) => places.iter().any(|(_, own)| own.is_ipv4() == address.is_ipv4()),
            What::Outside { .. } => true,
        }
    }
}

/// Judges a connection by what the store holds.
///
/// # Errors
/// All faults of the question at once; `AppNotFound` and `NothingRunning` for an end that has no address; those of the store.
pub(crate) async fn check(config: &ApiConfig, question: &Question<'_>) -> Result<PolicyCheck, ApiError> {
    let objects = &config.objects;
    let protocols = protocols(question)?;
    let Known { world, policies, nodes, replicas } = known(objects).await?;
    let ends = Ends {
        replicas: &replicas,
        nodes: &nodes,
        namespace: question.namespace,
        dns: &config.dns_addresses,
    };
    let from = ends.maker(objects, question.from).await.map_err(|error| error.at("from"))?;
    let to = ends.taker(objects, question.to).await.map_err(|error| error.at("to"))?;
    let names = policies
        .iter()
        .map(|policy| (policy.status.number, (&*policy.metadata.namespace, &*policy.metadata.name)))
        .collect();
    let mut nameless = world;
    for domain in nameless.domain_patterns() {
        drop(nameless.set_domain(&domain, []));
    }
    Ok(Checking { nameless, names, protocols }.check(&from, &to, question))
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
    dns: &'a [IpAddr],
}

impl Ends<'_> {
    async fn maker(&self, objects: &Objects, word: &str) -> Result<End, ApiError> {
        if word == "dns" || domain_of(word).is_some() {
            let what = format!("{word:?} begins no connections");
            let hint =
                "name an app, host, world or an address; a name can be called, so it is to be the second";
            return Err(ApiError::new(ErrorCode::Malformed, what, hint));
        }
        self.find(objects, word).await
    }

    async fn taker(&self, objects: &Objects, word: &str) -> Result<End, ApiError> {
        let end = |what| Ok(End { name: word.to_owned(), what });
        if word == "dns" {
            return end(What::Places(self.dns.iter().map(|address| (Identity::DNS, *address)).collect()));
        }
        match domain_of(word) {
            Some(domain) => end(What::Outside { domain: Some(domain) }),
            None => self.find(objects, word).await,
        }
    }

    async fn find(&self, objects: &Objects, word: &str) -> Result<End, ApiError> {
        let end = |name: String, what| Ok(End { name, what });
        if word == "world" {
            return end(word.to_owned(), What::Outside { domain: None });
        }
        if word == "host" {
            let addresses = self.nodes.iter().flat_map(addresses_of);
            let places: Vec<_> = addresses.map(|address| (Identity::HOST, address)).collect();
            return match places.is_empty() {
                true => Err(without_address(word)),
                false => end(word.to_owned(), What::Places(places)),
            };
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return end(word.to_owned(), What::Places(vec![(self.identity_of(address), address)]));
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
        end(format!("{namespace}/{name}"), What::Places(places))
    }

    fn identity_of(&self, address: IpAddr) -> u32 {
        let replica = self.replicas.iter().find(|replica| addresses(replica).any(|own| own == address));
        let is_of_node = || self.nodes.iter().any(|node| addresses_of(node).contains(&address));
        match replica {
            Some(replica) => replica.spec.identity,
            None if is_of_node() => Identity::HOST,
            None if self.dns.contains(&address) => Identity::DNS,
            None => Identity::WORLD,
        }
    }
}

/// The name of a domain that a word is, in lower case and without the last dot: apps' names have no dots.
fn domain_of(word: &str) -> Option<String> {
    let is_address = word.parse::<IpAddr>().is_ok();
    domain_pattern(word).filter(|name| !is_address && !name.starts_with('*'))
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
    /// Nothing is known of names in it.
    nameless: World,
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
        for identity in own.replicas() {
            let outside = Outside::of(&self.nameless, identity, direction);
            let (places, domain) = match &other.what {
                What::Places(places) => (places.clone(), None),
                What::Outside { domain } => {
                    let places = outside.addresses.iter().map(|address| (Identity::WORLD, *address));
                    (places.collect(), domain.as_deref())
                }
            };
            // Both ends are of one family.
            let places = places.into_iter().filter(|(_, address)| own.is_of_family(*address));
            let places: Vec<(u32, IpAddr)> = places.collect();
            let supposed = Supposed::of(&self.nameless, &outside.domains, domain, &places);
            for (number, address) in places {
                let speaks = self.protocols[usize::from(address.is_ipv6())];
                let end = OtherEnd { identity: number, address };
                let judged = supposed.worlds.iter().map(|(domain, world)| {
                    (domain, self.told(judge(world, identity, direction, end, speaks)))
                });
                for judgement in by_domain(judged, address) {
                    put(&mut found, judgement);
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
            domains: Vec::new(),
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

/// Worlds that differ in the names that addresses have, by the domain that is supposed; the first without.
struct Supposed<'a> {
    worlds: Vec<(Option<&'a str>, World)>,
}

impl<'a> Supposed<'a> {
    /// With a name of `domain` all these places have it, and no other; else nobody knows theirs, and each of `domains` is supposed.
    fn of(
        nameless: &World,
        domains: &'a BTreeSet<String>,
        domain: Option<&str>,
        places: &[(u32, IpAddr)],
    ) -> Self {
        let addresses: Vec<IpAddr> = places.iter().map(|(_, address)| *address).collect();
        let with = |mut world: World, pattern: &str| {
            drop(world.set_domain(pattern, addresses.iter().copied()));
            world
        };
        if let Some(domain) = domain {
            let meant = domains.iter().filter(|pattern| domain_matches(pattern, domain));
            let world = meant.fold(nameless.clone(), |world, pattern| with(world, pattern));
            return Supposed { worlds: vec![(None, world)] };
        }
        // Names are of what is outside.
        let is_outside = places.iter().any(|(identity, _)| *identity == Identity::WORLD);
        let domains = domains.iter().filter(|_| is_outside);
        let supposing = domains.map(|domain| (Some(domain.as_str()), with(nameless.clone(), domain)));
        Supposed { worlds: [(None, nameless.clone())].into_iter().chain(supposing).collect() }
    }
}

/// What is said of an address by what is supposed of its name: the first without that, then what is said otherwise with it.
fn by_domain<'a>(
    mut judged: impl Iterator<Item = (&'a Option<&'a str>, PolicyJudgement)>,
    address: IpAddr,
) -> Vec<PolicyJudgement> {
    let Some((_, nameless)) = judged.next() else { return Vec::new() };
    let mut found = vec![nameless];
    for (domain, judgement) in judged {
        let same =
            |known: &PolicyJudgement| PolicyJudgement { domains: Vec::new(), ..known.clone() } == judgement;
        match found.iter().position(same) {
            Some(0) => {}
            Some(known) => found[known].domains.extend(domain.map(str::to_owned)),
            None => found.push(PolicyJudgement {
                domains: domain.map(str::to_owned).into_iter().collect(),
                ..judgement
            }),
        }
    }
    found.iter_mut().for_each(|judgement| judgement.addresses.push(address));
    found
}

/// Puts a judgement of one address beside others, together with those of which the same is said.
fn put(found: &mut Vec<PolicyJudgement>, judgement: PolicyJudgement) {
    let same = |known: &&mut PolicyJudgement| {
        PolicyJudgement { addresses: judgement.addresses.clone(), ..(**known).clone() } == judgement
    };
    match found.iter_mut().find(same) {
        Some(known) => {
            let new = judgement.addresses.into_iter().filter(|address| !known.addresses.contains(address));
            let new: Vec<IpAddr> = new.collect();
            known.addresses.extend(new);
        }
        None => found.push(judgement),
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
