//! The records of a minute: a pure function of what the kernel counted, what of that was told already, and events.

use hivemind_datapath::{DropReason, FlowPeer, PairTotals, Statistics};
use hivemind_flowlog::{Counter, Mark, Marks, RECORDS_MAX};
use hivemind_model::{FlowEnd, FlowMinute, FlowShare, FlowVerdict};
use jiff::Timestamp;

use super::shares::{About, Common, Shares};
use crate::flows::{
    names::Names,
    round_trips::{ByPair, between},
    told::{self, TCP},
};

/// How many records tell of the ends of what was dropped for one reason; with the one of the rest they are written at once.
const DROPS_MAX: usize = RECORDS_MAX - 1;

/// What a counter says more than before, in records that are written together or not at all: half of them would be told
/// again with the next.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) flows: Vec<FlowMinute>,
    /// Up to where the counter is told by them.
    pub(super) mark: Mark,
    /// Whose shares they have.
    pub(super) about: Vec<About>,
}

/// All counters and what they say.
pub(super) fn counters(statistics: &Statistics) -> impl Iterator<Item = (Counter, [u64; 5])> {
    let pairs = statistics.pairs.iter().map(|pair| {
        let counter = Counter(pair.source, pair.destination, pair.protocol, pair.port, pair.allowed);
        (counter, numbers(&pair.totals))
    });
    let collective = (Counter::COLLECTIVE, numbers(&statistics.other_pairs));
    let drops = statistics.drops.iter().filter(|drop| !drop.reason.is_denial());
    let drops = drops.map(|drop| (Counter::drops(drop.reason as u32), [0, 0, 0, 0, drop.packets]));
    pairs.chain([collective]).chain(drops)
}

fn numbers(totals: &PairTotals) -> [u64; 5] {
    let PairTotals { bytes, packets, connections } = *totals;
    [bytes[0], bytes[1], packets[0], packets[1], connections]
}

/// What a minute's records are made with.
pub(super) struct Turn<'a> {
    pub(super) minute: Timestamp,
    pub(super) seconds: u32,
    pub(super) node: &'a str,
    pub(super) names: &'a Names,
    pub(super) measured: &'a ByPair,
    pub(super) measured_before: &'a ByPair,
}

impl Turn<'_> {
    /// The records of all counters that rose, and of what was dropped.
    pub(super) fn records(
        &self,
        statistics: &Statistics,
        marks: Option<&Marks>,
        shares: &Shares,
    ) -> Vec<Told> {
        let mut records = Vec::new();
        for (counter, says) in counters(statistics) {
            let rise = marks.map_or(says, |marks| marks.rise(counter, says));
            if rise == [0; 5] {
                continue;
            }
            let mark = Mark(counter, says);
            records.push(match dropped(counter) {
                Some(reason) => self.drops(reason, rise[4], shares, mark),
                None => Told {
                    flows: vec![self.exact(counter, rise, shares)],
                    mark,
                    about: vec![(counter, None)],
                },
            });
        }
        records
    }

    /// What a counter says more than before.
    fn exact(&self, counter: Counter, rise: [u64; 5], shares: &Shares) -> FlowMinute {
        let mut flows = self.empty(counter);
        let [sent, received, packets_sent, packets_received, connections] = rise;
        (flows.bytes_sent, flows.bytes_received) = (sent, received);
        (flows.packets_sent, flows.packets_received) = (packets_sent, packets_received);
        (flows.exact, flows.connections) = (true, connections);
        let Counter(source, destination, protocol, ..) = counter;
        if protocol == TCP {
            let of = |pairs| between(pairs, source, destination);
            flows.rtt_us = of(self.measured).since(of(self.measured_before)).mean_us();
        }
        flows.shares = shares.of(&(counter, None)).map(|(common, count)| self.share(common, count)).collect();
        let told: u64 = flows.shares.iter().map(|share| share.connections).sum();
        flows.untold = connections.saturating_sub(told);
        flows
    }

    /// Packets that were dropped for a reason: by ends as far as they were told, and the rest of them.
    fn drops(&self, reason: DropReason, packets: u64, shares: &Shares, mark: Mark) -> Told {
        let about = shares.all().filter(|(_, dropped)| *dropped == Some(reason.name()));
        let about: Vec<About> = about.take(DROPS_MAX).copied().collect();
        let mut flows: Vec<_> = about.iter().map(|about| self.dropped(about, shares)).collect();
        let told: u64 = flows.iter().map(|flows| flows.connections).sum();
        let mut rest = self.empty(Counter(0, 0, 0, 0, false));
        (rest.verdict, rest.connections) = (FlowVerdict::Dropped, packets.saturating_sub(told));
        rest.untold = rest.connections;
        rest.shares = vec![FlowShare { reason: reason.name().to_owned(), ..FlowShare::default() }];
        flows.extend((rest.connections > 0).then_some(rest));
        Told { flows, mark, about }
    }

    fn dropped(&self, about: &About, shares: &Shares) -> FlowMinute {
        let mut flows = self.empty(about.0);
        flows.verdict = FlowVerdict::Dropped;
        flows.shares = shares.of(about).map(|(common, count)| self.share(common, count)).collect();
        flows.connections = flows.shares.iter().map(|share| share.connections).sum();
        flows
    }

    fn share(&self, common: &Common, connections: u64) -> FlowShare {
        let [source, destination] = common.ends;
        let domain = common.domain.as_deref().unwrap_or_default().to_owned();
        let [egress_rule, ingress_rule] = common.rules.map(|number| told::rule(number, self.names));
        let reason = common.reason.unwrap_or_default().to_owned();
        let verdict = common.is_audited.then_some(FlowVerdict::Audited);
        FlowShare { verdict, source, destination, domain, reason, egress_rule, ingress_rule, connections }
    }

    /// A record without numbers.
    fn empty(&self, counter: Counter) -> FlowMinute {
        let Counter(source, destination, protocol, port, is_allowed) = counter;
        let end = |identity, port| -> FlowEnd {
            if counter == Counter::COLLECTIVE {
                return FlowEnd { kind: "unknown".into(), ..FlowEnd::default() };
            }
            let peer = FlowPeer { address: None, port, identity };
            told::end(&peer, port != 0, self.names, self.node)
        };
        FlowMinute {
            minute: self.minute,
            seconds: self.seconds,
            node: self.node.to_owned(),
            verdict: if is_allowed { FlowVerdict::Allowed } else { FlowVerdict::Denied },
            source: end(source, 0),
            destination: end(destination, port),
            protocol: told::protocol(protocol),
            exact: false,
            connections: 0,
            bytes_sent: 0,
            bytes_received: 0,
            packets_sent: 0,
            packets_received: 0,
            rtt_us: None,
            shares: Vec::new(),
            untold: 0,
        }
    }
}

/// The reason whose packets a counter counts, if it counts those.
fn dropped(counter: Counter) -> Option<DropReason> {
    DropReason::ALL.into_iter().find(|reason| Counter::drops(*reason as u32) == counter)
}
