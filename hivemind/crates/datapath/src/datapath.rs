//! The handle on the node's data path.

use crate::{
    ClusterSpec, Config, ConnectionUse, Endpoint, EndpointInfo, EndpointSpec, Error, FlowEvent, FlowEvents,
    NetworkChanges, Protocol, RemoteEndpoint, ServiceSpec, Statistics, Trace, TraceSpec, addresses, cluster,
    endpoint, grace, netns,
    node::Node,
    policy, service, sockets,
    teardown::teardown,
    telemetry::{connections, events::EventReader},
    trace, uplink,
    worker::Workers,
};
use hivemind_policy::Tables;
use ipnet::{Ipv4Net, Ipv6Net};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::Arc,
};
use tokio::task::spawn_blocking;

/// The data path of this node: the one place from which it is changed.
///
/// Dropping it changes nothing in the kernel: programs, maps, endpoints and published ports go on.
///
/// Minimum kernel version: 6.1; from 6.6 on programs are attached to interfaces by links, before by filters.
///
/// ```no_run
/// # async fn example(config: hivemind_datapath::Config, spec: hivemind_datapath::EndpointSpec) -> Result<(), hivemind_datapath::Error> {
/// use hivemind_datapath::Datapath;
///
/// let datapath = Datapath::open(config.clone()).await?;
/// let endpoint = datapath.ensure_endpoint(spec).await?;
/// println!("containers may join {}", endpoint.netns.display());
/// drop(datapath); // Traffic goes on.
/// Datapath::teardown(&config).await?; // Now it does not.
/// # Ok(())
/// # }
/// ```
pub struct Datapath {
    node: Arc<Node>,
    workers: Workers,
    events: EventReader,
    /// Held by whoever has a packet traced.
    tracing: tokio::sync::Mutex<()>,
}

impl Datapath {
    /// Opens the data path in the network namespace of the calling thread's process: makes what is missing, adopts
    /// the endpoints and services that are there, and puts this build's programs in the place of those that run.
    ///
    /// Takes some hundred milliseconds, most of it the kernel's verifier; twice that where maps of another layout are taken
    /// over. Traffic goes on meanwhile.
    ///
    /// # Errors
    /// What the machine lacks ([`Error::NotPermitted`], [`Error::KernelTooOld`], [`Error::NoBtf`],
    /// [`Error::NoCgroup2`]) or maps that this build can neither use nor take over ([`Error::LayoutTooNew`],
    /// [`Error::LayoutTooOld`]), before anything is changed; or what failed on the way, in which
    /// case what ran before goes on running and opening again completes it.
    pub async fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, true).await
    }

    /// As [`Datapath::open`], but as on a kernel before 6.6: interfaces get filters and no links. To test that way
    /// on a newer kernel.
    #[doc(hidden)]
    pub async fn open_without_tcx(config: Config) -> Result<Self, Error> {
        Self::open_with(config, false).await
    }

    async fn open_with(config: Config, may_use_tcx: bool) -> Result<Self, Error> {
        let open = spawn_blocking(move || Node::open(config, may_use_tcx));
        let node = Arc::new(open.await.map_err(|_| Error::Stopped)??);
        let workers = Workers::start(&node)?;
        let events = EventReader::start(&node.pins)?;
        Ok(Self { node, workers, events, tracing: tokio::sync::Mutex::new(()) })
    }

    /// Makes the endpoint: a network namespace with `eth0`, its addresses and routes, known to the maps. Packets flow
    /// as soon as this returns. An endpoint that stands as asked is left as it is.
    ///
    /// Takes a few milliseconds. Calls for different endpoints run beside one another.
    ///
    /// # Errors
    /// [`Error::Spec`] if the specification cannot be met, [`Error::MapFull`] if there are too many; nothing is
    /// changed then. After any other error nothing of the endpoint is left, as far as it could be removed.
    pub async fn ensure_endpoint(&self, spec: EndpointSpec) -> Result<Endpoint, Error> {
        let id = spec.id.clone();
        let made = self.workers.on_endpoint(&id, move |node| endpoint::lifecycle::ensure(node, spec)).await?;
        let settled = id.clone();
        self.workers.later(&id, move |node| {
            if let Err(error) = endpoint::lifecycle::settle(node, &settled) {
                tracing::warn!(endpoint = settled, %error, "An endpoint keeps its provisional filters");
            }
        });
        Ok(made)
    }

    /// Removes the endpoint with its namespace and its interface; one that does not exist is no error. TCP connections with it
    /// that have their other end on this node fail soon after, further ones end with ICMP errors, and none of them is ever delivered to a later endpoint with the same address as if it
    /// had been judged for that one.
    ///
    /// # Errors
    /// What the kernel refused. The endpoint receives nothing any more; asking again completes the removal.
    pub async fn remove_endpoint(&self, id: &str) -> Result<(), Error> {
        let name = id.to_owned();
        let removed =
            self.workers.on_endpoint(id, move |node| endpoint::lifecycle::remove(node, &name)).await;
        self.workers.end_sockets_later(sockets::end);
        removed
    }

    /// Gives an endpoint another identity: it is judged by that one's policy from then on, and told as that one. Connections that
    /// are made are judged again with their next packet. One that has it already is left as it is.
    ///
    /// # Errors
    /// [`Error::Spec`] if there is no such endpoint or no such identity: nothing is changed. After another error asking again
    /// completes it.
    pub async fn identify_endpoint(&self, id: &str, identity: u32) -> Result<(), Error> {
        let name = id.to_owned();
        self.workers
            .on_endpoint(id, move |node| endpoint::lifecycle::identify(node, &name, identity))
            .await?;
        // Nobody may be judged any more by the policy that it had.
        self.sweep_policies();
        Ok(())
    }

    /// A TCP socket in the network of an endpoint, which does not block and can be connected to `to`: an address of the endpoint is
    /// reached from within by it, without a packet on any wire or a policy in the way.
    ///
    /// # Errors
    /// [`Error::Spec`] if there is no such endpoint; what the kernel refused.
    pub async fn socket_within(&self, id: &str, to: IpAddr) -> Result<OwnedFd, Error> {
        let found = self.node.endpoints().all().into_iter().find(|info| info.spec.id == id);
        let Some(info) = found else {
            let reason = "there is no such endpoint".to_owned();
            return Err(Error::Spec { what: format!("endpoint {id:?}"), reason });
        };
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = move || {
            netns::within(&info.endpoint.netns, || {
                nix::sys::socket::socket(family, SockType::Stream, flags, None)
                    .map_err(|error| Error::system("open a socket")(error.into()))
            })
        };
        spawn_blocking(open).await.map_err(|_| Error::Stopped)?
    }

    /// All endpoints, by index.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        self.node.endpoints().all()
    }

    /// Makes the service what the specification says: its ports, its backends with their weights, its published
    /// ports. Connections that are made keep their backend; new ones follow the new specification from one moment on. UDP
    /// sockets that are connected to a backend that left fail soon after with ECONNABORTED, so that they connect anew.
    ///
    /// Takes microseconds a cell. If the table of cells is full
    /// but for freed ones, it waits until those may be used again, a second at most.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::PortTaken`] and [`Error::MapFull`]: nothing is changed. After another one asking again
    /// completes it.
    pub async fn set_service(&self, spec: ServiceSpec) -> Result<(), Error> {
        let set = self.workers.on_services(move |node| service::lifecycle::set(node, spec)).await;
        self.workers.end_sockets_later(sockets::end);
        set
    }

    /// Whether a service could publish the port on this node: nobody has it, or a service of this data path does.
    /// Nothing is changed, so another program may still take the port before a service is set.
    ///
    /// # Errors
    /// [`Error::PortTaken`] if another program has it; what else the kernel refused.
    pub async fn check_port(&self, port: u16, protocol: Protocol) -> Result<(), Error> {
        self.workers.on_services(move |node| service::lifecycle::check_port(node, port, protocol)).await
    }

    /// Removes the service and its published ports; one that does not exist is no error. Connections that are made go
    /// on.
    ///
    /// # Errors
    /// What the kernel refused; asking again completes it.
    pub async fn remove_service(&self, id: u32) -> Result<(), Error> {
        self.workers.on_services(move |node| service::lifecycle::remove(node, id)).await
    }

    /// All services, by number. Those that were adopted are as the maps hold them: ports and backends may stand in
    /// another order than they were given in.
    pub fn services(&self) -> Vec<ServiceSpec> {
        self.node.services().records.values().map(|record| record.spec.clone()).collect()
    }

    /// Looks at the node's own interfaces and addresses again: those on which published ports answer, and by which replicas
    /// reach the outside. To be called when they change.
    ///
    /// # Errors
    /// What the kernel refused; asking again completes it.
    pub async fn refresh_node_addresses(&self) -> Result<(), Error> {
        self.workers.on_services(Node::refresh_addresses).await
    }

    /// Listens for changes after which [`Datapath::refresh_node_addresses`] is to be called. Within a Tokio runtime, in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn network_changes(&self) -> Result<NetworkChanges, Error> {
        NetworkChanges::listen()
    }

    /// The node's addresses under which it is known outside: those of every interface that leads there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn uplink_addresses(&self) -> Result<Vec<IpAddr>, Error> {
        uplink::addresses(&self.node)
    }

    /// The addresses of services.
    pub fn service_range(&self) -> (Ipv4Net, Ipv6Net) {
        self.node.config.service_range
    }

    /// The greatest IP packet that endpoints send, in bytes.
    pub fn mtu(&self) -> u32 {
        self.node.mtu
    }

    /// Has all connections of an identity's endpoints judged by these tables, of endpoints that stand and of those to come.
    /// Each endpoint changes over at once, between two packets; connections that are made are judged again with their
    /// next packet. Tables equal to those it has change nothing.
    ///
    /// Takes a microsecond or two an entry.
    ///
    /// # Errors
    /// [`Error::Spec`] if the tables leave something unsaid, [`Error::MapFull`] if they do not fit beside what is
    /// there: nothing is changed. After another error asking again completes it.
    pub async fn set_policy(&self, identity: u32, tables: Arc<Tables>) -> Result<(), Error> {
        self.workers.on_policies(move |node| policy::lifecycle::set(node, identity, tables)).await?;
        self.sweep_policies();
        Ok(())
    }

    /// Whether [`Self::set_policy`] finds room for all of these, one after the other. Does not block.
    ///
    /// # Errors
    /// [`Error::MapFull`] if it does not.
    pub fn check_policies(&self, policies: &[(u32, Arc<Tables>)]) -> Result<(), Error> {
        policy::lifecycle::check_room(&self.node, policies)
    }

    /// Whether an identity has a policy. Does not block.
    pub fn has_policy(&self, identity: u32) -> bool {
        self.node.policies().has(identity)
    }

    /// Has the endpoints of an identity that has no policy judged by the one of `other`, until it is given its own. Changes
    /// nothing if it has one, or if `other` has none.
    ///
    /// # Errors
    /// [`Error::Spec`] if the identity is too large; what the kernel refused: asking again completes it.
    pub async fn share_policy(&self, identity: u32, other: u32) -> Result<(), Error> {
        self.workers.on_policies(move |node| policy::lifecycle::share(node, identity, other)).await
    }

    /// Takes an identity's policy away: its endpoints, if there are any, forward nothing from then on.
    ///
    /// # Errors
    /// What the kernel refused; asking again completes it.
    pub async fn remove_policy(&self, identity: u32) -> Result<(), Error> {
        self.workers.on_policies(move |node| policy::lifecycle::remove(node, identity)).await?;
        self.sweep_policies();
        Ok(())
    }

    /// Says whose well-known addresses outside of endpoints are, in place of what was said before.
    ///
    /// # Errors
    /// [`Error::Spec`] if an identity is too large, [`Error::MapFull`] if there are too many; what the kernel refused.
    /// Asking again completes it.
    pub async fn set_identities(&self, addresses: Vec<(IpAddr, u32)>) -> Result<(), Error> {
        self.workers.on_policies(move |node| addresses::set(node, &addresses)).await
    }

    /// Makes this node part of a cluster as the specification says, or of none: the overlay's interface, routes and
    /// programs towards other nodes. What is new is added before what is old is removed. Given what it was given before
    /// it looks up only by which way each node is reached; it is to be called when that may have changed.
    ///
    /// # Errors
    /// [`Error::Spec`] if the specification cannot be met, [`Error::KernelTooOldForNodes`] before Linux 6.3,
    /// [`Error::OverlayPortTaken`] if somebody has the overlay's port: nothing is changed. After another error asking again
    /// completes it.
    pub async fn set_cluster(&self, spec: Option<ClusterSpec>) -> Result<(), Error> {
        self.workers.on_services(move |node| cluster::lifecycle::set(node, spec)).await
    }

    /// Takes note of replicas of other nodes, and forgets those that are gone. Flows with what is not of this node are
    /// judged again.
    ///
    /// # Errors
    /// [`Error::Spec`] if one of them cannot be, [`Error::MapFull`] if there are too many. Asking again completes it.
    pub async fn set_remote_endpoints(
        &self,
        put: Vec<RemoteEndpoint>,
        gone: Vec<(Ipv4Addr, Ipv6Addr)>,
    ) -> Result<(), Error> {
        let set = self.workers.on_policies(move |node| cluster::endpoints::set(node, &put, &gone)).await;
        self.workers.end_sockets_later(sockets::end);
        set
    }

    /// Makes these the replicas of other nodes, and no others.
    ///
    /// # Errors
    /// As [`Datapath::set_remote_endpoints`].
    pub async fn replace_remote_endpoints(&self, all: Vec<RemoteEndpoint>) -> Result<(), Error> {
        let set = self.workers.on_policies(move |node| cluster::endpoints::replace(node, &all)).await;
        self.workers.end_sockets_later(sockets::end);
        set
    }

    fn sweep_policies(&self) {
        self.workers.sweep_later(|node| {
            if let Err(error) = policy::lifecycle::sweep(node) {
                tracing::warn!(%error, "What is left of an old policy stays in the maps until a policy changes again");
            }
        });
    }

    /// What happens to connections from now on. Readers that are too slow miss events, and are told how many.
    pub fn flow_events(&self) -> FlowEvents {
        self.events.subscribe()
    }

    /// At most `max` of the connections that are live now. Takes some microseconds a connection; traffic goes on
    /// meanwhile, so one that begins or ends may be missed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn connections(&self, max: usize) -> Result<Vec<FlowEvent>, Error> {
        let node = Arc::clone(&self.node);
        let live = spawn_blocking(move || connections::live(&node.pins, max));
        live.await.map_err(|_| Error::Stopped)?
    }

    /// Those of these addresses that live connections were begun with. Takes about a microsecond a connection, and no memory for
    /// connections with others; traffic goes on meanwhile, so one that begins or ends may be missed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn addresses_in_use(&self, addresses: BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Error> {
        let node = Arc::clone(&self.node);
        let used = spawn_blocking(move || connections::in_use(&node.pins, &addresses));
        used.await.map_err(|_| Error::Stopped)?
    }

    /// At most `max` of those who have the most connections in the tables, the heaviest first: who makes them full. Takes
    /// some microseconds a connection; traffic goes on meanwhile.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn heaviest(&self, max: usize) -> Result<Vec<ConnectionUse>, Error> {
        let node = Arc::clone(&self.node);
        spawn_blocking(move || node.heaviest(max)).await.map_err(|_| Error::Stopped)?
    }

    /// What would become of the first packet of a connection now, and of the answer to it: a second copy of the programs is run
    /// on packets that nobody sent, with tables of its own for all that programs write. Nothing that carries traffic is changed.
    /// Takes some hundred milliseconds; one after the other.
    ///
    /// # Errors
    /// [`Error::Spec`] if there is no such endpoint, or no packet can go from there; what the kernel refused.
    pub async fn trace(&self, spec: TraceSpec) -> Result<Trace, Error> {
        let node = Arc::clone(&self.node);
        let _turn = self.tracing.lock().await;
        spawn_blocking(move || trace::run(&node, &spec)).await.map_err(|_| Error::Stopped)?
    }

    /// Forgets totals and round trips of identities that no endpoint has any more.
    ///
    /// # Errors
    /// What the kernel refused; asking again completes it.
    pub async fn forget_identities(&self, gone: BTreeSet<u32>) -> Result<(), Error> {
        self.workers.on_services(move |node| node.pairs().forget(&gone)).await
    }

    /// Forgets what the rules of policies decided that are no more, by the policies' numbers. To be called when no identity is
    /// judged by them any more; what programs that still run count meanwhile is forgotten, too.
    ///
    /// # Errors
    /// What the kernel refused; asking again completes it.
    pub async fn forget_verdicts(&self, policies: BTreeSet<u32>) -> Result<(), Error> {
        let forget = move |node: &Node| {
            grace::wait();
            node.verdicts().forget(&policies)
        };
        self.workers.on_services(forget).await
    }

    /// Figures about maps, drops, pairs and events. Collects expired connections first, so that live ones are counted; takes some
    /// milliseconds.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        self.workers.on_services(Node::statistics).await
    }

    /// Removes everything that a data path of this configuration made, in whatever state it is: links, maps,
    /// interfaces, namespaces, routes, and mounts that it made. No `Datapath` may be open. May be called twice.
    ///
    /// # Errors
    /// What the kernel refused; calling again completes it.
    pub async fn teardown(config: &Config) -> Result<(), Error> {
        let config = config.clone();
        spawn_blocking(move || teardown(&config)).await.map_err(|_| Error::Stopped)?
    }
}
