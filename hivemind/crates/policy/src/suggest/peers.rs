//! The other ends of one direction, what was spoken with each, and how that is said with few words.

use std::collections::BTreeMap;

use hivemind_model::{IcmpFamily, PolicyProtocol, RuleEvidence, SYSTEM_NAMESPACE, SeenConnections};
use ipnet::IpNet;

use super::{blocks, rules::Ruling};

/// So many single ports of an end are said one by one.
const PORTS_MAX: usize = 16;
/// The first port that systems give to who asks for any.
const EPHEMERAL: u16 = 32_768;
/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// Whom a rule means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    App { namespace: String, app: String },
    Host,
    Node,
    Domain(String),
    Block(IpNet),
}

/// What a rule lets an end speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    Ports { protocol: PolicyProtocol, first: u16, last: u16 },
    Messages(IcmpFamily),
}

impl Heard {
    /// `None` of what no rule can name.
    pub(super) fn of(protocol: &str, port: Option<u16>) -> Option<Self> {
        let protocol = match protocol {
            "tcp" => PolicyProtocol::Tcp,
            "udp" => PolicyProtocol::Udp,
            "sctp" => PolicyProtocol::Sctp,
            "icmp" => return Some(Heard::Messages(IcmpFamily::IPv4)),
            "icmpv6" => return Some(Heard::Messages(IcmpFamily::IPv6)),
            _ => return None,
        };
        port.filter(|port| *port != 0).map(|port| Heard::port(protocol, port))
    }

    const fn port(protocol: PolicyProtocol, port: u16) -> Self {
        Heard::Ports { protocol, first: port, last: port }
    }
}

/// Peers that rules mean in the same way stand in one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Apps,
    Entities,
    Domains,
    Blocks,
}

impl Peer {
    const fn class(&self) -> Class {
        match self {
            Peer::App { .. } => Class::Apps,
            Peer::Host | Peer::Node => Class::Entities,
            Peer::Domain(_) => Class::Domains,
            Peer::Block(_) => Class::Blocks,
        }
    }
}

type Spoken = BTreeMap<Heard, RuleEvidence>;

/// The other ends of one direction.
#[derive(Debug, Default)]
pub(super) struct Peers {
    spoken: BTreeMap<Peer, Spoken>,
    /// Names that were known for an address.
    names: BTreeMap<IpNet, Vec<Peer>>,
}

impl Peers {
    pub(super) fn is_empty(&self) -> bool {
        self.spoken.is_empty()
    }

    /// Whether anything speaks for any of it.
    pub(super) fn was_seen(&self) -> bool {
        self.spoken.values().flat_map(BTreeMap::values).any(|evidence| !evidence.seen.is_empty())
    }

    /// Namespaces and names of the apps among them.
    pub(super) fn apps(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spoken.keys().filter_map(|peer| match peer {
            Peer::App { namespace, app } => Some((namespace.as_str(), app.as_str())),
            _ => None,
        })
    }

    /// Whether somebody outside speaks so.
    pub(super) fn has_outside(&self, heard: &Heard) -> bool {
        self.spoken.iter().any(|(peer, spoken)| {
            matches!(peer, Peer::Domain(_) | Peer::Block(_)) && spoken.contains_key(heard)
        })
    }

    pub(super) fn add(&mut self, peer: Peer, heard: Heard, seen: SeenConnections) {
        let evidence = RuleEvidence { seen: vec![seen], ..RuleEvidence::default() };
        merge(self.spoken.entry(peer).or_default(), heard, evidence);
    }

    pub(super) fn note_name(&mut self, block: IpNet, name: &Peer) {
        let names = self.names.entry(block.trunc()).or_default();
        if !names.contains(name) {
            names.push(name.clone());
        }
    }

    /// Lets questions for names pass, whether they were seen or not: without answers nearly everything stops.
    pub(super) fn let_ask_for_names(&mut self) {
        let peer = Peer::App { namespace: SYSTEM_NAMESPACE.to_owned(), app: "dns".to_owned() };
        let spoken = self.spoken.entry(peer).or_default();
        let wanted =
            [PolicyProtocol::Tcp, PolicyProtocol::Udp].map(|protocol| Heard::port(protocol, DNS_PORT));
        let missing: Vec<Heard> = wanted.into_iter().filter(|heard| !spoken.contains_key(heard)).collect();
        let sentence = match missing.as_slice() {
            [] => return,
            [_] => "questions for names over UDP and TCP, of which one was seen: long answers come over TCP",
            _ => {
                "no question for a name was seen; without this the app can ask none, and nothing seen is denied"
            }
        };
        for heard in missing {
            let wider = vec![sentence.to_owned()];
            spoken.insert(heard, RuleEvidence { wider, ..RuleEvidence::default() });
        }
    }

    /// Says it with fewer words: where these mean the same, and where it is so much that they have to mean more, which is then told.
    pub(super) fn settle(&mut self) {
        self.give_addresses_to_names();
        self.give_blocks_to_wider_ones();
        // The processes of any node are those of its own as well.
        self.give(&Peer::Host, &Peer::Node);
        self.spoken.retain(|_, spoken| !spoken.is_empty());
        for spoken in self.spoken.values_mut() {
            join_ephemeral(spoken);
            for (heard, evidence) in spoken {
                if matches!(heard, Heard::Messages(_)) {
                    let what = "every message of ICMP: the records do not tell which were seen";
                    evidence.wider.push(what.to_owned());
                }
            }
        }
    }

    /// An address that has a name at times is meant by its name always.
    fn give_addresses_to_names(&mut self) {
        for (block, names) in std::mem::take(&mut self.names) {
            names.iter().for_each(|name| self.give(&Peer::Block(block), name));
        }
    }

    fn give_blocks_to_wider_ones(&mut self) {
        let block = |peer: &Peer| match peer {
            Peer::Block(block) => Some(*block),
            _ => None,
        };
        let all: Vec<IpNet> = self.spoken.keys().filter_map(block).collect();
        for block in all {
            let mut above = block.supernet();
            while let Some(wider) = above {
                self.give(&Peer::Block(block), &Peer::Block(wider));
                above = wider.supernet();
            }
        }
    }

    /// Gives what speaks for `from` to `to`, as far as both speak the same.
    fn give(&mut self, from: &Peer, to: &Peer) {
        if !self.spoken.contains_key(to) {
            return;
        }
        let Some(given) = self.spoken.remove(from) else { return };
        let mut kept = Spoken::new();
        if let Some(taking) = self.spoken.get_mut(to) {
            for (heard, evidence) in given {
                let place = if taking.contains_key(&heard) { &mut *taking } else { &mut kept };
                merge(place, heard, evidence);
            }
        }
        self.spoken.insert(from.clone(), kept);
    }

    /// One rule for all peers of a class that speak the same.
    pub(super) fn rules(self) -> Vec<Ruling> {
        let mut groups: BTreeMap<(Class, Vec<Heard>), (Vec<Peer>, RuleEvidence)> = BTreeMap::new();
        for (peer, spoken) in self.spoken {
            let key = (peer.class(), spoken.keys().copied().collect());
            let (peers, evidence) = groups.entry(key).or_default();
            peers.push(peer);
            spoken.into_values().for_each(|one| add(evidence, one));
        }
        let mut rules = Vec::new();
        for ((class, heard), (mut peers, mut evidence)) in groups {
            if class == Class::Blocks {
                peers = blocks::cover(&peers, &mut evidence.wider);
            }
            rules.push(Ruling { peers, heard, evidence });
        }
        rules
    }
}

fn merge(spoken: &mut Spoken, heard: Heard, evidence: RuleEvidence) {
    add(spoken.entry(heard).or_default(), evidence);
}

fn add(all: &mut RuleEvidence, one: RuleEvidence) {
    all.seen.extend(one.seen);
    for sentence in one.wider {
        if !all.wider.contains(&sentence) {
            all.wider.push(sentence);
        }
    }
}

/// Many ports of those that systems give to who asks for any are said as a range.
fn join_ephemeral(spoken: &mut Spoken) {
    for protocol in [PolicyProtocol::Tcp, PolicyProtocol::Udp, PolicyProtocol::Sctp] {
        let port = |heard: &Heard| match heard {
            Heard::Ports { protocol: own, first, .. } if *own == protocol && *first >= EPHEMERAL => {
                Some(*first)
            }
            _ => None,
        };
        let ports: Vec<u16> = spoken.keys().filter_map(port).collect();
        let (Some(first), Some(last)) = (ports.first().copied(), ports.last().copied()) else { continue };
        if ports.len() <= PORTS_MAX {
            continue;
        }
        let mut joined = RuleEvidence::default();
        for port in &ports {
            if let Some(evidence) = spoken.remove(&Heard::port(protocol, *port)) {
                add(&mut joined, evidence);
            }
        }
        let of_range = usize::from(last - first) + 1;
        if ports.len() < of_range {
            joined
                .wider
                .push(format!("ports {first} to {last}: {} of these {of_range} were seen", ports.len()));
        }
        spoken.insert(Heard::Ports { protocol, first, last }, joined);
    }
}
