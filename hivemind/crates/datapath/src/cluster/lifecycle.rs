//! Becoming part of a cluster, following its changes, and leaving it.
//!
//! What is new is added before what is old is removed, and an interface's program before packets can need it.

use crate::{
    ClusterSpec, Error,
    cluster::{
        endpoints,
        plan::{self, NodeRoute, Plan, interface_name},
        port_holder,
    },
    host,
    links::{self, Passage},
    maps::{failed, forget, forget_prefix, put, put_prefix},
    netlink::{Netlink, request},
    node::Node,
    requirements,
    reservation::Reservation,
    service::Protocol,
    uplink,
};
use aya::{
    Pod,
    maps::{LpmTrie, MapData, lpm_trie::Key},
};
use hivemind_common::{
    family::{Address4, Address6},
    name,
    node::{NODES_MAX, NodeState, OVERLAY_MAC, OWN},
    overlay::PORT,
};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol},
};
use std::{collections::BTreeMap, io, net::IpAddr};

/// What is known of the cluster besides what the kernel holds.
#[derive(Default)]
pub(crate) struct Cluster {
    /// What was done last, completely.
    applied: Option<Plan>,
}

/// Puts this build's programs in the place of those that run.
pub(crate) fn adopt(node: &Node, netlink: &mut Netlink) -> Result<(), Error> {
    for interface in found_passages(node)? {
        if exists(netlink, interface)? {
            links::open_passage(node, netlink, Passage::Overlay, interface)?;
        } else {
            links::close_passage(node, netlink, Passage::Overlay, interface)?;
        }
    }
    Ok(())
}

/// Makes this node part of a cluster, or of none.
pub(crate) fn set(node: &Node, spec: Option<ClusterSpec>) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    match spec {
        Some(spec) => join(node, &mut netlink, &spec),
        None => leave(node, &mut netlink),
    }
}

fn join(node: &Node, netlink: &mut Netlink, spec: &ClusterSpec) -> Result<(), Error> {
    requirements::check_overlay()?;
    plan::check(&node.config, netlink, spec)?;
    let overlay = ensure_interface(node, netlink)?;
    let passing = plan::passing(&node.config, netlink, spec.address)?;
    let plan = Plan::make(&node.config, node.mtu, netlink, spec, overlay, &passing)?;
    if node.cluster().applied.as_ref() == Some(&plan) {
        return Ok(());
    }
    // Forgotten until all is done, so that after a failure it is all done again.
    node.cluster().applied = None;
    netlink.run(vec![
        request::set_up_overlay(overlay, plan.mtu),
        request::set_up_services(node.services_interface, OVERLAY_MAC, plan.services_mtu),
    ])?;
    // The interfaces towards other nodes have an address each, so their programs hang there; if not, they do now.
    uplink::refresh(node)?;
    links::open_passage(node, netlink, Passage::Overlay, overlay)?;
    write(node, &plan)?;
    route(netlink, overlay, &plan)?;
    endpoints::begin_epoch(node)?;
    node.cluster().applied = Some(plan);
    Ok(())
}

fn leave(node: &Node, netlink: &mut Netlink) -> Result<(), Error> {
    let name = interface_name(&node.config);
    let overlay = netlink.index_of(&name)?;
    if overlay.is_none() && node.cluster().applied.is_none() {
        return Ok(());
    }
    node.cluster().applied = None;
    endpoints::replace(node, &[])?;
    write(node, &Plan::default())?;
    endpoints::begin_epoch(node)?;
    for interface in found_passages(node)? {
        links::close_passage(node, netlink, Passage::Overlay, interface)?;
    }
    netlink.run(vec![request::set_up_services(node.services_interface, OVERLAY_MAC, node.mtu)])?;
    match overlay {
        // Its routes go with it.
        Some(overlay) => netlink.run(vec![request::delete_link(overlay).tolerating(&[libc::ENODEV])]),
        None => Ok(()),
    }
}

/// The interfaces at which the overlay's program hangs. Filters are not found, but where they were put is in the maps.
fn found_passages(node: &Node) -> Result<Vec<u32>, Error> {
    if node.has_tcx {
        return links::open_passages(&node.pins, Passage::Overlay);
    }
    let own = node.maps().node_state.get(&OWN, 0).map_err(failed(name::NODE_STATE))?;
    Ok(if own.interface == 0 { Vec::new() } else { vec![own.interface] })
}

fn exists(netlink: &mut Netlink, interface: u32) -> Result<bool, Error> {
    Ok(netlink.links()?.iter().any(|link| link.header.index == interface))
}

/// Makes the overlay's own interface, unless it is there.
fn ensure_interface(node: &Node, netlink: &mut Netlink) -> Result<u32, Error> {
    let name = interface_name(&node.config);
    if netlink.index_of(&name)?.is_none() {
        // Asked for beforehand, and let go of again: an interface without the port would be of no use.
        drop(Reservation::take(PORT, Protocol::Udp).map_err(|error| port_taken(netlink, error))?);
        netlink.run(vec![request::add_overlay(&name, OVERLAY_MAC)])?;
    }
    let Some(index) = netlink.index_of(&name)? else {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        return Err(Error::Netlink { action: format!("find the interface {name}"), source });
    };
    if node.cluster().applied.as_ref().is_some_and(|plan| plan.states[&OWN].interface == index) {
        return Ok(index);
    }
    // Loose: answers may come in here whose sender is reached another way. Never less strict than for all interfaces.
    host::set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    netlink.run(vec![request::set_up_overlay(index, node.mtu)])?;
    let alias = format!("{}:overlay", node.config.name);
    if let Err(error) = netlink.run(vec![request::bring_up(&name, Some(&alias))]) {
        netlink.run(vec![request::delete_link(index).tolerating(&[libc::ENODEV])])?;
        return Err(port_taken(netlink, error));
    }
    Ok(index)
}

fn port_taken(netlink: &mut Netlink, error: Error) -> Error {
    let is_it = match &error {
        Error::PortTaken { .. } => true,
        Error::Netlink { source, .. } => source.raw_os_error() == Some(libc::EADDRINUSE),
        _ => false,
    };
    if is_it {
        Error::OverlayPortTaken { port: PORT, holder: port_holder::find(netlink, PORT) }
    } else {
        error
    }
}

/// Makes the maps say what the plan says.
fn write(node: &Node, plan: &Plan) -> Result<(), Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    for (number, state) in &plan.states {
        maps.node_state.set(*number, *state, 0).map_err(failed(name::NODE_STATE))?;
    }
    for (address, number) in &plan.by_address {
        let room = (name::NODE_BY_ADDRESS, NODES_MAX);
        put(&mut maps.node_by_address, room, &Address4::from_octets(*address), number)?;
    }
    replace_ranges(&mut maps.node_range_v4, name::NODE_RANGE_V4, &plan.keys_v4(), Address4::octets)?;
    replace_ranges(&mut maps.node_range_v6, name::NODE_RANGE_V6, &plan.keys_v6(), Address6::octets)?;
    let addresses: Vec<Address4> =
        maps.node_by_address.keys().collect::<Result<_, _>>().map_err(failed(name::NODE_BY_ADDRESS))?;
    for address in addresses {
        if !plan.by_address.contains_key(&address.octets()) {
            forget(&mut maps.node_by_address, name::NODE_BY_ADDRESS, &address)?;
        }
    }
    for number in 0..maps.node_state.len() {
        let state = maps.node_state.get(&number, 0).map_err(failed(name::NODE_STATE))?;
        if state != NodeState::default() && !plan.states.contains_key(&number) {
            maps.node_state.set(number, NodeState::default(), 0).map_err(failed(name::NODE_STATE))?;
        }
    }
    Ok(())
}

fn replace_ranges<K: Pod, O: Ord>(
    map: &mut LpmTrie<MapData, K, u32>,
    name: &'static str,
    wanted: &BTreeMap<(u32, O), (K, u32)>,
    octets: impl Fn(K) -> O,
) -> Result<(), Error> {
    for ((bits, _), (address, number)) in wanted {
        put_prefix(map, (name, 2 * NODES_MAX), &Key::new(*bits, *address), number)?;
    }
    let found: Vec<Key<K>> = map.keys().collect::<Result<_, _>>().map_err(failed(name))?;
    for key in found {
        if !wanted.contains_key(&(key.prefix_len(), octets(key.data()))) {
            forget_prefix(map, name, &key)?;
        }
    }
    Ok(())
}

/// Makes the kernel's routes by the overlay's interface be those of the plan.
fn route(netlink: &mut Netlink, overlay: u32, plan: &Plan) -> Result<(), Error> {
    let mut found = routes(netlink, overlay, AddressFamily::Inet)?;
    found.extend(routes(netlink, overlay, AddressFamily::Inet6)?);
    let missing = plan.routes.iter().filter(|(to, route)| found.get(to) != Some(route));
    let add = missing.map(|(to, route)| request::add_node_route(overlay, *to, route.source, route.mtu));
    let stale = found.keys().filter(|to| !plan.routes.contains_key(to));
    let delete = stale.map(|to| request::delete_node_route(overlay, *to).tolerating(&[libc::ESRCH]));
    let requests: Vec<_> = add.chain(delete).collect();
    requests.into_iter().try_for_each(|request| netlink.run(vec![request]))
}

fn routes(
    netlink: &mut Netlink,
    overlay: u32,
    family: AddressFamily,
) -> Result<BTreeMap<IpNet, NodeRoute>, Error> {
    let found = netlink.routes(family)?;
    Ok(found.iter().filter_map(|route| node_route(route, overlay)).collect())
}

/// A route by the overlay's interface, if it is one.
fn node_route(message: &RouteMessage, overlay: u32) -> Option<(IpNet, NodeRoute)> {
    let (mut interface, mut to, mut route) = (0, None, NodeRoute { source: None, mtu: 0 });
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = *index,
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    if let RouteMetric::Mtu(mtu) = metric {
                        route.mtu = *mtu;
                    }
                }
            }
            _ => {}
        }
    }
    if interface != overlay || message.header.protocol != RouteProtocol::Static {
        return None;
    }
    Some((IpNet::new(to?, message.header.destination_prefix_length).ok()?, route))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
