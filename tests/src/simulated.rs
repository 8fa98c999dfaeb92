//! Nodes without containers, so that a cluster of hundreds of replicas fits on one machine.
//!
//! To the server they are nodes like others: each joins with a token, has a certificate, takes part in gossip at an address of
//! its own, follows what concerns it, and reports. Only what a node does with that is left out: a replica that is bound to it has
//! addresses and is ready at once, one that is to stop is gone at once, and of a policy it is told at once that it is in force. No
//! packet ever reaches such a replica, and none comes from it.

mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use hivemind_model::{App, AppService, AppSpec, AppStatus, Container, DEFAULT_NAMESPACE, Metadata, Template};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::link::Link;
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::wait::eventually;
use member::Member;

/// The port that nodes have for one another, TCP and UDP.
const NODE_PORT: u16 = 4484;

/// What the addresses of simulated nodes end with, of the first one.
const FIRST_ADDRESS: u8 = 10;

/// How long nodes get to be heard by the server.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// An app whose replicas need no image: for nodes without containers. Its labels are those of its replicas.
#[must_use]
pub fn simulated_app(name: &str, replicas: u32, labels: BTreeMap<String, String>) -> App {
    let containers = vec![Container { image: "simulated".to_owned(), ..Container::default() }];
    let template = Template { labels, containers, ..Template::default() };
    let service = AppService::default();
    App {
        metadata: Metadata::new(DEFAULT_NAMESPACE, name),
        spec: AppSpec { replicas, hostnames: Vec::new(), service, depends_on: Vec::new(), template },
        status: AppStatus::default(),
    }
}

/// What came of the replicas that were bound to simulated nodes.
#[derive(Clone, Debug, Default)]
pub struct Simulated {
    /// The replicas that run now: the app's name and the replica's.
    pub running: BTreeSet<(String, String)>,
    /// How many replicas were ever run.
    pub came: u64,
    /// How many of them are gone, and known to be by the server.
    pub went: u64,
    /// How many identities the server's store has, as it told a node last.
    pub identities: usize,
    /// Why nodes had to begin anew; the first twenty.
    pub faults: Vec<String>,
}

impl Simulated {
    /// Whether a replica of an app runs.
    #[must_use]
    pub fn runs(&self, app: &str) -> bool {
        let first = self.running.range((app.to_owned(), String::new())..).next();
        first.is_some_and(|(of, _)| of == app)
    }
}

/// Some nodes without containers; dropping this ends them, without goodbye.
#[derive(Debug)]
pub struct SimulatedNodes {
    seen: Arc<Mutex<Simulated>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    names: Vec<String>,
    // After the sockets that are in its network.
    _link: Link,
    _machine: Sandbox,
}

impl SimulatedNodes {
    /// Has `count` nodes join the cluster of a server; returns when the server says that all of them are ready. All
    /// are on one machine of the server's fabric, each at an address of its own, and are run by one thread.
    ///
    /// # Errors
    /// When the machine cannot be made, or one of them is not let in or not heard.
    pub fn join(server: &Node, count: u8) -> Result<Self> {
        let machine = Sandbox::start()?;
        let link = server.fabric().join(&machine)?;
        let [a, b, c, _] = link.addresses().ipv4.octets();
        let addresses: Vec<_> = (0..count).map(|n| Ipv4Addr::new(a, b, c, FIRST_ADDRESS + n)).collect();
        for own in &addresses {
            machine.check(&["ip", "address", "add", &format!("{own}/32"), "dev", "eth0"])?;
        }
        let token = server.hivemind_ok(&["node", "token", "create", "--uses", &count.to_string()])?;
        let network = File::open(format!("/proc/{}/ns/net", machine.pid())).context("the machine is gone")?;
        let seen = Arc::new(Mutex::new(Simulated::default()));
        let (stop, stopped) = watch::channel(false);
        let (ready, joined) = mpsc::channel();
        let names: Vec<_> = (0..count).map(|number| format!("{}-{number}", machine.name())).collect();
        let address = SocketAddrV4::new(server.addresses().ipv4, NODE_PORT);
        let (wanted, noted) = (names.clone(), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            let run = async {
                let mut members = Vec::new();
                for (name, own) in wanted.iter().zip(addresses) {
                    members.push(Member::join(address, token.trim(), name, own, &noted).await?);
                }
                anyhow::Ok(members)
            };
            let start = || -> Result<_> {
                setns(&network, CloneFlags::CLONE_NEWNET).context("cannot enter the machine's network")?;
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let members = runtime.block_on(run)?;
                Ok((runtime, members))
            };
            match start() {
                Err(error) => drop(ready.send(Err(error))),
                Ok((runtime, members)) => {
                    drop(ready.send(Ok(())));
                    let all = members.into_iter().map(|member| member.run(stopped.clone()));
                    runtime.block_on(futures::future::join_all(all));
                }
            }
        });
        let nodes = Self { seen, stop, thread: Some(thread), names, _link: link, _machine: machine };
        joined.recv().map_err(|_| anyhow!("the nodes ended"))??;
        eventually(READY_LIMIT, "the simulated nodes to be ready", || {
            let listed = server.json(&["node", "ls"])?;
            let listed = listed["items"].as_array().context("`node ls` prints no list")?;
            let is_ready = |name: &&String| {
                let same = |node: &&serde_json::Value| node["metadata"]["name"] == name.as_str();
                listed.iter().find(same).is_some_and(|node| node["status"]["state"] == "Ready")
            };
            let ready = nodes.names.iter().filter(is_ready).count();
            ensure!(ready == nodes.names.len(), "{ready} are; {:?}", nodes.look().faults);
            Ok(())
        })?;
        Ok(nodes)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What came of the replicas so far.
    #[must_use]
    pub fn seen(&self) -> Simulated {
        self.look().clone()
    }

    /// Looks at what came of the replicas so far, without a copy.
    pub(crate) fn look(&self) -> MutexGuard<'_, Simulated> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SimulatedNodes {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
