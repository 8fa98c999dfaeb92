//! What goes in: the figures of the daemon's parts at one moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hivemind_common::telemetry::{PairCounters, RttHistogram};

use crate::{DnsSample, Durations, Process};

/// An app, by namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AppName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All that a scrape tells, as it is at one moment.
///
/// Traffic is what goes into [`crate::Metrics::observe_traffic`] by itself, too.
///
/// Counters are totals since some beginning of their own; one that is smaller than in the snapshot before is taken to have
/// begun again.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The program's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The apps that exist. What is told of apps is told of these only.
    pub apps: Vec<AppSample>,
    /// Their replicas.
    pub replicas: Vec<ReplicaSample>,
    /// What they sent one another.
    pub traffic: Traffic,
    /// Packets dropped, by the name of the reason.
    pub drops: Vec<Figure>,
    /// The same by whose they were.
    pub end_drops: Vec<EndDropSample>,
    /// The fill of the maps.
    pub maps: Vec<MapSample>,
    /// Events by class.
    pub events: Vec<EventSample>,
    /// The DNS server.
    pub dns: DnsSample,
    /// The store.
    pub store: StoreSample,
    /// The log of flows, if one is kept.
    pub flow_log: Option<FlowLogSample>,
    /// The API.
    pub api: ApiSample,
    /// Network policies by state.
    pub policies: Policies,
    /// All network policies by the data path's number.
    pub policy_names: HashMap<u32, Arc<PolicyName>>,
    /// What their rules decided.
    pub verdicts: Vec<VerdictSample>,
    /// How long they took to come into force.
    pub policy_times: PolicyTimes,
    /// What is wrong, by code, of a fixed set; without zeros.
    pub problems: Vec<Figure>,
    /// The cluster's nodes, if this one knows how they are: the server does.
    pub nodes: Vec<NodeSample>,
    /// Whether this node hears its server; a server hears itself.
    pub connected: bool,
    /// Certificates in use.
    pub certificates: Vec<CertificateSample>,
    /// Where the daemon's data is, if it could be looked at.
    pub disk: Option<DiskSample>,
    /// Whether containerd answers.
    pub containerd: bool,
    /// The daemon's process, if it could be looked at.
    pub process: Option<Process>,
}

/// What the kernel counted, and who is behind the numbers.
///
/// `identities` has to be read after `pairs` and `round_trips`, so that every identity in them that has a name is in it.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// When this is so, since some beginning, by a clock that does not go back.
    pub at: Duration,
    /// The apps of the identities.
    pub identities: HashMap<u32, Arc<AppName>>,
    /// Whether an app exists as long as it has an identity: on a node that is told of identities and not of apps.
    pub apps_by_identity: bool,
    /// What was counted for each pair of identities.
    pub pairs: Vec<PairSample>,
    /// What was counted for pairs that found no room in the kernel.
    pub collective: PairCounters,
    /// What the kernel measured of TCP connections.
    pub round_trips: Vec<RoundTripSample>,
}

/// Packets of one end that were dropped for one reason.
#[derive(Clone, Debug)]
pub struct EndDropSample {
    /// What tells the end from others over all time.
    pub end: String,
    /// Its app; what is no app has an empty namespace: `host`, `outside`.
    pub app: Arc<AppName>,
    /// The name of the reason.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
}

/// A number with a name from a fixed, small set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// What is counted.
    pub name: &'static str,
    /// How many.
    pub value: u64,
}

/// One app.
#[derive(Clone, Debug, Default)]
pub struct AppSample {
    /// Its name.
    pub app: Arc<AppName>,
    /// Replicas that it should have.
    pub wanted: u32,
    /// Replicas that it has.
    pub replicas: u32,
    /// Replicas that are in its service.
    pub ready: u32,
    /// Ports of its containers that are published.
    pub ports: Vec<(Transport, u16)>,
}

/// One replica.
#[derive(Clone, Debug, Default)]
pub struct ReplicaSample {
    /// Unique over all time.
    pub uid: u128,
    /// Its app.
    pub app: Arc<AppName>,
    /// Times that its container was started again.
    pub restarts: u32,
}

/// A transport protocol, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Transport(pub u8);

impl Transport {
    /// TCP.
    pub const TCP: Transport = Transport(6);
    /// UDP.
    pub const UDP: Transport = Transport(17);
}

/// What was counted for connections of one identity to another, to one port, with one verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairSample {
    /// The identity of the end that began.
    pub source: u32,
    /// The identity of the other end.
    pub destination: u32,
    /// The protocol.
    pub protocol: Transport,
    /// The port of the other end; 0 where the protocol has none.
    pub port: u16,
    /// Whether policies let it pass.
    pub allowed: bool,
    /// The counters.
    pub counters: PairCounters,
}

/// What TCP sockets of one identity measured on their connections with another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTripSample {
    /// The identity of the side that measured.
    pub local: u32,
    /// The identity of the other side.
    pub peer: u32,
    /// What it measured.
    pub histogram: RttHistogram,
}

/// The fill of one map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSample {
    /// The map's name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// Events of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventSample {
    /// The class: `new`, `closed`, or the name of a reason to drop.
    pub class: &'static str,
    /// Events that were told.
    pub told: u64,
    /// Events that were not.
    pub lost: u64,
}

/// The store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreSample {
    /// Its newest revision.
    pub revision: u64,
    /// The size of its file.
    pub size_bytes: u64,
    /// Transactions that it did.
    pub writes: u64,
    /// Transactions that it could not make durable.
    pub writes_failed: u64,
    /// Bytes of keys and values in those that it did.
    pub written_bytes: u64,
    /// How many commits took how long.
    pub commits: CommitTimes,
}

/// How many buckets of commits there are.
pub const COMMIT_BUCKETS: usize = 14;

/// How long commits took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitTimes {
    /// How many by length: up to 64 µs, up to 128 µs, and so on, each bound twice the one before; the last has no bound.
    pub buckets: [u64; COMMIT_BUCKETS],
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl CommitTimes {
    /// The buckets with their upper bounds in seconds.
    pub(crate) fn buckets_s(&self) -> [(f64, u64); COMMIT_BUCKETS] {
        let mut bound_us = 64_u64;
        self.buckets.map(|count| {
            let is_last = bound_us == 64 << (COMMIT_BUCKETS - 1);
            let bound_s = if is_last { f64::INFINITY } else { bound_us as f64 / 1e6 };
            bound_us *= 2;
            (bound_s, count)
        })
    }
}

/// The API.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApiSample {
    /// Answered requests by the class of their status, 1xx to 5xx.
    pub requests: [u64; 5],
    /// Watches that go on.
    pub watches: u64,
    /// Watches that were ended because they were not read.
    pub watches_given_up: u64,
    /// Requests with a token, a session or a code that was not valid.
    pub access_failures: u64,
    /// Sessions of browsers that go on.
    pub sessions: u64,
}

/// A network policy, by namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PolicyName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it only tells what it would deny.
    pub is_audit: bool,
}

/// How many connections a rule decided about in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerdictSample {
    /// The number of the rule ([`hivemind_common::policy::rule_parts`]); none: of all rules that found no room in the kernel.
    pub rule: Option<u32>,
    /// Whether it let them pass.
    pub allowed: bool,
    /// Connections; of denied ones, attempts.
    pub connections: u64,
}

/// How long it took until connections were judged as wanted.
#[derive(Clone, Debug, Default)]
pub struct PolicyTimes {
    /// From the moment at which the API took a policy or a change of one.
    pub policies: Durations,
    /// From the moment at which a new replica had to be governed.
    pub replicas: Durations,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSample {
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
}

/// A certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertificateSample {
    /// Whose, of a fixed, small set.
    pub name: &'static str,
    /// When it expires, in seconds since 1970.
    pub expires_s: u64,
}

/// The log of flows on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowLogSample {
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Records that were written since the daemon was started.
    pub records: u64,
    /// Attempts to write that failed since then.
    pub writes_failed: u64,
    /// The beginning of the minute of the oldest record, in seconds since 1970, if there is one.
    pub oldest_s: Option<u64>,
}

/// A file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSample {
    /// Bytes that root may still write.
    pub free_bytes: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// How many network policies are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// The node judges by their last change.
    pub enforced: u64,
    /// Their last change is on its way to the node.
    pub pending: u64,
    /// The node could not put them into effect.
    pub failed: u64,
}
