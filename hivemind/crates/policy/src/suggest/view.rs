//! What was seen of one app.

use std::collections::BTreeMap;

use hivemind_model::{SYSTEM_NAMESPACE, SeenConnections};
use ipnet::IpNet;

use super::peers::{Heard, Peer, Peers};
use crate::{SeenCounts, SeenEnd, SeenPair, domain};

/// The most sentences of one kind.
const SENTENCES_MAX: usize = 32;

/// One app's connections.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) ingress: Peers,
    pub(super) egress: Peers,
    pub(super) told: Told,
}

/// What is told without becoming a rule.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Attempts, by what they were.
    denied: BTreeMap<String, u64>,
    /// Connections that passed and that a policy which only tells would deny, by what they were.
    audited: BTreeMap<String, u64>,
    /// Connections that no rule can mean, by what they were.
    unmeant: BTreeMap<String, u64>,
    /// Connections with addresses that were not told, which began before the records do, by what they were.
    ongoing: BTreeMap<String, Heard>,
    /// Whether the node's own processes were seen to reach it.
    is_reached_by_host: bool,
}

impl View {
    /// Whether it shows nothing that a rule could allow.
    pub(super) fn is_silent(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    pub(super) fn take(&mut self, pair: &SeenPair, counts: &SeenCounts, is_ingress: bool) {
        let other = if is_ingress { &pair.source } else { &pair.destination };
        let way = if is_ingress { "from" } else { "to" };
        let what = || format!("{way} {} on {}", words(other), spoken(pair));
        if counts.denied > 0 {
            add(&mut self.told.denied, what(), counts.denied);
        }
        if !counts.has_passed() {
            return;
        }
        if counts.audited > 0 {
            add(&mut self.told.audited, what(), counts.audited);
        }
        if is_ingress && matches!(other, SeenEnd::Host { .. }) {
            self.told.is_reached_by_host = true;
            return;
        }
        let connections = counts.allowed.saturating_add(counts.audited);
        let (peer, heard) = match (Peer::of(other, is_ingress), Heard::of(&pair.protocol, pair.port)) {
            (Some(peer), Some(heard)) => (peer, heard),
            (None, Some(heard)) if connections == 0 => {
                self.told.ongoing.insert(what(), heard);
                return;
            }
            _ => {
                add(&mut self.told.unmeant, what(), connections);
                return;
            }
        };
        let peers = if is_ingress { &mut self.ingress } else { &mut self.egress };
        if let (Peer::Domain(_), SeenEnd::Outside { block: Some(block), .. }) = (&peer, other) {
            peers.note_name(*block, &peer);
        }
        peers.add(peer, heard, seen(pair, counts, connections));
    }
}

fn add(all: &mut BTreeMap<String, u64>, what: String, number: u64) {
    let sum = all.entry(what).or_default();
    *sum = sum.saturating_add(number);
}

fn seen(pair: &SeenPair, counts: &SeenCounts, connections: u64) -> SeenConnections {
    let (first, last) = counts.passed.unwrap_or((counts.first, counts.last));
    SeenConnections {
        source: words(&pair.source),
        destination: words(&pair.destination),
        protocol: pair.protocol.clone(),
        port: pair.port,
        connections,
        first,
        last,
        nodes: counts.nodes().map(str::to_owned).collect(),
    }
}

impl Told {
    pub(super) fn sentences(&self, ingress: &Peers, egress: &Peers) -> Vec<String> {
        let mut sentences = Vec::new();
        if ingress.is_empty() {
            sentences.push("nothing was seen to come in: nothing is let in".to_owned());
        }
        if !egress.was_seen() {
            let what = "nothing was seen to go out: nothing is let out but questions for names";
            sentences.push(what.to_owned());
        }
        if self.is_reached_by_host {
            let what = "the node's own processes, such as its probes, always reach it and need no rule";
            sentences.push(what.to_owned());
        }
        let unmeant = self.unmeant.iter().map(|(what, connections)| {
            format!(
                "not allowed here, since no rule can mean it exactly: {} {what}; if it is meant, allow it by ipBlock, \
                 domainName or a rule without ports",
                counted(*connections, "connection")
            )
        });
        bounded(unmeant, &mut sentences);
        // Where addresses outside were told for the same port, these most likely were among them.
        let is_missing =
            |(_, heard): &(&String, &Heard)| !ingress.has_outside(heard) && !egress.has_outside(heard);
        let ongoing: Vec<String> = self
            .ongoing
            .iter()
            .filter(is_missing)
            .map(|(what, _)| format!("not allowed here: connections {what} that began before the records do"))
            .collect();
        bounded(ongoing.into_iter(), &mut sentences);
        let denied = self.denied.iter().map(|(what, attempts)| {
            format!("denied, and no reason to allow it: {} {what}", counted(*attempts, "attempt"))
        });
        bounded(denied, &mut sentences);
        let audited = self.audited.iter().map(|(what, connections)| {
            format!(
                "would be denied by a policy that only tells: {} {what}",
                counted(*connections, "connection")
            )
        });
        bounded(audited, &mut sentences);
        sentences
    }
}

fn bounded(said: impl ExactSizeIterator<Item = String>, sentences: &mut Vec<String>) {
    let more = said.len().saturating_sub(SENTENCES_MAX);
    sentences.extend(said.take(SENTENCES_MAX));
    if more > 0 {
        sentences.push(format!("and {more} more like these"));
    }
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `5432/tcp`, or `icmp`.
fn spoken(pair: &SeenPair) -> String {
    match pair.port {
        Some(port) => format!("{port}/{}", pair.protocol),
        None if pair.protocol.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("protocol {}", pair.protocol)
        }
        None => pair.protocol.clone(),
    }
}

fn words(end: &SeenEnd) -> String {
    let block = |block: &IpNet| match block.prefix_len() == block.max_prefix_len() {
        true => block.addr().to_string(),
        false => block.to_string(),
    };
    match end {
        SeenEnd::App { namespace, app } => format!("{namespace}/{app}"),
        SeenEnd::Dns => "dns".to_owned(),
        SeenEnd::Host { .. } => "host".to_owned(),
        SeenEnd::Node { address: Some(address) } => format!("node {}", block(address)),
        SeenEnd::Node { address: None } => "node".to_owned(),
        SeenEnd::Outside { block: Some(address), domain } if domain.is_empty() => block(address),
        SeenEnd::Outside { block: Some(address), domain } => format!("{domain} ({})", block(address)),
        SeenEnd::Outside { block: None, .. } => "addresses outside that were not told".to_owned(),
        SeenEnd::Unknown => "somebody unknown".to_owned(),
    }
}

impl Peer {
    /// How a rule means an end; `None` if none can.
    fn of(end: &SeenEnd, is_ingress: bool) -> Option<Self> {
        Some(match end {
            SeenEnd::App { namespace, app } => Peer::App { namespace: namespace.clone(), app: app.clone() },
            SeenEnd::Dns => Peer::App { namespace: SYSTEM_NAMESPACE.to_owned(), app: "dns".to_owned() },
            SeenEnd::Host { .. } => Peer::Host,
            SeenEnd::Node { .. } => Peer::Node,
            SeenEnd::Outside { block, domain: name } => {
                let block = block.as_ref()?.trunc();
                // A name opens no addresses that are of the machine or its links.
                let name = domain::parse(name).filter(|name| !name.starts_with('*'));
                match name.filter(|_| !is_ingress && !domain::is_internal(block.addr())) {
                    Some(name) => Peer::Domain(name),
                    None => Peer::Block(block),
                }
            }
            SeenEnd::Unknown => return None,
        })
    }
}
