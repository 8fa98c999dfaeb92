//! The requests that the data path makes, one function each.

use hivemind_common::overlay;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// One change that the kernel is asked for.
pub(crate) struct Request {
    pub(super) action: String,
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
    pub(super) tolerates: &'static [i32],
}

/// One end of a veth pair to be made.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

impl Request {
    /// This failure is as good as success.
    pub(crate) fn tolerating(self, errors: &'static [i32]) -> Self {
        Self { tolerates: errors, ..self }
    }

    fn new(action: String, flags: u16, message: RouteNetlinkMessage) -> Self {
        Self { action, message, flags, tolerates: &[] }
    }
}

/// Makes a veth pair: one end here, the other in another namespace.
pub(crate) fn add_veth(
    here: &VethEnd<'_>,
    there: &VethEnd<'_>,
    there_in: BorrowedFd<'_>,
    mtu: u32,
) -> Request {
    let end = |end: &VethEnd<'_>| {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(end.name.to_owned()),
            LinkAttribute::Address(end.mac.to_vec()),
            LinkAttribute::Mtu(mtu),
        ];
        link
    };
    let mut peer = end(there);
    peer.attributes.push(LinkAttribute::NetNsFd(there_in.as_raw_fd()));
    let mut link = end(here);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let action = format!("make the veth pair {}", here.name);
    Request::new(action, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link))
}

/// Makes an interface of a kind that needs no more than a name.
pub(crate) fn add_link(name: &str, kind: InfoKind) -> Request {
    let mut link = LinkMessage::default();
    link.attributes =
        vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
    let action = format!("make the interface {name}");
    Request::new(action, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link))
}

/// Makes the VXLAN interface that owns the overlay's port. It takes no network, so nothing ever comes in by its socket.
pub(crate) fn add_overlay(name: &str, mac: [u8; 6]) -> Request {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::Vnifilter(true),
                InfoVxlan::Learning(false),
                InfoVxlan::Port(overlay::PORT),
            ])),
        ]),
    ];
    let action = format!("make the interface {name}");
    Request::new(action, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link))
}

/// Has an interface ask for no neighbours, and limits its packets.
pub(crate) fn set_up_overlay(index: u32, mtu: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Noarp;
    link.header.change_mask = LinkFlags::Noarp;
    link.attributes = vec![LinkAttribute::Mtu(mtu)];
    Request::new(format!("set up the interface {index}"), 0, RouteNetlinkMessage::SetLink(link))
}

/// Has the services' own interface ask for no neighbours, and take what is addressed to this MAC address. Its packets are no
/// longer than those of replicas, who get them.
pub(crate) fn set_up_services(index: u32, mac: [u8; 6], mtu: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Noarp;
    link.header.change_mask = LinkFlags::Noarp;
    link.attributes = vec![LinkAttribute::Address(mac.to_vec()), LinkAttribute::Mtu(mtu)];
    Request::new(format!("set up the interface {index}"), 0, RouteNetlinkMessage::SetLink(link))
}

/// The route to services by their own interface, and from which address.
pub(crate) fn add_service_route(interface: u32, to: IpNet, source: Option<IpAddr>) -> Request {
    let mut route = route(to, RouteType::Unicast);
    route.header.scope = if to.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    route.attributes.push(RouteAttribute::Oif(interface));
    if let Some(source) = source {
        route.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    let action = format!("add the route to {to} by interface {interface}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(route))
}

/// Gives an interface an alias, keeps the kernel from giving it a link-local address, and brings it up.
pub(crate) fn bring_up(name: &str, alias: Option<&str>) -> Request {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]),
    ];
    if let Some(alias) = alias {
        link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    }
    Request::new(format!("bring up the interface {name}"), 0, RouteNetlinkMessage::SetLink(link))
}

/// Removes an interface.
pub(crate) fn delete_link(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    Request::new(format!("remove the interface {index}"), 0, RouteNetlinkMessage::DelLink(link))
}

/// Gives an interface an address of its own (/32 or /128), without duplicate address detection.
pub(crate) fn add_address(interface: u32, address: IpAddr) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = interface;
    message.header.family = family(address);
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        message.attributes.push(AddressAttribute::Local(address));
    }
    message.attributes.push(AddressAttribute::Address(address));
    let action = format!("give the address {address} to interface {interface}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewAddress(message))
}

/// Gives an interface the place where filters go before Linux 6.6.
pub(crate) fn add_clsact(interface: u32) -> Request {
    let action = format!("add a clsact qdisc to interface {interface}");
    Request::new(action, NLM_F_CREATE, RouteNetlinkMessage::NewQueueDiscipline(clsact(interface)))
}

fn clsact(interface: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = interface as i32;
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    message
}

/// The direction of a filter, seen from the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// Where a filter of this direction hangs.
    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }
}

/// The priority of filters on interfaces that are ours alone, and on those that others may have filters on.
pub(crate) const FIRST: u16 = 1;
pub(crate) const AMONG_OTHERS: u16 = overlay::PORT;

/// Puts a program into an interface's only filter of that direction and priority, in the place of one that is there.
pub(crate) fn add_filter(
    interface: u32,
    direction: Direction,
    priority: u16,
    name: &str,
    program: BorrowedFd<'_>,
) -> Request {
    let mut message = filter(interface, direction, priority);
    message.header.handle = TcHandle { major: 0, minor: 1 };
    message.attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    let action = format!("attach the program {name} to interface {interface}");
    Request::new(action, NLM_F_CREATE, RouteNetlinkMessage::NewTrafficFilter(message))
}

fn filter(interface: u32, direction: Direction, priority: u16) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = interface as i32;
    message.header.parent = direction.parent();
    // The priority, then the protocol in network order.
    message.header.info = (u32::from(priority) << 16) | u32::from((libc::ETH_P_ALL as u16).to_be());
    message
}

/// Removes the filters of that direction and priority. Their qdisc stays: on an interface that is up, the kernel takes all
/// qdiscs out of service to remove one, and drops what is sent for as long as an RCU grace period.
pub(crate) fn delete_filters(interface: u32, direction: Direction, priority: u16) -> Request {
    let message = filter(interface, direction, priority);
    let action = format!("remove the filters of interface {interface}");
    Request::new(action, 0, RouteNetlinkMessage::DelTrafficFilter(message))
}

/// A neighbour that is never asked for.
pub(crate) fn add_neighbour(interface: u32, address: IpAddr, mac: [u8; 6]) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    let action = format!("add the neighbour {address} at interface {interface}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
}

/// A route to addresses that are right behind an interface.
pub(crate) fn add_link_route(interface: u32, to: IpNet) -> Request {
    let mut route = route(to, RouteType::Unicast);
    route.header.scope = if to.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    route.attributes.push(RouteAttribute::Oif(interface));
    let action = format!("add the route to {to} by interface {interface}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(route))
}

/// The route to another node's replicas by the overlay's interface: from which address, and how long packets may be.
pub(crate) fn add_node_route(interface: u32, to: IpNet, source: Option<IpAddr>, mtu: u32) -> Request {
    let mut route = route(to, RouteType::Unicast);
    route.header.scope = if to.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    route.attributes.push(RouteAttribute::Oif(interface));
    if let Some(source) = source {
        route.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    // Locked: whatever the path may seem to allow, and for what is forwarded too.
    route
        .attributes
        .push(RouteAttribute::Metrics(vec![RouteMetric::Lock(1 << RTAX_MTU), RouteMetric::Mtu(mtu)]));
    let action = format!("add the route to {to} by interface {interface}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(route))
}

/// `RTAX_MTU` of <linux/rtnetlink.h>.
const RTAX_MTU: u32 = 2;

/// Removes what [`add_node_route`] added.
pub(crate) fn delete_node_route(interface: u32, to: IpNet) -> Request {
    let mut route = route(to, RouteType::Unicast);
    route.header.scope = RouteScope::NoWhere;
    route.attributes.push(RouteAttribute::Oif(interface));
    let action = format!("remove the route to {to} by interface {interface}");
    Request::new(action, 0, RouteNetlinkMessage::DelRoute(route))
}

/// The default route of a family, by a gateway behind an interface.
pub(crate) fn add_default_route(interface: u32, gateway: IpAddr) -> Request {
    let mut route = RouteMessage::default();
    fill(&mut route, gateway, RouteType::Unicast);
    route.attributes =
        vec![RouteAttribute::Oif(interface), RouteAttribute::Gateway(RouteAddress::from(gateway))];
    let action = format!("add the default route by {gateway}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(route))
}

/// A route that answers with an ICMP error. Its metric is high, so that any other route goes before it.
pub(crate) fn add_unreachable_route(to: IpNet) -> Request {
    let action = format!("add the unreachable route to {to}");
    Request::new(action, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(unreachable_route(to)))
}

/// Removes what [`add_unreachable_route`] added.
pub(crate) fn delete_unreachable_route(to: IpNet) -> Request {
    let action = format!("remove the unreachable route to {to}");
    Request::new(action, 0, RouteNetlinkMessage::DelRoute(unreachable_route(to)))
}

fn unreachable_route(to: IpNet) -> RouteMessage {
    let mut route = route(to, RouteType::Unreachable);
    route.attributes.push(RouteAttribute::Priority(UNREACHABLE_METRIC));
    route
}

const UNREACHABLE_METRIC: u32 = 4_278_198_272;

fn route(to: IpNet, kind: RouteType) -> RouteMessage {
    let mut route = RouteMessage::default();
    fill(&mut route, to.addr(), kind);
    route.header.destination_prefix_length = to.prefix_len();
    route.attributes.push(RouteAttribute::Destination(RouteAddress::from(to.network())));
    route
}

fn fill(route: &mut RouteMessage, like: IpAddr, kind: RouteType) {
    route.header.address_family = family(like);
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = kind;
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
