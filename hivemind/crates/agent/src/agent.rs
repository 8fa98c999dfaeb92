//! The agent: who it is, what it holds, and the loops that feed its workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hivemind_datapath::{Datapath, Error as DatapathError, NetworkChanges};
use hivemind_dns::DnsServer;
use hivemind_model::{ApiError, ErrorCode, NodeSpec, Replica, WatchKind};
use hivemind_runtime::{ContainerId, Event, Runtime};
use hivemind_store::Objects;
use hivemind_volume::Volumes;

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    addresses::AddressPool,
    fault,
    flows::{FlowLogConfig, Flows},
    node::{self, Told},
    policies::{BeforeForgetting, Policies, PolicyWriter},
    remote,
    services::{ServiceWriter, Services, Zone},
    worker::{OutOfMemory, Worker, release_host_paths, replica_of},
};

/// How long after a failure the agent looks again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How often the node's own addresses are read although nothing was told of them.
const ADDRESSES_EVERY: Duration = Duration::from_secs(60);

/// How long it takes to listen again when listening failed.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How often it is seen whether the node's images are others.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What an agent is told at its start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// This node's name.
    pub node: String,
    /// The addresses of this node's replicas.
    pub replica_ranges: (Ipv4Net, Ipv6Net),
    /// The names of services, and where replicas ask for them.
    pub zone: Zone,
    /// Whether the objects are the cluster's own, rather than a copy of what concerns this node.
    pub server: bool,
    /// Cancelled once replicas that do not run may be started; until then only what runs is looked after. Before a node
    /// that comes back has heard what is still its own, it must not start what runs elsewhere by now.
    pub may_start: CancellationToken,
    /// Where flows are kept, and how much of them.
    pub flow_log: FlowLogConfig,
    /// A directory for replicas' `resolv.conf` and `hosts`, gone at the next boot.
    pub run_dir: PathBuf,
    /// A directory in which paths of the node are mounted while containers that mount them are made. Nobody may ever remove it
    /// with what is in it: that would be the user's.
    pub host_path_dir: PathBuf,
}

/// Why an agent did not start, or an operation on its node failed.
pub type AgentError = ApiError;

/// What all of an agent's tasks share.
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) objects: Objects,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) volumes: Volumes,

    pub(crate) services: Services,
    pub(crate) policies: Policies,
    pub(crate) flows: Flows,
    pub(crate) addresses: Mutex<AddressPool>,
    /// Held by whoever checks the network.
    pub(crate) checking: Arc<tokio::sync::Mutex<()>>,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// The pool of addresses; it is never left half-changed, so a panic elsewhere does not spoil it.
    pub(crate) fn pool(&self) -> std::sync::MutexGuard<'_, AddressPool> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker, as the agent sees it.
struct WorkerHandle {
    replica: watch::Sender<Replica>,
    news: Arc<Notify>,
    /// Counts processes that the kernel killed for want of memory, by container.
    out_of_memory: watch::Sender<OutOfMemory>,
}

/// A running agent. Dropping it ends its tasks; what it made runs on.
pub struct Agent {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Agent {
    /// Registers the node, adopts what runs, and begins to follow the store. Returns when policies, services and names are
    /// written.
    ///
    /// `before_forgetting` is called, and waited for, when identities are gone, before the data path forgets what it counted
    /// for them: the last moment at which that can be read.
    ///
    /// # Errors
    /// When the store cannot be read or written; nothing of what runs was touched.
    pub async fn start(
        config: AgentConfig,
        objects: Objects,
        runtime: Arc<Runtime>,
        datapath: Arc<Datapath>,
        volumes: Volumes,
        dns: Arc<DnsServer>,
        before_forgetting: BeforeForgetting,
    ) -> Result<Self, AgentError> {
        if let Err(error) = release_host_paths(&config.host_path_dir) {
            warn!(%error, "What an earlier daemon had mounted for containers could not be let go");
        }
        let told = told(&runtime, &datapath).await;
        if config.server {
            let spec = NodeSpec {
                number: 1,
                server: true,
                replica_range_v4: config.replica_ranges.0.to_string(),
                replica_range_v6: config.replica_ranges.1.to_string(),
                ..NodeSpec::default()
            };
            node::register(&objects, &config.node, spec, &told).await?;
        }
        let told = match node::tell(&objects, &config.node, &told).await {
            Ok(()) => Some(told),
            // What is known of this node can wait; what runs on it cannot.
            Err(error) if error.code == ErrorCode::DiskFull => None,
            Err(error) => return Err(error),
        };

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let writer = ServiceWriter::new(
            config.node.clone(),
            Arc::clone(&datapath),
            Arc::clone(&dns),
            objects.clone(),
            config.zone.clone(),
        );
        let services = writer.start(stop.clone(), &mut tasks);
        let (dns_v4, dns_v6) = config.zone.dns;
        let flows = Flows::start(
            Arc::clone(&datapath),
            &objects,
            config.node.clone(),
            config.flow_log.clone(),
            &stop,
            &mut tasks,
        );
        let minutes = Arc::clone(&flows.minutes);
        let before_forgetting: BeforeForgetting = Arc::new(move |gone| {
            let (minutes, others) = (Arc::clone(&minutes), before_forgetting(gone));
            Box::pin(async move {
                futures::join!(minutes.count(), others);
            })
        });
        let writer = PolicyWriter::new(
            Arc::clone(&datapath),
            objects.clone(),
            (dns, vec![dns_v4.into(), dns_v6.into()]),
            &config.run_dir,
            before_forgetting,
        );
        let policies = writer.start(config.node.clone(), flows.shared_names(), stop.clone(), &mut tasks);
        let mut pool = AddressPool::new(config.replica_ranges.0, config.replica_ranges.1);
        for endpoint in datapath.endpoints() {
            pool.claim(endpoint.spec.ipv4);
        }
        let shared = Arc::new(Shared {
            config,
            objects,
            runtime,
            datapath,
            volumes,
            services: services.clone(),
            policies: policies.clone(),
            flows,
            addresses: Mutex::new(pool),
            checking: Arc::default(),
            stop,
        });
        tasks.spawn(follow(Arc::clone(&shared)));
        tasks.spawn(refresh_addresses(Arc::clone(&shared)));
        tasks.spawn(keep_telling(Arc::clone(&shared), told));
        let (objects, datapath) = (shared.objects.clone(), Arc::clone(&shared.datapath));
        tasks.spawn(remote::follow(shared.config.node.clone(), objects, datapath, shared.stop.clone()));
        policies.settled().await;
        services.settled().await;
        Ok(Agent { shared, tasks: tokio::sync::Mutex::new(tasks) })
    }

    /// Ends the agent's tasks and waits for them. Containers, traffic and names that were written stay as they are.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().await);
        while tasks.join_next().await.is_some() {}
    }
}

/// Published ports answer on the node's own addresses, and replicas leave under them: which may change at any time. They are
/// read when the kernel tells that something changed.
async fn refresh_addresses(shared: Arc<Shared>) {
    let mut changes = None;
    loop {
        // Before they are read, so that nothing is missed in between.
        let listening = match changes.take() {
            Some(listening) => Ok(listening),
            None => shared.datapath.network_changes(),
        };
        if let Err(error) = shared.datapath.refresh_node_addresses().await {
            warn!(%error, "The node's addresses could not be read");
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            heard = next_change(listening) => changes = heard,
        }
    }
}

/// Waits for a change of the node's network, or until it is to be looked at all the same; returns who listens if it goes on.
async fn next_change(listening: Result<NetworkChanges, DatapathError>) -> Option<NetworkChanges> {
    let heard = match listening {
        Ok(mut changes) => match tokio::time::timeout(ADDRESSES_EVERY, changes.next()).await {
            Ok(Ok(())) | Err(_) => return Some(changes),
            Ok(Err(error)) => error,
        },
        Err(error) => error,
    };
    warn!(error = %heard, "The node does not hear of changes of its network; it looks by itself");
    tokio::time::sleep(LISTEN_AGAIN_AFTER).await;
    None
}

/// What the node tells of itself now.
async fn told(runtime: &Runtime, datapath: &Datapath) -> Told {
    let images = runtime.list_images().await.unwrap_or_default();
    let images = images.into_iter().map(|image| image.reference.to_string()).collect();
    let addresses = datapath.uplink_addresses().unwrap_or_default();
    Told::new(runtime.version().await.unwrap_or_default(), images, addresses)
}

/// Tells what changes of the node itself.
async fn keep_telling(shared: Arc<Shared>, mut last: Option<Told>) {
    let mut every = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let now = told(&shared.runtime, &shared.datapath).await;
        if last.as_ref() == Some(&now) {
            continue;
        }
        match node::tell(&shared.objects, &shared.config.node, &now).await {
            Ok(()) => last = Some(now),
            Err(error) => warn!(%error, "What the node is could not be written; trying again"),
        }
    }
}

/// Keeps a worker for every replica of this node, and passes on what containerd tells.
async fn follow(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let mut workers = JoinSet::new();
    let mut handles = BTreeMap::new();
    let may_start = shared.config.may_start.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = async {
            may_start.cancelled().await;
            follow_forever(&shared, &mut handles, &mut workers).await;
        } => {}
    }
    drop(handles);
    while workers.join_next().await.is_some() {}
}

/// A replica's short id, unique in the cluster, names its endpoint and its containers: namespace and name together can be
/// longer than containerd allows.
pub(crate) fn replica_id(replica: &Replica) -> ContainerId {
    replica.metadata.id.parse().expect("ids are made by us, of letters, digits and one '-'")
}

async fn follow_forever(
    shared: &Arc<Shared>,
    handles: &mut BTreeMap<String, WorkerHandle>,
    workers: &mut JoinSet<String>,
) {
    let mine = |replica: &Replica| replica.spec.node == shared.config.node;
    let mut events = shared.runtime.events();
    let mut first = true;
    loop {
        match shared.objects.list_and_watch::<Replica>(None).await {
            Ok((list, mut watch)) => {
                let replicas: Vec<_> = list.items.into_iter().filter(mine).collect();
                if std::mem::take(&mut first) {
                    remove_strays(shared, replicas.iter().map(replica_id).collect()).await;
                }
                for replica in replicas {
                    tell(shared, handles, workers, replica);
                }
                loop {
                    tokio::select! {
                        event = watch.next() => match event {
                            Ok(event) if mine(&event.object) => match event.kind {
                                WatchKind::Added | WatchKind::Modified => tell(shared, handles, workers, event.object),
                                WatchKind::Deleted => {}
                            },
                            Ok(_) => {}
                            Err(error) => {
                                warn!(%error, "The watch on replicas ended; starting it again");
                                break;
                            }
                        },
                        Some(event) = events.next() => pass_on(event, handles),
                        Some(done) = workers.join_next(), if !workers.is_empty() => match done {
                            Ok(id) => { handles.remove(&id); }
                            Err(error) => warn!(%error, "A replica's worker failed"),
                        },
                    }
                }
            }
            Err(error) => warn!(%error, "Replicas cannot be read from the store; trying again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Tells the worker that an event concerns to look; after a gap in the events, all of them.
fn pass_on(event: Event, handles: &BTreeMap<String, WorkerHandle>) {
    match event {
        Event::Exit { id, .. } => {
            if let Some(handle) = handles.get(replica_of(&id)) {
                handle.news.notify_one();
            }
        }
        Event::Oom { id } => {
            if let Some(handle) = handles.get(replica_of(&id)) {
                handle.out_of_memory.send_modify(|counts| {
                    let count = counts.entry(id).or_default();
                    *count = count.saturating_add(1);
                });
            }
        }
        Event::Connected | Event::Disconnected => {
            handles.values().for_each(|handle| handle.news.notify_one())
        }
    }
}

/// Hands `replica` to its worker, which is started if there is none.
fn tell(
    shared: &Arc<Shared>,
    handles: &mut BTreeMap<String, WorkerHandle>,
    workers: &mut JoinSet<String>,
    replica: Replica,
) {
    let id = replica_id(&replica);
    if let Some(handle) = handles.get(id.as_str()) {
        let concerns_it = |known: &Replica| (known.metadata.is_deleting(), known.spec.identity);
        if concerns_it(&handle.replica.borrow()) != concerns_it(&replica) {
            handle.replica.send_replace(replica);
        }
        return;
    }
    let (sender, receiver) = watch::channel(replica);
    let news = Arc::new(Notify::new());
    let (out_of_memory, oom_counts) = watch::channel(OutOfMemory::new());
    handles.insert(id.to_string(), WorkerHandle { replica: sender, news: Arc::clone(&news), out_of_memory });
    let worker = Worker::new(Arc::clone(shared), id.clone(), receiver, news, oom_counts);
    workers.spawn(async move {
        worker.run().await;
        id.to_string()
    });
}

/// Removes containers and endpoints that belong to no replica: what an earlier daemon did not get to.
async fn remove_strays(shared: &Shared, wanted: BTreeSet<ContainerId>) {
    let is_wanted = |id: &ContainerId| wanted.iter().any(|replica| replica.as_str() == replica_of(id));
    match shared.runtime.list().await {
        Ok(found) => {
            for stray in found.into_iter().filter(|c| !is_wanted(&c.id)) {
                info!(container = %stray.id, "A container that belongs to no replica is removed");
                if let Err(error) = shared.runtime.delete(&stray.id).await {
                    warn!(container = %stray.id, error = fault::with_causes(&error), "It could not be removed");
                }
            }
        }
        Err(error) => warn!(error = fault::with_causes(&error), "Containers cannot be listed"),
    }
    for endpoint in shared.datapath.endpoints() {
        let wanted = wanted.iter().any(|id| id.as_str() == endpoint.spec.id);
        if !wanted && let Err(error) = shared.datapath.remove_endpoint(&endpoint.spec.id).await {
            warn!(endpoint = endpoint.spec.id, %error, "An endpoint that belongs to no replica could not be removed");
        }
    }
}
