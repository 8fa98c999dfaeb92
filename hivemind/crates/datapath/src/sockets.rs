//! Sockets whose other end is gone are ended, so that their programs learn of it at once and connect anew.
//!
//! Two things go. A *backend* leaves its service, though its endpoint may go on: UDP sockets that the socket hooks connected
//! to it for that service end; nothing else would ever tell them. TCP connections go on as long as the endpoint does. An
//! *endpoint* is taken down: TCP connections with it end on this node, rather than wait for minutes for an answer.
//!
//! What is gone is noted by whoever takes it away, and looked for by a thread of its own, many at once. The kernel does it
//! (`SOCK_DESTROY`); one that cannot is told of once, and there such sockets notice by themselves: UDP with the first ICMP
//! error once the endpoint is down, TCP when it gives up.

pub(crate) mod diag;

use crate::{
    Error, grace,
    maps::{failed, open},
    netns,
    node::Node,
    service::table::ServiceTable,
    sockets::diag::{SockDiag, Transport},
    telemetry::events::Clocks,
};
use aya::{
    Pod,
    maps::{HashMap as BpfMap, Map, MapData, MapError},
};
use hivemind_common::{
    conntrack::{Entry, Key, Side},
    family::{Address, Address4, Address6},
    name,
    packet::TCP,
    service::{Reverse, ReverseKey},
    translation::Translation,
};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The most entries that are looked at in a table: it changes meanwhile, and the kernel may begin again.
const LOOKS_MAX: usize = 1 << 20;

/// What is gone, and not yet looked for. Bounded by the addresses of replicas.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    waiting: Mutex<Waiting>,
    /// That the kernel cannot end sockets has been told.
    is_told: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    backends: HashSet<IpAddr>,
    /// When each was taken down, in nanoseconds of the monotonic clock.
    endpoints: HashMap<IpAddr, u64>,
}

impl Gone {
    /// Backends that have left a service.
    pub(crate) fn note_backends(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).backends.extend(addresses);
    }

    /// An endpoint, of this node or another, that has been taken down just now.
    pub(crate) fn note_endpoint(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let now = Clocks::now().monotonic_ns();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.endpoints.extend(addresses.into_iter().map(|address| (address, now)));
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells what went wrong; of a kernel that cannot do it at all, once.
    fn tell(&self, error: &Error) {
        let errno = match error {
            Error::System { source, .. } => source.raw_os_error(),
            _ => None,
        };
        if !matches!(errno, Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT)) {
            tracing::warn!(%error, errno, "Sockets to an endpoint that is gone may take longer to notice");
        } else if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "This kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY): clients that are connected to an endpoint that \
                 leaves notice only when it is gone"
            );
        }
    }
}

/// Ends the sockets of what has gone since this was done last.
pub(crate) fn end(node: &Node) {
    let Waiting { backends, endpoints } = node.gone.take();
    if backends.is_empty() && endpoints.is_empty() {
        return;
    }
    let ended = end_datagrams(node, &backends).and_then(|()| end_connections(node, &endpoints));
    if let Err(error) = ended {
        node.gone.tell(&error);
    }
}

/// A connected socket: its cookie and its peer.
type Peer = (u64, SocketAddr);

fn end_datagrams(node: &Node, backends: &HashSet<IpAddr>) -> Result<(), Error> {
    if backends.is_empty() {
        return Ok(());
    }
    // A hook that still saw the backend has finished then.
    grace::wait();
    let mut stale = HashSet::new();
    stale_peers::<Address4>(node, backends, &mut stale)?;
    stale_peers::<Address6>(node, backends, &mut stale)?;
    if stale.is_empty() {
        return Ok(());
    }
    let end = || -> io::Result<()> {
        let mut kernel = SockDiag::open()?;
        for socket in kernel.connected(Transport::Udp)? {
            if stale.contains(&(socket.cookie, socket.peer)) {
                kernel.end(Transport::Udp, &socket)?;
            }
        }
        Ok(())
    };
    end().map_err(failed_to_end())?;
    let namespaces = node.endpoints().all().into_iter().map(|info| info.endpoint.netns);
    netns::in_each(namespaces, |_| end().map_err(failed_to_end()))
}

/// The sockets that the hooks sent to one of these backends for a service that it does not belong to any more.
fn stale_peers<A: Family>(
    node: &Node,
    backends: &HashSet<IpAddr>,
    stale: &mut HashSet<Peer>,
) -> Result<(), Error>
where
    ReverseKey<A>: Pod,
    Reverse<A>: Pod,
{
    let reverse = table::<ReverseKey<A>, Reverse<A>>(node, A::REVERSE)?;
    each(&reverse, A::REVERSE, |key, asked| {
        let address = key.address.ip();
        if backends.contains(&address)
            && !is_backend(&node.services(), (asked.address.ip(), asked.port), address)
        {
            let cookie = u64::from(key.socket[0]) | u64::from(key.socket[1]) << 32;
            stale.insert((cookie, SocketAddr::new(address, u16::from_be(key.port as u16))));
        }
    })
}

/// Whether the service at an address, or published at a port of the node, has this backend. One that is no more lets its
/// connections be.
fn is_backend(table: &ServiceTable, (address, port): (IpAddr, u16), backend: IpAddr) -> bool {
    let has_address = |spec: &crate::ServiceSpec| address == spec.address_v4 || address == spec.address_v6;
    let publishes = |spec: &crate::ServiceSpec| {
        spec.published.iter().any(|published| published.host_port == u16::from_be(port))
    };
    let specs = || table.records.values().map(|record| &record.spec);
    let found: Vec<_> = match specs().find(|spec| has_address(spec)) {
        Some(spec) => vec![spec],
        None => specs().filter(|spec| publishes(spec)).collect(),
    };
    let has =
        |spec: &&crate::ServiceSpec| spec.backends.iter().any(|b| backend == b.ipv4 || backend == b.ipv6);
    found.is_empty() || found.iter().any(has)
}

/// A tuple from the view of the end that is not gone.
type Tuple = (SocketAddr, SocketAddr);

fn end_connections(node: &Node, endpoints: &HashMap<IpAddr, u64>) -> Result<(), Error> {
    if endpoints.is_empty() {
        return Ok(());
    }
    let mut tuples = Vec::new();
    tuples_with::<Address4>(node, endpoints, &mut tuples)?;
    tuples_with::<Address6>(node, endpoints, &mut tuples)?;
    let mut by_namespace: HashMap<Option<PathBuf>, Vec<Tuple>> = HashMap::new();
    let namespaces: HashMap<IpAddr, PathBuf> = node
        .endpoints()
        .all()
        .into_iter()
        .flat_map(|info| {
            let addresses: [IpAddr; 2] = [info.spec.ipv4.into(), info.spec.ipv6.into()];
            addresses.map(|address| (address, info.endpoint.netns.clone()))
        })
        .collect();
    for tuple in tuples {
        by_namespace.entry(namespaces.get(&tuple.0.ip()).cloned()).or_default().push(tuple);
    }
    let end = |tuples: &[Tuple]| -> io::Result<()> {
        let mut kernel = SockDiag::open()?;
        for (own, peer) in tuples {
            kernel.end_between(Transport::Tcp, *own, *peer)?;
        }
        Ok(())
    };
    if let Some(tuples) = by_namespace.remove(&None) {
        end(&tuples).map_err(failed_to_end())?;
    }
    let paths: Vec<PathBuf> = by_namespace.keys().flatten().cloned().collect();
    netns::in_each(paths, |path| {
        let tuples = by_namespace.get(&Some(path.to_owned())).map_or(&[][..], Vec::as_slice);
        end(tuples).map_err(failed_to_end())
    })
}

/// The TCP connections with one of these endpoints that began before it was taken down, as the socket at the other end
/// knows them.
fn tuples_with<A: Family>(
    node: &Node,
    endpoints: &HashMap<IpAddr, u64>,
    tuples: &mut Vec<Tuple>,
) -> Result<(), Error>
where
    Key<A>: Pod,
    Translation<A>: Pod,
{
    let connections = table::<Key<A>, Entry>(node, A::CONNTRACK)?;
    let translations = table::<Key<A>, Translation<A>>(node, A::TRANSLATION)?;
    each(&connections, A::CONNTRACK, |key, entry| {
        for gone in [Side::Low, Side::High] {
            let since = endpoints.get(&key.addresses[gone.index()].ip());
            if key.protocol != TCP || since.is_none_or(|since| entry.began_ns > *since) {
                continue;
            }
            let (outer, gone) = match translations.get(key, 0) {
                Ok(found) => found.turn(gone, TCP),
                Err(_) => (*key, gone),
            };
            let end = |side: Side| {
                let port = u16::from_be(outer.ports[side.index()]);
                SocketAddr::new(outer.addresses[side.index()].ip(), port)
            };
            tuples.push((end(gone.other()), end(gone)));
        }
    })
}

/// What differs between the families.
pub(crate) trait Family: Address + Pod {
    const REVERSE: &'static str;
    const CONNTRACK: &'static str;
    const TRANSLATION: &'static str;

    fn ip(self) -> IpAddr;
}

impl Family for Address4 {
    const REVERSE: &'static str = name::REVERSE_V4;
    const CONNTRACK: &'static str = name::CONNTRACK_V4;
    const TRANSLATION: &'static str = name::TRANSLATION_V4;

    fn ip(self) -> IpAddr {
        self.octets().into()
    }
}

impl Family for Address6 {
    const REVERSE: &'static str = name::REVERSE_V6;
    const CONNTRACK: &'static str = name::CONNTRACK_V6;
    const TRANSLATION: &'static str = name::TRANSLATION_V6;

    fn ip(self) -> IpAddr {
        self.octets().into()
    }
}

fn table<K: Pod, V: Pod>(node: &Node, map: &'static str) -> Result<BpfMap<MapData, K, V>, Error> {
    BpfMap::try_from(Map::HashMap(open(&node.pins, map)?)).map_err(failed(map))
}

fn each<K: Pod, V: Pod>(
    table: &BpfMap<MapData, K, V>,
    map: &'static str,
    mut take: impl FnMut(&K, &V),
) -> Result<(), Error> {
    for found in table.iter().take(LOOKS_MAX) {
        match found {
            Ok((key, value)) => take(&key, &value),
            // It went between the look at its key and the look at its value.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(failed(map)(error)),
        }
    }
    Ok(())
}

fn failed_to_end() -> impl FnOnce(io::Error) -> Error {
    Error::system("end sockets whose other end is gone")
}
