//! The flags and variables of the daemon, and its configuration file.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use hivemind_model::{ApiError, ErrorCode, Routing};
use ipnet::Ipv4Net;
use serde::Deserialize;

/// The file that is read when none is named.
const CONFIG_FILE: &str = "/etc/hivemind/config.toml";

/// The flags of `hivemind daemon`. Each may also be set by its variable, or by its name without the dashes as a key of the
/// configuration file.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DaemonArgs {
    /// The configuration file (TOML). One that was not named may be missing [default: /etc/hivemind/config.toml]
    #[arg(long, env = "HIVEMIND_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Where state is kept: the store, volumes, logs [default: /var/lib/hivemind]
    #[arg(long, env = "HIVEMIND_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where sockets and network namespaces are kept while the machine is up [default: /run/hivemind]
    #[arg(long, env = "HIVEMIND_RUN_DIR", value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// The port of the dashboard and of the API off the socket [default: 4483]
    #[arg(long, env = "HIVEMIND_WEB_PORT", value_name = "PORT")]
    pub(crate) web_port: Option<u16>,
    /// The address of that port; any other than a loopback one is served with TLS only [default: 127.0.0.1]
    #[arg(long, env = "HIVEMIND_WEB_ADDRESS", value_name = "ADDRESS")]
    pub(crate) web_address: Option<IpAddr>,
    /// A further name or address under which that port is asked, for the certificate and against DNS rebinding; may be repeated
    #[arg(long, env = "HIVEMIND_WEB_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) web_host: Vec<String>,
    /// The certificate of that port with those that issued it (PEM) [default: one by an authority of the daemon's own]
    #[arg(long, env = "HIVEMIND_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, env = "HIVEMIND_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve metrics at this address to everyone who can reach it, without a token [default: not at all]
    #[arg(long, env = "HIVEMIND_METRICS_ADDRESS", value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,
    /// At most so many series tell flows by name; what is smaller counts for the app other [default: 10000]
    #[arg(long, env = "HIVEMIND_METRICS_FLOW_SERIES", value_name = "COUNT")]
    pub(crate) metrics_flow_series: Option<u32>,
    /// Series of traffic are told so many seconds longer than their app is there [default: 120]
    #[arg(long, env = "HIVEMIND_METRICS_KEEP_GONE", value_name = "SECONDS")]
    pub(crate) metrics_keep_gone: Option<u64>,
    /// The directory of pinned eBPF maps and links [default: /sys/fs/bpf/hivemind]
    #[arg(long, env = "HIVEMIND_BPFFS", value_name = "DIR")]
    pub(crate) bpffs: Option<PathBuf>,
    /// The cgroup v2 directory whose processes reach services [default: the cgroup v2 mount that is found]
    #[arg(long, env = "HIVEMIND_CGROUP_ROOT", value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// containerd's socket; if nothing answers there, a private containerd is started [default: /run/containerd/containerd.sock]
    #[arg(long, env = "HIVEMIND_CONTAINERD_SOCKET", value_name = "PATH")]
    pub(crate) containerd_socket: Option<PathBuf>,
    /// The containerd namespace of our containers [default: hivemind]
    #[arg(long, env = "HIVEMIND_CONTAINERD_NAMESPACE", value_name = "NAME")]
    pub(crate) containerd_namespace: Option<String>,
    /// The snapshotter that containerd uses [default: overlayfs]
    #[arg(long, env = "HIVEMIND_SNAPSHOTTER", value_name = "NAME")]
    pub(crate) snapshotter: Option<String>,
    /// This node's name [default: the host's name]
    #[arg(long, env = "HIVEMIND_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The addresses of replicas; each node takes a /24 of it [default: 10.200.0.0/14]
    #[arg(long, env = "HIVEMIND_REPLICA_RANGE", value_name = "CIDR")]
    pub(crate) replica_range: Option<Ipv4Net>,
    /// The addresses of services [default: 10.204.0.0/16]
    #[arg(long, env = "HIVEMIND_SERVICE_RANGE", value_name = "CIDR")]
    pub(crate) service_range: Option<Ipv4Net>,
    /// The IPv4 address at which replicas ask for names [default: 169.254.20.10]
    #[arg(long, env = "HIVEMIND_DNS_ADDRESS", value_name = "ADDRESS")]
    pub(crate) dns_address: Option<Ipv4Addr>,
    /// The IPv6 address at which replicas ask for names [default: fd00:20::10]
    #[arg(long, env = "HIVEMIND_DNS_ADDRESS_V6", value_name = "ADDRESS")]
    pub(crate) dns_address_v6: Option<Ipv6Addr>,
    /// A server for all other names, ADDRESS or ADDRESS:PORT; may be repeated [default: those of /etc/resolv.conf]
    #[arg(long, env = "HIVEMIND_DNS_UPSTREAM", value_name = "ADDRESS[:PORT]", value_delimiter = ',')]
    pub(crate) dns_upstream: Vec<String>,
    /// The domain of services' names [default: hivemind.internal]
    #[arg(long, env = "HIVEMIND_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// A registry that is spoken to without TLS; may be repeated
    #[arg(long, env = "HIVEMIND_INSECURE_REGISTRY", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub(crate) insecure_registry: Vec<String>,
    /// A mirror that is asked before the registry itself, as docker.io=http://127.0.0.1:5000; may be repeated
    #[arg(long, env = "HIVEMIND_REGISTRY_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',')]
    pub(crate) registry_mirror: Vec<String>,
    /// The MTU of replicas' interfaces, 1280 to 65535 [default: that of the default route's interface, less 50]
    #[arg(long, env = "HIVEMIND_MTU", value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Destinations that replicas reach under their own addresses, since they know the way back; may be repeated [default: none:
    /// to the outside replicas have the node's address]
    #[arg(long, env = "HIVEMIND_MASQUERADE_EXCEPT", value_name = "BLOCK", value_delimiter = ',')]
    pub(crate) masquerade_except: Vec<String>,
    /// The ports of the node's addresses that connections of replicas to the outside get [default: 61000-65535]
    #[arg(long, env = "HIVEMIND_MASQUERADE_PORTS", value_name = "FIRST-LAST")]
    pub(crate) masquerade_ports: Option<String>,
    /// Join the cluster of the server at this address, with --token; once it has joined, a node does not need it any more
    #[arg(long, env = "HIVEMIND_JOIN", value_name = "ADDRESS[:PORT]", requires = "token")]
    #[serde(skip)]
    pub(crate) join: Option<String>,
    /// The join token, or @FILE to read it from a file: hivemind node token create makes one on the server
    #[arg(
        long,
        env = "HIVEMIND_JOIN_TOKEN",
        value_name = "TOKEN",
        requires = "join",
        hide_env_values = true
    )]
    #[serde(skip)]
    pub(crate) token: Option<String>,
    /// The IPv4 address at which other nodes reach this one [default: the one that leads to the others]
    #[arg(long, env = "HIVEMIND_CLUSTER_ADDRESS", value_name = "ADDRESS")]
    pub(crate) cluster_address: Option<IpAddr>,
    /// The port that nodes have for one another, TCP and UDP, the same on all nodes [default: 4484]
    #[arg(long, env = "HIVEMIND_NODE_PORT", value_name = "PORT")]
    pub(crate) node_port: Option<u16>,
    /// How packets get from node to node; the server says it for the whole cluster [default: overlay]
    #[arg(long, env = "HIVEMIND_ROUTING", value_name = "MODE", value_enum)]
    pub(crate) routing: Option<RoutingMode>,
    /// After how many seconds without a sign of life of a node its replicas are started on others, 1 to 3600 [default: 30]
    #[arg(long, env = "HIVEMIND_NODE_GRACE", value_name = "SECONDS")]
    pub(crate) node_grace: Option<u64>,
    /// How much of the flows by minute is kept on disk, in MB, 1 to 65536, or 0 for none; the oldest go first [default: 64]
    #[arg(long, env = "HIVEMIND_FLOW_LOG_SIZE", value_name = "MB")]
    pub(crate) flow_log_size: Option<u64>,
    /// Which parts of the data path's work are done, as a sum of 1 (policy), 2 (tracking) and 4 (telemetry): to measure
    /// what each costs
    #[arg(long, hide = true, value_name = "BITS")]
    #[serde(skip)]
    pub(crate) datapath_features: Option<u32>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,hivemind_dns=debug [default: info]
    #[arg(long, env = "HIVEMIND_LOG_LEVEL", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// The socket of the API [default: api.sock in the run directory]
    #[arg(skip)]
    pub(crate) socket: Option<PathBuf>,
    /// Stop all apps' containers and remove all that Hivemind made on this machine but its data directory, then exit
    #[arg(long)]
    #[serde(skip)]
    pub(crate) teardown: bool,
}

/// How packets get from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoutingMode {
    /// In VXLAN, on UDP port 4789: the network between the nodes sees the nodes' addresses only
    Overlay,
    /// As they are: the network between the nodes has to know the way to each node's replicas
    Direct,
}

impl From<RoutingMode> for Routing {
    fn from(mode: RoutingMode) -> Self {
        match mode {
            RoutingMode::Overlay => Routing::Overlay,
            RoutingMode::Direct => Routing::Direct,
        }
    }
}

impl DaemonArgs {
    /// These, and where they say nothing what the file says that they name.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, or says what nobody understands.
    pub(super) fn with_file(self) -> Result<DaemonArgs, ApiError> {
        let file = match &self.config {
            Some(path) => read_file(path, true)?,
            None => read_file(Path::new(CONFIG_FILE), false)?,
        };
        Ok(self.over(file))
    }

    /// These, and where they say nothing what `other` says.
    pub(super) fn over(self, other: DaemonArgs) -> DaemonArgs {
        let list = |ours: Vec<String>, theirs: Vec<String>| if ours.is_empty() { theirs } else { ours };
        DaemonArgs {
            config: self.config,
            data_dir: self.data_dir.or(other.data_dir),
            run_dir: self.run_dir.or(other.run_dir),
            web_port: self.web_port.or(other.web_port),
            web_address: self.web_address.or(other.web_address),
            web_host: list(self.web_host, other.web_host),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            metrics_address: self.metrics_address.or(other.metrics_address),
            metrics_flow_series: self.metrics_flow_series.or(other.metrics_flow_series),
            metrics_keep_gone: self.metrics_keep_gone.or(other.metrics_keep_gone),
            bpffs: self.bpffs.or(other.bpffs),
            cgroup_root: self.cgroup_root.or(other.cgroup_root),
            containerd_socket: self.containerd_socket.or(other.containerd_socket),
            containerd_namespace: self.containerd_namespace.or(other.containerd_namespace),
            snapshotter: self.snapshotter.or(other.snapshotter),
            node_name: self.node_name.or(other.node_name),
            replica_range: self.replica_range.or(other.replica_range),
            service_range: self.service_range.or(other.service_range),
            dns_address: self.dns_address.or(other.dns_address),
            dns_address_v6: self.dns_address_v6.or(other.dns_address_v6),
            dns_upstream: list(self.dns_upstream, other.dns_upstream),
            cluster_domain: self.cluster_domain.or(other.cluster_domain),
            insecure_registry: list(self.insecure_registry, other.insecure_registry),
            registry_mirror: list(self.registry_mirror, other.registry_mirror),
            mtu: self.mtu.or(other.mtu),
            masquerade_except: list(self.masquerade_except, other.masquerade_except),
            masquerade_ports: self.masquerade_ports.or(other.masquerade_ports),
            join: self.join.or(other.join),
            token: self.token.or(other.token),
            cluster_address: self.cluster_address.or(other.cluster_address),
            node_port: self.node_port.or(other.node_port),
            routing: self.routing.or(other.routing),
            node_grace: self.node_grace.or(other.node_grace),
            flow_log_size: self.flow_log_size.or(other.flow_log_size),
            datapath_features: self.datapath_features.or(other.datapath_features),
            log_level: self.log_level.or(other.log_level),
            socket: self.socket.or(other.socket),
            teardown: self.teardown,
        }
    }
}

fn read_file(path: &Path, must_exist: bool) -> Result<DaemonArgs, ApiError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(DaemonArgs::default());
        }
        Err(error) => {
            let message = format!("the configuration {} cannot be read: {error}", path.display());
            return Err(
                ApiError::new(ErrorCode::InvalidConfig, message, "name an existing file").at("--config")
            );
        }
    };
    parse_file(&text).map_err(|error| error.at(path.display().to_string()))
}

pub(super) fn parse_file(text: &str) -> Result<DaemonArgs, ApiError> {
    toml::from_str(text).map_err(|error| {
        let hint = "keys are the daemon's flags without the dashes; see `hivemind daemon --help`";
        ApiError::new(ErrorCode::InvalidConfig, error.to_string().trim_end().to_owned(), hint)
    })
}
