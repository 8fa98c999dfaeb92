//! How much traffic would travel how far.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::snapshot::{ObjectName, Snapshot};

/// What two nodes are taken to be apart when no pair at all was measured, in microseconds.
pub const RTT_DEFAULT_US: u32 = 1_000;

/// An app whose known traffic with placed peers is less than this is placed without regard to it: what is next to nothing
/// should not outweigh the spread.
pub const TRAFFIC_MIN_BYTES_PER_SECOND: u64 = 1_024;

/// Where an app's replicas are, seen from every node.
struct Peer {
    /// Whether the ready ones are meant; else none is ready, and all that are not on their way out are.
    ready: bool,
    /// The positions of their nodes.
    hosts: BTreeSet<usize>,
    count: u64,
    /// By position: how many of `hosts` were measured from there, or are there.
    measured: Vec<u64>,
    /// What the default RTT to every replica sums up to.
    base_us: i128,
    /// By position, what that is wrong by, because an RTT was measured or is 0.
    adjust_us: Vec<i128>,
}

/// See the module. A cost takes a step a peer app, however many replicas that has.
pub(crate) struct Network {
    pub(crate) rtt_default_us: u32,
    /// By position: what was measured, by the other node's position.
    rtt_us: Vec<BTreeMap<usize, u32>>,
    /// Who talks to an app, in bytes per second.
    traffic: HashMap<ObjectName, BTreeMap<ObjectName, u64>>,
    /// Of the apps in `traffic` that have replicas.
    peers: HashMap<ObjectName, Peer>,
}

impl Network {
    pub(crate) fn of(
        snapshot: &Snapshot,
        positions: &HashMap<&str, usize>,
        staying: &[(&ObjectName, usize, bool)],
    ) -> Self {
        let rtt_us = rtt_table(snapshot, positions);
        let rtt_default_us = median(&rtt_us).unwrap_or(RTT_DEFAULT_US);
        let mut traffic: HashMap<ObjectName, BTreeMap<ObjectName, u64>> = HashMap::new();
        let mut add = |a: &ObjectName, b: &ObjectName, bytes: u64| {
            let sum = traffic.entry(a.clone()).or_default().entry(b.clone()).or_default();
            *sum = sum.saturating_add(bytes);
        };
        for pair in &snapshot.traffic {
            add(&pair.apps.0, &pair.apps.1, pair.bytes_per_second);
            if pair.apps.0 != pair.apps.1 {
                add(&pair.apps.1, &pair.apps.0, pair.bytes_per_second);
            }
        }
        let mut network = Network { rtt_default_us, rtt_us, traffic, peers: HashMap::new() };
        for ready in [true, false] {
            for (app, at, _) in staying.iter().filter(|(_, _, r)| *r == ready) {
                network.add(app, *at, ready);
            }
        }
        network
    }

    /// A replica that was only just placed is not ready.
    pub(crate) fn place(&mut self, app: &ObjectName, at: usize) {
        self.add(app, at, false);
    }

    fn add(&mut self, app: &ObjectName, at: usize, ready: bool) {
        if !self.traffic.contains_key(app) {
            return;
        }
        let nodes = self.rtt_us.len();
        let peer = self.peers.entry(app.clone()).or_insert_with(|| Peer {
            ready,
            hosts: BTreeSet::new(),
            count: 0,
            measured: vec![0; nodes],
            base_us: 0,
            adjust_us: vec![0; nodes],
        });
        if peer.ready && !ready {
            return;
        }
        let default_us = i128::from(self.rtt_default_us);
        let new_host = u64::from(peer.hosts.insert(at));
        peer.count += 1;
        peer.base_us += default_us;
        peer.adjust_us[at] -= default_us;
        peer.measured[at] += new_host;
        for (&other, &rtt_us) in &self.rtt_us[at] {
            peer.adjust_us[other] += i128::from(rtt_us) - default_us;
            peer.measured[other] += new_host;
        }
    }

    /// The apps that `app` talks to and that have replicas, with the bytes per second; empty if it is too little.
    fn peers_of(&self, app: &ObjectName) -> Vec<(&Peer, u64)> {
        let Some(traffic) = self.traffic.get(app) else { return Vec::new() };
        let placed: Vec<(&Peer, u64)> =
            traffic.iter().filter_map(|(name, &bytes)| Some((self.peers.get(name)?, bytes))).collect();
        let total = placed.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if total < TRAFFIC_MIN_BYTES_PER_SECOND { Vec::new() } else { placed }
    }

    /// The cost of a replica of `app` at each of `candidates`: bytes/s × µs. `None` if there is no traffic worth it.
    pub(crate) fn costs(&self, app: &ObjectName, candidates: &[usize]) -> Option<Vec<u128>> {
        let peers = self.peers_of(app);
        let cost = |at: usize| {
            peers.iter().fold(0_u128, |sum, (peer, bytes)| {
                let distance_us = (peer.base_us + peer.adjust_us[at]).unsigned_abs();
                sum.saturating_add(distance_us * u128::from(*bytes) / u128::from(peer.count))
            })
        };
        (!peers.is_empty()).then(|| candidates.iter().map(|&at| cost(at)).collect())
    }

    /// How many pairs of a candidate and a node that has a peer's replicas were not measured, counted for each peer.
    pub(crate) fn not_measured(&self, app: &ObjectName, candidates: &[usize]) -> u64 {
        let of_peer = |(peer, _): (&Peer, u64)| {
            let hosts = peer.hosts.len() as u64;
            candidates.iter().map(|&at| hosts - peer.measured[at]).sum::<u64>()
        };
        self.peers_of(app).into_iter().map(of_peer).sum()
    }
}

fn rtt_table(snapshot: &Snapshot, positions: &HashMap<&str, usize>) -> Vec<BTreeMap<usize, u32>> {
    let mut table = vec![BTreeMap::new(); positions.len()];
    for rtt in &snapshot.rtt {
        let at = |name: &String| positions.get(name.as_str()).copied();
        let (Some(a), Some(b)) = (at(&rtt.nodes.0), at(&rtt.nodes.1)) else { continue };
        if a != b {
            for (from, to) in [(a, b), (b, a)] {
                let least = table[from].entry(to).or_insert(rtt.rtt_us);
                *least = rtt.rtt_us.min(*least);
            }
        }
    }
    table
}

/// The lower median of what was measured.
fn median(table: &[BTreeMap<usize, u32>]) -> Option<u32> {
    let mut all: Vec<u32> = table.iter().flat_map(|row| row.values().copied()).collect();
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) / 2).copied()
}
