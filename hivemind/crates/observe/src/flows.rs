//! Flows by app: what connections carried, with a bounded number of label sets.
//!
//! A label set is source, destination, protocol, port, verdict. Ports from 32768 on are those that clients are given, and a
//! scan knows no bound: such ports count as `other`, unless the destination publishes them, and so does every port beyond
//! the first [`PORTS_MAX`] of the same ends.
//!
//! Of all label sets the largest are told singly, by the packets of all time. The others count for the ends `other`, by their
//! verdict. One of those that has grown to twice the smallest of those that are told takes its place: what the smaller one had
//! brought goes to the ends `other`, and the larger one begins at zero, since what it had brought is there already. So sums
//! over all series stay right, and no series goes back; for a series to change places for good, packets have to double.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hivemind_common::telemetry::PairCounters;

use crate::{
    accumulator::Accumulator,
    ends::{End, Ends},
    metrics::PORTS_MAX,
    snapshot::{AppName, AppSample, PairSample, Transport},
};

/// The first of the ports that Linux gives to clients.
const EPHEMERAL: u16 = 32_768;
/// How many times the smallest label set that is told a larger one has to be, to take its place.
const LARGER: u64 = 2;

/// What a label set tells: bytes and packets that the source sent and that it received, and connections.
pub(crate) const BYTES: [usize; 2] = [0, 1];
pub(crate) const PACKETS: [usize; 2] = [2, 3];
pub(crate) const CONNECTIONS: usize = 4;
/// Series of a label set.
pub(crate) const NUMBERS: usize = 5;

/// What tells series of flows apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Labels {
    pub(crate) ends: Ports,
    pub(crate) port: Port,
}

/// What may have a number of ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ports {
    pub(crate) source: End,
    pub(crate) destination: End,
    /// None of what found no room.
    protocol: Option<Transport>,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Verdict {
    Allowed,
    Denied,
    /// Of the kernel's collective counter, which knows no verdict.
    Unknown,
}

/// A port as it is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Port {
    /// The protocol has none.
    None,
    Number(u16),
    Other,
}

/// Which counter of the kernel: a pair's, or the collective one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Counter {
    Pair { source: u32, destination: u32, protocol: Transport, port: u16, allowed: bool },
    Collective,
}

/// The flows' totals.
#[derive(Debug)]
pub(crate) struct Flows {
    totals: Accumulator<Counter, Labels, NUMBERS>,
    /// All that was counted, by verdict: also of what is gone.
    all: [(Verdict, [u64; NUMBERS]); 3],
    /// Ports that have a label set of their own, told or not.
    ports: HashMap<Ports, HashSet<u16>>,
    /// Label sets that count for the ends `other`, with their packets of all time. No more than the kernel has pairs.
    waiting: HashMap<Labels, u64>,
    /// Packets of those that are told from before they were.
    before: HashMap<Labels, u64>,
    /// How often a label set gave its place to a larger one.
    exchanged: u64,
    label_sets_max: usize,
}

impl Flows {
    pub(crate) fn new(label_sets_max: usize) -> Self {
        let all =
            [Verdict::Allowed, Verdict::Denied, Verdict::Unknown].map(|verdict| (verdict, [0; NUMBERS]));
        Flows {
            totals: Accumulator::new(),
            all,
            ports: HashMap::new(),
            waiting: HashMap::new(),
            before: HashMap::new(),
            exchanged: 0,
            label_sets_max,
        }
    }

    /// Takes in all of the kernel's counters.
    pub(crate) fn observe(
        &mut self,
        ends: &mut Ends,
        apps: &[AppSample],
        pairs: &[PairSample],
        collective: &PairCounters,
    ) {
        let published = published(apps);
        self.totals.begin(|labels| labels.ends.exist(ends));
        self.before.retain(|labels, _| labels.ends.exist(ends));
        self.ports.retain(|of, _| of.exist(ends));
        let mut untold: HashMap<Labels, [u64; NUMBERS]> = HashMap::new();
        for pair in pairs {
            let rise = self.totals.rise(Counter::of(pair), numbers(&pair.counters));
            let verdict = if pair.allowed { Verdict::Allowed } else { Verdict::Denied };
            self.add_to_all(verdict, rise);
            // Counters whose app is gone are about to go, too.
            let (Some(source), Some(destination)) = (ends.of(pair.source), ends.of(pair.destination)) else {
                continue;
            };
            let of = Ports { source, destination, protocol: Some(pair.protocol), verdict };
            let is_published = match &of.destination {
                End::App(app) => published.contains(&(app, pair.protocol, pair.port)),
                _ => false,
            };
            let labels = self.labels(of, pair.port, is_published);
            if self.totals.contains(&labels) {
                self.totals.add(labels, rise);
            } else {
                let sum = untold.entry(labels).or_insert([0; NUMBERS]);
                sum.iter_mut().zip(rise).for_each(|(sum, rise)| *sum = sum.saturating_add(rise));
            }
        }
        self.admit(untold);
        self.exchange();
        let rise = self.totals.rise(Counter::Collective, numbers(collective));
        if rise != [0; NUMBERS] {
            self.add_to_all(Verdict::Unknown, rise);
            self.totals.add(Labels::other(Verdict::Unknown), rise);
        }
        self.totals.end();
        self.free_ports();
    }

    fn add_to_all(&mut self, verdict: Verdict, rise: [u64; NUMBERS]) {
        for (_, all) in self.all.iter_mut().filter(|(of, _)| *of == verdict) {
            all.iter_mut().zip(rise).for_each(|(all, rise)| *all = all.saturating_add(rise));
        }
    }

    /// The labels of these ends and this port, told or not.
    fn labels(&mut self, ends: Ports, port: u16, is_published: bool) -> Labels {
        if port == 0 {
            return Labels { ends, port: Port::None };
        }
        let known = self.ports.get(&ends);
        let is_known = known.is_some_and(|ports| ports.contains(&port));
        let has_room = known.is_none_or(|ports| ports.len() < PORTS_MAX);
        if !is_known && !is_published && (port >= EPHEMERAL || !has_room) {
            return Labels { ends, port: Port::Other };
        }
        if !is_known {
            self.ports.entry(ends.clone()).or_default().insert(port);
        }
        Labels { ends, port: Port::Number(port) }
    }

    /// Has the largest of what is not told take the places that are free.
    fn admit(&mut self, untold: HashMap<Labels, [u64; NUMBERS]>) {
        let waited = std::mem::take(&mut self.waiting);
        let sized = untold.into_iter().map(|(labels, rise)| {
            let size = waited.get(&labels).copied().unwrap_or(0).saturating_add(packets(&rise));
            (size, labels, rise)
        });
        let mut sized: Vec<_> = sized.collect();
        let mut free = self.label_sets_max.saturating_sub(self.told());
        if free > 0 && free < sized.len() {
            sized.sort_unstable_by(|(a, first, _), (b, second, _)| {
                (Reverse(a), first).cmp(&(Reverse(b), second))
            });
        }
        for (size, labels, rise) in sized {
            if free > 0 {
                free -= 1;
                self.before.insert(labels.clone(), size - packets(&rise));
                self.totals.add(labels, rise);
            } else {
                self.totals.add(Labels::other(labels.ends.verdict), rise);
                self.waiting.insert(labels, size);
            }
        }
    }

    /// Has those that have grown larger than others take their places.
    fn exchange(&mut self) {
        let largest = self.waiting.values().max().copied().unwrap_or(0);
        let smallest = self.singly().map(|(labels, numbers)| self.size(labels, numbers)).min();
        if smallest.is_none_or(|smallest| largest <= smallest.saturating_mul(LARGER)) {
            return;
        }
        let mut waiting: Vec<_> = self.waiting.iter().map(|(labels, size)| (*size, labels.clone())).collect();
        waiting.sort_unstable_by(|(a, first), (b, second)| (Reverse(a), first).cmp(&(Reverse(b), second)));
        let mut told: Vec<_> =
            self.singly().map(|(labels, numbers)| (self.size(labels, numbers), labels.clone())).collect();
        told.sort_unstable();
        for ((large, taking), (small, giving)) in waiting.into_iter().zip(told) {
            if large <= small.saturating_mul(LARGER) {
                break;
            }
            if let Some(brought) = self.totals.remove(&giving) {
                self.totals.add(Labels::other(giving.ends.verdict), brought);
            }
            self.before.remove(&giving);
            self.waiting.insert(giving, small);
            self.waiting.remove(&taking);
            self.before.insert(taking.clone(), large);
            self.totals.add(taking, [0; NUMBERS]);
            self.exchanged += 1;
        }
    }

    /// The label sets that are told singly.
    fn singly(&self) -> impl Iterator<Item = (&Labels, &[u64; NUMBERS])> {
        self.totals.iter().filter(|(labels, _)| !labels.is_other())
    }

    /// The packets of all time of a label set that is told.
    fn size(&self, labels: &Labels, told: &[u64; NUMBERS]) -> u64 {
        self.before.get(labels).copied().unwrap_or(0).saturating_add(packets(told))
    }

    /// Has other ports take the place of those of which nothing is told or waits, where places are few.
    fn free_ports(&mut self) {
        let (totals, waiting) = (&self.totals, &self.waiting);
        let are_many = self.ports.len() > 2 * (totals.len() + waiting.len());
        self.ports.retain(|ends, ports| {
            if !are_many && ports.len() < PORTS_MAX {
                return true;
            }
            ports.retain(|port| {
                let labels = Labels { ends: ends.clone(), port: Port::Number(*port) };
                totals.contains(&labels) || waiting.contains_key(&labels)
            });
            !ports.is_empty()
        });
    }

    /// How many label sets are told singly.
    pub(crate) fn told(&self) -> usize {
        let others = self.all.iter().filter(|(verdict, _)| self.totals.contains(&Labels::other(*verdict)));
        self.totals.len() - others.count()
    }

    /// How many label sets count for the ends `other`.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How often a label set gave its place to a larger one.
    pub(crate) fn exchanged(&self) -> u64 {
        self.exchanged
    }

    /// All that was counted, by verdict.
    pub(crate) fn totals(&self) -> [(&'static str, [u64; NUMBERS]); 3] {
        self.all.map(|(verdict, numbers)| (verdict.name(), numbers))
    }

    /// The label sets with their numbers, in order.
    pub(crate) fn sorted(&self) -> Vec<(&Labels, &[u64; NUMBERS])> {
        self.totals.sorted()
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::Unknown => "unknown",
        }
    }
}

impl Ports {
    fn exist(&self, ends: &Ends) -> bool {
        ends.exists(&self.source) && ends.exists(&self.destination)
    }

    pub(crate) fn verdict(&self) -> &'static str {
        self.verdict.name()
    }

    pub(crate) fn protocol(&self) -> Cow<'static, str> {
        match self.protocol {
            None => "other".into(),
            Some(Transport(1)) => "icmp".into(),
            Some(Transport::TCP) => "tcp".into(),
            Some(Transport::UDP) => "udp".into(),
            Some(Transport(58)) => "icmpv6".into(),
            Some(Transport(132)) => "sctp".into(),
            Some(Transport(number)) => number.to_string().into(),
        }
    }
}

impl Port {
    pub(crate) fn label(self) -> Cow<'static, str> {
        match self {
            Port::None => "none".into(),
            Port::Number(number) => number.to_string().into(),
            Port::Other => "other".into(),
        }
    }
}

impl Labels {
    fn other(verdict: Verdict) -> Self {
        let ends = Ports { source: End::Other, destination: End::Other, protocol: None, verdict };
        Labels { ends, port: Port::Other }
    }

    fn is_other(&self) -> bool {
        self.ends.source == End::Other
    }
}

impl Counter {
    fn of(pair: &PairSample) -> Self {
        let PairSample { source, destination, protocol, port, allowed, .. } = *pair;
        Counter::Pair { source, destination, protocol, port, allowed }
    }
}

fn numbers(counters: &PairCounters) -> [u64; NUMBERS] {
    let PairCounters { bytes, packets, connections } = *counters;
    [bytes[0], bytes[1], packets[0], packets[1], connections]
}

fn packets(numbers: &[u64; NUMBERS]) -> u64 {
    PACKETS.into_iter().fold(0, |sum, way| sum.saturating_add(numbers[way]))
}

fn published(apps: &[AppSample]) -> HashSet<(&Arc<AppName>, Transport, u16)> {
    apps.iter().flat_map(|s| s.ports.iter().map(|(protocol, port)| (&s.app, *protocol, *port))).collect()
}
