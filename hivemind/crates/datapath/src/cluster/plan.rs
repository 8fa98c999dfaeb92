//! What the kernel shall have for a cluster, found out before anything is changed.

use crate::{
    ClusterSpec, Config, Error, RemoteNode, Routing,
    host::{self, ENCAPSULATION_BYTES, MTU_DEFAULT, MTU_MIN},
    netlink::Netlink,
};
use hivemind_common::{
    family::{Address4, Address6},
    node::{DIRECT, NODES_MAX, NodeState, OWN},
};
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressScope},
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteMetric, RouteType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The addresses that this node's own packets have in the overlay, as far as they are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passing {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// What the kernel shall have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// By number; this node's own in slot zero.
    pub(crate) states: BTreeMap<u32, NodeState>,
    pub(crate) by_address: BTreeMap<[u8; 4], u32>,
    /// Ranges as bits and address, with the number of the node that has them.
    pub(crate) ranges_v4: BTreeMap<(u32, [u8; 4]), u32>,
    pub(crate) ranges_v6: BTreeMap<(u32, [u8; 16]), u32>,
    pub(crate) routes: BTreeMap<IpNet, NodeRoute>,
    /// The MTU of the overlay's own interface.
    pub(crate) mtu: u32,
    /// The MTU of the services' own interface: what every way to a backend takes, since a packet that is longer than its way
    /// cannot be told of any more once it is there.
    pub(crate) services_mtu: u32,
}

/// A route to a node's replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeRoute {
    /// The address of packets of this node's own.
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu: u32,
}

/// The name of the overlay's own interface.
pub(crate) fn interface_name(config: &Config) -> String {
    format!("{}1", config.name)
}

impl Plan {
    /// What the specification takes, with the overlay's interface of this index.
    pub(crate) fn make(
        config: &Config,
        replica_mtu: u32,
        netlink: &mut Netlink,
        spec: &ClusterSpec,
        overlay: u32,
        passing: &Passing,
    ) -> Result<Self, Error> {
        let mut plan = Self { mtu: replica_mtu, services_mtu: replica_mtu, ..Self::default() };
        let (cluster_v4, cluster_v6) = (config.cluster_range.0.trunc(), config.cluster_range.1.trunc());
        plan.add_range(cluster_v4.into(), OWN);
        plan.add_range(cluster_v6.into(), OWN);
        let own = Address4::from_octets(spec.address.octets());
        let flags = if spec.routing == Routing::Direct { DIRECT } else { 0 };
        let state =
            NodeState { address: own, source: own, interface: overlay, flags, ..NodeState::default() };
        plan.states.insert(OWN, state);
        let device_mtus = mtus(netlink)?;
        for node in &spec.nodes {
            let number = u32::from(node.number);
            let way = Way::to(netlink, node.address)?;
            let path = way.map_or(MTU_DEFAULT, |way| {
                way.mtu.or_else(|| device_mtus.get(&way.interface).copied()).unwrap_or(MTU_DEFAULT)
            });
            // With direct routing too: what the host's stack sends, and IPv6, takes the overlay.
            let mtu = path.saturating_sub(ENCAPSULATION_BYTES);
            plan.mtu = plan.mtu.max(mtu);
            plan.services_mtu = plan.services_mtu.min(mtu.max(MTU_MIN));
            let state = NodeState {
                address: Address4::from_octets(node.address.octets()),
                source: own,
                next_hop: Address4::from_octets(way.map_or([0; 4], |way| way.neighbour.octets())),
                interface: way.map_or(0, |way| way.interface),
                // Also where replicas' own packets fit: those from outside may be longer.
                mtu,
                flags,
            };
            plan.states.insert(number, state);
            plan.by_address.insert(node.address.octets(), number);
            let (v4, v6) = (IpNet::V4(node.ranges.0.trunc()), IpNet::V6(node.ranges.1.trunc()));
            plan.add_range(v4, number);
            plan.add_range(v6, number);
            let route = NodeRoute { source: Some(passing.ipv4.into()), mtu };
            plan.routes.insert(v4, route);
            let source = passing.ipv6.map(IpAddr::V6);
            plan.routes.insert(v6, NodeRoute { source, mtu: mtu.max(MTU_MIN) });
        }
        Ok(plan)
    }

    fn add_range(&mut self, range: IpNet, number: u32) {
        let bits = u32::from(range.prefix_len());
        match range {
            IpNet::V4(range) => drop(self.ranges_v4.insert((bits, range.network().octets()), number)),
            IpNet::V6(range) => drop(self.ranges_v6.insert((bits, range.network().octets()), number)),
        }
    }

    /// Ranges as the map of IPv4 holds them.
    pub(crate) fn keys_v4(&self) -> BTreeMap<(u32, [u8; 4]), (Address4, u32)> {
        let ranges = self.ranges_v4.iter();
        ranges.map(|(key, number)| (*key, (Address4::from_octets(key.1), *number))).collect()
    }

    /// Ranges as the map of IPv6 holds them.
    pub(crate) fn keys_v6(&self) -> BTreeMap<(u32, [u8; 16]), (Address6, u32)> {
        let ranges = self.ranges_v6.iter();
        ranges.map(|(key, number)| (*key, (Address6::from_octets(key.1), *number))).collect()
    }
}

/// How a node is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Way {
    interface: u32,
    neighbour: Ipv4Addr,
    /// What the route says, if it does.
    mtu: Option<u32>,
}

impl Way {
    fn to(netlink: &mut Netlink, address: Ipv4Addr) -> Result<Option<Self>, Error> {
        let Some(route) = netlink.route_to(address.into())? else { return Ok(None) };
        if route.header.kind != RouteType::Unicast {
            return Ok(None);
        }
        let (mut interface, mut neighbour, mut mtu) = (None, Some(address), None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = Some(*gateway),
                // By an IPv6 neighbour: not supported.
                RouteAttribute::Via(_) => neighbour = None,
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Ok(interface.zip(neighbour).map(|(interface, neighbour)| Self { interface, neighbour, mtu }))
    }
}

fn mtus(netlink: &mut Netlink) -> Result<BTreeMap<u32, u32>, Error> {
    let mtu_of = |attributes: &[LinkAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    };
    let links = netlink.links()?;
    Ok(links.iter().filter_map(|link| Some((link.header.index, mtu_of(&link.attributes)?))).collect())
}

/// The addresses that this node's own packets have in the overlay: the cluster address, and a global IPv6 address, if there
/// is one.
pub(crate) fn passing(config: &Config, netlink: &mut Netlink, own: Ipv4Addr) -> Result<Passing, Error> {
    let dns = netlink.index_of(&host::dns_interface(config))?;
    let mut found: Option<Ipv6Addr> = None;
    for message in netlink.addresses()? {
        if message.header.scope != AddressScope::Universe || Some(message.header.index) == dns {
            continue;
        }
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        });
        // The same one each time.
        found = match (found, address) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    Ok(Passing { ipv4: own, ipv6: found })
}

/// Finds what is wrong with a specification.
pub(crate) fn check(config: &Config, netlink: &mut Netlink, spec: &ClusterSpec) -> Result<(), Error> {
    let wrong = |what: String, reason: String| Err(Error::Spec { what, reason });
    let is_number = |number: u16| number != 0 && u32::from(number) < NODES_MAX;
    let this = || "this node".to_owned();
    if !is_number(spec.own) {
        return wrong(this(), format!("{} is no node's number", spec.own));
    }
    let (mut numbers, mut addresses) = (BTreeSet::from([spec.own]), BTreeSet::from([spec.address]));
    let (own_v4, own_v6) = (config.replica_range.0.trunc(), config.replica_range.1.trunc());
    let mut ranges_v4 = vec![(own_v4, this())];
    let mut ranges_v6 = vec![(own_v6, this())];
    for node in &spec.nodes {
        let RemoteNode { number, address, ranges, .. } = node;
        let what = format!("node {}", node.name);
        if !is_number(*number) {
            return wrong(what, format!("{number} is no node's number"));
        }
        if !numbers.insert(*number) {
            return wrong(what, format!("another node has the number {number}"));
        }
        if !addresses.insert(*address) {
            return wrong(what, format!("another node has the address {address}"));
        }
        if !config.cluster_range.0.contains(&ranges.0) || !config.cluster_range.1.contains(&ranges.1) {
            return wrong(what, "its range does not lie within the cluster's".to_owned());
        }
        ranges_v4.push((ranges.0.trunc(), what.clone()));
        ranges_v6.push((ranges.1.trunc(), what));
    }
    ranges_v4.sort();
    ranges_v6.sort();
    // Sorted by their first addresses: of two that overlap, so do two that stand side by side.
    for pair in ranges_v4.windows(2) {
        if pair[0].0.contains(&pair[1].0.network()) {
            return wrong(pair[1].1.clone(), format!("its range overlaps that of {}", pair[0].1));
        }
    }
    for pair in ranges_v6.windows(2) {
        if pair[0].0.contains(&pair[1].0.network()) {
            return wrong(pair[1].1.clone(), format!("its range overlaps that of {}", pair[0].1));
        }
    }
    if !netlink.is_local(spec.address)? {
        return wrong(this(), format!("the cluster address {} is not one of its own", spec.address));
    }
    Ok(())
}
