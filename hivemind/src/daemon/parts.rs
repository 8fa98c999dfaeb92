//! The daemon's parts: started in the order in which they need one another, stopped in the reverse.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hivemind_agent::{Agent, AgentConfig, BeforeForgetting, Zone};
use hivemind_api::{Api, ApiConfig, ServiceRanges};
use hivemind_controller::Controller;
use hivemind_datapath::{Datapath, MapSizes};
use hivemind_dns::{DnsServer, Records};
use hivemind_model::{ApiError, ErrorCode};
use hivemind_runtime::{PrivateContainerd, Registries, Runtime};
use hivemind_store::{Objects, Options, RedbStore, Store};
use hivemind_volume::Volumes;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    access::LocalNode,
    certificates::{self, Certificates},
    cluster::Cluster,
    config::Config,
    fault,
    metrics::{Scrapes, last_traffic},
};

/// A daemon that serves.
pub(crate) struct Parts {
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    controller: Controller,
    agent: Arc<Agent>,
    dns: Arc<DnsServer>,
    store: Arc<dyn Store>,
}

/// Starts all parts.
///
/// # Errors
/// The first part that does not start; what others made in the kernel or in containerd stays, as after a stop.
pub(crate) async fn start(config: &Config) -> Result<Parts, ApiError> {
    for directory in [&config.data_dir, &config.run_dir] {
        make_directory(directory)?;
    }
    let store: Arc<dyn Store> = Arc::new(open_store(config).await?);
    let objects = Objects::new(Arc::clone(&store));
    let cluster = Cluster::load_or_make(&store).await?;
    let ranges = Ranges::of(config, &cluster)?;

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
    let dns = Arc::new(start_dns(config, names).await?);

    let agent_config = AgentConfig {
        node: config.node_name.clone(),
        replica_ranges: ranges.node,
        zone,
        run_dir: config.run_dir.join("replicas"),
    };
    let scrapes = Arc::new(Scrapes::new());
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
    let controller = Controller::start(objects.clone());
    let stop = CancellationToken::new();
    let api = Api::new(ApiConfig {
        node: Arc::new(LocalNode::new(Arc::clone(&agent), objects.clone(), &dns, scrapes, config)),
        objects,
        service_ranges: ServiceRanges { ipv4: ranges.services.0, ipv6: ranges.services.1 },
        cluster_domain: config.cluster_domain.clone(),
        dns_addresses: vec![config.dns.0.into(), config.dns.1.into()],
        web_url: config.web_url(),
    });
    let servers = serve(config, api, &stop).await?;
    Ok(Parts { stop, servers, controller, agent, dns, store })
}

impl Parts {
    /// Stops serving and detaches: containers, their traffic and the data path go on.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for server in self.servers {
            let _ = tokio::time::timeout(Duration::from_secs(3), server).await;
        }
        self.controller.stop().await;
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

/// The ranges that this node and its cluster use.
pub(crate) struct Ranges {
    pub(crate) node: (Ipv4Net, Ipv6Net),
    pub(crate) cluster: (Ipv4Net, Ipv6Net),
    pub(crate) services: (Ipv4Net, Ipv6Net),
}

impl Ranges {
    /// The node is the first of its cluster: it takes the first /24 and the second /64; the first holds services.
    pub(crate) fn of(config: &Config, cluster: &Cluster) -> Result<Self, ApiError> {
        let invalid = |e: ipnet::PrefixLenError| ApiError::new(ErrorCode::InvalidConfig, e.to_string(), "");
        let prefix = cluster.ula_prefix;
        let subnet = |number: u16| {
            let mut segments = prefix.segments();
            segments[3] = number;
            Ipv6Addr::from(segments)
        };
        Ok(Ranges {
            node: (
                Ipv4Net::new(config.replica_range.network(), 24).map_err(invalid)?,
                Ipv6Net::new(subnet(1), 64).map_err(invalid)?,
            ),
            cluster: (config.replica_range, Ipv6Net::new(prefix, 48).map_err(invalid)?),
            services: (config.service_range, Ipv6Net::new(subnet(0), 112).map_err(invalid)?),
        })
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

pub(crate) async fn open_store(config: &Config) -> Result<RedbStore, ApiError> {
    let path = config.data_dir.join("store.redb");
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
        mtu: config.mtu,
        collect_interval: hivemind_datapath::Config::COLLECT_INTERVAL,
        features: config.datapath_features,
        sizes: MapSizes::default(),
    }
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

async fn start_dns(config: &Config, names: Records) -> Result<DnsServer, ApiError> {
    let own = [config.dns.0.into(), config.dns.1.into()];
    let listen = own.map(|address| SocketAddr::new(address, 53));
    let upstreams = match &config.dns_upstreams {
        Some(upstreams) => upstreams.clone(),
        None => hivemind_dns::upstreams_from_resolv_conf(Path::new("/etc/resolv.conf"), &own).unwrap_or_else(
            |error| {
                warn!(%error, "/etc/resolv.conf names no servers; only our own names resolve");
                Vec::new()
            },
        ),
    };
    let dns = hivemind_dns::Config {
        listen: listen.to_vec(),
        domain: config.cluster_domain.clone(),
        upstreams,
        ..hivemind_dns::Config::default()
    };
    DnsServer::start(dns, names).await.map_err(|error| {
        ApiError::new(
            ErrorCode::AddressInUse,
            format!("the DNS server does not start: {error}"),
            "another program answers there; give others with --dns-address and --dns-address-v6",
        )
    })
}

/// The API on its socket and on the web port, and metrics on a port of their own if that is wanted.
async fn serve(config: &Config, api: Api, stop: &CancellationToken) -> Result<Vec<JoinHandle<()>>, ApiError> {
    let unix = listen_unix(&config.socket)?;
    let tcp = TcpListener::bind(config.web).await.map_err(|error| {
        let mut fault = fault::file(&format!("the web port {}", config.web), &error);
        if fault.code == ErrorCode::AddressInUse {
            fault.hint = "choose another with --web-port, or stop what uses it".into();
        }
        fault
    })?;
    let mut tasks = vec![tokio::spawn(hivemind_api::serve_unix(unix, api.clone(), stop.clone()))];
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let mut fault = fault::file(&format!("the address of metrics {address}"), &error);
            fault.hint = "choose another with --metrics-address".into();
            fault
        })?;
        info!(%address, "Metrics are served without a token");
        tasks.push(tokio::spawn(hivemind_api::serve_metrics(listener, api.clone(), stop.clone())));
    }
    let hosts = certificates::names(config);
    let mut tls = None;
    if config.is_encrypted() {
        let certificates = Certificates::open(config)?;
        tls = Some(certificates.server_config()?);
        tasks.push(tokio::spawn(certificates.keep(stop.clone())));
    }
    let (web, stop) = (hivemind_api::Web { hosts, tls }, stop.clone());
    tasks.push(tokio::spawn(async move {
        if let Err(error) = hivemind_api::serve_web(tcp, web, api, stop).await {
            warn!(%error, "The web port is not served");
        }
    }));
    Ok(tasks)
}

/// Binds the API's socket for root and the group `hivemind`. The store's lock shows that no other daemon of this data
/// directory lives; a socket that answers belongs to one with another data directory.
fn listen_unix(path: &Path) -> Result<UnixListener, ApiError> {
    let what = format!("the socket {}", path.display());
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(fault::file(&what, &io::Error::from(io::ErrorKind::AddrInUse)));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault::file(&what, &error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| fault::file(&what, &e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(|e| fault::file(&what, &e))?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name("hivemind") {
        nix::unistd::chown(path, None, Some(group.gid)).map_err(|e| fault::file(&what, &e.into()))?;
    }
    Ok(listener)
}
