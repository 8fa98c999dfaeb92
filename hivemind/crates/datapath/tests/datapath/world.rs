//! A node for one test.

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use hivemind_common::{ABI_VERSION, drop_reason::DropReason, name};
use hivemind_datapath::{
    BackendSpec, Config, Datapath, Endpoint, EndpointSpec, Guarded, MapSizes, ServicePorts, ServiceSpec,
};
use hivemind_policy::Tables;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longer than anything takes here, short enough to wait for in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

pub(crate) struct World {
    pub(crate) config: Config,
    /// The node's own network namespace.
    netns: File,
    cgroup: PathBuf,
}

/// Where a thread of a test stands.
pub(crate) enum Place<'a> {
    /// In the network namespace of an endpoint, as a process of it would.
    In(&'a Endpoint),
    /// On the node itself.
    OnNode,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a test in a node of its own.
pub(crate) fn in_a_world(body: impl AsyncFnOnce(&World) + Send + 'static) {
    let test = thread::spawn(move || {
        let world = World::make();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body(&world));
    });
    if let Err(panic) = test.join() {
        resume_unwind(panic);
    }
}

impl World {
    fn make() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        // A directory that only this mount namespace sees, and that goes with it.
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        Self::make_at("/mnt", ("10.200.1.0/24", "fd00:1:0:1::/64"))
    }

    /// A node in the network namespace of the calling thread, with its files below a directory.
    fn make_at(files: &str, (range_v4, range_v6): (&str, &str)) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = cgroup2_mount();
        let cgroup = root.join(format!("hmt-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        // So that single threads of the test can be its members.
        fs::write(cgroup.join("cgroup.type"), "threaded").unwrap();
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        let config = Config {
            name: "hivemind".to_owned(),
            bpffs: format!("{files}/bpf/hivemind").into(),
            cgroup_root: cgroup.clone(),
            netns_dir: format!("{files}/netns").into(),
            replica_range: (range_v4.parse().unwrap(), range_v6.parse().unwrap()),
            cluster_range: ("10.200.0.0/14".parse().unwrap(), "fd00:1::/48".parse().unwrap()),
            service_range: ("10.204.0.0/16".parse().unwrap(), "fd00:2::/112".parse().unwrap()),
            dns: ("169.254.20.10".parse().unwrap(), "fd00:20::10".parse().unwrap()),
            unmasked: Vec::new(),
            masquerade_ports: Config::MASQUERADE_PORTS,
            guarded: Guarded::default(),
            mtu: None,
            collect_interval: Duration::from_millis(50),
            features: Config::FEATURES,
            sizes: MapSizes {
                conntrack: 4096,
                endpoints: 64,
                addresses: 256,
                services: 256,
                backends: 256,
                service_cells: 8192,
                reverse: 1024,
                translations: 1024,
                fragments: 64,
                affinity: 64,
                node_addresses: 64,
                policies: 1024,
                prefixes: 256,
                pairs: 64,
                round_trips: 64,
                verdicts: 64,
                events_bytes: 1 << 18,
            },
        };
        Self { config, netns, cgroup }
    }

    /// The data path, with nothing governing the endpoints that [`replica`] makes.
    pub(crate) async fn open(&self) -> Datapath {
        let datapath = Datapath::open(self.config.clone()).await.unwrap();
        admit_all(&datapath).await;
        datapath
    }

    /// A machine outside of the node, one hop away. It ends with what is returned.
    pub(crate) fn outside(&self) -> Outside {
        Outside::behind("up0", [NODE_V4.into(), NODE_V6.into()], [OUTSIDE_V4.into(), OUTSIDE_V6.into()])
    }

    /// As [`World::outside`], on a network of its own.
    pub(crate) fn client(&self) -> Outside {
        let here =
            [Ipv4Addr::new(198, 51, 100, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into()];
        let there =
            [Ipv4Addr::new(198, 51, 100, 2).into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into()];
        Outside::behind("out0", here, there)
    }

    /// Another node of the cluster, one hop away. It ends with what is returned.
    pub(crate) fn other_node(&self) -> OtherNode {
        let (ready, made) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let keeper = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            let world = Self::make_at("/mnt/other", ("10.200.2.0/24", "fd00:1:0:2::/64"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let datapath = runtime.block_on(world.open());
            ready.send((nix::unistd::gettid(), world, datapath)).unwrap();
            // Ends when the other half is dropped.
            let _ = stopped.recv();
        });
        let (thread, world, datapath) = made.recv().unwrap();
        ip(&format!("link add up0 type veth peer name up0 netns {thread}"));
        ip(&format!("addr add {NODE_V4}/24 dev up0"));
        ip(&format!("addr add {NODE_V6}/64 dev up0 nodad"));
        ip("link set up0 up");
        world
            .run(Place::OnNode, || {
                ip(&format!("addr add {OUTSIDE_V4}/24 dev up0"));
                ip(&format!("addr add {OUTSIDE_V6}/64 dev up0 nodad"));
                ip("link set up0 up");
            })
            .join()
            .unwrap();
        OtherNode { world, datapath, stop: Some(stop), keeper: Some(keeper) }
    }

    /// Runs `work` on a thread of its own in that place; in the cgroup that reaches services, as all replicas do.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        place: Place<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let members = self.cgroup.join("cgroup.threads");
        self.run_unseen(place, move || {
            fs::write(members, nix::unistd::gettid().to_string()).unwrap();
            work()
        })
    }

    /// As [`World::run`], but where no socket hook sees it: outside of the cgroup.
    pub(crate) fn run_unseen<T: Send + 'static>(
        &self,
        place: Place<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let netns = match place {
            Place::In(endpoint) => File::open(&endpoint.netns).unwrap(),
            Place::OnNode => self.netns.try_clone().unwrap(),
        };
        thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Packets that the node's stack has sent into an interface, which `redirect_peer` goes around.
    pub(crate) fn sent_by_stack(&self, interface: &str) -> u64 {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line =
            table.lines().find(|line| line.trim_start().starts_with(&format!("{interface}:"))).unwrap();
        line.split_once(':').unwrap().1.split_whitespace().nth(9).unwrap().parse().unwrap()
    }

    /// Prints what the kernel counted here, for a test that failed.
    fn tell(&self) {
        let namespaces = fs::read_dir(&self.config.netns_dir).into_iter().flatten().flatten();
        let places = namespaces.map(|entry| format!("--net={}", entry.path().display()));
        for place in places.chain(["--net=/proc/self/ns/net".to_owned()]) {
            let script = "ip -s -s link; nstat -az | awk '$2 != 0'; cat /proc/net/softnet_stat";
            let told = Command::new("nsenter").args([&place, "sh", "-c", script]).output();
            let told = told.map_or_else(
                |error| error.to_string(),
                |told| String::from_utf8_lossy(&told.stdout).into_owned(),
            );
            eprintln!("== {place}\n{told}");
        }
        let Ok(map) = MapData::from_pin(self.map_path(name::DROP_COUNTERS)) else { return };
        let drops = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(map)).unwrap();
        for (reason, counts) in drops.iter().enumerate() {
            let count: u64 = counts.unwrap().iter().sum();
            if count > 0 {
                eprintln!("dropped: {count} by {:?}", DropReason::ALL.get(reason));
            }
        }
    }

    /// Where a lasting link of an endpoint's interface is pinned.
    pub(crate) fn link_path(&self, endpoint: &Endpoint, program: &str) -> PathBuf {
        self.config
            .bpffs
            .join(format!("v{ABI_VERSION}/links"))
            .join(format!("{}-{program}", endpoint.interface))
    }

    pub(crate) fn map_path(&self, name: &str) -> PathBuf {
        self.config.bpffs.join(format!("v{ABI_VERSION}/maps")).join(name)
    }

    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(Map::HashMap(MapData::from_pin(self.map_path(name)).unwrap())).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
        // The servers of the test still stand in the cgroup: they end with the process.
        let parent = self.cgroup.parent().unwrap();
        let gone = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < gone {
            for thread in fs::read_to_string(self.cgroup.join("cgroup.threads")).unwrap_or_default().lines() {
                // It may end first.
                let _ = fs::write(parent.join("cgroup.threads"), thread);
            }
        }
    }
}

/// A node beside that of the test.
pub(crate) struct OtherNode {
    pub(crate) world: World,
    pub(crate) datapath: Datapath,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Drop for OtherNode {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            keeper.join().unwrap();
        }
    }
}

pub(crate) struct Outside {
    netns: File,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Outside {
    fn behind(link: &'static str, here: [IpAddr; 2], there: [IpAddr; 2]) -> Self {
        let (ready, made) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let keeper = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns = File::open("/proc/thread-self/ns/net").unwrap();
            ready.send((nix::unistd::gettid(), netns)).unwrap();
            // Ends when the other half is dropped.
            let _ = stopped.recv();
        });
        let (thread, netns) = made.recv().unwrap();
        ip(&format!("link add {link} type veth peer name eth0 netns {thread}"));
        ip(&format!("addr add {}/24 dev {link}", here[0]));
        ip(&format!("addr add {}/64 dev {link} nodad", here[1]));
        ip(&format!("link set {link} up"));
        let outside = Self { netns, stop: Some(stop), keeper: Some(keeper) };
        outside
            .run(move || {
                ip("link set lo up");
                ip(&format!("addr add {}/24 dev eth0", there[0]));
                ip(&format!("addr add {}/64 dev eth0 nodad", there[1]));
                ip("link set eth0 up");
                ip(&format!("route add default via {}", here[0]));
                ip(&format!("-6 route add default via {}", here[1]));
            })
            .join()
            .unwrap();
        outside
    }

    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let netns = self.netns.try_clone().unwrap();
        thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            keeper.join().unwrap();
        }
    }
}

/// Runs a program where the calling thread stands.
pub(crate) fn run_program(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The endpoint number `n` of the node: addresses and name follow from it.
pub(crate) fn replica(n: u8) -> EndpointSpec {
    EndpointSpec {
        id: format!("replica-{n}"),
        ipv4: Ipv4Addr::new(10, 200, 1, n),
        ipv6: Ipv6Addr::new(0xfd00, 1, 0, 1, 0, 0, 0, n.into()),
        identity: 256 + u32::from(n),
    }
}

/// The same on the other node.
pub(crate) fn far_replica(n: u8) -> EndpointSpec {
    EndpointSpec {
        id: format!("replica-{n}"),
        ipv4: Ipv4Addr::new(10, 200, 2, n),
        ipv6: Ipv6Addr::new(0xfd00, 1, 0, 2, 0, 0, 0, n.into()),
        identity: 512 + u32::from(n),
    }
}

/// Lets everything pass to and from the endpoints that [`replica`] and [`far_replica`] make.
pub(crate) async fn admit_all(datapath: &Datapath) {
    for n in 1..=9 {
        datapath.set_policy(replica(n).identity, Arc::new(Tables::open())).await.unwrap();
        datapath.set_policy(far_replica(n).identity, Arc::new(Tables::open())).await.unwrap();
    }
}

pub(crate) fn backend(n: u8) -> BackendSpec {
    let spec = replica(n);
    BackendSpec { ipv4: spec.ipv4, ipv6: spec.ipv6, weight: 1 }
}

/// The service number `n` in front of these endpoints, on every port.
pub(crate) fn service(n: u8, backends: &[u8]) -> ServiceSpec {
    ServiceSpec {
        id: n.into(),
        address_v4: Ipv4Addr::new(10, 204, 0, n),
        address_v6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, n.into()),
        ports: ServicePorts::All,
        backends: backends.iter().copied().map(backend).collect(),
        published: Vec::new(),
        affinity_s: None,
    }
}

pub(crate) fn addresses(spec: &EndpointSpec) -> [IpAddr; 2] {
    [spec.ipv4.into(), spec.ipv6.into()]
}

/// Waits until `is_so`, and fails if it never is.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let found = fields.find_map(|mut line| match (line.nth(1), line.next()) {
        (Some(path), Some("cgroup2")) => Some(PathBuf::from(path)),
        _ => None,
    });
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    found.unwrap().join(Path::new(own))
}
