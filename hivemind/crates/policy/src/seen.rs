//! Recorded flows of any number of minutes and nodes, folded into who spoke to whom.
//!
//! A node counts each connection that it sees once. One that ends at a replica may be seen by two, the one where it began and the
//! replica's, and a record does not say whether the other end was on its node. So where several nodes counted the same two ends, the
//! number of connections is known between bounds only: no less than the largest of the nodes' sums or half of all of them, no more
//! than all of them. Who shows one of these numbers shows that it is a bound: see [`Between`]. What ends elsewhere, outside of the
//! cluster or at a node's own processes, is seen under these two ends by the node of its source only: see [`SeenPair::is_seen_by_two`].

use std::collections::{BTreeMap, btree_map::Entry};

use hivemind_model::{FlowEnd, FlowMinute, FlowVerdict};
use ipnet::IpNet;
use jiff::Timestamp;

/// How many pairs of ends, each as often as nodes counted it, are kept apart.
pub const SEEN_MAX: usize = 65_536;

/// One end of flows, as far as policies and people tell ends apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeenEnd {
    /// Replicas of an app.
    App {
        /// Its namespace.
        namespace: String,
        /// Its name.
        app: String,
    },
    /// The processes of the node that counted.
    Host {
        /// That node.
        node: String,
    },
    /// The processes of a node other than the one that counted.
    Node {
        /// Its address; `None` where it was not told.
        address: Option<IpNet>,
    },
    /// The DNS server.
    Dns,
    /// Whatever is outside of the cluster.
    Outside {
        /// Its address, or the block that its address is in; `None` where it was not told.
        block: Option<IpNet>,
        /// The name for which the address was last answered, without a last dot; empty if that is not known.
        domain: String,
    },
    /// Nobody knows: the node could not tell the two ends apart, or the app's name was forgotten.
    Unknown,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenPair {
    /// Who began it.
    pub source: SeenEnd,
    /// With whom.
    pub destination: SeenEnd,
    /// As [`hivemind_model::Flow::protocol`].
    pub protocol: String,
    /// The port that was asked, of a protocol that has ports.
    pub port: Option<u16>,
}

impl SeenPair {
    /// Whether two nodes may count one connection of the pair. Of others each node counts its own: a replica's node sees what it
    /// sends outside, to the DNS server and to its host. What is between a replica and another node's processes is of a host there
    /// and of a node here, which are two pairs.
    pub fn is_seen_by_two(&self) -> bool {
        !matches!(self.source, SeenEnd::Host { .. })
            && matches!(self.destination, SeenEnd::App { .. } | SeenEnd::Unknown)
    }
}

/// A number of which only bounds may be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// It is no less.
    pub least: u64,
    /// It is no more.
    pub most: u64,
}

impl Between {
    fn of(sums: impl Iterator<Item = u64>, is_seen_by_two: bool) -> Self {
        let (most, largest) =
            sums.fold((0_u64, 0), |(all, largest), sum| (all.saturating_add(sum), largest.max(sum)));
        Between { least: if is_seen_by_two { largest.max(most.div_ceil(2)) } else { most }, most }
    }
}

/// What was seen of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCounts {
    /// Connections that passed, but for those that are audited; if several nodes counted, what they counted in sum, which may have some
    /// twice.
    pub allowed: u64,
    /// Connections that passed and that a policy which only tells would deny, the same. Those of which nobody was told, since there
    /// were too many, are in `allowed`.
    pub audited: u64,
    /// Attempts that policies refused, the same. What the destination's node refused had passed the source's, if that is another,
    /// and is in `allowed` as well.
    pub denied: u64,
    /// The first minute, by its beginning.
    pub first: Timestamp,
    /// The last minute, by its beginning.
    pub last: Timestamp,
    /// Whether there are bytes beyond [`SeenCounts::bytes`], which were counted with those of other addresses.
    pub has_more_bytes: bool,
    /// The first and the last minute in which some passed a node, by their beginnings.
    pub passed: Option<(Timestamp, Timestamp)>,
    /// What each node counted.
    by_node: BTreeMap<String, OfNode>,
    /// As [`SeenPair::is_seen_by_two`].
    is_seen_by_two: bool,
}

/// What one node counted of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfNode {
    connections: u64,
    /// Bytes of both directions.
    bytes: u64,
    /// Bytes there and back of what passed, as [`SeenCounts::passed_bytes`].
    passed_bytes: [u64; 2],
    /// Whether some passed it, and whether it refused some.
    verdicts: [bool; 2],
}

impl SeenCounts {
    /// Connections and attempts.
    pub fn connections(&self) -> Between {
        self.between(|node| node.connections)
    }

    /// Whether some passed both ends' nodes, as far as that shows: what the destination's node refuses has passed the source's, so
    /// where one refused some, only one that let some pass as well shows it. Of what one node sees alone, it alone decides.
    pub fn has_passed(&self) -> bool {
        let is_plain = self.denied == 0 || !self.is_seen_by_two;
        self.passed.is_some() && (is_plain || self.by_node.values().any(|node| node.verdicts == [true; 2]))
    }

    /// Bytes of IP packets in both directions.
    pub fn bytes(&self) -> Between {
        self.between(|node| node.bytes)
    }

    /// Bytes of IP packets of what passed: those that the source sent, and those that it was sent back. A record whose connections are told
    /// apart by addresses has all of its bytes with the first of its pairs, so they are exact in the sum of pairs that differ by
    /// addresses only, and not for one of these.
    pub fn passed_bytes(&self) -> [Between; 2] {
        [self.between(|node| node.passed_bytes[0]), self.between(|node| node.passed_bytes[1])]
    }

    fn between(&self, number: fn(&OfNode) -> u64) -> Between {
        Between::of(self.by_node.values().map(number), self.is_seen_by_two)
    }

    /// The nodes that counted.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }
}

/// Recorded flows, folded: bounded by [`SEEN_MAX`], whatever is put in, and the same in whichever order it is put in as long as
/// nothing is [`Seen::beyond`].
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pairs: BTreeMap<SeenPair, SeenCounts>,
    /// How many nodes the pairs have in sum.
    kept: usize,
    beyond: u64,
}

impl Seen {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a record in. What was dropped for other reasons than policies, and what checks of the network send, is left out.
    pub fn add(&mut self, minute: &FlowMinute) {
        let is_check = [&minute.source, &minute.destination].iter().any(|end| end.kind == "check");
        if minute.verdict == FlowVerdict::Dropped || is_check {
            return;
        }
        let parts = parts(minute);
        let bytes = minute.bytes_sent.saturating_add(minute.bytes_received);
        let is_whole = parts.len() == 1;
        let mut passed = match minute.verdict {
            FlowVerdict::Denied => None,
            _ => Some([minute.bytes_sent, minute.bytes_received]),
        };
        for (pair, part) in parts {
            let part =
                Part { bytes: is_whole.then_some(bytes), passed_bytes: passed.unwrap_or_default(), ..part };
            if self.put(pair, part, minute) {
                passed = None;
            }
        }
    }

    /// Whether there was room.
    fn put(&mut self, pair: SeenPair, part: Part, minute: &FlowMinute) -> bool {
        let Part { connections, audited, bytes, passed_bytes } = part;
        let has_room = self.kept < SEEN_MAX;
        let is_seen_by_two = pair.is_seen_by_two();
        let counts = match self.pairs.entry(pair) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if !has_room => {
                self.beyond = self.beyond.saturating_add(connections);
                return false;
            }
            Entry::Vacant(place) => place.insert(SeenCounts {
                allowed: 0,
                audited: 0,
                denied: 0,
                first: minute.minute,
                last: minute.minute,
                has_more_bytes: false,
                passed: None,
                by_node: BTreeMap::new(),
                is_seen_by_two,
            }),
        };
        if !counts.by_node.contains_key(&minute.node) {
            if !has_room {
                self.beyond = self.beyond.saturating_add(connections);
                return false;
            }
            counts.by_node.insert(minute.node.clone(), OfNode::default());
            self.kept += 1;
        }
        let is_refused = matches!(minute.verdict, FlowVerdict::Denied | FlowVerdict::Dropped);
        if let Some(node) = counts.by_node.get_mut(&minute.node) {
            node.connections = node.connections.saturating_add(connections);
            node.bytes = node.bytes.saturating_add(bytes.unwrap_or(0));
            for (sum, more) in node.passed_bytes.iter_mut().zip(passed_bytes) {
                *sum = sum.saturating_add(more);
            }
            node.verdicts[usize::from(is_refused)] = true;
        }
        counts.has_more_bytes |= bytes.is_none();
        counts.first = counts.first.min(minute.minute);
        counts.last = counts.last.max(minute.minute);
        if !is_refused {
            let (first, last) = counts.passed.unwrap_or((minute.minute, minute.minute));
            counts.passed = Some((first.min(minute.minute), last.max(minute.minute)));
        }
        let number = if is_refused { &mut counts.denied } else { &mut counts.allowed };
        *number = number.saturating_add(connections - audited);
        counts.audited = counts.audited.saturating_add(audited);
        true
    }

    /// What was seen, by pair.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&SeenPair, &SeenCounts)> {
        self.pairs.iter()
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.beyond == 0
    }

    /// Connections for which there was no room, in the sum of what nodes counted.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

/// What a pair has of a record.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    connections: u64,
    /// Those of them that passed and that a policy which only tells would deny.
    audited: u64,
    /// Bytes of both directions; `None` where they were counted with those of other pairs.
    bytes: Option<u64>,
    /// As [`SeenCounts::passed_bytes`].
    passed_bytes: [u64; 2],
}

/// A record's connections by pair. Only ends that have their meaning by an address are told apart by it; the connections whose
/// address was not told make a pair without one.
fn parts(minute: &FlowMinute) -> Vec<(SeenPair, Part)> {
    let has_address = |end: &FlowEnd| matches!(end.kind.as_str(), "world" | "node");
    let pair = |source: Option<IpNet>, destination: Option<IpNet>, domain: &str| SeenPair {
        source: end(&minute.source, &minute.node, source, ""),
        destination: end(&minute.destination, &minute.node, destination, domain),
        protocol: minute.protocol.clone(),
        port: minute.destination.port,
    };
    let is_by_address = has_address(&minute.source) || has_address(&minute.destination);
    let mut parts: BTreeMap<SeenPair, Part> = BTreeMap::new();
    let mut left = minute.connections;
    for share in &minute.shares {
        let told = share.connections.min(left);
        left -= told;
        if told > 0 {
            let of = match is_by_address {
                true => pair(share.source, share.destination, &share.domain),
                false => pair(None, None, ""),
            };
            let part = parts.entry(of).or_default();
            part.connections += told;
            part.audited += if minute.verdict_of(share) == FlowVerdict::Audited { told } else { 0 };
        }
    }
    // A record may have bytes of connections that began before it, and none that began in it.
    if left > 0 || parts.is_empty() {
        parts.entry(pair(None, None, "")).or_default().connections += left;
    }
    parts.into_iter().collect()
}

fn end(end: &FlowEnd, node: &str, block: Option<IpNet>, domain: &str) -> SeenEnd {
    match end.kind.as_str() {
        "replica" if !end.app.is_empty() => {
            SeenEnd::App { namespace: end.namespace.clone(), app: end.app.clone() }
        }
        "host" => SeenEnd::Host { node: node.to_owned() },
        "node" => SeenEnd::Node { address: block },
        "dns" => SeenEnd::Dns,
        "world" => {
            let domain = domain.trim_end_matches('.').to_ascii_lowercase();
            SeenEnd::Outside { block, domain: if block.is_some() { domain } else { String::new() } }
        }
        _ => SeenEnd::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::FlowShare;

    use super::*;

    fn end(kind: &str, app: &str, port: Option<u16>) -> FlowEnd {
        let namespace = if app.is_empty() { String::new() } else { "shop".to_owned() };
        FlowEnd { kind: kind.to_owned(), namespace, app: app.to_owned(), port, ..FlowEnd::default() }
    }

    fn minute(node: &str, at: i64, source: FlowEnd, destination: FlowEnd, connections: u64) -> FlowMinute {
        FlowMinute {
            minute: Timestamp::from_second(at * 60).unwrap(),
            seconds: 60,
            node: node.to_owned(),
            verdict: FlowVerdict::Allowed,
            source,
            destination,
            protocol: "tcp".to_owned(),
            exact: true,
            connections,
            bytes_sent: connections * 10,
            bytes_received: connections,
            packets_sent: 1,
            packets_received: 1,
            rtt_us: None,
            shares: Vec::new(),
            untold: 0,
        }
    }

    fn inside(node: &str, at: i64, connections: u64) -> FlowMinute {
        minute(node, at, end("replica", "web", None), end("replica", "db", Some(5_432)), connections)
    }

    fn share(destination: Option<&str>, domain: &str, connections: u64) -> FlowShare {
        FlowShare {
            destination: destination.map(|text| text.parse().unwrap()),
            domain: domain.to_owned(),
            connections,
            ..FlowShare::default()
        }
    }

    #[test]
    fn what_one_node_counted_is_exact_and_what_two_did_is_between_bounds() {
        let mut seen = Seen::new();
        seen.add(&inside("one", 5, 6));
        seen.add(&inside("one", 3, 4));
        let only = |seen: &Seen| seen.pairs().next().map(|(_, counts)| counts.clone()).unwrap();
        assert_eq!(only(&seen).connections(), Between { least: 10, most: 10 });
        assert_eq!(only(&seen).bytes(), Between { least: 110, most: 110 });
        let exactly = |number| Between { least: number, most: number };
        assert_eq!(only(&seen).passed_bytes(), [exactly(100), exactly(10)]);
        seen.add(&FlowMinute { verdict: FlowVerdict::Denied, ..inside("two", 9, 3) });
        let counts = only(&seen);
        assert_eq!(counts.passed_bytes(), [exactly(100), exactly(10)], "what was refused did not pass");
        assert_eq!(counts.connections(), Between { least: 10, most: 13 });
        assert_eq!((counts.allowed, counts.denied), (10, 3));
        let second = |time: Timestamp| time.as_second() / 60;
        assert_eq!((second(counts.first), second(counts.last)), (3, 9));
        seen.add(&inside("three", 9, 10));
        assert_eq!(only(&seen).passed_bytes()[0], Between { least: 100, most: 200 });
        assert_eq!(only(&seen).connections(), Between { least: 12, most: 23 }, "each is seen by two at most");
        assert_eq!(seen.pairs().len(), 1);
    }

    #[test]
    fn what_one_node_lets_pass_and_another_refuses_has_not_passed() {
        let refused = |node| FlowMinute { verdict: FlowVerdict::Denied, ..inside(node, 9, 3) };
        let passed = |minutes: &[FlowMinute]| {
            let mut seen = Seen::new();
            minutes.iter().for_each(|minute| seen.add(minute));
            seen.pairs().all(|(_, counts)| counts.has_passed())
        };
        assert!(passed(&[inside("one", 1, 3)]) && passed(&[inside("one", 1, 3), inside("two", 1, 3)]));
        assert!(!passed(&[inside("one", 9, 3), refused("two")]) && !passed(&[refused("two")]));
        assert!(passed(&[inside("one", 1, 3), inside("two", 1, 3), refused("two")]), "at another time");
    }

    #[test]
    fn what_does_not_end_at_a_replica_is_counted_and_judged_by_each_node_for_itself() {
        for (kind, is_twice) in [("world", false), ("dns", false), ("node", false), ("replica", true)] {
            let app = if is_twice { "db" } else { "" };
            let to = |node, connections| {
                let ends = (end("replica", "web", None), end(kind, app, Some(53)));
                minute(node, 9, ends.0, ends.1, connections)
            };
            let mut seen = Seen::new();
            seen.add(&to("one", 6));
            seen.add(&FlowMinute { verdict: FlowVerdict::Denied, ..to("two", 4) });
            let (_, counts) = seen.pairs().next().unwrap();
            assert_eq!((seen.pairs().len(), counts.has_passed()), (1, !is_twice), "{kind}");
            let least = if is_twice { 6 } else { 10 };
            assert_eq!(counts.connections(), Between { least, most: 10 }, "{kind}");
        }
    }

    #[test]
    fn outside_is_told_by_address_and_domain_and_what_was_not_told_by_itself() {
        let mut record = minute("one", 1, end("replica", "web", None), end("world", "", Some(443)), 9);
        record.shares = vec![
            share(Some("192.0.2.1/32"), "Api.Example.org.", 3),
            share(Some("198.51.100.0/24"), "", 2),
            share(None, "", 1),
        ];
        record.untold = 3;
        let mut seen = Seen::new();
        seen.add(&record);
        let told: Vec<_> = seen
            .pairs()
            .map(|(pair, counts)| {
                (pair.destination.clone(), counts.connections().most, counts.has_more_bytes)
            })
            .collect();
        let outside = |block: Option<&str>, domain: &str| SeenEnd::Outside {
            block: block.map(|text| text.parse().unwrap()),
            domain: domain.to_owned(),
        };
        assert_eq!(
            told,
            [
                (outside(None, ""), 4, true),
                (outside(Some("192.0.2.1/32"), "api.example.org"), 3, true),
                (outside(Some("198.51.100.0/24"), ""), 2, true),
            ]
        );
        let sum = |way: usize| seen.pairs().map(|(_, counts)| counts.passed_bytes()[way].most).sum::<u64>();
        assert_eq!([sum(0), sum(1)], [90, 9], "bytes of pairs that differ by addresses");
    }

    #[test]
    fn what_is_audited_has_passed_and_is_told_apart_between_apps_and_outside() {
        for destination in [end("replica", "db", Some(443)), end("world", "", Some(443))] {
            let mut record = minute("one", 1, end("replica", "web", None), destination, 9);
            let audited = FlowShare { verdict: Some(FlowVerdict::Audited), ..share(None, "", 4) };
            record.shares = vec![audited, share(None, "", 3)];
            record.untold = 2;
            let mut seen = Seen::new();
            seen.add(&record);
            let (_, counts) = seen.pairs().next().unwrap();
            assert_eq!((seen.pairs().len(), counts.allowed, counts.audited, counts.denied), (1, 5, 4, 0));
            assert!(counts.has_passed());
            assert_eq!(counts.connections().most, 9);
            assert!(!counts.has_more_bytes);
        }
    }

    #[test]
    fn shares_never_tell_of_more_connections_than_the_record_has() {
        let mut record = minute("one", 1, end("replica", "web", None), end("world", "", Some(443)), 4);
        record.shares = vec![share(Some("192.0.2.1/32"), "", 3), share(Some("192.0.2.2/32"), "", 3)];
        let mut seen = Seen::new();
        seen.add(&record);
        assert_eq!(seen.pairs().map(|(_, counts)| counts.connections().most).sum::<u64>(), 4);
    }

    #[test]
    fn checks_and_drops_are_left_out_and_who_is_forgotten_is_unknown() {
        let mut seen = Seen::new();
        seen.add(&minute("one", 1, end("check", "", None), end("replica", "db", Some(1)), 1));
        seen.add(&FlowMinute { verdict: FlowVerdict::Dropped, ..inside("one", 1, 1) });
        assert!(seen.is_empty());
        seen.add(&minute("one", 1, end("replica", "", None), end("host", "", Some(1)), 1));
        let (pair, _) = seen.pairs().next().unwrap();
        assert_eq!(
            (&pair.source, &pair.destination),
            (&SeenEnd::Unknown, &SeenEnd::Host { node: "one".into() })
        );
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut seen = Seen::new();
        let with_port = |node: &str, port: usize| {
            let port = u16::try_from(port % 65_536).ok();
            minute(node, 1, end("replica", "web", None), end("replica", "db", port), 2)
        };
        (0..SEEN_MAX).for_each(|port| seen.add(&with_port("one", port)));
        assert_eq!((seen.pairs().len(), seen.beyond()), (SEEN_MAX, 0));
        seen.add(&with_port("one", 7));
        assert_eq!(seen.beyond(), 0, "what is known still counts");
        seen.add(&with_port("two", 7));
        seen.add(&FlowMinute { protocol: "udp".to_owned(), ..with_port("one", 7) });
        assert_eq!((seen.pairs().len(), seen.beyond()), (SEEN_MAX, 4));
    }
}
