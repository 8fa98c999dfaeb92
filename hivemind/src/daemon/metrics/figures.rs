//! The figures of the daemon's parts, gathered for a scrape.

mod dns;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use hivemind_agent::{Agent, FlowLogStatistics, GoneIdentity, Times};
use hivemind_api::{ClusterAccess, Statistics as ApiStatistics};
use hivemind_common::telemetry::{PairCounters, RttHistogram};
use hivemind_datapath::{
    Datapath, EndpointDrops, PairStatistics, PairTotals, RoundTripStatistics, Statistics, VerdictStatistics,
    Whose,
};
use hivemind_dns::DnsServer;
use hivemind_model::{
    ApiError, App, ClusterMember, Identity, NetworkPolicy, NodeState, Problem, Protocol, Replica,
};
use hivemind_observe::{
    ApiSample, AppName, AppSample, CertificateSample, CommitTimes, DiskSample, Durations, EndDropSample,
    EventSample, Figure, FlowLogSample, MapSample, NodeSample, PairSample, Policies, PolicyName, PolicyTimes,
    Process, ReplicaSample, RoundTripSample, Snapshot, StoreSample, Traffic, Transport, VerdictSample,
};
use hivemind_store::{Objects, Statistics as StoreStatistics};
use tracing::debug;

use crate::daemon::{
    certificates::Shown,
    cluster::open::NodeTls,
    fault,
    problems::{self, Seen},
};

/// From when on the time of snapshots is told.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the certificates in use are known by.
pub(crate) struct Sources {
    /// The TLS between nodes.
    pub(crate) nodes: Arc<NodeTls>,
    /// The web port's, if it has one.
    pub(crate) web: Option<Shown>,
    /// The store's file.
    pub(crate) store: PathBuf,
}

/// Where figures come from.
pub(crate) struct Figures {
    pub(crate) agent: Arc<Agent>,
    pub(crate) objects: Objects,
    /// Stops before what asks it.
    pub(crate) dns: Weak<DnsServer>,
    pub(crate) cluster: Arc<dyn ClusterAccess>,
    pub(crate) sources: Sources,
    pub(crate) data_dir: PathBuf,
    pub(crate) node: String,
}

impl Figures {
    /// All figures as they are now.
    ///
    /// # Errors
    /// When the data path's maps or the store cannot be read.
    pub(crate) async fn gather(&self, api: ApiStatistics) -> Result<Snapshot, ApiError> {
        // Before identities, so that those that it speaks of are among them.
        let statistics = self.agent.datapath_statistics().await?;
        let identities = self.objects.list::<Identity>(None).await?.items;
        let apps = self.objects.list::<App>(None).await?.items;
        let replicas = self.objects.list::<Replica>(None).await?.items;
        let policies = self.objects.list::<NetworkPolicy>(None).await?.items;
        let revision = self.objects.store().revision().await;
        let revision = revision.map_err(|error| fault::store(&error, &self.data_dir))?.0;
        let file = tokio::fs::metadata(&self.sources.store).await;
        let cluster = self.cluster.status().await?;
        let times = self.agent.policy_times();
        let containerd = self.agent.containerd_version().await.is_some();
        let process = tokio::task::spawn_blocking(Process::read).await.map_err(std::io::Error::other);
        let process = process.flatten().inspect_err(|error| debug!(%error, "/proc cannot be read")).ok();
        let mut snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            apps: apps.iter().map(app).collect(),
            replicas: replicas.iter().map(replica).collect(),
            store: store(revision, file.map_or(0, |file| file.len()), self.objects.store().statistics()),
            api: api_sample(api),
            policies: states(&policies),
            policy_names: policy_names(policies),
            policy_times: PolicyTimes {
                policies: durations(&times.policies),
                replicas: durations(&times.replicas),
            },
            problems: problems(problems::all(Seen {
                apps: &apps,
                containerd,
                maps: &statistics.maps,
                heaviest: &[],
                losses: self.agent.flow_losses(),
                flow_log: self.agent.flow_log(),
                cluster: cluster.problems,
            })),
            nodes: if cluster.server {
                cluster.members.into_iter().filter_map(node).collect()
            } else {
                Vec::new()
            },
            connected: cluster.connected,
            flow_log: self.agent.flow_log().map(flow_log),
            certificates: self.sources.certificates(),
            disk: disk(&self.data_dir),
            containerd,
            process,
            ..Snapshot::default()
        };
        if let Some(dns) = self.dns.upgrade() {
            snapshot.dns = dns::sample(dns.statistics());
        }
        snapshot.end_drops = end_drops(&statistics, &replicas);
        add_datapath(&mut snapshot, statistics, names(identities));
        Ok(snapshot)
    }
}

/// What the kernel counted until now, with the apps that exist: also for identities that are no more, and are named in `gone`.
///
/// # Errors
/// When the data path's maps or the store cannot be read.
pub(crate) async fn last_traffic(
    datapath: &Datapath,
    objects: &Objects,
    gone: Vec<GoneIdentity>,
) -> Result<(Vec<AppSample>, Traffic), ApiError> {
    let statistics = datapath.statistics().await.map_err(|error| hivemind_agent::explain_datapath(&error))?;
    let mut identities = names(objects.list::<Identity>(None).await?.items);
    identities.extend(gone.iter().map(|gone| (gone.number, name(&gone.namespace, &gone.app))));
    let apps = objects.list::<App>(None).await?.items;
    Ok((apps.iter().map(app).collect(), traffic(&statistics, identities, apps.is_empty())))
}

fn name(namespace: &str, name: &str) -> Arc<AppName> {
    Arc::new(AppName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn names(identities: Vec<Identity>) -> HashMap<u32, Arc<AppName>> {
    let named = |Identity { spec, .. }| (spec.number, name(&spec.namespace, &spec.app));
    identities.into_iter().map(named).collect()
}

fn app(app: &App) -> AppSample {
    let transport = |protocol| match protocol {
        Protocol::Tcp => Transport::TCP,
        Protocol::Udp => Transport::UDP,
    };
    AppSample {
        app: name(&app.metadata.namespace, &app.metadata.name),
        // What has ended well is not wanted any more.
        wanted: app.spec.replicas.saturating_sub(app.status.succeeded_replicas),
        replicas: app.status.replicas,
        ready: app.status.ready_replicas,
        ports: app.published().map(|port| (transport(port.protocol), port.container_port)).collect(),
    }
}

fn replica(replica: &Replica) -> ReplicaSample {
    ReplicaSample {
        uid: replica.metadata.uid.as_u128(),
        app: name(&replica.metadata.namespace, &replica.spec.app),
        restarts: replica.status.restarts,
    }
}

/// How many problems there are of each code.
fn problems(all: Vec<Problem>) -> Vec<Figure> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for problem in all {
        *counts.entry(problem.code.as_str()).or_default() += 1;
    }
    counts.into_iter().map(|(name, value)| Figure { name, value }).collect()
}

fn policy_names(policies: Vec<NetworkPolicy>) -> HashMap<u32, Arc<PolicyName>> {
    let named = |NetworkPolicy { metadata, status, spec }| {
        let is_audit = spec.is_audit();
        (status.number, Arc::new(PolicyName { namespace: metadata.namespace, name: metadata.name, is_audit }))
    };
    policies.into_iter().map(named).collect()
}

fn durations(times: &Times) -> Durations {
    let buckets = Times::bounds_s().into_iter().zip(times.buckets);
    Durations { buckets: buckets.collect(), sum_s: times.sum.as_secs_f64() }
}

/// A node that is of the cluster; none if it left.
fn node(member: ClusterMember) -> Option<NodeSample> {
    let is_up = member.state == NodeState::Ready;
    (member.state != NodeState::Left).then_some(NodeSample { name: member.name, up: is_up })
}

impl Sources {
    fn certificates(&self) -> Vec<CertificateSample> {
        let (node, authority) = self.nodes.expire_at();
        let web = self.web.as_ref().and_then(Shown::expires_at);
        let all = [("node", Some(node)), ("authority", authority), ("web", web)];
        let sample = |(name, at): (_, Option<SystemTime>)| {
            let expires_s = at?.duration_since(UNIX_EPOCH).ok()?.as_secs();
            Some(CertificateSample { name, expires_s })
        };
        all.into_iter().filter_map(sample).collect()
    }
}

fn flow_log(log: FlowLogStatistics) -> FlowLogSample {
    let FlowLogStatistics { size_bytes, records, failures, oldest, is_failing: _ } = log;
    let oldest_s = oldest.and_then(|minute| u64::try_from(minute.as_second()).ok());
    FlowLogSample { size_bytes, records, writes_failed: failures, oldest_s }
}

fn disk(directory: &Path) -> Option<DiskSample> {
    let found = nix::sys::statvfs::statvfs(directory);
    let found =
        found.inspect_err(|error| debug!(%error, "The data's file system cannot be looked at")).ok()?;
    Some(DiskSample {
        free_bytes: found.blocks_free() * found.fragment_size(),
        size_bytes: found.blocks() * found.fragment_size(),
    })
}

fn states(policies: &[NetworkPolicy]) -> Policies {
    let mut states = Policies::default();
    for policy in policies {
        let state = if policy.status.problem.is_some() {
            &mut states.failed
        } else if policy.status.enforced_generation == policy.metadata.generation {
            &mut states.enforced
        } else {
            &mut states.pending
        };
        *state += 1;
    }
    states
}

fn store(revision: u64, size_bytes: u64, counted: StoreStatistics) -> StoreSample {
    StoreSample {
        revision,
        size_bytes,
        writes: counted.transactions,
        writes_failed: counted.transactions_failed,
        written_bytes: counted.written_bytes,
        commits: CommitTimes { buckets: counted.commits, sum_us: counted.commits_us },
    }
}

fn api_sample(counted: ApiStatistics) -> ApiSample {
    let ApiStatistics { requests, watches, watches_given_up, access_failures, sessions } = counted;
    ApiSample { requests, watches, watches_given_up, access_failures, sessions }
}

/// What the kernel counted. Without an app, this is a node that joined, which is told of identities and not of apps; or else
/// there are no identities for long either.
fn traffic(
    statistics: &Statistics,
    identities: HashMap<u32, Arc<AppName>>,
    is_without_apps: bool,
) -> Traffic {
    Traffic {
        at: BEGAN.elapsed(),
        identities,
        apps_by_identity: is_without_apps,
        pairs: statistics.pairs.iter().map(pair).collect(),
        collective: counters(&statistics.other_pairs),
        round_trips: round_trips(&statistics.round_trips),
    }
}

fn add_datapath(snapshot: &mut Snapshot, statistics: Statistics, identities: HashMap<u32, Arc<AppName>>) {
    snapshot.traffic = traffic(&statistics, identities, snapshot.apps.is_empty());
    let Statistics { maps, drops, events, verdicts, .. } = statistics;
    let drops = drops.iter().map(|drop| Figure { name: drop.reason.name(), value: drop.packets });
    snapshot.drops = drops.collect();
    let maps =
        maps.iter().map(|map| MapSample { name: map.name, entries: map.entries, capacity: map.capacity });
    snapshot.maps = maps.collect();
    let events =
        events.iter().map(|events| EventSample { class: events.class, told: events.told, lost: events.lost });
    snapshot.events = events.collect();
    snapshot.verdicts = verdicts.iter().map(verdict).collect();
}

/// Dropped packets by app. What is of a replica that is no object any more is of no app; it is in the totals.
fn end_drops(statistics: &Statistics, replicas: &[Replica]) -> Vec<EndDropSample> {
    let apps: HashMap<_, _> = replicas
        .iter()
        .map(|replica| (replica.metadata.id.as_str(), name(&replica.metadata.namespace, &replica.spec.app)))
        .collect();
    let (host, outside) = (name("", "host"), name("", "outside"));
    let sample = |drop: &EndpointDrops| {
        let (end, app) = match &drop.whose {
            Whose::Endpoint(id) => (id.clone(), Arc::clone(apps.get(id.as_str())?)),
            Whose::Host => ("host".to_owned(), Arc::clone(&host)),
            Whose::Outside => ("outside".to_owned(), Arc::clone(&outside)),
        };
        Some(EndDropSample { end, app, reason: drop.reason.name(), packets: drop.packets })
    };
    statistics.endpoint_drops.iter().filter_map(sample).collect()
}

fn verdict(counted: &VerdictStatistics) -> VerdictSample {
    let VerdictStatistics { rule, allowed, connections } = *counted;
    VerdictSample { rule, allowed, connections }
}

fn pair(pair: &PairStatistics) -> PairSample {
    PairSample {
        source: pair.source,
        destination: pair.destination,
        protocol: Transport(pair.protocol),
        port: pair.port,
        allowed: pair.allowed,
        counters: counters(&pair.totals),
    }
}

fn counters(totals: &PairTotals) -> PairCounters {
    PairCounters { bytes: totals.bytes, packets: totals.packets, connections: totals.connections }
}

/// Round trips by pair of identities, whatever node the other end is on. They come sorted by identities.
fn round_trips(counted: &[RoundTripStatistics]) -> Vec<RoundTripSample> {
    let mut samples: Vec<RoundTripSample> = Vec::with_capacity(counted.len());
    for &RoundTripStatistics { local, peer, node: _, buckets, sum_us, retransmits } in counted {
        match samples.last_mut() {
            Some(last) if (last.local, last.peer) == (local, peer) => {
                for (sum, count) in last.histogram.buckets.iter_mut().zip(buckets) {
                    *sum += count;
                }
                last.histogram.sum_us += sum_us;
                last.histogram.retransmits += retransmits;
            }
            _ => {
                let histogram = RttHistogram { buckets, sum_us, retransmits };
                samples.push(RoundTripSample { local, peer, histogram });
            }
        }
    }
    samples
}
