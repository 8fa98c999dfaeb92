//! A data path by itself on a fabric, in a process that can be killed and followed by one of another build: two endpoints that
//! answer, two that ask, a service, published ports, and a machine outside.

use std::{
    io::{self, BufRead, BufReader, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hivemind_common::policy::{DENY, EGRESS};
use hivemind_datapath::{
    BackendSpec, Config, Datapath, EndpointSpec, Guarded, MapSizes, Protocol, PublishedPort, ServicePorts,
    ServiceSpec,
};
use hivemind_policy::Tables;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    Background, Build, Fabric, Link, Load, PinnedMaps, Plan, Sandbox, load::serve, programs, wait::eventually,
};

/// The port at which endpoints, and the machine outside, answer.
pub const PORT: u16 = 7_000;

/// The port that is published.
pub const PUBLISHED: u16 = 8_000;

/// The endpoint that asks where the programs at the cgroup see it; those before it answer.
const CLIENT: u8 = 3;

/// The one that asks where they do not. Of one endpoint that did both, datagrams from one port to a service and to what is
/// behind it would be one flow.
const UNSEEN_CLIENT: u8 = 4;

/// Which cgroup the programs at the cgroup see.
const SEEN: &str = "seen";

/// Makes the shell a member of the cgroup in the first argument, and then the program in the rest.
const ENTER_CGROUP: &str = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// From where traffic comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// An endpoint, in the cgroup whose sockets the programs see.
    Endpoint,
    /// Another, where they do not: it is translated packet by packet.
    EndpointUnseen,
    /// The node itself, where they do not see it either.
    NodeUnseen,
    /// The machine outside.
    Outside,
}

/// How programs hang at interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hooks {
    /// By links, as from Linux 6.6 on.
    #[default]
    Links,
    /// By filters, as before.
    Filters,
}

impl Hooks {
    fn word(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Filters => "filters",
        }
    }
}

/// The node. Its process may be dead.
#[derive(Debug)]
pub struct LifeNode {
    hooks: Hooks,
    process: Option<Background>,
    servers: Vec<Background>,
    sandbox: Sandbox,
    link: Link,
    fabric: Arc<Fabric>,
}

impl LifeNode {
    /// Makes the node and opens its data path with the current build.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(hooks: Hooks) -> Result<Self> {
        let fabric = Fabric::start()?;
        let sandbox = Sandbox::start()?;
        let link = fabric.join(&sandbox)?;
        let seen = sandbox.cgroup().join(SEEN);
        std::fs::create_dir(&seen).with_context(|| format!("cannot make {}", seen.display()))?;
        let mut node = Self { hooks, process: None, servers: Vec::new(), sandbox, link, fabric };
        node.open(Build::Current)?;
        for number in 1..CLIENT {
            let server = serve(|program| node.endpoint(number, SEEN, program), PORT)?;
            node.servers.push(server);
        }
        let outside = serve(|program| node.fabric.client().command(program), PORT)?;
        node.servers.push(outside);
        Ok(node)
    }

    /// Opens the data path by a process of a build, which stays. Returns once everything stands.
    ///
    /// # Errors
    /// What the data path says; what was there before goes on.
    pub fn open(&mut self, build: Build) -> Result<()> {
        let mut process = self.begin_to_open(build)?;
        let mut line = String::new();
        BufReader::new(process.take_stdout().context("no output")?).read_line(&mut line)?;
        if line.trim() != "open" {
            bail!("{}", line.trim());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Starts a process of a build that opens the data path, and does not wait for it; the caller owns it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin_to_open(&self, build: Build) -> Result<Background> {
        let mut command = self.sandbox.command(programs::life(build)?);
        command.arg(self.sandbox.directory()).arg(self.sandbox.cgroup().join(SEEN)).arg(self.hooks.word());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Background::new(child.context("cannot start hivemind-life")?))
    }

    /// Kills the process of the data path.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("no data path is open")?.kill()
    }

    /// Ends the process of the data path, which leaves everything as it is.
    ///
    /// # Errors
    /// When there is none, or it does not end.
    pub fn close(&mut self) -> Result<()> {
        let mut process = self.process.take().context("no data path is open")?;
        drop(process.take_stdin());
        let status = process.wait(STOP_LIMIT)?;
        if !status.success() {
            bail!("the process of the data path ended with {status}");
        }
        Ok(())
    }

    /// Everything that traffic can take, with this many new connections a second and long-lived ones of each of TCP and UDP
    /// on each way.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn load(&self, rate: u32, long: usize) -> Result<Vec<(From, Load)>> {
        let own = self.link.addresses();
        let outside = self.fabric.client_addresses();
        let both = |v4: Ipv4Addr, v6: Ipv6Addr, port| {
            [SocketAddr::new(v4.into(), port), SocketAddr::new(v6.into(), port)]
        };
        let service = both(SERVICE.0, SERVICE.1, PORT);
        let direct = both(endpoint_v4(1), endpoint_v6(1), PORT);
        let beyond = both(outside.ipv4, outside.ipv6, PORT);
        let published = both(own.ipv4, own.ipv6, PUBLISHED);
        [
            (From::Endpoint, [service, direct].concat()),
            (From::EndpointUnseen, [service, beyond].concat()),
            (From::NodeUnseen, service.to_vec()),
            (From::Outside, published.to_vec()),
        ]
        .into_iter()
        .map(|(from, targets)| {
            let plan = Plan { rate, long, targets };
            let load = Load::start(|program| self.place(from, program), &plan);
            Ok((from, load.with_context(|| format!("{from:?}"))?))
        })
        .collect()
    }

    fn place(&self, from: From, program: &Path) -> Command {
        match from {
            From::Endpoint => self.endpoint(CLIENT, SEEN, program),
            From::EndpointUnseen => self.endpoint(UNSEEN_CLIENT, "host", program),
            From::NodeUnseen => self.sandbox.command(program),
            From::Outside => self.fabric.client().command(program),
        }
    }

    fn endpoint(&self, number: u8, cgroup: &str, program: &Path) -> Command {
        let network = netns(&self.sandbox.directory()).join(endpoint(number).id);
        let mut command = self.sandbox.command("sh");
        command.args(["-c", ENTER_CGROUP]).arg(self.sandbox.cgroup().join(cgroup));
        command.arg("nsenter").arg(format!("--net={}", network.display())).arg(program);
        command
    }

    /// The pinned maps of a layout version.
    #[must_use]
    pub fn maps(&self, version: u32) -> PinnedMaps {
        PinnedMaps::of_version(&self.sandbox.outside(&bpffs(&self.sandbox.directory())), version)
    }

    /// The versions of which there are pins.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn versions(&self) -> Result<Vec<String>> {
        let path = self.sandbox.outside(&bpffs(&self.sandbox.directory()));
        let entries = std::fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Waits until a version's table of translations can be read without two connections under one tuple: what is read while it
    /// changes may show one that is being forgotten.
    ///
    /// # Errors
    /// When it goes on showing it.
    pub fn check_translations(&self, version: u32) -> Result<usize> {
        eventually(Duration::from_secs(2), "no two connections to have one tuple", || {
            let [v4, v6] = self.maps(version).translations()?;
            anyhow::Ok(v4.whole + v6.whole)
        })
    }

    /// Removes the data path, with whatever is there, by the current build.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn teardown(&self) -> Result<()> {
        let mut command = self.sandbox.command(programs::life(Build::Current)?);
        command.arg(self.sandbox.directory()).arg(self.sandbox.cgroup().join(SEEN)).arg("teardown");
        let output = command.output().context("cannot start hivemind-life")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(())
    }

    /// The machine itself.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// The service's addresses.
const SERVICE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 204, 0, 1), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1));

fn bpffs(directory: &Path) -> PathBuf {
    directory.join("bpf/hivemind")
}

fn netns(directory: &Path) -> PathBuf {
    directory.join("run/netns")
}

fn endpoint_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 1, number)
}

fn endpoint_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 1, 0, 0, 0, number.into())
}

fn endpoint(number: u8) -> EndpointSpec {
    EndpointSpec {
        id: format!("endpoint-{number}"),
        ipv4: endpoint_v4(number),
        ipv6: endpoint_v6(number),
        identity: 256 + u32::from(number),
    }
}

/// The process of the data path: `DIRECTORY CGROUP links|filters`, or `teardown` instead, to remove everything.
///
/// # Errors
/// When the arguments cannot be read, or the data path refuses something.
pub fn keep(arguments: &[String]) -> Result<()> {
    let [directory, cgroup, word] = arguments else {
        bail!("usage: hivemind-life DIRECTORY CGROUP links|filters|teardown");
    };
    let config = config(Path::new(directory), cgroup.into())?;
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let datapath = match word.as_str() {
        "teardown" => return Ok(executor.block_on(Datapath::teardown(&config))?),
        "filters" => executor.block_on(Datapath::open_without_tcx(config))?,
        _ => executor.block_on(Datapath::open(config))?,
    };
    executor.block_on(furnish(&datapath))?;
    println!("open");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn config(directory: &Path, cgroup_root: PathBuf) -> Result<Config> {
    let v4 = |text: &str| text.parse::<Ipv4Net>().context("a range");
    let v6 = |text: &str| text.parse::<Ipv6Net>().context("a range");
    Ok(Config {
        name: "hivemind".to_owned(),
        bpffs: bpffs(directory),
        cgroup_root,
        netns_dir: netns(directory),
        replica_range: (v4("10.200.1.0/24")?, v6("fd00:1:0:1::/64")?),
        cluster_range: (v4("10.200.0.0/14")?, v6("fd00:1::/48")?),
        service_range: (v4("10.204.0.0/16")?, v6("fd00:2::/112")?),
        dns: (Ipv4Addr::new(169, 254, 20, 10), Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)),
        unmasked: Vec::new(),
        masquerade_ports: Config::MASQUERADE_PORTS,
        guarded: Guarded::default(),
        mtu: None,
        // So that collections fall into every stretch of a test.
        collect_interval: Duration::from_millis(100),
        features: Config::FEATURES,
        sizes: MapSizes::default(),
    })
}

/// Makes what is not there already.
async fn furnish(datapath: &Datapath) -> Result<()> {
    for number in 1..=UNSEEN_CLIENT {
        let spec = endpoint(number);
        // Only answers leave those that answer, and only answers reach those that ask: who is taken for the one that began
        // a connection, and is not, is refused.
        let closed = if number < CLIENT { EGRESS } else { 0 };
        let mut tables = Tables::open();
        for entry in tables.entries.iter_mut().filter(|entry| entry.peer & EGRESS == closed) {
            entry.value.verdict = DENY;
        }
        datapath.set_policy(spec.identity, Arc::new(tables)).await?;
        datapath.ensure_endpoint(spec).await?;
    }
    let backend = |number| BackendSpec { ipv4: endpoint_v4(number), ipv6: endpoint_v6(number), weight: 1 };
    let published = [Protocol::Tcp, Protocol::Udp].map(|protocol| PublishedPort {
        host_port: PUBLISHED,
        protocol,
        target_port: PORT,
    });
    let service = ServiceSpec {
        id: 1,
        affinity_s: None,
        address_v4: SERVICE.0,
        address_v6: SERVICE.1,
        ports: ServicePorts::All,
        backends: (1..CLIENT).map(backend).collect(),
        published: published.to_vec(),
    };
    Ok(datapath.set_service(service).await?)
}
