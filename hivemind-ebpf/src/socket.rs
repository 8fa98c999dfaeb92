//! The socket hooks: a service's address becomes an endpoint's when a socket connects or sends, and the endpoint's
//! becomes the service's again when the socket asks whom it talks to. Packets are not touched.

use crate::{
    flow::now_ns,
    maps::{Maps, NODE_NETNS_COOKIE},
    service::{at, choose, published, target_port},
};
use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use hivemind_common::{
    family::{Address, Address4, Address6, V4, V6},
    service::{self, AffinityKey, Reverse, ReverseKey, Service},
};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;
/// In [`AffinityKey::family`]: the client is a network namespace. (Its sockets have no address yet when they are looked at.)
const OF_A_NAMESPACE: u32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(context: SockAddrContext) -> i32 {
    send_v4(Socket(context.sock_addr), Choice::Random)
}

#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(context: SockAddrContext) -> i32 {
    send_v6(Socket(context.sock_addr), Choice::Random)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(context: SockAddrContext) -> i32 {
    send_v4(Socket(context.sock_addr), Choice::BySocket)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(context: SockAddrContext) -> i32 {
    send_v6(Socket(context.sock_addr), Choice::BySocket)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(context: SockAddrContext) -> i32 {
    show_v4(Socket(context.sock_addr))
}

#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(context: SockAddrContext) -> i32 {
    show_v6(Socket(context.sock_addr))
}

#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(context: SockAddrContext) -> i32 {
    show_v4(Socket(context.sock_addr))
}

#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(context: SockAddrContext) -> i32 {
    show_v6(Socket(context.sock_addr))
}

/// How a backend is chosen.
#[derive(Clone, Copy)]
enum Choice {
    /// Anew for each connection.
    Random,
    /// The same for all datagrams of a socket, as long as the table stays.
    BySocket,
}

/// Where a socket shall go.
enum Way<A> {
    /// Where it asked to go.
    AsAsked,
    /// Nowhere: the service has no backend.
    Refused,
    /// To a backend, at this port in network order.
    To(A, u16),
}

/// The context of a hook. Every access is of one field, whole: the kernel rewrites them one by one.
#[derive(Clone, Copy)]
struct Socket(*mut bpf_sock_addr);

impl Socket {
    #[inline(always)]
    fn address4(self) -> Address4 {
        // SAFETY: the kernel hands a valid context.
        Address4(unsafe { (&raw const (*self.0).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn set_address4(self, address: Address4) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).user_ip4).write_volatile(address.0) };
    }

    #[inline(always)]
    fn address6(self) -> Address6 {
        // SAFETY: as above.
        unsafe {
            let words = (&raw const (*self.0).user_ip6).cast::<u32>();
            Address6([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn set_address6(self, address: Address6) {
        // SAFETY: as above.
        unsafe {
            let words = (&raw mut (*self.0).user_ip6).cast::<u32>();
            words.write_volatile(address.0[0]);
            words.add(1).write_volatile(address.0[1]);
            words.add(2).write_volatile(address.0[2]);
            words.add(3).write_volatile(address.0[3]);
        }
    }

    /// The port in network order.
    #[inline(always)]
    fn port(self) -> u16 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).user_port).read_volatile() as u16 }
    }

    #[inline(always)]
    fn set_port(self, port: u16) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).user_port).write_volatile(port.into()) };
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).protocol).read_volatile() as u8 }
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The cookie of the network namespace that the socket lives in.
    #[inline(always)]
    fn namespace(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_netns_cookie(self.0.cast()) }
    }

    /// Whether the socket lives in the node's own network namespace.
    #[inline(always)]
    fn is_the_nodes(self) -> bool {
        self.namespace() == NODE_NETNS_COOKIE.load()
    }
}

#[inline(always)]
fn send_v4(socket: Socket, choice: Choice) -> i32 {
    match way::<V4>(socket, socket.address4(), choice) {
        Way::AsAsked => ALLOW,
        Way::Refused => refuse(),
        Way::To(address, port) => {
            socket.set_address4(address);
            socket.set_port(port);
            ALLOW
        }
    }
}

#[inline(always)]
fn send_v6(socket: Socket, choice: Choice) -> i32 {
    let address = socket.address6();
    if let Some(inner) = address.mapped() {
        return match way::<V4>(socket, inner, choice) {
            Way::AsAsked => ALLOW,
            Way::Refused => refuse(),
            Way::To(address, port) => {
                socket.set_address6(Address6::from_mapped(address));
                socket.set_port(port);
                ALLOW
            }
        };
    }
    match way::<V6>(socket, address, choice) {
        Way::AsAsked => ALLOW,
        Way::Refused => refuse(),
        Way::To(address, port) => {
            socket.set_address6(address);
            socket.set_port(port);
            ALLOW
        }
    }
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}

/// Where a socket that asked for `address` shall go; remembers what to show it afterwards.
#[inline(always)]
fn way<F: Maps>(socket: Socket, address: F::Address, choice: Choice) -> Way<F::Address> {
    let port = socket.port();
    let Some(service) = service_at::<F>(socket, address, port) else {
        return Way::AsAsked;
    };
    if service.table_size == 0 {
        return Way::Refused;
    }
    let cookie = socket.cookie();
    let uniform = match choice {
        // SAFETY: a helper without arguments.
        Choice::Random => unsafe { bpf_get_prandom_u32() },
        Choice::BySocket => service::hash(cookie ^ ((service.id as u64) << 32)),
    };
    let namespace = socket.namespace();
    let client = AffinityKey {
        client: [namespace as u32, (namespace >> 32) as u32, 0, 0],
        service: service.id,
        family: OF_A_NAMESPACE,
    };
    let Some(backend) = choose::<F>(&service, uniform, client, now_ns()) else {
        return Way::Refused;
    };
    let target_port = target_port(&service, port);
    let key = reverse_key(cookie, backend.address, target_port);
    let asked = Reverse { address, port, padding: 0 };
    // A failure costs the socket only the sight of the service's address.
    let _ = F::reverse().insert(&key, &asked, 0);
    Way::To(backend.address, target_port)
}

/// The service at this address and port: that very port, else every port, else a port published on the node.
#[inline(always)]
fn service_at<F: Maps>(socket: Socket, address: F::Address, port: u16) -> Option<Service> {
    let protocol = socket.protocol();
    // The unspecified address stands for published ports; asked for literally it means loopback.
    if address != F::Address::unspecified()
        && let Some(found) = at::<F>(address, port, protocol)
    {
        return Some(found);
    }
    let published = published::<F>(port, protocol)?;
    let is_ours = if address.is_loopback() {
        socket.is_the_nodes()
    } else {
        F::node_address().get_ptr(address).is_some()
    };
    if is_ours { Some(published) } else { None }
}

#[inline(always)]
fn reverse_key<A>(cookie: u64, address: A, port: u16) -> ReverseKey<A> {
    ReverseKey { socket: [cookie as u32, (cookie >> 32) as u32], address, port: port.into() }
}

/// What the socket at the other end shall look like, if it is a backend that a service chose.
#[inline(always)]
fn shown<F: Maps>(socket: Socket, address: F::Address) -> Option<(F::Address, u16)> {
    let key = reverse_key(socket.cookie(), address, socket.port());
    // SAFETY: a copy of a value of the map.
    let asked = unsafe { F::reverse().get(&key) }?;
    Some((asked.address, asked.port))
}

#[inline(always)]
fn show_v4(socket: Socket) -> i32 {
    if let Some((address, port)) = shown::<V4>(socket, socket.address4()) {
        socket.set_address4(address);
        socket.set_port(port);
    }
    ALLOW
}

#[inline(always)]
fn show_v6(socket: Socket) -> i32 {
    let address = socket.address6();
    if let Some(inner) = address.mapped() {
        if let Some((address, port)) = shown::<V4>(socket, inner) {
            socket.set_address6(Address6::from_mapped(address));
            socket.set_port(port);
        }
        return ALLOW;
    }
    if let Some((address, port)) = shown::<V6>(socket, address) {
        socket.set_address6(address);
        socket.set_port(port);
    }
    ALLOW
}
