//! One simulated node: a member of the cluster that does what it is told without doing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use hivemind_client::{Client, FEED_SILENT_MAX, NodeLink, pinned};
use hivemind_membership::{Config, Key, Membership, NodeName, NodeNumber, Peer};
use hivemind_model::{
    Enforcement, FeedLine, Identity, JoinRequest, NetworkPolicy, Node, NodeReport, NodeStatus, ObjectRef,
    Phase, PolicyReport, PolicySpec, REPORT_MAX, Replica, ReplicaReport, ReplicaStatus, Resource,
};
use hivemind_pki::{NodeKey, SERVER_NAME};
use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Simulated;

/// Under what the server's store has the cluster's own facts.
const CLUSTER_KEY: &str = "cluster";

/// How long after a failure the server is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How many faults are told.
const FAULTS_MAX: usize = 20;

/// A node that has joined.
pub(super) struct Member {
    name: String,
    address: SocketAddrV4,
    number: u16,
    client: Client,
    ranges: (Ipv4Net, Ipv6Net),
    seen: Arc<Mutex<Simulated>>,
    membership: Option<Membership>,
}

impl Member {
    /// Joins as a machine does that is started with `--join` and this token.
    pub(super) async fn join(
        server: SocketAddrV4,
        token: &str,
        name: &str,
        address: Ipv4Addr,
        seen: &Arc<Mutex<Simulated>>,
    ) -> Result<Self> {
        let parts = token.strip_prefix("hmj_").and_then(|rest| rest.split_once('_'));
        let (secret, authority) = parts.context("this is no join token")?;
        let link = |tls| NodeLink { address: server, certificate_name: SERVER_NAME.to_owned(), tls };
        let unknown = Client::node(link(pinned(authority.parse()?)?))?;
        let key = NodeKey::generate()?;
        let request = JoinRequest {
            token: secret.to_owned(),
            name: name.to_owned(),
            address,
            signing_request: Some(key.signing_request()?),
            time: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = unknown.join(&request).await?;
        let certificate = answer.certificate.context("the server sent no certificate")?;
        let identity = key.with_certificate(&certificate)?;
        let client = Client::node(link(hivemind_pki::tls::client(&identity)?))?;
        let ranges = answer.cluster.node_ranges(answer.number).context("the node has no addresses")?;
        Ok(Self {
            name: name.to_owned(),
            address: SocketAddrV4::new(address, server.port()),
            number: answer.number,
            client,
            ranges,
            seen: Arc::clone(seen),
            membership: None,
        })
    }

    /// Is a node until it is stopped, and begins anew whenever the connection breaks.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut replicas = Replicas::default();
        loop {
            let ended = tokio::select! {
                _ = stop.wait_for(|stopped| *stopped) => return,
                ended = self.follow(&mut replicas) => ended,
            };
            if let Err(error) = ended {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.faults.len() < FAULTS_MAX {
                    seen.faults.push(format!("{}: {error:#}", self.name));
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stopped| *stopped) => return,
                () = sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// Follows what the server tells from its beginning on, and answers it with reports.
    async fn follow(&mut self, replicas: &mut Replicas) -> Result<()> {
        let mut lines = self.client.feed(&self.name, None).await?;
        let mut told = Told::default();
        let mut first = true;
        loop {
            let line = timeout(FEED_SILENT_MAX, lines.next()).await.context("the server fell silent")?;
            match line.context("the server ended the connection")?? {
                FeedLine::Begin { replicas: own, .. } => replicas.keep(&own, &self.seen),
                FeedLine::Put { key, value } => told.put(&key, value)?,
                FeedLine::Delete { key } => told.delete(&key, replicas, &self.seen),
                FeedLine::UpTo { .. } => {
                    self.seen.lock().unwrap_or_else(PoisonError::into_inner).identities =
                        told.identities.len();
                    if self.membership.is_none() {
                        self.membership = Some(self.take_part(&told).await?);
                    } else if std::mem::take(&mut told.nodes_changed)
                        && let Some(membership) = &self.membership
                    {
                        membership.set_peers(told.peers(self.address.port()))?;
                    }
                    let mut report = self.report(&mut told, replicas)?;
                    if std::mem::take(&mut first) {
                        report.node = Some(self.status());
                    }
                    self.tell(report).await?;
                }
            }
        }
    }

    /// Has gossip go on at this node's address.
    async fn take_part(&self, told: &Told) -> Result<Membership> {
        let socket = UdpSocket::bind(self.address).await.context("cannot listen for gossip")?;
        ensure!(!told.gossip_keys.is_empty(), "the cluster's keys were not told");
        let keys = told.gossip_keys.iter().zip(0..).map(|(secret, id)| Key { id, secret: *secret }).collect();
        let own = Peer {
            number: NodeNumber::try_from(self.number)?,
            name: NodeName::new(&self.name)?,
            address: self.address,
        };
        Ok(Membership::start(Config { own, keys, peers: told.peers(self.address.port()) }, socket)?)
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "simulated".to_owned(),
            containerd: "simulated".to_owned(),
            cpus: 64,
            memory_bytes: 1 << 38,
            ..NodeStatus::default()
        }
    }

    /// What is to be told of what was heard: new replicas run, those that are to stop are gone, policies are in force.
    fn report(&self, told: &mut Told, replicas: &mut Replicas) -> Result<NodeReport> {
        let mut report = NodeReport::default();
        for key in std::mem::take(&mut told.changed_replicas) {
            let Some(replica) = told.replicas.get(&key) else { continue };
            if replica.spec.node != self.name {
                continue;
            }
            if replica.metadata.is_deleting() {
                report.gone.push(reference(replica));
            } else if replica.status.ipv4.is_none() {
                // Or again: the report before may not have arrived.
                let status = replicas.run(&key, replica, self.ranges, &self.seen)?;
                report.replicas.push(ReplicaReport { replica: reference(replica), status });
            }
        }
        for key in std::mem::take(&mut told.changed_policies) {
            let Some(policy) = told.policies.get(&key) else { continue };
            let generation = policy.metadata.generation;
            let is_known = policy.status.nodes.get(&self.name).is_some_and(|on| on.generation >= generation);
            if is_known || told.told_policies.get(&key) == Some(&(policy.metadata.uid, generation)) {
                continue;
            }
            let enforcement = Enforcement { generation, at: Some(Timestamp::now()), problem: None };
            let replicas = told.selected(policy);
            report.policies.push(PolicyReport { policy: reference(policy), replicas, enforcement });
            told.told_policies.insert(key, (policy.metadata.uid, generation));
        }
        Ok(report)
    }

    /// Tells the server, in pieces that it takes.
    async fn tell(&self, mut report: NodeReport) -> Result<()> {
        while !report.is_empty() {
            let mut left = REPORT_MAX - 1;
            let mut piece = NodeReport { node: report.node.take(), ..NodeReport::default() };
            piece.replicas = take(&mut report.replicas, &mut left);
            piece.gone = take(&mut report.gone, &mut left);
            piece.policies = take(&mut report.policies, &mut left);
            self.client.report(&self.name, &piece).await?;
        }
        Ok(())
    }
}

/// Takes the first of some things, as many as are left to take.
fn take<T>(from: &mut Vec<T>, left: &mut usize) -> Vec<T> {
    let taken: Vec<T> = from.drain(..from.len().min(*left)).collect();
    *left -= taken.len();
    taken
}

fn reference(object: &impl Resource) -> ObjectRef {
    let metadata = object.metadata();
    ObjectRef { namespace: metadata.namespace.clone(), name: metadata.name.clone(), uid: metadata.uid }
}

/// What the server told since the connection began.
#[derive(Default)]
struct Told {
    gossip_keys: Vec<[u8; 32]>,
    identities: BTreeSet<String>,
    nodes: BTreeMap<String, Node>,
    nodes_changed: bool,
    replicas: BTreeMap<String, Replica>,
    changed_replicas: BTreeSet<String>,
    policies: BTreeMap<String, NetworkPolicy>,
    changed_policies: BTreeSet<String>,
    /// Of which policies the server was told that they are in force, and in which generation.
    told_policies: BTreeMap<String, (uuid::Uuid, u64)>,
}

impl Told {
    fn put(&mut self, key: &str, value: Value) -> Result<()> {
        if key == CLUSTER_KEY {
            self.gossip_keys = gossip_keys(&value)?;
            return Ok(());
        }
        let kind = key.split_once('/').map(|(kind, _)| kind);
        match kind {
            Some(Identity::PLURAL) => drop(self.identities.insert(key.to_owned())),
            Some(Node::PLURAL) => {
                self.nodes.insert(key.to_owned(), serde_json::from_value(value)?);
                self.nodes_changed = true;
            }
            Some(Replica::PLURAL) => {
                self.replicas.insert(key.to_owned(), serde_json::from_value(value)?);
                self.changed_replicas.insert(key.to_owned());
            }
            Some(NetworkPolicy::PLURAL) => {
                self.policies.insert(key.to_owned(), serde_json::from_value(value)?);
                self.changed_policies.insert(key.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn delete(&mut self, key: &str, replicas: &mut Replicas, seen: &Mutex<Simulated>) {
        self.replicas.remove(key);
        replicas.forget(key, seen);
        self.identities.remove(key);
        self.policies.remove(key);
        self.told_policies.remove(key);
        self.nodes_changed |= self.nodes.remove(key).is_some();
    }

    fn peers(&self, port: u16) -> Vec<Peer> {
        let peer = |node: &Node| {
            Some(Peer {
                number: NodeNumber::try_from(node.spec.number).ok()?,
                name: NodeName::new(&node.metadata.name).ok()?,
                address: SocketAddrV4::new(node.spec.address?, port),
            })
        };
        self.nodes.values().filter_map(peer).collect()
    }

    /// How many replicas a policy selects; of the kinds for the whole cluster what others told stays.
    fn selected(&self, policy: &NetworkPolicy) -> u32 {
        let PolicySpec::NetworkPolicy(spec) = &policy.spec else { return policy.status.replicas };
        let is_selected = |replica: &&Replica| {
            replica.metadata.namespace == policy.metadata.namespace
                && spec.pod_selector.selects(&replica.metadata.labels)
        };
        u32::try_from(self.replicas.values().filter(is_selected).count()).unwrap_or(u32::MAX)
    }
}

/// The keys that seal gossip, as the store has them: in hex.
fn gossip_keys(value: &Value) -> Result<Vec<[u8; 32]>> {
    let keys = value["gossipKeys"].as_array().context("the cluster has no keys")?;
    keys.iter().map(|key| secret(key.as_str().unwrap_or_default())).collect()
}

fn secret(hex: &str) -> Result<[u8; 32]> {
    let bytes: Option<Vec<u8>> =
        (0..32).map(|n| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()).collect();
    let bytes = bytes.filter(|_| hex.len() == 64).context("a key of the cluster's cannot be read")?;
    Ok(bytes.try_into().expect("there are 32 of them"))
}

/// The replicas that a node runs, across connections.
#[derive(Default)]
struct Replicas {
    run: BTreeMap<String, Running>,
    addresses: BTreeSet<u8>,
}

/// One that runs.
struct Running {
    reference: ObjectRef,
    app: String,
    /// The last byte of its addresses.
    last: u8,
}

impl Replicas {
    /// Gives a replica addresses, if it has none yet, and says how it is then.
    fn run(
        &mut self,
        key: &str,
        replica: &Replica,
        (v4, v6): (Ipv4Net, Ipv6Net),
        seen: &Mutex<Simulated>,
    ) -> Result<ReplicaStatus> {
        let last = match self.run.get(key) {
            Some(running) => running.last,
            None => self.start(key, replica, seen)?,
        };
        let mut segments = v6.network().segments();
        segments[7] = last.into();
        let [a, b, c, _] = v4.network().octets();
        Ok(ReplicaStatus {
            phase: Phase::Running,
            ready: true,
            ipv4: Some(Ipv4Addr::new(a, b, c, last)),
            ipv6: Some(Ipv6Addr::from(segments)),
            started_at: Some(Timestamp::now()),
            ..ReplicaStatus::default()
        })
    }

    fn start(&mut self, key: &str, replica: &Replica, seen: &Mutex<Simulated>) -> Result<u8> {
        let Some(last) = (2..=254).find(|last| !self.addresses.contains(last)) else {
            bail!("a simulated node has no address left");
        };
        self.addresses.insert(last);
        let running = Running { reference: reference(replica), app: replica.spec.app.clone(), last };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.running.insert(name_of(&running));
        seen.came += 1;
        self.run.insert(key.to_owned(), running);
        Ok(last)
    }

    /// A replica is no more.
    fn forget(&mut self, key: &str, seen: &Mutex<Simulated>) {
        let Some(gone) = self.run.remove(key) else { return };
        self.addresses.remove(&gone.last);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.running.remove(&name_of(&gone));
        seen.went += 1;
    }

    /// Forgets those that are not among the node's own any more.
    fn keep(&mut self, own: &[ObjectRef], seen: &Mutex<Simulated>) {
        let is_gone = |running: &Running| !own.contains(&running.reference);
        let gone: Vec<_> =
            self.run.iter().filter(|(_, running)| is_gone(running)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.forget(&key, seen);
        }
    }
}

fn name_of(running: &Running) -> (String, String) {
    (running.app.clone(), running.reference.name.clone())
}
