//! Making, adopting and removing endpoints.
//!
//! The order is what keeps this safe: an endpoint's state, then its generation, then its interface, then its addresses
//! enter the maps; leaving goes the other way. So nothing is ever delivered to an endpoint that is half there, and a
//! connection that was judged before is judged again.

use crate::{
    Endpoint, EndpointInfo, EndpointSpec, Error,
    endpoint::table::{Admission, Refusal},
    host::INTERFACES,
    identity_bits, links,
    maps::{Maps, failed, forget, put},
    netlink::{
        Netlink,
        request::{self, VethEnd},
        wait_until,
    },
    netns::{self, Namespace},
    node::Node,
    policy::table::NO_POLICY,
};
use aya::{Pod, maps::MapError};
use hivemind_common::{
    drop_reason::DropReason,
    endpoint::{AddressEntry, EndpointState, NO_GENERATION, OUTSIDE},
    family::{Address4, Address6},
    name,
    telemetry::DropKey,
};
use ipnet::IpNet;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

/// The gateway that replicas know. Nobody has the address: the neighbour entry is permanent.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const LOOPBACK: &str = "lo";
const INSIDE: &str = "eth0";

/// Makes the endpoint, or finds that it stands.
pub(crate) fn ensure(node: &Node, spec: EndpointSpec) -> Result<Endpoint, Error> {
    check(node, &spec)?;
    let admission = node.endpoints().admit(&spec).map_err(|refusal| refused(node, &spec, refusal))?;
    let index = match admission {
        Admission::Exists(info) => return Ok(info.endpoint),
        Admission::Make(index) => index,
    };
    match make(node, &spec, index) {
        Ok(endpoint) => {
            node.endpoints().insert(EndpointInfo { spec, endpoint: endpoint.clone() });
            Ok(endpoint)
        }
        Err(error) => {
            // What is left is removed by the next start at the latest.
            let _ = unmake(node, &spec, index);
            node.endpoints().abandon(&spec, index);
            Err(error)
        }
    }
}

/// Gives the endpoint its lasting links, if it is still there and the kernel has them.
pub(crate) fn settle(node: &Node, id: &str) -> Result<(), Error> {
    let found = node.endpoints().get(id).map(|info| info.endpoint.clone());
    let Some(Endpoint { index, interface, .. }) = found.filter(|_| node.has_tcx) else { return Ok(()) };
    let number = node.maps().endpoint_state.get(&index, 0).map_err(failed(name::ENDPOINT_STATE))?.interface;
    links::settle_interface(&node.programs, &node.pins, &mut Netlink::open()?, &interface, number)
}

/// Removes the endpoint, if it is there.
pub(crate) fn remove(node: &Node, id: &str) -> Result<(), Error> {
    let found = node.endpoints().get(id).cloned();
    let Some(EndpointInfo { spec, endpoint }) = found else { return Ok(()) };
    unmake(node, &spec, endpoint.index)?;
    node.gone.note_endpoint([spec.ipv4.into(), spec.ipv6.into()]);
    node.endpoints().remove(id);
    Ok(())
}

/// Adopts the endpoints that stand, swaps programs into their links, and removes what is left of others.
pub(crate) fn adopt(node: &Node, netlink: &mut Netlink) -> Result<(), Error> {
    let links = netlink.links()?;
    for link in &links {
        let Some(found) = OurLink::of(node, link) else { continue };
        let Some(id) = found.id else {
            // Another daemon's, or not a daemon's at all: leave it alone, and its index unused.
            node.endpoints().take_index(found.index);
            continue;
        };
        match recorded(node, &found, id)? {
            Some(info) => {
                if node.has_tcx {
                    let (programs, pins) = (&node.programs, &node.pins);
                    links::settle_interface(programs, pins, netlink, found.name, link.header.index)?;
                } else {
                    links::filter_interface(&node.programs, netlink, link.header.index)?;
                }
                node.endpoints().insert(info);
            }
            None => netlink.run(vec![request::delete_link(link.header.index).tolerating(&[libc::ENODEV])])?,
        }
    }
    sweep(node)
}

/// An interface that looks like one of ours.
struct OurLink<'a> {
    name: &'a str,
    index: u32,
    interface: u32,
    /// The endpoint's name, if the alias says that the interface is this daemon's.
    id: Option<&'a str>,
}

impl<'a> OurLink<'a> {
    fn of(node: &Node, link: &'a LinkMessage) -> Option<Self> {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })?;
        let index = name.strip_prefix(INTERFACES)?.parse().ok()?;
        let id = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => alias.strip_prefix(&node.config.name)?.strip_prefix(':'),
            _ => None,
        });
        Some(Self { name, index, interface: link.header.index, id })
    }
}

/// The endpoint behind an interface, if the maps and its namespace agree that it is whole.
fn recorded(node: &Node, link: &OurLink<'_>, id: &str) -> Result<Option<EndpointInfo>, Error> {
    let maps = node.maps();
    if link.index == OUTSIDE || link.index >= maps.endpoint_state.len() {
        return Ok(None);
    }
    let state = maps.endpoint_state.get(&link.index, 0).map_err(failed(name::ENDPOINT_STATE))?;
    let generation = maps.generation.get(&link.index, 0).map_err(failed(name::GENERATION))?;
    let netns = node.config.netns_dir.join(id);
    let is_whole = generation != NO_GENERATION
        && state.interface == link.interface
        && maps.endpoint_by_interface.get(&link.interface, 0).is_ok_and(|index| index == link.index)
        && maps.address_exact_v4.get(&state.ipv4, 0).is_ok_and(|entry| entry.endpoint == link.index)
        && maps.address_exact_v6.get(&state.ipv6, 0).is_ok_and(|entry| entry.endpoint == link.index)
        && netns::exists(&netns);
    if !is_whole {
        return Ok(None);
    }
    let spec = EndpointSpec {
        id: id.to_owned(),
        ipv4: state.ipv4.octets().into(),
        ipv6: state.ipv6.octets().into(),
        identity: state.identity,
    };
    let endpoint = Endpoint { index: link.index, interface: link.name.to_owned(), netns };
    Ok(Some(EndpointInfo { spec, endpoint }))
}

/// Removes entries, pins and namespaces that belong to no endpoint: what a daemon that was killed had half made.
fn sweep(node: &Node) -> Result<(), Error> {
    let live = node.endpoints().all();
    {
        let mut guard = node.maps();
        let maps = &mut *guard;
        sweep_map(&mut maps.address_exact_v4, name::ADDRESS_EXACT_V4, |entry| entry.endpoint, &live)?;
        sweep_map(&mut maps.address_exact_v6, name::ADDRESS_EXACT_V6, |entry| entry.endpoint, &live)?;
        sweep_map(&mut maps.endpoint_by_interface, name::ENDPOINT_BY_INTERFACE, |index| *index, &live)?;
        for index in 1..maps.generation.len() {
            let is_live = live.iter().any(|info| info.endpoint.index == index);
            let generation = maps.generation.get(&index, 0).map_err(failed(name::GENERATION))?;
            if !is_live && generation != NO_GENERATION {
                maps.generation.set(index, NO_GENERATION, 0).map_err(failed(name::GENERATION))?;
            }
        }
    }
    for pin in node.pins.links()? {
        if let Some(interface) = links::interface_of(&pin)
            && !live.iter().any(|info| info.endpoint.interface == interface)
        {
            links::detach_interface(&node.pins, interface)?;
        }
    }
    let directory = &node.config.netns_dir;
    let list = || -> io::Result<Vec<_>> { fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect() };
    for path in list().map_err(Error::system(format!("list {}", directory.display())))? {
        if !live.iter().any(|info| info.endpoint.netns == path) {
            netns::remove(&path)?;
        }
    }
    Ok(())
}

fn sweep_map<K: Pod, V: Pod>(
    map: &mut aya::maps::HashMap<aya::maps::MapData, K, V>,
    name: &'static str,
    endpoint: impl Fn(&V) -> u32,
    live: &[EndpointInfo],
) -> Result<(), Error> {
    let mut stale = Vec::new();
    for found in map.iter() {
        let (key, value) = found.map_err(failed(name))?;
        let index = endpoint(&value);
        if index != OUTSIDE && !live.iter().any(|info| info.endpoint.index == index) {
            stale.push(key);
        }
    }
    stale.iter().try_for_each(|key| forget(map, name, key))
}

fn check(node: &Node, spec: &EndpointSpec) -> Result<(), Error> {
    let wrong = |reason: String| Err(Error::Spec { what: format!("endpoint {:?}", spec.id), reason });
    let name = spec.id.as_bytes();
    let well_formed = (1..=200).contains(&name.len())
        && name[0] != b'.'
        && name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !well_formed {
        return wrong("the id must be 1 to 200 letters, digits, '-', '_' or '.'".to_owned());
    }
    let (range_v4, range_v6) = &node.config.replica_range;
    if !range_v4.contains(&spec.ipv4) {
        return wrong(format!("{} is not in this node's range {range_v4}", spec.ipv4));
    }
    if !range_v6.contains(&spec.ipv6) {
        return wrong(format!("{} is not in this node's range {range_v6}", spec.ipv6));
    }
    if !identity_bits::fit(spec.identity) {
        return wrong(identity_bits::too_many());
    }
    Ok(())
}

fn refused(node: &Node, spec: &EndpointSpec, refusal: Refusal) -> Error {
    let reason = match refusal {
        Refusal::Full => {
            let capacity = node.maps().endpoint_state.len().saturating_sub(1);
            return Error::MapFull { map: name::ENDPOINT_STATE, capacity };
        }
        Refusal::AddressTaken { by } => format!("its address belongs to the endpoint {by:?}"),
        Refusal::Different => "it exists with other addresses or another identity".to_owned(),
    };
    Error::Spec { what: format!("endpoint {:?}", spec.id), reason }
}

fn make(node: &Node, spec: &EndpointSpec, index: u32) -> Result<Endpoint, Error> {
    let name = interface_name(index);
    let netns = node.config.netns_dir.join(&spec.id);
    let mut inside = Namespace::create(&netns)?;
    let mut host = Netlink::open()?;
    let (replica_mac, gateway_mac) = macs(index);
    host.run(vec![
        request::add_veth(
            &VethEnd { name: &name, mac: gateway_mac },
            &VethEnd { name: INSIDE, mac: replica_mac },
            inside.file.as_fd(),
            node.mtu,
        ),
        request::bring_up(&name, Some(&format!("{}:{}", node.config.name, spec.id))),
    ])?;
    let interface = found(&mut host, &name)?;
    configure_inside(&mut inside.netlink, spec, gateway_mac)?;
    // Of the two ends, the one that came up first gets its carrier late.
    wait_until("the interface has its carrier", || host.is_operational(&name))?;
    wait_until("the address is taken", || inside.netlink.is_local(spec.ipv6))?;
    host.run(vec![
        request::add_link_route(interface, exactly(spec.ipv4.into())),
        request::add_link_route(interface, exactly(spec.ipv6.into())),
        request::add_neighbour(interface, spec.ipv4.into(), replica_mac),
        request::add_neighbour(interface, spec.ipv6.into(), replica_mac),
    ])?;
    links::filter_interface(&node.programs, &mut host, interface)?;
    let state = EndpointState {
        ipv4: Address4::from_octets(spec.ipv4.octets()),
        ipv6: Address6::from_octets(spec.ipv6.octets()),
        interface,
        identity: spec.identity,
        policy: NO_POLICY,
        frame_macs: EndpointState::macs(replica_mac, gateway_mac),
    };
    enter(node, index, state)?;
    Ok(Endpoint { index, interface: name, netns })
}

fn configure_inside(inside: &mut Netlink, spec: &EndpointSpec, gateway_mac: [u8; 6]) -> Result<(), Error> {
    let eth0 = found(inside, INSIDE)?;
    inside.run(vec![
        request::bring_up(LOOPBACK, None),
        request::bring_up(INSIDE, None),
        request::add_address(eth0, spec.ipv4.into()),
        request::add_address(eth0, spec.ipv6.into()),
        request::add_neighbour(eth0, GATEWAY_V4.into(), gateway_mac),
        request::add_neighbour(eth0, GATEWAY_V6.into(), gateway_mac),
        request::add_link_route(eth0, exactly(GATEWAY_V4.into())),
        request::add_default_route(eth0, GATEWAY_V4.into()),
        request::add_default_route(eth0, GATEWAY_V6.into()),
    ])
}

fn found(netlink: &mut Netlink, name: &str) -> Result<u32, Error> {
    netlink.index_of(name)?.ok_or_else(|| Error::Netlink {
        action: format!("find the interface {name}"),
        source: io::Error::from_raw_os_error(libc::ENODEV),
    })
}

/// Writes an endpoint into the maps: from the last write on, packets reach it.
fn enter(node: &Node, index: u32, mut state: EndpointState) -> Result<(), Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    // With the maps locked: a policy that is set meanwhile finds the endpoint, or the endpoint finds the policy.
    state.policy = node.policies().enter(index, state.identity);
    // Drawn under the lock, so that the greatest number ever drawn is always in the map for the next daemon.
    let (generation, epoch) = (node.next_generation(), node.next_generation());
    let by_interface = (name::ENDPOINT_BY_INTERFACE, maps.capacity(name::ENDPOINT_BY_INTERFACE));
    maps.endpoint_state.set(index, state, 0).map_err(failed(name::ENDPOINT_STATE))?;
    maps.generation.set(index, generation, 0).map_err(failed(name::GENERATION))?;
    put(&mut maps.endpoint_by_interface, by_interface, &state.interface, &index)?;
    enter_addresses(maps, index, &state)?;
    // Whoever tried these addresses before was told that they are outside.
    maps.generation.set(OUTSIDE, epoch, 0).map_err(failed(name::GENERATION))
}

fn enter_addresses(maps: &mut Maps, index: u32, state: &EndpointState) -> Result<(), Error> {
    let exact_v4 = (name::ADDRESS_EXACT_V4, maps.capacity(name::ADDRESS_EXACT_V4));
    let exact_v6 = (name::ADDRESS_EXACT_V6, maps.capacity(name::ADDRESS_EXACT_V6));
    let address = AddressEntry { identity: state.identity, endpoint: index, node: 0 };
    put(&mut maps.address_exact_v4, exact_v4, &state.ipv4, &address)?;
    put(&mut maps.address_exact_v6, exact_v6, &state.ipv6, &address)
}

/// Gives an endpoint another identity. Between its packets it is one or the other; what was judged before is judged again.
pub(crate) fn identify(node: &Node, id: &str, identity: u32) -> Result<(), Error> {
    let wrong = |reason: String| Error::Spec { what: format!("endpoint {id:?}"), reason };
    if !identity_bits::fit(identity) {
        return Err(wrong(identity_bits::too_many()));
    }
    let Some(mut info) = node.endpoints().get(id).cloned() else {
        return Err(wrong("it does not exist".to_owned()));
    };
    if info.spec.identity == identity {
        return Ok(());
    }
    let index = info.endpoint.index;
    {
        let mut guard = node.maps();
        let maps = &mut *guard;
        let mut state = maps.endpoint_state.get(&index, 0).map_err(failed(name::ENDPOINT_STATE))?;
        state.identity = identity;
        state.policy = node.policies().enter(index, identity);
        maps.endpoint_state.set(index, state, 0).map_err(failed(name::ENDPOINT_STATE))?;
        enter_addresses(maps, index, &state)?;
        let generation = node.next_generation();
        maps.generation.set(index, generation, 0).map_err(failed(name::GENERATION))?;
    }
    info.spec.identity = identity;
    node.endpoints().insert(info);
    Ok(())
}

/// Takes an endpoint out of the maps, then takes down what it stood on. May be done to one that is half made.
fn unmake(node: &Node, spec: &EndpointSpec, index: u32) -> Result<(), Error> {
    let interface = leave(node, spec, index)?;
    let name = interface_name(index);
    links::detach_interface(&node.pins, &name)?;
    let mut host = Netlink::open()?;
    // By the number we know, or by name if it never entered the maps.
    let link = if interface == 0 { host.index_of(&name)? } else { Some(interface) };
    if let Some(link) = link {
        host.run(vec![request::delete_link(link).tolerating(&[libc::ENODEV])])?;
    }
    netns::remove(&node.config.netns_dir.join(&spec.id))
}

fn leave(node: &Node, spec: &EndpointSpec, index: u32) -> Result<u32, Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    let epoch = node.next_generation();
    forget(&mut maps.address_exact_v4, name::ADDRESS_EXACT_V4, &Address4::from_octets(spec.ipv4.octets()))?;
    forget(&mut maps.address_exact_v6, name::ADDRESS_EXACT_V6, &Address6::from_octets(spec.ipv6.octets()))?;
    maps.generation.set(index, NO_GENERATION, 0).map_err(failed(name::GENERATION))?;
    maps.generation.set(OUTSIDE, epoch, 0).map_err(failed(name::GENERATION))?;
    forget_drops(maps, index)?;
    let interface = maps.endpoint_state.get(&index, 0).map_err(failed(name::ENDPOINT_STATE))?.interface;
    if interface != 0 {
        forget(&mut maps.endpoint_by_interface, name::ENDPOINT_BY_INTERFACE, &interface)?;
    }
    maps.endpoint_state.set(index, EndpointState::default(), 0).map_err(failed(name::ENDPOINT_STATE))?;
    node.policies().leave(index);
    Ok(interface)
}

/// Forgets what was counted for an endpoint, whose index may go to another.
fn forget_drops(maps: &mut Maps, endpoint: u32) -> Result<(), Error> {
    for reason in DropReason::ALL {
        match maps.endpoint_drops.remove(&DropKey { endpoint, reason: reason as u32 }) {
            Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            result => result.map_err(failed(name::ENDPOINT_DROPS))?,
        }
    }
    Ok(())
}

fn interface_name(index: u32) -> String {
    format!("{INTERFACES}{index}")
}

/// The replica's MAC and its gateway's: locally administered, told apart by the second bit pair, numbered by index.
fn macs(index: u32) -> ([u8; 6], [u8; 6]) {
    let [a, b, c, d] = index.to_be_bytes();
    ([0x02, b'h', a, b, c, d], [0x06, b'h', a, b, c, d])
}

fn exactly(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
