//! Who may speak to whom by today's policies, beside who did by recorded flows.
//!
//! Ends are apps, and what is around them. Of each ordered pair of which one end is an app it is told what was recorded and what is
//! allowed; pairs of which nothing was recorded are put together where the same is allowed. Where no policy governs either end everything is
//! allowed, and they are told as [`Matrix::open_to_all`] and [`Matrix::open_from_all`] rather than pair by pair.

mod allowed;
mod ports;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    reference::Speaks,
    seen::{Between, Seen, SeenCounts, SeenEnd, SeenPair},
    simulate::Residents,
    world::World,
};

use allowed::{Sides, Supposed};

pub use allowed::Allowed;
pub use ports::{PolicyTransport, PortSet};

/// How many connections are judged at most for one matrix.
pub const JUDGEMENTS_MAX: u64 = 4_000_000;

/// How many pairs are looked at at most besides those of which something was recorded.
const PAIRS_MAX: u64 = 1_000_000;

/// One end of connections, as a matrix tells ends apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatrixEnd {
    /// Replicas of an app.
    App {
        /// Its namespace.
        namespace: String,
        /// Its name.
        app: String,
    },
    /// Processes of nodes. As the end that begins, those of other nodes than the replica's: its own node's always reach it.
    Host,
    /// The DNS server.
    Dns,
    /// Whatever is outside of the cluster.
    World,
}

/// What a matrix is made of.
#[derive(Clone, Copy, Debug)]
pub struct MatrixOf<'a> {
    /// The policies, and what they are about. Of domains it needs to know nothing: what they mean is supposed, see [`Allowed::some`].
    pub world: &'a World,
    /// The replicas.
    pub residents: &'a Residents,
    /// Whether there is more than one node.
    pub has_other_nodes: bool,
    /// What was recorded.
    pub seen: &'a Seen,
    /// Only pairs of which one end is of this namespace.
    pub namespace: Option<&'a str>,
}

/// What [`matrix()`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Pairs of which something was recorded: those with the most attempts that were refused first, then those with the most connections.
    pub pairs: Vec<MatrixPair>,
    /// What else is allowed, with those first that everything is allowed to, then those of the most pairs.
    pub open: Vec<MatrixOpen>,
    /// Apps that may take everything from whoever no policy keeps from making it, in the order of their names.
    pub open_from_all: Vec<MatrixEnd>,
    /// Apps that may make everything with whoever no policy keeps from taking it.
    pub open_to_all: Vec<MatrixEnd>,
    /// How many apps there are that have replicas.
    pub apps: u64,
    /// How many pairs have nothing allowed and nothing recorded.
    pub closed: u64,
    /// How many pairs without anything recorded were not judged, since there are too many or since they depend on too many names.
    pub unjudged: u64,
    /// Recorded pairs, with their ports, of which one end is no more or has no replica.
    pub gone: u64,
    /// Recorded pairs, with their ports, of which nobody knows an end or what it spoke.
    pub unknown: u64,
}

/// A pair of ends of which something was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixPair {
    /// Who begins.
    pub source: MatrixEnd,
    /// With whom.
    pub destination: MatrixEnd,
    /// What is allowed; `None` where it was not judged.
    pub allowed: Option<Allowed>,
    /// What passed, in the order of ports.
    pub used: Vec<MatrixUse>,
    /// What was tried and refused.
    pub denied: Vec<MatrixUse>,
    /// What is allowed for all, and did not pass.
    pub unused: PortSet,
    /// What is allowed for some, and did not pass.
    pub unused_by_some: PortSet,
}

/// Connections of one port that were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixUse {
    /// What they spoke; of ICMP it is supposed to be echo requests.
    pub speaks: Speaks,
    /// How many; none of what had begun before the records.
    pub connections: Between,
    /// Bytes of IP packets that the source sent; none of attempts that were refused.
    pub bytes_sent: Between,
    /// Bytes of IP packets that it was sent back.
    pub bytes_received: Between,
    /// What today's policies say of them; `None` where they were not judged.
    pub now: Option<UseNow>,
}

/// What policies say of connections that were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseNow {
    /// They may pass.
    Allowed,
    /// They may not.
    Denied,
    /// It is not the same for all replicas or addresses.
    Depends,
}

/// Pairs of which nothing was recorded, and of which the same is allowed: each source with each destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixOpen {
    /// Who may begin.
    pub sources: Vec<MatrixEnd>,
    /// With whom.
    pub destinations: Vec<MatrixEnd>,
    /// What is allowed.
    pub allowed: Allowed,
}

/// Holds what was recorded against what is allowed.
pub fn matrix(of: MatrixOf<'_>) -> Matrix {
    let supposed = Supposed::of(of.world);
    let sides = Sides::of(&supposed, of.residents, of.has_other_nodes);
    let mut matrix = Matrix::default();
    let recorded = Recorded::of(of, &sides, &mut matrix);
    let mut left = JUDGEMENTS_MAX;
    let apps: Vec<MatrixEnd> = of
        .residents
        .iter()
        .filter(|(_, places)| !places.is_empty())
        .map(|((namespace, app), _)| MatrixEnd::App { namespace: namespace.clone(), app: app.clone() })
        .collect();
    matrix.apps = apps.iter().filter(|app| is_wanted([app, app], of.namespace)).count() as u64;
    for way in [0, 1] {
        let open = apps.iter().filter(|app| is_wanted([app, app], of.namespace) && sides.is_open(app, way));
        let list = if way == 0 { &mut matrix.open_to_all } else { &mut matrix.open_from_all };
        list.extend(open.cloned());
    }
    for ((source, destination), uses) in &recorded.0 {
        let allowed = sides.allowed([source, destination], &mut left);
        matrix.pairs.push(uses.told([source, destination], allowed));
    }
    let most = |uses: &[MatrixUse]| uses.iter().map(|one| one.connections.most).sum::<u64>();
    matrix.pairs.sort_by_cached_key(|pair| {
        let ends = (pair.destination.clone(), pair.source.clone());
        (Reverse(most(&pair.denied)), Reverse(most(&pair.used)), ends)
    });
    Others { of, sides: &sides, recorded: &recorded, left }.add(&apps, &mut matrix);
    matrix
}

fn is_wanted(ends: [&MatrixEnd; 2], namespace: Option<&str>) -> bool {
    ends.into_iter().any(|end| match end {
        MatrixEnd::App { namespace: own, .. } => namespace.is_none_or(|wanted| wanted == own),
        _ => false,
    })
}

impl MatrixEnd {
    fn of(end: &SeenEnd) -> Option<Self> {
        Some(match end {
            SeenEnd::App { namespace, app } => {
                MatrixEnd::App { namespace: namespace.clone(), app: app.clone() }
            }
            SeenEnd::Host { .. } | SeenEnd::Node { .. } => MatrixEnd::Host,
            SeenEnd::Dns => MatrixEnd::Dns,
            SeenEnd::Outside { .. } => MatrixEnd::World,
            SeenEnd::Unknown => return None,
        })
    }
}

/// Connections, and bytes there and back.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    connections: Between,
    bytes: [Between; 2],
}

/// What was recorded of one pair, by port.
#[derive(Debug, Default)]
struct Uses {
    used: BTreeMap<(u8, u16), Sums>,
    denied: BTreeMap<(u8, u16), Sums>,
}

impl Uses {
    fn told(&self, ends: [&MatrixEnd; 2], allowed: Option<Allowed>) -> MatrixPair {
        let now = |speaks: Speaks| {
            allowed.as_ref().map(|allowed| {
                match (allowed.all.contains(speaks), allowed.some.contains(speaks)) {
                    (true, _) => UseNow::Allowed,
                    (_, true) => UseNow::Depends,
                    _ => UseNow::Denied,
                }
            })
        };
        let told = |uses: &BTreeMap<(u8, u16), Sums>| {
            let one = |((protocol, port), sums): (&(u8, u16), &Sums)| {
                let speaks = Speaks { protocol: *protocol, port: *port };
                let [bytes_sent, bytes_received] = sums.bytes;
                MatrixUse {
                    speaks,
                    connections: sums.connections,
                    bytes_sent,
                    bytes_received,
                    now: now(speaks),
                }
            };
            uses.iter().map(one).collect::<Vec<_>>()
        };
        let (used, denied) = (told(&self.used), told(&self.denied));
        let passed = PortSet::of_sorted(used.iter().map(|one| one.speaks));
        let left = |of: fn(&Allowed) -> &PortSet| {
            allowed.as_ref().map(|allowed| of(allowed).without(&passed)).unwrap_or_default()
        };
        let (unused, unused_by_some) = (left(|allowed| &allowed.all), left(|allowed| &allowed.some));
        let [source, destination] = ends.map(MatrixEnd::clone);
        MatrixPair { source, destination, allowed, used, denied, unused, unused_by_some }
    }
}

/// What was recorded, by pair.
struct Recorded(BTreeMap<(MatrixEnd, MatrixEnd), Uses>);

impl Recorded {
    fn of(of: MatrixOf<'_>, sides: &Sides<'_>, matrix: &mut Matrix) -> Self {
        let mut pairs: BTreeMap<(MatrixEnd, MatrixEnd), Uses> = BTreeMap::new();
        for (pair, counts) in of.seen.pairs() {
            // Its own node's processes always reach a replica. Where they are another node's, the replica's node has recorded that.
            if matches!(pair.source, SeenEnd::Host { .. }) {
                continue;
            }
            let ends = [&pair.source, &pair.destination].map(MatrixEnd::of);
            if !is_wanted_where_known(&ends, of.namespace) {
                continue;
            }
            let ([Some(source), Some(destination)], Some(speaks)) = (ends, spoken(pair)) else {
                matrix.unknown += 1;
                continue;
            };
            if !sides.is_there(&source, 0) || !sides.is_there(&destination, 1) {
                matrix.gone += 1;
                continue;
            }
            let uses = pairs.entry((source, destination)).or_default();
            let key = (speaks.protocol, speaks.port);
            if counts.has_passed() {
                let sums = uses.used.entry(key).or_default();
                add(&mut sums.connections, passed(counts));
                for (sum, more) in sums.bytes.iter_mut().zip(counts.passed_bytes()) {
                    add(sum, more);
                }
            }
            if counts.denied > 0 {
                let denied = Between { least: counts.denied, most: counts.denied };
                add(&mut uses.denied.entry(key).or_default().connections, denied);
            }
        }
        pairs.retain(|_, uses| !uses.used.is_empty() || !uses.denied.is_empty());
        Recorded(pairs)
    }
}

fn is_wanted_where_known(ends: &[Option<MatrixEnd>; 2], namespace: Option<&str>) -> bool {
    ends.iter().flatten().any(|end| is_wanted([end, end], namespace))
}

fn add(sum: &mut Between, more: Between) {
    sum.least = sum.least.saturating_add(more.least);
    sum.most = sum.most.saturating_add(more.most);
}

/// How many connections passed both ends. What the destination's node refused has passed the source's, and is in what passed; the rest may
/// have been counted by two nodes.
fn passed(counts: &SeenCounts) -> Between {
    let most = counts.allowed.saturating_add(counts.audited);
    match counts.nodes().nth(1) {
        None => Between { least: most, most },
        Some(_) => Between { least: most.saturating_sub(counts.denied).div_ceil(2), most },
    }
}

/// What a pair spoke; of ICMP, of which no types are recorded, echo requests.
fn spoken(pair: &SeenPair) -> Option<Speaks> {
    use hivemind_common::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
    let with_port = |protocol| Some(Speaks { protocol, port: pair.port? });
    match pair.protocol.as_str() {
        "tcp" => with_port(TCP),
        "udp" => with_port(UDP),
        "sctp" => with_port(SCTP),
        "icmp" => Some(Speaks { protocol: ICMP, port: 8 << 8 }),
        "icmpv6" => Some(Speaks { protocol: ICMPV6, port: 128 << 8 }),
        number => number.parse().ok().map(|protocol| Speaks { protocol, port: 0 }),
    }
}

/// The pairs of which nothing was recorded.
struct Others<'a> {
    of: MatrixOf<'a>,
    sides: &'a Sides<'a>,
    recorded: &'a Recorded,
    left: u64,
}

impl Others<'_> {
    fn add(mut self, apps: &[MatrixEnd], matrix: &mut Matrix) {
        let around = |ends: &[MatrixEnd], way: usize| -> Vec<(MatrixEnd, bool)> {
            let there = ends.iter().filter(|end| self.sides.is_there(end, way));
            apps.iter().chain(there).map(|end| (end.clone(), self.sides.is_open(end, way))).collect()
        };
        let sources = around(&[MatrixEnd::Host, MatrixEnd::World], 0);
        let destinations = around(&[MatrixEnd::Host, MatrixEnd::Dns, MatrixEnd::World], 1);
        let mut groups: BTreeMap<(Allowed, BTreeSet<MatrixEnd>), Vec<MatrixEnd>> = BTreeMap::new();
        let mut looked_at = 0;
        for (destination, takes_all) in &destinations {
            let mut by_allowed: BTreeMap<Allowed, BTreeSet<MatrixEnd>> = BTreeMap::new();
            for (source, makes_all) in &sources {
                let is_told =
                    (*takes_all && *makes_all) || !is_wanted([source, destination], self.of.namespace);
                if is_told || self.recorded.0.contains_key(&(source.clone(), destination.clone())) {
                    continue;
                }
                looked_at += 1;
                let allowed = match looked_at > PAIRS_MAX {
                    true => None,
                    false => self.sides.allowed([source, destination], &mut self.left),
                };
                match allowed {
                    None => matrix.unjudged += 1,
                    Some(allowed) if allowed.is_nothing() => matrix.closed += 1,
                    Some(allowed) => drop(by_allowed.entry(allowed).or_default().insert(source.clone())),
                }
            }
            for group in by_allowed {
                groups.entry(group).or_default().push(destination.clone());
            }
        }
        matrix.open = groups
            .into_iter()
            .map(|((allowed, sources), destinations)| MatrixOpen {
                sources: sources.into_iter().collect(),
                destinations,
                allowed,
            })
            .collect();
        matrix.open.sort_by_cached_key(|open| {
            let pairs = open.sources.len().saturating_mul(open.destinations.len());
            let ends = (open.destinations.clone(), open.sources.clone());
            (Reverse(open.allowed.is_everything), Reverse(pairs), ends)
        });
    }
}
