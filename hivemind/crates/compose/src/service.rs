//! Services.

mod files;

use std::{collections::BTreeMap, net::IpAddr};

use hivemind_model::ErrorCode;

use crate::{
    build::Build,
    command::{Command, Healthcheck, Hook},
    deploy::{Deploy, Replicas},
    device::{Blkio, Device, Gpus, Logging, Ulimit},
    grant::Grants,
    host::ExtraHosts,
    mount::Mounts,
    network::Attachment,
    port::{Expose, Ports},
    print::Out,
    reader::{At, Reader, shown},
    record::{Record, Yaml, choice, record},
    sharing::{Dependency, Restart, Sharing},
    spot::Located,
    tmpfs::Tmpfs,
    value::{Bytes, Cores, Duration, KeyValues, Limit, Named, OneOrMore, Scalar, Variables, Within},
};

/// Any whole number that is not negative.
type Count = Within<0, { i64::MAX }>;

record! {
    /// A service: equal containers, and all that is said of them. Files of variables and labels are read into
    /// `environment` and `labels`, and what the service extends is in it.
    pub struct Service {
        /// The image that containers are made of.
        image: Option<Located<String>>,
        /// How that image is built.
        build: Option<Located<Build>>,
        /// When the image is pulled.
        pull_policy: Option<Located<PullPolicy>>,
        /// How old a pulled image may be, with `refresh`.
        pull_refresh_after: Option<Located<Duration>>,
        /// The processor and system that it is for, such as linux/amd64.
        platform: Option<Located<String>>,
        /// In place of the image's entrypoint; without words: none.
        entrypoint: Option<Located<Command>>,
        /// In place of the image's command; without words: none.
        command: Option<Located<Command>>,
        /// Variables of the container.
        environment: Variables,
        /// The directory in which it starts.
        working_dir: Option<Located<String>>,
        /// Who it runs as: `user`, `uid`, `user:group`.
        user: Option<Located<String>>,
        /// Further groups of its processes.
        group_add: Vec<Located<Scalar>>,
        /// Whether a small program is the first process, which cares for those that lost their parents.
        init: Option<Located<bool>>,
        /// Whether it has a terminal.
        tty: Option<Located<bool>>,
        /// Whether its standard input stays open.
        stdin_open: Option<Located<bool>>,
        /// Whether its output is shown by who starts the project.
        attach: Option<Located<bool>>,
        /// The signal that asks it to end.
        stop_signal: Option<Located<String>>,
        /// How long it has to end by itself.
        stop_grace_period: Option<Located<Duration>>,
        /// What becomes of it when it ends.
        restart: Option<Located<Restart>>,
        /// How it is found out whether it is well.
        healthcheck: Option<Located<Healthcheck>>,
        /// What is run in it when it has started.
        post_start: Vec<Located<Hook>>,
        /// What is run in it before it is stopped.
        pre_stop: Vec<Located<Hook>>,
        /// The services that it waits for.
        depends_on: Named<Dependency>,
        /// The profiles that it is part of; without any it always is.
        profiles: Vec<Located<String>>,
        /// How many containers there are.
        scale: Option<Located<Replicas>>,
        /// How it is spread over machines, and what it may take of them.
        deploy: Option<Located<Deploy>>,
        /// The name of its only container.
        container_name: Option<Located<String>>,
        /// Labels of its containers.
        labels: KeyValues,
        /// Annotations of its containers.
        annotations: KeyValues,
        /// Where what it says goes.
        logging: Option<Located<Logging>>,
        /// Ports that are published.
        ports: Ports,
        /// Ports that others of the project may reach.
        expose: Vec<Located<Expose>>,
        /// The networks that it is in.
        networks: Named<Attachment>,
        /// Whose network it is in.
        network_mode: Option<Located<Sharing>>,
        /// Its name for itself.
        hostname: Option<Located<String>>,
        /// The domain of that name.
        domainname: Option<Located<String>>,
        /// Names in `/etc/hosts`.
        extra_hosts: ExtraHosts,
        /// Whom it asks for names.
        dns: OneOrMore<IpAddr>,
        /// How it asks.
        dns_opt: Vec<Located<String>>,
        /// Domains that names are looked for in.
        dns_search: OneOrMore,
        /// The hardware address of its interface.
        mac_address: Option<Located<String>>,
        /// Services that it reaches by other names.
        links: Vec<Located<String>>,
        /// Containers that it reaches by other names.
        external_links: Vec<Located<String>>,
        /// What it mounts.
        volumes: Mounts,
        /// Services and containers whose mounts it has too.
        volumes_from: Vec<Located<String>>,
        /// Directories in memory.
        tmpfs: OneOrMore<Tmpfs>,
        /// How large `/dev/shm` is.
        shm_size: Option<Located<Bytes>>,
        /// What only the storage driver knows.
        storage_opt: BTreeMap<String, Located<Scalar>>,
        /// Configs that it gets.
        configs: Grants,
        /// Secrets that it gets.
        secrets: Grants,
        /// Whether nothing but volumes and directories in memory can be written.
        read_only: Option<Located<bool>>,
        /// Whether it may do everything.
        privileged: Option<Located<bool>>,
        /// Capabilities that it has besides.
        cap_add: Vec<Located<String>>,
        /// Capabilities that it has not.
        cap_drop: Vec<Located<String>>,
        /// How modules of the kernel confine it.
        security_opt: Vec<Located<String>>,
        /// Settings of the kernel.
        sysctls: KeyValues,
        /// What its processes may use each.
        ulimits: BTreeMap<String, Located<Ulimit>>,
        /// Devices that it has.
        devices: Vec<Located<Device>>,
        /// Devices that it may use.
        device_cgroup_rules: Vec<Located<String>>,
        /// Graphics processors that it wants.
        gpus: Option<Located<Gpus>>,
        /// Whether it may speak to the API that runs it.
        use_api_socket: Option<Located<bool>>,
        /// The program that runs containers.
        runtime: Option<Located<String>>,
        /// How it is isolated, on Windows.
        isolation: Option<Located<String>>,
        /// Whose processes it sees.
        pid: Option<Located<Sharing>>,
        /// Whose shared memory it has.
        ipc: Option<Located<Sharing>>,
        /// Whose host name it has.
        uts: Option<Located<Sharing>>,
        /// Whose users it has.
        userns_mode: Option<Located<Sharing>>,
        /// Whose control groups it sees.
        cgroup: Option<Located<CgroupNamespace>>,
        /// The control group that its own is in.
        cgroup_parent: Option<Located<String>>,
        /// The memory that it may take.
        mem_limit: Option<Located<Bytes>>,
        /// The memory that is kept for it.
        mem_reservation: Option<Located<Bytes>>,
        /// The memory and swap that it may take.
        memswap_limit: Option<Located<Limit<Bytes>>>,
        /// How readily its memory is swapped out, in percent.
        mem_swappiness: Option<Located<Within<0, 100>>>,
        /// Whether it is not killed for want of memory.
        oom_kill_disable: Option<Located<bool>>,
        /// How soon it is killed for want of memory.
        oom_score_adj: Option<Located<Within<-1_000, 1_000>>>,
        /// How many processes and threads it may have.
        pids_limit: Option<Located<Limit<Count>>>,
        /// The processors that it may take.
        cpus: Option<Located<Cores>>,
        /// How many processors it may use.
        cpu_count: Option<Located<Count>>,
        /// Which share of the processors it may take, in percent.
        cpu_percent: Option<Located<Within<0, 100>>>,
        /// Its share of the processors, relative to others.
        cpu_shares: Option<Located<Count>>,
        /// How many microseconds of a period it may run.
        cpu_quota: Option<Located<Limit<Count>>>,
        /// How long a period is, in microseconds.
        cpu_period: Option<Located<Scalar>>,
        /// How much of a period it may run with real-time priority, in microseconds or with a unit.
        cpu_rt_runtime: Option<Located<Scalar>>,
        /// How long such a period is.
        cpu_rt_period: Option<Located<Scalar>>,
        /// The processors that it may use: `0-3`, `0,1`.
        cpuset: Option<Located<String>>,
        /// What it may read and write.
        blkio_config: Option<Located<Blkio>>,
    }
}

/// Fields that are read into others, or that change nothing of how a project runs (`develop`).
const OTHER: &[&str] = &["env_file", "label_file", "extends", "develop"];

/// Fields of what others run, or of Windows.
const REFUSED: &[(&str, &str)] = &[
    ("models", "language models are not run; use a service that has one"),
    ("provider", "what others run is not managed; leave the service out"),
    ("credential_spec", "it is of Windows; leave it out"),
];

impl Yaml for Service {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let refused: Vec<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
        if !reader.map(at, Service::FIELDS, &[OTHER, &refused].concat()) {
            return None;
        }
        for (name, hint) in REFUSED {
            if let Some(field) = at.get(name) {
                let spot = field.spot().of_key();
                reader.fault_at(
                    &spot,
                    ErrorCode::Unsupported,
                    format!("{} is not supported", field.path),
                    *hint,
                );
            }
        }
        let mut service = Service::read_fields(reader, at);
        let names_image = at.get("image").is_some() || at.get("build").is_some();
        if names_image && service.image.is_none() && service.build.is_none() {
            reader.spoilt.insert(at.path.clone());
        }
        files::variables(reader, at, &mut service.environment);
        files::labels(reader, at, &mut service.labels);
        Some(service)
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

impl Service {
    /// How many containers are asked for.
    pub fn replicas(&self) -> Option<&Located<Replicas>> {
        self.deploy.as_ref().and_then(|deploy| deploy.replicas.as_ref()).or(self.scale.as_ref())
    }

    /// The services whose names stand in the service, and where.
    pub fn named_services(&self) -> Vec<(&str, &crate::Spot)> {
        let shared = [&self.network_mode, &self.pid, &self.ipc, &self.uts, &self.userns_mode];
        let shared = shared.into_iter().flatten().filter_map(|sharing| match &sharing.value {
            Sharing::Service(name) => Some((name.as_str(), &sharing.spot)),
            _ => None,
        });
        let first = |text: &'_ Located<String>| text.split(':').next().unwrap_or_default().len();
        let links = self.links.iter().map(|link| (&link[..first(link)], &link.spot));
        let mounts = self.volumes_from.iter().filter(|from| !from.starts_with("container:"));
        let mounts = mounts.map(|from| (&from[..first(from)], &from.spot));
        let waits = self.depends_on.iter().map(|(name, dependency)| (name.as_str(), &dependency.spot));
        waits.chain(links).chain(shared).chain(mounts).collect()
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// Never.
    Never,
    /// If it is not there.
    Missing,
    /// It is built instead.
    Build,
    /// If what is there is older than `pull_refresh_after`.
    Refresh,
    /// If what is there is older than this.
    Every(Duration),
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

impl Yaml for PullPolicy {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        if let Some(every) = text.strip_prefix("every_") {
            let duration = Duration::parse_long(every);
            if duration.is_none() {
                let message = format!("{} is not a length of time", shown(every));
                reader.fault(at, ErrorCode::OutOfRange, message, "write every_12h, every_2d or every_1w");
            }
            return duration.map(PullPolicy::Every);
        }
        reader.choice(
            at,
            &[
                ("always", PullPolicy::Always),
                ("never", PullPolicy::Never),
                ("missing", PullPolicy::Missing),
                ("if_not_present", PullPolicy::Missing),
                ("build", PullPolicy::Build),
                ("refresh", PullPolicy::Refresh),
                ("daily", PullPolicy::Every(Duration(DAY))),
                ("weekly", PullPolicy::Every(Duration(DAY.saturating_mul(7)))),
            ],
        )
    }

    fn print(&self) -> Out {
        Out::Text(match self {
            PullPolicy::Always => "always".to_owned(),
            PullPolicy::Never => "never".to_owned(),
            PullPolicy::Missing => "missing".to_owned(),
            PullPolicy::Build => "build".to_owned(),
            PullPolicy::Refresh => "refresh".to_owned(),
            PullPolicy::Every(duration) => format!("every_{duration}"),
        })
    }
}

choice! {
    /// Whose control groups a container sees.
    pub enum CgroupNamespace {
        /// The host's.
        Host = "host",
        /// Its own.
        Private = "private",
    }
}
