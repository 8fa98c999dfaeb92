//! What other nodes need of this one: the port that nodes have for one another, gossip, and the way for packets. Opened
//! once there is a second node, or one is about to join; until then a node stands alone and listens to nobody.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use hivemind_datapath::{ClusterSpec, Datapath, RemoteNode};
use hivemind_membership::{Key, Membership, NodeName, NodeNumber, Peer, View};
use hivemind_model::{ApiError, ErrorCode, Node, Problem, Routing, WatchKind};
use hivemind_pki::NodeIdentity;
use hivemind_store::Objects;
use rustls::{ClientConfig, ServerConfig};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{address, facts::Cluster};
use crate::daemon::{certificates::of_pki, config::Config};

/// How long after a failure the way to the nodes is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// How often it is looked whether nodes are reached another way than before.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The TLS between nodes, with the node's certificate as it is now.
pub(crate) struct NodeTls {
    now: RwLock<(Arc<ServerConfig>, Arc<ClientConfig>, Life)>,
}

/// How long a node's certificate lives.
#[derive(Clone, Copy)]
struct Life {
    renew_at: SystemTime,
    expires_at: SystemTime,
    authority_expires_at: Option<SystemTime>,
}

impl NodeTls {
    pub(crate) fn new(identity: &NodeIdentity) -> Result<Self, ApiError> {
        Ok(NodeTls { now: RwLock::new(Self::of(identity)?) })
    }

    fn of(identity: &NodeIdentity) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>, Life), ApiError> {
        let server = hivemind_pki::tls::server(identity).map_err(of_pki)?;
        let client = hivemind_pki::tls::client(identity).map_err(of_pki)?;
        let life = Life {
            renew_at: identity.renew_at(),
            expires_at: identity.expires_at(),
            authority_expires_at: hivemind_pki::expires_at(identity.authority()),
        };
        Ok((server, client, life))
    }

    /// Shows another certificate from now on.
    pub(crate) fn replace(&self, identity: &NodeIdentity) -> Result<(), ApiError> {
        let next = Self::of(identity)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// When another certificate should take the place of this one.
    pub(crate) fn renew_at(&self) -> SystemTime {
        self.now.read().unwrap_or_else(PoisonError::into_inner).2.renew_at
    }

    /// When the node's certificate expires, and when its authority's does, if that says so.
    pub(crate) fn expire_at(&self) -> (SystemTime, Option<SystemTime>) {
        let life = self.now.read().unwrap_or_else(PoisonError::into_inner).2;
        (life.expires_at, life.authority_expires_at)
    }
}

/// What is open.
struct Open {
    address: Ipv4Addr,
    membership: Arc<Membership>,
}

/// Opens what other nodes need, and keeps it as they come and go.
pub(crate) struct Opener {
    config: Config,
    objects: Objects,
    datapath: Arc<Datapath>,
    pub(crate) tls: Arc<NodeTls>,
    /// A member's address, which it has since it joined.
    member_address: Option<Ipv4Addr>,
    open: tokio::sync::Mutex<Option<Open>>,
    view: watch::Sender<Option<Arc<View>>>,
    /// What keeps packets from getting from node to node.
    problem: Mutex<Option<Problem>>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    /// Set once the API is there, which the node port serves.
    api: std::sync::OnceLock<hivemind_api::Api>,
}

impl Opener {
    pub(crate) fn new(
        config: &Config,
        objects: Objects,
        datapath: Arc<Datapath>,
        tls: Arc<NodeTls>,
        member_address: Option<Ipv4Addr>,
    ) -> Arc<Self> {
        Arc::new(Opener {
            config: config.clone(),
            objects,
            datapath,
            tls,
            member_address,
            open: tokio::sync::Mutex::default(),
            view: watch::Sender::new(None),
            problem: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
            api: std::sync::OnceLock::new(),
        })
    }

    /// Gives it the API, and opens once there is a second node; tries again as long as that fails.
    pub(crate) fn start(self: &Arc<Self>, api: hivemind_api::Api) {
        let _ = self.api.set(api);
        let opener = Arc::clone(self);
        self.spawn(async move {
            loop {
                if let Err(error) = opener.wait_until_needed().await {
                    warn!(error = error.message, "Nodes cannot be watched; trying again");
                } else {
                    match opener.open().await {
                        Ok(_) => return,
                        Err(error) => {
                            warn!(
                                error = error.message,
                                hint = error.hint,
                                "Other nodes cannot reach this one; trying again"
                            );
                            opener.note(Some(&error)).await;
                        }
                    }
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits for a second node.
    async fn wait_until_needed(&self) -> Result<(), ApiError> {
        let (list, mut watch) = self.objects.list_and_watch::<Node>(None).await?;
        let mut others = list.items.iter().any(|node| node.metadata.name != self.config.node_name);
        let open = self.open.lock().await;
        // Unless somebody asked for it to be open meanwhile.
        if !others && open.is_none() {
            self.forget_ways().await?;
        }
        drop(open);
        while !others {
            let event = watch.next().await?;
            others = event.kind != WatchKind::Deleted && event.object.metadata.name != self.config.node_name;
        }
        Ok(())
    }

    /// Opens what is not open yet, and says where this node is.
    ///
    /// # Errors
    /// That others cannot reach it, and why; nothing is open then.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<Ipv4Addr, ApiError> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open {
            return Ok(open.address);
        }
        let address = self.address().await?;
        let cluster = Cluster::load(self.objects.store()).await?.ok_or_else(|| {
            ApiError::new(
                ErrorCode::Disconnected,
                "the cluster's keys are not known yet: nothing was heard from the server since this node joined",
                "see whether the server can be reached",
            )
        })?;
        let at = SocketAddrV4::new(address, self.config.node_port);
        let listener = TcpListener::bind(at).await.map_err(|error| taken("TCP", at, &error))?;
        let socket = UdpSocket::bind(at).await.map_err(|error| taken("UDP", at, &error))?;
        let nodes = self.objects.list::<Node>(None).await?.items;
        self.set_ways(&cluster, address, &nodes).await?;
        let membership = Arc::new(self.start_membership(&cluster, at, &nodes, socket)?);
        self.serve(listener)?;
        self.follow(cluster, address, &membership);
        self.note(None).await;
        info!(address = %at, "Other nodes can reach this one");
        *open = Some(Open { address, membership });
        Ok(address)
    }

    /// This node's address; a server's is noted in its object.
    async fn address(&self) -> Result<Ipv4Addr, ApiError> {
        if let Some(address) = self.member_address {
            return Ok(address);
        }
        let own: Node = self.objects.get("", &self.config.node_name).await?;
        let address = match (self.config.cluster_address, own.spec.address) {
            (None, Some(address)) => address,
            _ => address::towards(&self.config, None)?,
        };
        if own.spec.address != Some(address) {
            let set = |node: &mut Node| {
                node.spec.address = Some(address);
                Ok(())
            };
            self.objects.update_with("", &self.config.node_name, set).await?;
        }
        Ok(address)
    }

    /// Has the data path know the way to all nodes.
    async fn set_ways(&self, cluster: &Cluster, address: Ipv4Addr, nodes: &[Node]) -> Result<(), ApiError> {
        let own = nodes.iter().find(|node| node.metadata.name == self.config.node_name);
        let own = own.map(|node| node.spec.number).ok_or_else(|| {
            ApiError::new(ErrorCode::Disconnected, "this node's own number is not known yet", "")
        })?;
        let others = nodes.iter().filter(|node| node.metadata.name != self.config.node_name);
        let spec = ClusterSpec {
            routing: match cluster.facts.routing {
                Routing::Overlay => hivemind_datapath::Routing::Overlay,
                Routing::Direct => hivemind_datapath::Routing::Direct,
            },
            own,
            address,
            nodes: others.filter_map(remote).collect(),
        };
        let set = self.datapath.set_cluster(Some(spec)).await;
        set.map_err(|error| hivemind_agent::explain_datapath(&error))
    }

    fn start_membership(
        &self,
        cluster: &Cluster,
        at: SocketAddrV4,
        nodes: &[Node],
        socket: UdpSocket,
    ) -> Result<Membership, ApiError> {
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::new(ErrorCode::Internal, format!("gossip cannot be started: {error}"), "")
        };
        let own = nodes.iter().find(|node| node.metadata.name == self.config.node_name);
        let number = own.map_or(0, |node| node.spec.number);
        let own =
            peer(number, &self.config.node_name, at).ok_or_else(|| failed(&"this node has no number"))?;
        let keys = cluster.gossip_keys.iter().zip(0..);
        let keys = keys.map(|(secret, id)| Key { id, secret: *secret }).collect();
        let config = hivemind_membership::Config { own, keys, peers: self.peers(nodes) };
        Membership::start(config, socket).map_err(|error| failed(&error))
    }

    fn peers(&self, nodes: &[Node]) -> Vec<Peer> {
        let others = nodes.iter().filter(|node| node.metadata.name != self.config.node_name);
        let peers = others.filter_map(|node| {
            let address = SocketAddrV4::new(node.spec.address?, self.config.node_port);
            peer(node.spec.number, &node.metadata.name, address)
        });
        peers.collect()
    }

    fn serve(&self, listener: TcpListener) -> Result<(), ApiError> {
        let api = self.api.get().cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::Busy, "the daemon is starting", "try again in a moment")
        })?;
        let (tls, stop) = (Arc::clone(&self.tls), self.stop.clone());
        // Not by `spawn`: it ends by itself, after the requests that are under way.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            let tls = move || tls.server();
            if let Err(error) = hivemind_api::serve_nodes(listener, tls, api, stop).await {
                warn!(%error, "The node port is not served");
            }
        });
        Ok(())
    }

    /// Follows nodes as they come and go, and tells what gossip says.
    fn follow(self: &Arc<Self>, cluster: Cluster, address: Ipv4Addr, membership: &Arc<Membership>) {
        let (opener, told) = (Arc::clone(self), Arc::clone(membership));
        self.spawn(async move {
            loop {
                if let Err(error) = opener.follow_nodes(&cluster, address, &told).await {
                    warn!(
                        error = error.message,
                        hint = error.hint,
                        "The way to other nodes is not as it should be; trying again"
                    );
                    opener.note(Some(&error)).await;
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        });
        let (opener, mut seen) = (Arc::clone(self), membership.view());
        self.spawn(async move {
            loop {
                let view = Arc::clone(&seen.borrow_and_update());
                opener.view.send_replace(Some(view));
                if seen.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    async fn follow_nodes(
        &self,
        cluster: &Cluster,
        address: Ipv4Addr,
        membership: &Membership,
    ) -> Result<(), ApiError> {
        let (list, mut watch) = self.objects.list_and_watch::<Node>(None).await?;
        let mut nodes = list.items;
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            if let Err(error) = membership.set_peers(self.peers(&nodes)) {
                warn!(%error, "Gossip does not take the nodes as they are");
            }
            self.set_ways(cluster, address, &nodes).await?;
            self.note(None).await;
            tokio::select! {
                event = watch.next() => {
                    let event = event?;
                    nodes.retain(|node| node.metadata.name != event.object.metadata.name);
                    if event.kind != WatchKind::Deleted {
                        nodes.push(event.object);
                    }
                }
                _ = every.tick() => {}
            }
        }
    }

    /// Tells what is in the way, or that nothing is, here and in the node's object.
    async fn note(&self, error: Option<&ApiError>) {
        let problem = error.map(|error| Problem {
            code: error.code,
            field: String::new(),
            message: format!("traffic between nodes is not carried as it should be: {}", error.message),
            hint: error.hint.clone(),
        });
        let known = std::mem::replace(
            &mut *self.problem.lock().unwrap_or_else(PoisonError::into_inner),
            problem.clone(),
        );
        if known == problem {
            return;
        }
        let set = |node: &mut Node| {
            node.status.problem.clone_from(&problem);
            Ok(())
        };
        if let Err(error) = self.objects.update_with("", &self.config.node_name, set).await {
            warn!(error = error.message, "What is in the way of traffic could not be written down");
        }
    }

    /// What keeps packets from getting from node to node, if something does.
    pub(crate) fn problem(&self) -> Option<Problem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The members as gossip tells them, and every change.
    pub(crate) fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// Has the data path know no other node: what an earlier daemon, or this one, made for them goes.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) async fn forget_ways(&self) -> Result<(), ApiError> {
        self.datapath.set_cluster(None).await.map_err(|error| hivemind_agent::explain_datapath(&error))
    }

    /// Closes what is open; packets find their way further on. With `goodbye` the others are told that the node leaves for
    /// good.
    pub(crate) async fn stop(&self, goodbye: bool) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        let open = self.open.lock().await.take();
        let membership = open.and_then(|open| Arc::into_inner(open.membership));
        match membership {
            Some(membership) if goodbye => membership.leave().await,
            Some(membership) => membership.stop().await,
            None => {}
        }
    }
}

/// A node as the data path knows it; `None` if it cannot be reached yet.
fn remote(node: &Node) -> Option<RemoteNode> {
    Some(RemoteNode {
        number: node.spec.number,
        name: node.metadata.name.clone(),
        address: node.spec.address?,
        ranges: (node.spec.replica_range_v4.parse().ok()?, node.spec.replica_range_v6.parse().ok()?),
    })
}

fn peer(number: u16, name: &str, address: SocketAddrV4) -> Option<Peer> {
    Some(Peer { number: NodeNumber::try_from(number).ok()?, name: NodeName::new(name).ok()?, address })
}

fn taken(protocol: &str, at: SocketAddrV4, error: &std::io::Error) -> ApiError {
    let code = match error.kind() {
        std::io::ErrorKind::AddrInUse => ErrorCode::AddressInUse,
        _ => ErrorCode::NetworkFailed,
    };
    let what = format!("nodes cannot be served at {at} ({protocol}): {error}");
    ApiError::new(code, what, "free that port, or choose another for all nodes: --node-port")
}
