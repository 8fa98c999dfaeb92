//! What other policies would make of recorded flows.
//!
//! Each pair of ends is judged by [`judge`], by the policies as they are and as they would be, of both ends, for all replicas and
//! addresses that may be meant. What is the same for all of them is told; what is not, is told as that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_common::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use hivemind_model::{Identity, PolicyType};
use ipnet::IpNet;

use crate::{
    domain,
    intervals::{Intervals, blocks},
    reference::{Judgement, OtherEnd, Speaks, judge},
    seen::{Seen, SeenEnd, SeenPair},
    world::World,
};

/// How many domains policies may name for flows with addresses of unknown names to be judged one by one.
pub(crate) const PATTERNS_MAX: usize = 32;

/// How many combinations of identities and addresses of both ends of a pair are judged.
pub(crate) const COMBINATIONS_MAX: usize = 16_384;

/// Replicas that are there now: identities with addresses, by namespace and app.
pub type Residents = BTreeMap<(String, String), BTreeSet<(u32, IpAddr)>>;

/// What would become of a pair's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The same as now.
    None,
    /// They would be denied, and are allowed now.
    Denied(Box<Decided>),
    /// They would be allowed, and are denied now.
    Allowed(Box<Decided>),
    /// Something would change for some replicas of the apps, and not for others or not in the same way.
    Depends(Box<Decided>),
    /// It depends on what was not recorded: an address outside, or its name.
    Unknown,
    /// One of the ends is no more: an app without replicas, or a node.
    Gone,
}

/// The rules that decide, now and then, of one connection that would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// By the policies as they are.
    pub before: Sides,
    /// By the policies as they would be.
    pub after: Sides,
}

/// What the policies of both ends say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Those of who begins; `None` if it is no replica.
    pub egress: Option<Judgement>,
    /// Those of whom it is begun with; `None` if it is no replica.
    pub ingress: Option<Judgement>,
}

impl Sides {
    /// Whether both let the connection pass.
    pub fn allowed(&self) -> bool {
        [&self.egress, &self.ingress].into_iter().flatten().all(|side| side.allowed)
    }
}

/// The two sets of policies between which recorded flows are compared, with what ends stand for now.
#[derive(Debug)]
pub struct Simulation<'a> {
    residents: &'a Residents,
    intervals: Intervals,
    /// By what is supposed of addresses of unknown names: that they have none, one of the domains, or all.
    worlds: Vec<[World; 2]>,
    patterns: BTreeSet<String>,
}

/// What an end may be: identities with one address of each interval.
type Places = BTreeSet<(u32, IpAddr)>;

impl<'a> Simulation<'a> {
    /// Prepares to judge what was seen. `worlds` are that of the policies as they are, and that of those as they would be; of
    /// domains they need to know nothing, since the records tell which addresses were answered for which names.
    pub fn new(mut worlds: [World; 2], residents: &'a Residents, seen: &Seen) -> Self {
        let patterns: BTreeSet<String> = worlds.iter().flat_map(World::domain_patterns).collect();
        let known = known_domains(&patterns, seen);
        let named = known.values().flatten().map(|address| IpNet::from(*address));
        let intervals =
            Intervals::of(worlds.iter().flat_map(|world| blocks(world, world.policies())).chain(named));
        for world in &mut worlds {
            for (pattern, addresses) in &known {
                drop(world.set_domain(pattern, addresses.iter().copied()));
            }
        }
        let worlds = suppositions(worlds, &patterns, &known, &intervals);
        Simulation { residents, intervals, worlds, patterns }
    }

    /// What would become of a pair's connections. A pair without one protocol for both sides, such as one whose ends nobody knows, is
    /// unknown; ICMP, of which no types are recorded, is judged as echo requests.
    pub fn replay(&self, pair: &SeenPair) -> Change {
        let ends = [&pair.source, &pair.destination];
        let Some(speech) = Speech::of(pair) else { return Change::Unknown };
        if ends.contains(&&SeenEnd::Unknown) {
            return Change::Unknown;
        }
        let [sources, destinations] = ends.map(|end| self.places(end, &speech));
        if sources.is_empty() || destinations.is_empty() {
            return Change::Gone;
        }
        if sources.len().saturating_mul(destinations.len()) > COMBINATIONS_MAX {
            return Change::Unknown;
        }
        let is_nameless = !self.patterns.is_empty() && ends.into_iter().any(is_nameless);
        if is_nameless && self.patterns.len() > PATTERNS_MAX {
            return Change::Unknown;
        }
        let supposed =
            if is_nameless { self.worlds.as_slice() } else { self.worlds.get(..1).unwrap_or_default() };
        let mut outcomes = BTreeMap::new();
        for worlds in supposed {
            for decided in decide_all(worlds, &sources, &destinations, &speech) {
                let outcome = (decided.before.allowed(), decided.after.allowed());
                outcomes.entry(outcome).or_insert(decided);
            }
        }
        conclude(outcomes, !is_nameless && ends.into_iter().all(is_told))
    }

    fn places(&self, end: &SeenEnd, speech: &Speech) -> Places {
        let any = self.worlds.first().map(|[before, _]| before);
        let first = |identity: u32| move |address: IpAddr| (identity, self.intervals.first(address));
        let mut places: Places = match end {
            SeenEnd::App { namespace, app } => {
                let residents = self.residents.get(&(namespace.clone(), app.clone())).into_iter().flatten();
                residents.map(|(identity, address)| first(*identity)(*address)).collect()
            }
            SeenEnd::Host { node } => {
                let own = any.into_iter().flat_map(|world| world.addresses_of_nodes(Some(node)));
                own.map(first(Identity::HOST)).collect()
            }
            SeenEnd::Node { address: Some(block) } => {
                self.intervals.within(Some(*block)).map(|address| (Identity::NODE, address)).collect()
            }
            SeenEnd::Node { address: None } => {
                let all = any.into_iter().flat_map(|world| world.addresses_of_nodes(None));
                all.map(first(Identity::NODE)).collect()
            }
            SeenEnd::Dns => {
                let addresses = any.into_iter().flat_map(World::dns_addresses).copied();
                addresses.map(first(Identity::DNS)).collect()
            }
            SeenEnd::Outside { block, .. } => {
                self.intervals.within(*block).map(|address| (Identity::WORLD, address)).collect()
            }
            SeenEnd::Unknown => Places::new(),
        };
        places.retain(|(_, address)| speech.of_family(*address).is_some());
        places
    }
}

/// Whether everything that is judged of an end was recorded, or is there now.
fn is_told(end: &SeenEnd) -> bool {
    match end {
        SeenEnd::App { .. } => true,
        SeenEnd::Node { address: block } | SeenEnd::Outside { block, .. } => block.is_some_and(is_single),
        SeenEnd::Host { .. } | SeenEnd::Dns | SeenEnd::Unknown => false,
    }
}

/// Whether an end outside may have names that were not recorded.
fn is_nameless(end: &SeenEnd) -> bool {
    match end {
        SeenEnd::Outside { block, domain } => domain.is_empty() || !block.is_some_and(is_single),
        _ => false,
    }
}

/// What follows from all that may have been meant. Where the same change comes of everything, it is that; where some of it is no
/// change, or another, it depends on replicas, if only these were meant, or else on what is unknown.
fn conclude(outcomes: BTreeMap<(bool, bool), Decided>, is_told: bool) -> Change {
    let (is_none, is_one) = (outcomes.is_empty(), outcomes.len() == 1);
    let changed = outcomes.into_iter().find(|((before, after), _)| before != after);
    let Some(((before, _), decided)) = changed else {
        // No two of their addresses are of one family.
        return if is_none { Change::Gone } else { Change::None };
    };
    match (is_one, before) {
        (true, true) => Change::Denied(Box::new(decided)),
        (true, false) => Change::Allowed(Box::new(decided)),
        (false, _) if is_told => Change::Depends(Box::new(decided)),
        (false, _) => Change::Unknown,
    }
}

/// Everything that both ends may be, with one another. What judgements depend on is asked once.
fn decide_all(worlds: &[World; 2], sources: &Places, destinations: &Places, speech: &Speech) -> Vec<Decided> {
    let side = |own: u32, direction, other: (u32, IpAddr)| -> Option<[Judgement; 2]> {
        let speaks = speech.of_family(other.1)?;
        let end = OtherEnd { identity: other.0, address: other.1 };
        Some([0, 1].map(|i| judge(&worlds[i], own, direction, end, speaks)))
    };
    let sides = |own: &Places, direction, others: &Places| {
        let owns: BTreeSet<u32> =
            own.iter().map(|(identity, _)| *identity).filter(|i| *i >= Identity::FIRST).collect();
        let mut found: BTreeMap<(u32, u32, IpAddr), [Judgement; 2]> = BTreeMap::new();
        for identity in owns {
            for other in others {
                if let Some(judged) = side(identity, direction, *other) {
                    found.insert((identity, other.0, other.1), judged);
                }
            }
        }
        found
    };
    // A node's processes reached from another node are told by the node that they are on as its own.
    let reached: Places = destinations
        .iter()
        .flat_map(|(identity, address)| match *identity {
            Identity::HOST => vec![(Identity::HOST, *address), (Identity::NODE, *address)],
            other => vec![(other, *address)],
        })
        .collect();
    let egress = sides(sources, PolicyType::Egress, &reached);
    let ingress = sides(&reached, PolicyType::Ingress, sources);
    let mut found: BTreeMap<[bool; 2], Decided> = BTreeMap::new();
    for from in sources {
        for to in reached.iter().filter(|to| to.1.is_ipv4() == from.1.is_ipv4()) {
            let out = egress.get(&(from.0, to.0, to.1));
            let into = ingress.get(&(to.0, from.0, from.1));
            let [before, after] = [0, 1].map(|i| Sides {
                egress: out.map(|judged| judged[i].clone()),
                ingress: into.map(|judged| judged[i].clone()),
            });
            found.entry([before.allowed(), after.allowed()]).or_insert(Decided { before, after });
        }
    }
    found.into_values().collect()
}

/// What a pair's connections speak, by IPv4 and by IPv6.
struct Speech([Option<Speaks>; 2]);

impl Speech {
    fn of(pair: &SeenPair) -> Option<Self> {
        let both = |protocol| {
            let speaks = Speaks { protocol, port: pair.port.unwrap_or(0) };
            Some(Speech([Some(speaks); 2]))
        };
        match pair.protocol.as_str() {
            "tcp" => both(TCP),
            "udp" => both(UDP),
            "sctp" => both(SCTP),
            "icmp" => Some(Speech([Some(Speaks { protocol: ICMP, port: 8 << 8 }), None])),
            "icmpv6" => Some(Speech([None, Some(Speaks { protocol: ICMPV6, port: 128 << 8 })])),
            number => number.parse().ok().and_then(both),
        }
    }

    fn of_family(&self, address: IpAddr) -> Option<Speaks> {
        self.0[usize::from(address.is_ipv6())]
    }
}

fn is_single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// By pattern, the addresses for which names were answered that it means.
fn known_domains(patterns: &BTreeSet<String>, seen: &Seen) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut known: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for (pair, _) in seen.pairs() {
        let SeenEnd::Outside { block: Some(block), domain } = &pair.destination else { continue };
        if domain.is_empty() || !is_single(*block) {
            continue;
        }
        for pattern in patterns.iter().filter(|pattern| domain::matches(pattern, domain)) {
            known.entry(pattern.clone()).or_default().insert(block.addr());
        }
    }
    known
}

/// Both worlds, and both as they are if every address has the name of one of the domains, or of all.
fn suppositions(
    worlds: [World; 2],
    patterns: &BTreeSet<String>,
    known: &BTreeMap<String, BTreeSet<IpAddr>>,
    intervals: &Intervals,
) -> Vec<[World; 2]> {
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        return vec![worlds];
    }
    let all: BTreeSet<IpAddr> = intervals.within(None).chain(known.values().flatten().copied()).collect();
    let supposing = |patterns: &mut dyn Iterator<Item = &String>| {
        let mut worlds = worlds.clone();
        for pattern in patterns {
            for world in &mut worlds {
                drop(world.set_domain(pattern, all.iter().copied()));
            }
        }
        worlds
    };
    let mut supposed = vec![worlds.clone()];
    supposed.extend(patterns.iter().map(|pattern| supposing(&mut std::iter::once(pattern))));
    supposed.push(supposing(&mut patterns.iter()));
    supposed
}
