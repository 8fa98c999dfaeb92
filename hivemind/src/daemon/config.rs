//! What the daemon was told: flags, then `HIVEMIND_*` variables, then the configuration file, then defaults.

mod args;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hivemind_client::Fingerprint;
use hivemind_model::{ApiError, ErrorCode, Problems, Routing, check_hostname, check_name};
use ipnet::{IpNet, Ipv4Net};

pub(crate) use args::DaemonArgs;

/// More than the kernel can have counters for at its default size.
const FLOW_SERIES_MAX: u32 = 100_000;

/// A server to join, and the token for it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Join {
    /// Host and port, as they were given.
    pub(crate) address: String,
    /// The secret of the token.
    pub(crate) secret: String,
    /// The authority of the cluster.
    pub(crate) authority: Fingerprint,
}

/// The secret stays out of logs.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the daemon runs with: every value is known and valid by itself.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) web: SocketAddr,
    /// Further names and addresses of the web port.
    pub(crate) web_hosts: Vec<String>,
    /// Certificate and key, if they are not the daemon's own.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) metrics_flow_series: u32,
    pub(crate) metrics_keep_gone: Duration,
    pub(crate) bpffs: PathBuf,
    pub(crate) cgroup_root: Option<PathBuf>,
    pub(crate) containerd_socket: PathBuf,
    pub(crate) containerd_namespace: String,
    pub(crate) snapshotter: String,
    pub(crate) node_name: String,
    pub(crate) replica_range: Ipv4Net,
    pub(crate) service_range: Ipv4Net,
    pub(crate) dns: (Ipv4Addr, Ipv6Addr),
    /// `None`: those of `/etc/resolv.conf`.
    pub(crate) dns_upstreams: Option<Vec<SocketAddr>>,
    pub(crate) cluster_domain: String,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: BTreeMap<String, Vec<String>>,
    pub(crate) mtu: Option<u32>,
    /// Destinations to which replicas keep their addresses.
    pub(crate) unmasked: Vec<IpNet>,
    /// First and last.
    pub(crate) masquerade_ports: (u16, u16),
    pub(crate) join: Option<Join>,
    pub(crate) cluster_address: Option<Ipv4Addr>,
    pub(crate) node_port: u16,
    /// `None`: what the cluster has, else the overlay.
    pub(crate) routing: Option<Routing>,
    pub(crate) node_grace: Duration,
    /// Zero: nothing is kept.
    pub(crate) flow_log_size_bytes: u64,
    pub(crate) datapath_features: u32,
    pub(crate) log_level: String,
}

impl Config {
    /// Whether the web port speaks TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        !self.web.ip().is_loopback() || self.tls.is_some()
    }

    /// Where the dashboard is.
    pub(crate) fn web_url(&self) -> String {
        let scheme = if self.is_encrypted() { "https" } else { "http" };
        let port = self.web.port();
        if !self.web.ip().is_unspecified() {
            return format!("{scheme}://{}", self.web);
        }
        let host = self.web_hosts.first().map_or_else(host_name, Clone::clone);
        match host.parse::<IpAddr>() {
            Ok(address) => format!("{scheme}://{}", SocketAddr::new(address, port)),
            Err(_) => format!("{scheme}://{host}:{port}"),
        }
    }

    /// The configuration from `args` and the file that they name.
    ///
    /// # Errors
    /// All faults at once, each with its flag.
    pub(crate) fn load(args: DaemonArgs) -> Result<Self, ApiError> {
        Self::resolve(args.with_file()?)
    }

    fn resolve(args: DaemonArgs) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let run_dir = args.run_dir.unwrap_or_else(|| "/run/hivemind".into());
        let config = Config {
            data_dir: args.data_dir.unwrap_or_else(|| "/var/lib/hivemind".into()),
            socket: args.socket.unwrap_or_else(|| run_dir.join("api.sock")),
            web: SocketAddr::new(
                args.web_address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
                args.web_port.unwrap_or(4483),
            ),
            web_hosts: args.web_host,
            tls: tls(args.tls_cert, args.tls_key, &mut problems),
            metrics: args.metrics_address,
            metrics_flow_series: args.metrics_flow_series.unwrap_or(10_000),
            metrics_keep_gone: Duration::from_secs(args.metrics_keep_gone.unwrap_or(120)),
            bpffs: args.bpffs.unwrap_or_else(|| "/sys/fs/bpf/hivemind".into()),
            cgroup_root: args.cgroup_root,
            containerd_socket: args
                .containerd_socket
                .unwrap_or_else(|| "/run/containerd/containerd.sock".into()),
            containerd_namespace: args.containerd_namespace.unwrap_or_else(|| "hivemind".into()),
            snapshotter: args.snapshotter.unwrap_or_else(|| "overlayfs".into()),
            node_name: args.node_name.unwrap_or_else(host_name),
            replica_range: args.replica_range.unwrap_or_else(|| range([10, 200, 0, 0], 14)),
            service_range: args.service_range.unwrap_or_else(|| range([10, 204, 0, 0], 16)),
            dns: (
                args.dns_address.unwrap_or(Ipv4Addr::new(169, 254, 20, 10)),
                args.dns_address_v6.unwrap_or(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)),
            ),
            dns_upstreams: upstreams(&args.dns_upstream, &mut problems),
            cluster_domain: args.cluster_domain.unwrap_or_else(|| "hivemind.internal".into()),
            insecure_registries: args.insecure_registry,
            registry_mirrors: mirrors(&args.registry_mirror, &mut problems),
            mtu: args.mtu,
            unmasked: blocks(&args.masquerade_except, &mut problems),
            masquerade_ports: masquerade_ports(args.masquerade_ports, &mut problems),
            join: join(args.join, args.token, &mut problems),
            cluster_address: cluster_address(args.cluster_address, &mut problems),
            node_port: args.node_port.unwrap_or(4484),
            routing: args.routing.map(Routing::from),
            node_grace: Duration::from_secs(args.node_grace.unwrap_or(30)),
            flow_log_size_bytes: flow_log_size(args.flow_log_size, &mut problems),
            datapath_features: args.datapath_features.unwrap_or(hivemind_datapath::Config::FEATURES),
            log_level: args.log_level.unwrap_or_else(|| "info".into()),
            run_dir,
        };
        config.check(&mut problems);
        problems.into_result()?;
        Ok(config)
    }

    fn check(&self, problems: &mut Problems) {
        let mut wrong = |flag: &str, message: String, hint: &str| {
            problems.add(ErrorCode::InvalidConfig, flag, message, hint);
        };
        for (flag, path) in
            [("--data-dir", &self.data_dir), ("--run-dir", &self.run_dir), ("--bpffs", &self.bpffs)]
        {
            if !path.is_absolute() {
                wrong(
                    flag,
                    format!("{} is not an absolute path", path.display()),
                    "give a path that begins with /",
                );
            }
        }
        if self.metrics == Some(self.web) {
            wrong("--metrics-address", format!("{} is the web port", self.web), "give another port");
        }
        if self.metrics_flow_series > FLOW_SERIES_MAX {
            let what = format!("{} series are out of range", self.metrics_flow_series);
            wrong("--metrics-flow-series", what, "give 0 to 100000");
        }
        if self.metrics_keep_gone.as_secs() > 86_400 {
            let what = format!("{} s are out of range", self.metrics_keep_gone.as_secs());
            wrong("--metrics-keep-gone", what, "give 0 to 86400 seconds");
        }
        if self.replica_range.prefix_len() > 24 {
            wrong("--replica-range", format!("{} is too small", self.replica_range), "give a /24 or larger");
        }
        if !(12..=24).contains(&self.service_range.prefix_len()) {
            wrong("--service-range", format!("{} does not fit", self.service_range), "give a /12 to a /24");
        }
        if self.replica_range.contains(&self.service_range.network())
            || self.service_range.contains(&self.replica_range.network())
        {
            wrong(
                "--service-range",
                format!("{} overlaps the replicas' {}", self.service_range, self.replica_range),
                "give ranges that do not overlap",
            );
        }
        if let Some(mtu) = self.mtu
            && !(1280..=65_535).contains(&mtu)
        {
            wrong("--mtu", format!("an MTU of {mtu} is out of range"), "give 1280 to 65535 bytes");
        }
        if !(1..=3600).contains(&self.node_grace.as_secs()) {
            let what = format!("a grace of {} s is out of range", self.node_grace.as_secs());
            wrong("--node-grace", what, "give 1 to 3600 seconds");
        }
        if self.node_port == 0 || self.node_port == self.web.port() {
            wrong("--node-port", format!("{} is no port for nodes", self.node_port), "give another port");
        }
        for host in self.web_hosts.iter().filter(|host| host.parse::<IpAddr>().is_err()) {
            check_hostname("--web-host", host, problems);
        }
        check_hostname("--cluster-domain", &self.cluster_domain, problems);
        check_name("--node-name", &self.node_name, 63, problems);
    }
}

/// The size of the log of flows, in bytes.
fn flow_log_size(size_mb: Option<u64>, problems: &mut Problems) -> u64 {
    let size_mb = size_mb.unwrap_or(64);
    if size_mb > 65_536 {
        let what = format!("a log of flows of {size_mb} MB is out of range");
        problems.add(ErrorCode::InvalidConfig, "--flow-log-size", what, "give 1 to 65536 MB, or 0 for none");
    }
    size_mb.saturating_mul(1 << 20)
}

fn range(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(octets.into(), prefix)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if name.is_empty() { "node".into() } else { name }
}

fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    problems: &mut Problems,
) -> Option<(PathBuf, PathBuf)> {
    let (flag, other) = match (&certificate, &key) {
        (Some(_), None) => ("--tls-cert", "--tls-key"),
        (None, Some(_)) => ("--tls-key", "--tls-cert"),
        _ => return certificate.zip(key),
    };
    let what = format!("{flag} without {other}");
    problems.add(ErrorCode::InvalidConfig, flag, what, format!("give {other} too, or neither of them"));
    None
}

/// What a join token begins with; then secret and fingerprint, with an underscore between.
const JOIN_PREFIX: &str = "hmj_";

fn join(address: Option<String>, token: Option<String>, problems: &mut Problems) -> Option<Join> {
    let (address, token) = address.zip(token)?;
    let token = match token.strip_prefix('@') {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("the join token cannot be read from {file}: {error}");
                problems.add(ErrorCode::InvalidConfig, "--token", what, "name a file with the token");
                return None;
            }
        },
        None => token,
    };
    let parts = token.trim().strip_prefix(JOIN_PREFIX).and_then(|rest| rest.split_once('_'));
    let parsed = parts.and_then(|(secret, authority)| Some((secret, authority.parse().ok()?)));
    let Some((secret, authority)) = parsed else {
        let hint = "copy it whole, from hmj_ on, from hivemind node token create on the server";
        problems.add(ErrorCode::InvalidConfig, "--token", "this is no join token", hint);
        return None;
    };
    let address = address.trim_start_matches("https://").trim_end_matches('/').to_owned();
    Some(Join { address, secret: secret.to_owned(), authority })
}

/// How many blocks may be excepted from masquerading.
const UNMASKED_MAX: usize = 256;

/// Blocks of addresses as they were given.
fn blocks(given: &[String], problems: &mut Problems) -> Vec<IpNet> {
    if given.len() > UNMASKED_MAX {
        let message = format!("{} blocks are too many", given.len());
        problems.add(ErrorCode::InvalidConfig, "--masquerade-except", message, "give at most 256");
    }
    let block = |text: &String| {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| format!("{text:?} is no block of addresses"))
    };
    let mut found = Vec::new();
    for text in given {
        match block(text) {
            Ok(block) => found.push(block.trunc()),
            Err(message) => problems.add(
                ErrorCode::InvalidConfig,
                "--masquerade-except",
                message,
                "give an address or a block, such as 192.168.0.0/16",
            ),
        }
    }
    found
}

/// The first and the last port, as they were given.
fn masquerade_ports(given: Option<String>, problems: &mut Problems) -> (u16, u16) {
    let default = hivemind_datapath::Config::MASQUERADE_PORTS;
    let Some(text) = given else { return default };
    let parsed = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        (first >= 1_024 && first <= last).then_some((first, last))
    });
    parsed.unwrap_or_else(|| {
        let message = format!("{text:?} is no range of ports from 1024 on");
        problems.add(
            ErrorCode::InvalidConfig,
            "--masquerade-ports",
            message,
            "give a range such as 61000-65535",
        );
        default
    })
}

fn cluster_address(address: Option<IpAddr>, problems: &mut Problems) -> Option<Ipv4Addr> {
    let what = match address? {
        IpAddr::V4(address) if !address.is_unspecified() && !address.is_loopback() => return Some(address),
        IpAddr::V4(address) => format!("{address} is not an address at which others reach this node"),
        IpAddr::V6(address) => format!("{address}: the network between nodes is IPv4 only for now"),
    };
    let hint = "give an IPv4 address of this machine; replicas have IPv6 addresses all the same";
    problems.add(ErrorCode::InvalidConfig, "--cluster-address", what, hint);
    None
}

fn upstreams(texts: &[String], problems: &mut Problems) -> Option<Vec<SocketAddr>> {
    if texts.is_empty() {
        return None;
    }
    let mut addresses = Vec::new();
    for text in texts {
        let address = text
            .parse::<SocketAddr>()
            .ok()
            .or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)));
        match address {
            Some(address) => addresses.push(address),
            None => problems.add(
                ErrorCode::InvalidConfig,
                "--dns-upstream",
                format!("{text:?} is not an address"),
                "write 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53",
            ),
        }
    }
    Some(addresses)
}

fn mirrors(texts: &[String], problems: &mut Problems) -> BTreeMap<String, Vec<String>> {
    let mut mirrors = BTreeMap::<String, Vec<String>>::new();
    for text in texts {
        match text.split_once('=') {
            Some((registry, url))
                if !registry.is_empty() && (url.starts_with("http://") || url.starts_with("https://")) =>
            {
                mirrors.entry(registry.to_owned()).or_default().push(url.trim_end_matches('/').to_owned());
            }
            _ => problems.add(
                ErrorCode::InvalidConfig,
                "--registry-mirror",
                format!("{text:?} is not a mirror"),
                "write REGISTRY=URL, for example docker.io=http://127.0.0.1:5000",
            ),
        }
    }
    mirrors
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{args::parse_file, *};

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = parse_file("web-port = 3000\nmtu = 1400\ndns-upstream = ['192.0.2.1']").unwrap();
        let args = DaemonArgs { web_port: Some(5000), ..DaemonArgs::default() };
        let config = Config::resolve(args.over(file)).unwrap();
        assert_eq!((config.web.port(), config.mtu), (5000, Some(1400)));
        assert_eq!(config.dns_upstreams, Some(vec!["192.0.2.1:53".parse().unwrap()]));
        assert_eq!(config.socket, Path::new("/run/hivemind/api.sock"));
    }

    #[test]
    fn a_misspelt_key_is_told_with_its_line() {
        let error = parse_file("web-port = 3000\nweb-prot = 3000\n").unwrap_err();
        assert!(error.message.contains("web-prot") && error.message.contains("line 2"), "{}", error.message);
    }

    #[test]
    fn all_faults_of_the_configuration_are_told_at_once() {
        let args = DaemonArgs {
            data_dir: Some("relative".into()),
            web_host: vec!["a b".into()],
            tls_key: Some("/key".into()),
            metrics_address: Some("127.0.0.1:4483".parse().unwrap()),
            metrics_flow_series: Some(100_001),
            metrics_keep_gone: Some(86_401),
            replica_range: Some("10.204.0.0/15".parse().unwrap()),
            dns_upstream: vec!["nonsense".into()],
            registry_mirror: vec!["docker.io".into()],
            mtu: Some(100),
            ..DaemonArgs::default()
        };
        let error = Config::resolve(args).unwrap_err();
        let flags: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            flags,
            [
                "--tls-key",
                "--dns-upstream",
                "--registry-mirror",
                "--data-dir",
                "--metrics-address",
                "--metrics-flow-series",
                "--metrics-keep-gone",
                "--service-range",
                "--mtu",
                "--web-host"
            ]
        );
    }

    #[test]
    fn every_address_but_a_loopback_one_is_served_with_tls() {
        let config = |address: &str| {
            let web_address = Some(address.parse().unwrap());
            let web_host = vec!["node-1.example.com".into()];
            Config::resolve(DaemonArgs { web_address, web_host, ..DaemonArgs::default() }).unwrap()
        };
        for (address, url) in [
            ("127.0.0.1", "http://127.0.0.1:4483"),
            ("::1", "http://[::1]:4483"),
            ("192.0.2.1", "https://192.0.2.1:4483"),
            ("0.0.0.0", "https://node-1.example.com:4483"),
            ("::", "https://node-1.example.com:4483"),
        ] {
            assert_eq!(config(address).web_url(), url, "{address}");
        }
    }

    #[test]
    fn mirrors_of_one_registry_keep_their_order() {
        let mut problems = Problems::default();
        let texts = ["docker.io=http://a:5000/".to_owned(), "docker.io=https://b".to_owned()];
        let mirrors = mirrors(&texts, &mut problems);
        assert_eq!(mirrors["docker.io"], ["http://a:5000", "https://b"]);
        assert!(problems.is_empty());
    }
}
