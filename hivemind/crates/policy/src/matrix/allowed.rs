//! What the policies of two ends allow between them.
//!
//! The rules that govern an end cut the ports of each protocol into intervals, and the addresses into others, within which they say the
//! same. So [`crate::judge`] is asked of the first port of each interval and of one address of each, and of no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hivemind_common::policy::EGRESS;
use hivemind_model::{Identity, PolicyType};
use ipnet::IpNet;

use super::{
    MatrixEnd,
    ports::{PolicyTransport, PortSet, intervals},
};
use crate::{
    intervals::{Intervals, blocks},
    reference::{Governing, OtherEnd, Speaks},
    rules::{Peer, Speech, protocol_number},
    simulate::{COMBINATIONS_MAX, PATTERNS_MAX, Residents},
    world::World,
};

/// What may pass between two ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allowed {
    /// For all replicas and addresses of both.
    pub all: PortSet,
    /// For some of them, and not for all.
    pub some: PortSet,
    /// Whether [`Allowed::all`] is everything that the two can speak.
    pub is_everything: bool,
}

impl Allowed {
    /// Whether nothing may pass.
    pub fn is_nothing(&self) -> bool {
        self.all.is_empty() && self.some.is_empty()
    }
}

/// Worlds that differ in the names of addresses outside, of which nobody knows: that none has a name, that all have one that
/// policies mean, or every such name.
#[derive(Debug)]
pub(super) struct Supposed {
    worlds: Vec<(BTreeSet<String>, World)>,
    has_all: bool,
}

impl Supposed {
    pub(super) fn of(world: &World) -> Self {
        let patterns = world.domain_patterns();
        let mut nameless = world.clone();
        for pattern in &patterns {
            drop(nameless.set_domain(pattern, []));
        }
        let mut supposed = Supposed { worlds: Vec::new(), has_all: patterns.len() <= PATTERNS_MAX };
        if supposed.has_all {
            let intervals = Intervals::of(blocks(world, world.policies()));
            let everywhere: BTreeSet<IpAddr> = intervals.within(None).collect();
            let single = patterns.iter().map(|pattern| BTreeSet::from([pattern.clone()]));
            let all = (patterns.len() > 1).then(|| patterns.clone());
            for named in single.chain(all) {
                let mut world = nameless.clone();
                for pattern in &named {
                    drop(world.set_domain(pattern, everywhere.iter().copied()));
                }
                supposed.worlds.push((named, world));
            }
        }
        supposed.worlds.insert(0, (BTreeSet::new(), nameless));
        supposed
    }

    pub(super) fn nameless(&self) -> Option<&World> {
        self.worlds.first().map(|(_, world)| world)
    }
}

/// What decides on one identity's connections of one direction.
#[derive(Debug)]
struct Side<'a> {
    /// By what is supposed of names; at first that there are none.
    governing: Vec<Governing<'a>>,
    /// Whether its rules mean names, and not all that may be supposed of them is.
    has_unknown_names: bool,
    /// By protocol, the ports at which an interval begins.
    firsts: BTreeMap<PolicyTransport, BTreeSet<u16>>,
    has_named_ports: bool,
    blocks: Vec<IpNet>,
}

impl<'a> Side<'a> {
    fn of(supposed: &'a Supposed, identity: u32, direction: PolicyType) -> Option<Self> {
        let world = supposed.nameless()?;
        let nameless = Governing::of(world, identity, direction);
        let bit = if direction == PolicyType::Egress { EGRESS } else { 0 };
        let mut side = Side {
            governing: Vec::new(),
            has_unknown_names: false,
            firsts: PolicyTransport::ALL.map(|transport| (transport, BTreeSet::from([0]))).into(),
            has_named_ports: false,
            blocks: blocks(world, nameless.policies().iter().copied()),
        };
        let mut names = BTreeSet::new();
        let rules = nameless.policies().iter().filter_map(|policy| world.rules(policy)?.direction(bit));
        for rule in rules.flat_map(|direction| &direction.rules) {
            for speech in rule.transports.iter().flatten() {
                match speech {
                    Speech::Ports(range) => side.cut(range.protocol, range.first, range.last),
                    Speech::Named { .. } => side.has_named_ports = true,
                }
            }
            for peer in rule.peers.iter().flatten() {
                if let Peer::Domain(pattern) = peer {
                    names.insert(pattern.clone());
                }
            }
        }
        side.has_unknown_names = !names.is_empty() && !supposed.has_all;
        let is_meant = |named: &BTreeSet<String>| !named.is_disjoint(&names);
        let others = supposed.worlds.iter().filter(|(named, _)| is_meant(named));
        side.governing.push(nameless);
        side.governing.extend(others.map(|(_, world)| Governing::of(world, identity, direction)));
        Some(side)
    }

    fn cut(&mut self, protocol: u8, first: u16, last: u16) {
        let firsts = self.firsts.entry(PolicyTransport::of(protocol)).or_default();
        firsts.insert(first);
        firsts.extend(last.checked_add(1));
    }

    fn is_open(&self) -> bool {
        self.governing.iter().all(Governing::is_open)
    }

    /// How often it has to be asked of one address at most.
    fn cost(&self) -> u64 {
        let intervals: usize = self.firsts.values().map(BTreeSet::len).sum();
        if self.is_open() { 0 } else { intervals.saturating_mul(self.governing.len()) as u64 }
    }

    /// What is allowed with another end; `named` are the ports of the end that takes the connection, with their names.
    fn allowed(&self, supposed: usize, other: Place, named: &[(PolicyTransport, u16)]) -> PortSet {
        let mut allowed = PortSet::new();
        let Some(governing) = self.governing.get(supposed) else { return allowed };
        let end = OtherEnd { identity: other.0, address: other.1 };
        for (transport, firsts) in &self.firsts {
            if !transport.is_of_family(other.1.is_ipv6()) {
                continue;
            }
            if governing.is_open() {
                allowed.append(*transport, 0, u16::MAX);
                continue;
            }
            let mut firsts = firsts.clone();
            let own_named = named.iter().filter(|(own, _)| self.has_named_ports && own == transport);
            for (_, port) in own_named {
                firsts.insert(*port);
                firsts.extend(port.checked_add(1));
            }
            for (first, last) in intervals(&firsts.into_iter().collect::<Vec<_>>()) {
                let speaks = Speaks { protocol: transport.number(), port: first };
                if governing.judge(end, speaks).allowed {
                    allowed.append(*transport, first, last);
                }
            }
        }
        allowed
    }
}

/// An identity with one address of each interval.
type Place = (u32, IpAddr);

/// The policies of all replicas, ready to be asked.
#[derive(Debug)]
pub(super) struct Sides<'a> {
    world: Option<&'a World>,
    residents: &'a Residents,
    has_other_nodes: bool,
    /// By identity, for making and for taking connections.
    sides: BTreeMap<u32, [Side<'a>; 2]>,
}

impl<'a> Sides<'a> {
    pub(super) fn of(supposed: &'a Supposed, residents: &'a Residents, has_other_nodes: bool) -> Self {
        let identities: BTreeSet<u32> = residents.values().flatten().map(|(identity, _)| *identity).collect();
        let sides = identities.into_iter().filter_map(|identity| {
            let side = |direction| Side::of(supposed, identity, direction);
            Some((identity, [side(PolicyType::Egress)?, side(PolicyType::Ingress)?]))
        });
        Sides { world: supposed.nameless(), residents, has_other_nodes, sides: sides.collect() }
    }

    /// Whether no policy says anything of what an end makes (0) or takes (1), for none of its replicas.
    pub(super) fn is_open(&self, end: &MatrixEnd, way: usize) -> bool {
        self.own(end).all(|identity| self.side(identity, way).is_none_or(Side::is_open))
    }

    fn side(&self, identity: u32, way: usize) -> Option<&Side<'a>> {
        self.sides.get(&identity)?.get(way)
    }

    /// The identities of an end that policies govern.
    fn own(&self, end: &MatrixEnd) -> impl Iterator<Item = u32> {
        let residents = match end {
            MatrixEnd::App { namespace, app } => self.residents.get(&(namespace.clone(), app.clone())),
            _ => None,
        };
        let identities: BTreeSet<u32> =
            residents.into_iter().flatten().map(|(identity, _)| *identity).collect();
        identities.into_iter()
    }

    /// Whether something stands for an end now.
    pub(super) fn is_there(&self, end: &MatrixEnd, way: usize) -> bool {
        !self.places(end, way, &Intervals::of([])).is_empty()
    }

    /// What may pass from one end to another. `None` if that would take more than `left` judgements, of which those that it takes are
    /// taken away, or if it depends on more names than can be supposed.
    pub(super) fn allowed(&self, ends: [&MatrixEnd; 2], left: &mut u64) -> Option<Allowed> {
        let sides = |way: usize| self.own(ends[way]).filter_map(move |own| self.side(own, way));
        let all_sides = || sides(0).chain(sides(1));
        let intervals = Intervals::of(all_sides().flat_map(|side| side.blocks.iter().copied()));
        let [from, to] = [0, 1].map(|way| self.places(ends[way], way, &intervals));
        let cost =
            |way: usize, others: usize| sides(way).map(|side| side.cost()).sum::<u64>() * others as u64;
        let cost = cost(0, to.len()).saturating_add(cost(1, from.len()));
        let is_outside = ends.contains(&&MatrixEnd::World);
        let is_unknown = is_outside && all_sides().any(|side| side.has_unknown_names);
        if is_unknown || cost > *left || from.len().saturating_mul(to.len()) > COMBINATIONS_MAX {
            return None;
        }
        *left -= cost;
        let supposed = all_sides().map(|side| side.governing.len()).max().filter(|_| is_outside).unwrap_or(1);
        Some(self.fold(&from, &to, supposed))
    }

    /// What is allowed for all that both ends may be, and for some.
    fn fold(&self, from: &BTreeSet<Place>, to: &BTreeSet<Place>, supposed: usize) -> Allowed {
        let everything = PortSet::all_of(PolicyTransport::ALL);
        let of_family = [false, true].map(|is_ipv6| {
            PortSet::all_of(PolicyTransport::ALL.into_iter().filter(|one| one.is_of_family(is_ipv6)))
        });
        let (mut all, mut any, mut possible) = (everything.clone(), PortSet::new(), PortSet::new());
        for supposed in 0..supposed {
            let mut known: [BTreeMap<(u32, Place), PortSet>; 2] = [BTreeMap::new(), BTreeMap::new()];
            for source in from {
                for destination in to.iter().filter(|to| to.1.is_ipv4() == source.1.is_ipv4()) {
                    let spoken = &of_family[usize::from(source.1.is_ipv6())];
                    let mut passes = spoken.clone();
                    for (way, own, other) in [(0, source, destination), (1, destination, source)] {
                        let Some(side) = self.side(own.0, way) else { continue };
                        let said = known[way].entry((own.0, *other)).or_insert_with(|| {
                            // Where nothing is supposed of names, they mean nothing.
                            let supposed = if supposed < side.governing.len() { supposed } else { 0 };
                            side.allowed(supposed, *other, &self.named(destination.0))
                        });
                        passes = passes.and(said);
                    }
                    all = all.and(&passes.or(&everything.without(spoken)));
                    any = any.or(&passes);
                    possible = possible.or(spoken);
                }
            }
        }
        all = all.and(&possible);
        Allowed { is_everything: !all.is_empty() && all == possible, some: any.without(&all), all }
    }

    /// The ports that an identity calls by names.
    fn named(&self, identity: u32) -> Vec<(PolicyTransport, u16)> {
        let spec = self.world.and_then(|world| world.identity(identity));
        let ports = spec.into_iter().flat_map(|spec| &spec.ports);
        ports.map(|port| (PolicyTransport::of(protocol_number(port.protocol)), port.port)).collect()
    }

    fn places(&self, end: &MatrixEnd, way: usize, intervals: &Intervals) -> BTreeSet<Place> {
        let of = |identity: u32, addresses: Vec<IpAddr>| {
            addresses.into_iter().map(move |address| (identity, intervals.first(address)))
        };
        let nodes = || self.world.into_iter().flat_map(|world| world.addresses_of_nodes(None)).collect();
        match end {
            MatrixEnd::App { namespace, app } => {
                let residents = self.residents.get(&(namespace.clone(), app.clone())).into_iter().flatten();
                residents.map(|(identity, address)| (*identity, intervals.first(*address))).collect()
            }
            // What a node's own processes begin with its replicas no policy can deny.
            MatrixEnd::Host => {
                let own = if way == 1 { nodes() } else { Vec::new() };
                let others = if self.has_other_nodes { nodes() } else { Vec::new() };
                of(Identity::HOST, own).chain(of(Identity::NODE, others)).collect()
            }
            MatrixEnd::Dns => {
                let addresses = self.world.into_iter().flat_map(World::dns_addresses).copied().collect();
                of(Identity::DNS, addresses).collect()
            }
            MatrixEnd::World => intervals.within(None).map(|address| (Identity::WORLD, address)).collect(),
        }
    }
}
