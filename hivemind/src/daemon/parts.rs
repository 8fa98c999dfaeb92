//! The daemon's parts: started in the order in which they need one another, stopped in the reverse.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hivemind_agent::{Agent, AgentConfig, BeforeForgetting, FlowLogConfig, Zone};
use hivemind_api::{Api, ApiConfig, ClusterAccess, Role, ServiceRanges};
use hivemind_controller::{Controller, ControllerConfig};
use hivemind_datapath::{Datapath, Guarded, MapSizes, Protocol};
use hivemind_dns::DnsServer;
use hivemind_model::{ApiError, ClusterFacts, ErrorCode};
use hivemind_pki::{Authority, NodeIdentity, NodeKey};
use hivemind_runtime::{PrivateContainerd, Registries, Runtime};
use hivemind_store::{Objects, Options, RedbStore, Store};
use hivemind_volume::Volumes;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    access::LocalNode,
    certificates::{Certificates, of_pki, open_authority},
    cluster::{
        access::{Part, Wiring},
        facts::Cluster,
        health, join,
        link::{LOOK_EVERY, Link, State},
        measure,
        membership::{MIRROR, Membership},
        open::{NodeTls, Opener},
        remote::Nodes,
        topology::Topology,
    },
    config::Config,
    fault,
    metrics::{Scrapes, Sources, last_traffic},
    serving::{serve, start_dns},
    sockets::{Inherited, Sockets},
};

/// Where, in the run directory, paths of the machine are mounted while containers that mount them are made.
pub(super) const HOST_PATHS: &str = "host-paths";

/// A daemon that serves.
pub(crate) struct Parts {
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    /// A server's.
    controller: Option<Controller>,
    agent: Arc<Agent>,
    dns: Arc<DnsServer>,
    store: Arc<dyn Store>,
    opener: Arc<Opener>,
    /// What goes on between nodes.
    tasks: JoinSet<()>,
    /// Cancelled when the node has left its cluster: the daemon ends.
    pub(crate) ended: CancellationToken,
}

/// Starts all parts.
///
/// # Errors
/// The first part that does not start; what others made in the kernel or in containerd stays, as after a stop.
pub(crate) async fn start(config: &Config, inherited: Inherited) -> Result<Parts, ApiError> {
    for directory in [&config.data_dir, &config.run_dir] {
        make_directory(directory)?;
    }
    let member = join::membership(config).await?;
    let mut config = config.clone();
    if let Some((membership, _)) = &member {
        membership.apply(&mut config)?;
    }
    let config = &config;
    let mut sockets = tokio::task::block_in_place(|| Sockets::sort_out(inherited, config));
    let store: Arc<dyn Store> = Arc::new(open_store(config, member.is_some()).await?);
    let objects = Objects::new(Arc::clone(&store));
    let (facts, number) = match &member {
        Some((membership, _)) => (membership.facts.clone(), membership.number),
        None => (Cluster::load_or_make(&store, config).await?.facts, 1),
    };
    let ranges = Ranges::of(&facts, number)?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let bond = Bond::of(config, member, &store)?;
    let may_start = bond.may_start(&stop, &mut tasks);

    let (datapath, runtime) = tokio::join!(open_datapath(config, &ranges), start_runtime(config));
    let (datapath, runtime) = (Arc::new(datapath?), Arc::new(runtime?));
    let volumes = Volumes::new(config.data_dir.join("volumes"));
    if let Err(error) = volumes.sweep().await {
        warn!(%error, "Half-made volumes could not be removed");
    }
    let zone = Zone {
        domain: config.cluster_domain.clone(),
        dns: config.dns,
        networks: vec![
            ranges.cluster.0.into(),
            ranges.cluster.1.into(),
            ranges.services.0.into(),
            ranges.services.1.into(),
        ],
    };
    let names = hivemind_agent::names(&objects, &zone).await?;
    let dns = Arc::new(start_dns(config, names, &mut sockets).await?);

    let agent_config = AgentConfig {
        node: config.node_name.clone(),
        replica_ranges: ranges.node,
        zone,
        server: bond.link.is_none(),
        may_start,
        flow_log: FlowLogConfig {
            directory: config.data_dir.join("flows"),
            size_max_bytes: config.flow_log_size_bytes,
        },
        run_dir: config.run_dir.join("replicas"),
        host_path_dir: config.run_dir.join(HOST_PATHS),
    };
    let scrapes = Arc::new(Scrapes::new(config));
    let agent = Agent::start(
        agent_config,
        objects.clone(),
        Arc::clone(&runtime),
        Arc::clone(&datapath),
        volumes,
        Arc::clone(&dns),
        before_forgetting(&scrapes, &datapath, &objects),
    )
    .await?;
    let agent = Arc::new(agent);
    let member_address = bond.member.as_ref().map(|member| member.address);
    let opener =
        Opener::new(config, objects.clone(), Arc::clone(&datapath), Arc::clone(&bond.tls), member_address);
    let ended = CancellationToken::new();
    let topology = Arc::new(Topology::default());
    let controller = bond.start_deciding(config, &objects, &opener, &topology, &stop, &mut tasks);
    bond.start_measuring(config, &agent, &opener, &topology, &stop, &mut tasks);
    let role = bond.role();
    let certificates = config.is_encrypted().then(|| Certificates::open(config)).transpose()?;
    let sources = Sources {
        nodes: Arc::clone(&bond.tls),
        web: certificates.as_ref().map(Certificates::shown),
        store: store_file(config, bond.link.is_some()),
    };
    let part = bond.into_part(&topology);
    let is_server = role == Role::Server;
    let wiring = Wiring::new(config, facts, objects.clone(), Arc::clone(&opener), part, ended.clone());
    let wiring: Arc<dyn ClusterAccess> = Arc::new(wiring);
    let local = LocalNode::new(
        Arc::clone(&agent),
        objects.clone(),
        &dns,
        scrapes,
        Arc::clone(&wiring),
        sources,
        config,
    );
    let node_name = config.node_name.clone();
    let nodes = Nodes::new(
        local,
        node_name.clone(),
        config.node_port,
        objects.clone(),
        Arc::clone(&opener),
        is_server,
    );
    let api = Api::new(ApiConfig {
        node: Arc::new(nodes),
        node_name,
        cluster: wiring,
        role,
        objects,
        service_ranges: ServiceRanges { ipv4: ranges.services.0, ipv6: ranges.services.1 },
        cluster_domain: config.cluster_domain.clone(),
        dns_addresses: vec![config.dns.0.into(), config.dns.1.into()],
        web_url: config.web_url(),
    });
    opener.start(api.clone());
    let servers = serve(config, api, certificates, &mut sockets, &stop).await?;
    Ok(Parts { stop, servers, controller, agent, dns, store, opener, tasks, ended })
}

impl Parts {
    /// Stops serving and detaches: containers, their traffic and the data path go on.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        for server in self.servers {
            let _ = tokio::time::timeout(Duration::from_secs(3), server).await;
        }
        let left = self.ended.is_cancelled();
        self.opener.stop(left).await;
        drop(self.opener);
        while self.tasks.join_next().await.is_some() {}
        if let Some(controller) = self.controller {
            controller.stop().await;
        }
        self.agent.stop().await;
        drop(self.agent);
        if let Ok(dns) = Arc::try_unwrap(self.dns) {
            dns.stop().await;
        }
        if let Err(error) = self.store.close().await {
            warn!(%error, "The store did not close cleanly");
        }
    }
}

/// How long a node that comes back waits to hear what is still its own, before it starts what it was last told.
const HEAR_WITHIN: Duration = Duration::from_secs(10);

/// How this node is bound to a cluster: as its server, or as a member.
struct Bond {
    tls: Arc<NodeTls>,
    authority: Option<Arc<Authority>>,
    member: Option<Membership>,
    link: Option<Arc<Link>>,
}

impl Bond {
    fn of(
        config: &Config,
        member: Option<(Membership, NodeIdentity)>,
        store: &Arc<dyn Store>,
    ) -> Result<Self, ApiError> {
        if let Some((member, identity)) = member {
            let tls = Arc::new(NodeTls::new(&identity)?);
            let link = Link::new(&member, config.data_dir.clone(), Arc::clone(&tls), Arc::clone(store));
            return Ok(Bond { tls, authority: None, member: Some(member), link: Some(link) });
        }
        let authority = Arc::new(open_authority(config)?);
        let tls = Arc::new(NodeTls::new(&own_identity(&authority, &config.node_name)?)?);
        Ok(Bond { tls, authority: Some(authority), member: None, link: None })
    }

    /// When replicas may be started: on a server at once, on a member once it has heard what is its own, or after a while
    /// without. The connection to the server begins.
    fn may_start(&self, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> CancellationToken {
        let token = CancellationToken::new();
        let Some(link) = &self.link else {
            token.cancel();
            return token;
        };
        link.start(stop, tasks);
        let (mut state, given) = (link.state(), token.clone());
        tasks.spawn(async move {
            let heard = state.wait_for(|state| *state == State::Connected);
            if tokio::time::timeout(HEAR_WITHIN, heard).await.is_err() {
                warn!("The server is not heard; replicas are started as this node was last told");
            }
            given.cancel();
        });
        token
    }

    /// What a server does for its cluster: decide, and say how nodes are.
    fn start_deciding(
        &self,
        config: &Config,
        objects: &Objects,
        opener: &Arc<Opener>,
        topology: &Arc<Topology>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Option<Controller> {
        let authority = Arc::clone(self.authority.as_ref()?);
        spawn(tasks, stop, renew_own(authority, config.node_name.clone(), Arc::clone(&self.tls)));
        spawn(tasks, stop, health::keep(objects.clone(), config.node_name.clone(), opener.view()));
        let topology = Arc::clone(topology);
        let measured = Arc::new(move || topology.measured());
        Some(Controller::start(objects.clone(), ControllerConfig { grace: config.node_grace, measured }))
    }

    fn start_measuring(
        &self,
        config: &Config,
        agent: &Arc<Agent>,
        opener: &Arc<Opener>,
        topology: &Arc<Topology>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let (agent, view, node) = (Arc::clone(agent), opener.view(), config.node_name.clone());
        match &self.link {
            Some(link) => {
                let link = Arc::clone(link);
                let tell = move |measured| {
                    let (link, node) = (Arc::clone(&link), node.clone());
                    async move { link.client()?.tell_measurements(&node, &measured).await }
                };
                spawn(tasks, stop, measure::keep(agent, view, tell));
            }
            None => {
                let topology = Arc::clone(topology);
                let tell = move |measured| {
                    topology.take(&node, measured);
                    std::future::ready(Ok(()))
                };
                spawn(tasks, stop, measure::keep(agent, view, tell));
            }
        }
    }

    fn role(&self) -> Role {
        match &self.member {
            None => Role::Server,
            Some(member) => {
                Role::Agent { server: format!("{} ({})", member.server_name, member.server.ip()) }
            }
        }
    }

    fn into_part(self, topology: &Arc<Topology>) -> Part {
        match (self.authority, self.link) {
            (Some(authority), _) => Part::Server { authority, topology: Arc::clone(topology) },
            (None, Some(link)) => Part::Member { link },
            (None, None) => unreachable!("who has no authority is a member"),
        }
    }
}

fn spawn(tasks: &mut JoinSet<()>, stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}

/// Issues a server's certificate anew in time, for ever.
async fn renew_own(authority: Arc<Authority>, name: String, tls: Arc<NodeTls>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if tls.renew_at() > std::time::SystemTime::now() {
            continue;
        }
        match own_identity(&authority, &name).and_then(|identity| tls.replace(&identity)) {
            Ok(()) => info!("The server's certificate for nodes was renewed"),
            Err(error) => {
                warn!(error = error.message, "The server's certificate for nodes is the old one still");
            }
        }
    }
}

/// A server's certificate is issued anew at each start, and lives in memory.
fn own_identity(authority: &Authority, name: &str) -> Result<NodeIdentity, ApiError> {
    let key = NodeKey::generate().map_err(of_pki)?;
    let request = key.signing_request().map_err(of_pki)?;
    let (chain, _) = authority.sign(&request, name, true).map_err(of_pki)?;
    key.with_certificate(&chain).map_err(of_pki)
}

/// The ranges that this node and its cluster use.
pub(crate) struct Ranges {
    pub(crate) node: (Ipv4Net, Ipv6Net),
    pub(crate) cluster: (Ipv4Net, Ipv6Net),
    pub(crate) services: (Ipv4Net, Ipv6Net),
}

impl Ranges {
    /// Those of node `number`.
    pub(crate) fn of(facts: &ClusterFacts, number: u16) -> Result<Self, ApiError> {
        let node = facts.node_ranges(number).ok_or_else(|| {
            let what =
                format!("the range of replicas {} has no place for node {number}", facts.replica_range);
            ApiError::new(ErrorCode::InvalidConfig, what, "give a larger one with --replica-range")
        })?;
        Ok(Ranges { node, cluster: facts.replica_ranges(), services: facts.service_ranges() })
    }
}

/// Takes what was counted for identities that are no more into the metrics.
fn before_forgetting(
    scrapes: &Arc<Scrapes>,
    datapath: &Arc<Datapath>,
    objects: &Objects,
) -> BeforeForgetting {
    let (scrapes, datapath, objects) = (Arc::clone(scrapes), Arc::clone(datapath), objects.clone());
    Arc::new(move |gone| {
        let (scrapes, datapath, objects) = (Arc::clone(&scrapes), Arc::clone(&datapath), objects.clone());
        Box::pin(async move {
            if let Err(error) = scrapes.take_last(last_traffic(&datapath, &objects, gone)).await {
                warn!(%error, "What was counted last for apps that are gone is lost");
            }
        })
    })
}

fn make_directory(path: &Path) -> Result<(), ApiError> {
    let what = || format!("the directory {}", path.display());
    std::fs::create_dir_all(path).map_err(|e| fault::file(&what(), &e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
        .map_err(|e| fault::file(&what(), &e))
}

fn store_file(config: &Config, is_member: bool) -> PathBuf {
    config.data_dir.join(if is_member { MIRROR } else { "store.redb" })
}

/// The store of a server, or the copy that a member has of what concerns it.
pub(crate) async fn open_store(config: &Config, is_member: bool) -> Result<RedbStore, ApiError> {
    let path = store_file(config, is_member);
    RedbStore::open(&path, Options::default()).await.map_err(|e| fault::store(&e, &config.data_dir))
}

pub(crate) fn datapath_config(config: &Config, ranges: &Ranges) -> hivemind_datapath::Config {
    hivemind_datapath::Config {
        name: "hivemind".into(),
        bpffs: config.bpffs.clone(),
        cgroup_root: config.cgroup_root.clone().unwrap_or_else(find_cgroup_root),
        netns_dir: config.run_dir.join("netns"),
        replica_range: ranges.node,
        cluster_range: ranges.cluster,
        service_range: ranges.services,
        dns: config.dns,
        unmasked: config.unmasked.clone(),
        masquerade_ports: config.masquerade_ports,
        guarded: Guarded {
            addresses: hivemind_datapath::Config::METADATA.into(),
            ports: guarded_ports(config),
        },
        mtu: config.mtu,
        collect_interval: hivemind_datapath::Config::COLLECT_INTERVAL,
        features: config.datapath_features,
        sizes: MapSizes::default(),
    }
}

/// The ports of nodes that are not for replicas: those of the API and of nodes among themselves. A policy may name a node's
/// address for one that is to use the API.
fn guarded_ports(config: &Config) -> Vec<(u16, Protocol)> {
    let mut ports = vec![(config.node_port, Protocol::Tcp), (config.node_port, Protocol::Udp)];
    ports.push((hivemind_datapath::OVERLAY_PORT, Protocol::Udp));
    ports.push((config.web.port(), Protocol::Tcp));
    ports.extend(config.metrics.map(|metrics| (metrics.port(), Protocol::Tcp)));
    ports
}

/// The first cgroup v2 mount of this mount namespace; where there is none, the usual place, so that the error names it.
pub(crate) fn find_cgroup_root() -> std::path::PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| path.into())
    });
    found.unwrap_or_else(|| "/sys/fs/cgroup".into())
}

/// The path of our containers' cgroups, below the root of each hierarchy.
pub(crate) fn cgroup_parent(config: &Config) -> String {
    let root = config.cgroup_root.clone().unwrap_or_else(find_cgroup_root);
    let mount = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below = mount.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| root.strip_prefix(path).ok().map(Path::to_path_buf)).flatten()
    });
    let below = below.next_back().unwrap_or_default();
    Path::new("/").join(below).join("hivemind").display().to_string()
}

pub(crate) fn runtime_config(config: &Config) -> Result<hivemind_runtime::Config, ApiError> {
    let program = std::env::current_exe().map_err(|e| fault::file("the program's own path", &e))?;
    Ok(hivemind_runtime::Config {
        socket: config.containerd_socket.clone(),
        namespace: config.containerd_namespace.clone(),
        snapshotter: config.snapshotter.clone(),
        cgroup_parent: cgroup_parent(config),
        run_dir: config.run_dir.join("runtime"),
        log_dir: config.data_dir.join("logs"),
        log_socket: config.run_dir.join("log.sock"),
        program,
        registries: Registries {
            insecure: config.insecure_registries.clone(),
            mirrors: config.registry_mirrors.clone(),
        },
        private: Some(PrivateContainerd {
            root: config.data_dir.join("containerd"),
            state: config.run_dir.join("containerd"),
            binary: "containerd".into(),
        }),
    })
}

async fn open_datapath(config: &Config, ranges: &Ranges) -> Result<Datapath, ApiError> {
    let began = Instant::now();
    let opened = Datapath::open(datapath_config(config, ranges)).await;
    let datapath = opened.map_err(|e| hivemind_agent::explain_datapath(&e))?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(took_ms, "The data path is open");
    Ok(datapath)
}

async fn start_runtime(config: &Config) -> Result<Runtime, ApiError> {
    Runtime::connect(runtime_config(config)?).await.map_err(|e| hivemind_agent::explain_runtime(&e))
}
