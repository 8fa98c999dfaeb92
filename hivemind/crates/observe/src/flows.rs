//! Flows by app: what connections carried, with a bounded number of label sets.
//!
//! A label set is source, destination, protocol, port, verdict. Ports from 32768 on are those that clients are given, and a
//! scan knows no bound: such ports count as `other`, unless the destination publishes them, and so does every port beyond
//! the first [`PORTS_MAX`] of the same ends. What finds no room among all label sets counts for the ends `other`, by its
//! verdict, so that sums stay right.

use std::{
    borrow::Cow,
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

/// What a label set tells: bytes and packets that the source sent and that it received, and connections.
pub(crate) const BYTES: [usize; 2] = [0, 1];
pub(crate) const PACKETS: [usize; 2] = [2, 3];
pub(crate) const CONNECTIONS: usize = 4;
const NUMBERS: usize = 5;

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
    /// How many ports of the same ends are told singly.
    ports: HashMap<Ports, usize>,
    label_sets_max: usize,
}

impl Flows {
    pub(crate) fn new(label_sets_max: usize) -> Self {
        let all =
            [Verdict::Allowed, Verdict::Denied, Verdict::Unknown].map(|verdict| (verdict, [0; NUMBERS]));
        Flows { totals: Accumulator::new(), all, ports: HashMap::new(), label_sets_max }
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
        self.ports.retain(|of, _| of.exist(ends));
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
            self.totals.add(labels, rise);
        }
        let rise = self.totals.rise(Counter::Collective, numbers(collective));
        if rise != [0; NUMBERS] {
            self.add_to_all(Verdict::Unknown, rise);
            self.totals.add(Labels::other(Verdict::Unknown), rise);
        }
        self.totals.end();
    }

    fn add_to_all(&mut self, verdict: Verdict, rise: [u64; NUMBERS]) {
        for (_, all) in self.all.iter_mut().filter(|(of, _)| *of == verdict) {
            all.iter_mut().zip(rise).for_each(|(all, rise)| *all = all.saturating_add(rise));
        }
    }

    /// The labels under which these ends and this port are told.
    fn labels(&mut self, of: Ports, port: u16, is_published: bool) -> Labels {
        let has_room = self.totals.len() < self.label_sets_max;
        let verdict = of.verdict;
        let mut labels = Labels { ends: of, port: if port == 0 { Port::None } else { Port::Number(port) } };
        if port != 0 && !self.totals.contains(&labels) {
            let singly = self.ports.get(&labels.ends).copied().unwrap_or(0);
            if has_room && (is_published || (port < EPHEMERAL && singly < PORTS_MAX)) {
                self.ports.insert(labels.ends.clone(), singly + 1);
            } else {
                labels.port = Port::Other;
            }
        }
        if has_room || self.totals.contains(&labels) { labels } else { Labels::other(verdict) }
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

fn published(apps: &[AppSample]) -> HashSet<(&Arc<AppName>, Transport, u16)> {
    apps.iter().flat_map(|s| s.ports.iter().map(|(protocol, port)| (&s.app, *protocol, *port))).collect()
}
