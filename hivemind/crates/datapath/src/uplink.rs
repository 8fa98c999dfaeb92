//! The interfaces by which other nodes and the outside are reached: every one that has an address and is not ours.
//!
//! Each has a program for what comes in and one for what leaves, and its addresses are those under which replicas are known to
//! whoever is behind it.

use crate::{
    Config, Error,
    bpffs::Pins,
    host::{self, INTERFACES},
    links::{self, Passage, ahead::LinksAhead},
    maps::{failed, forget, forget_prefix, put, put_prefix},
    netlink::Netlink,
    node::Node,
    programs::{UNMASKED_MAX, UPLINKS_MAX},
    service::lifecycle::number,
};
use aya::maps::lpm_trie::Key;
use hivemind_common::{
    family::{Address4, Address6},
    name,
    service::ServiceKey,
    translation::Uplink,
};
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
};
use std::{
    collections::{BTreeMap, HashSet},
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread::JoinHandle,
};

/// What an interface is called outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// The interfaces that lead out now, by index.
pub(crate) type Uplinks = BTreeMap<u32, Addresses>;

/// Makes programs and maps agree with the node's interfaces.
pub(crate) fn refresh(node: &Node) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let found = find(&node.config.name, &netlink.links()?, &netlink.addresses()?);
    let known: HashSet<u32> = known(node)?.into_iter().collect();
    for (&index, addresses) in &found {
        // The address first: a program without one drops what is to leave under it.
        write(node, index, *addresses)?;
        if !known.contains(&index) || !is_open(node, index)? {
            let opened = open(node, &mut netlink, index);
            if let Err(error) = opened {
                // Gone already, or it comes back with the next look.
                tracing::warn!(interface = index, %error, "An interface to the outside has no programs yet");
                forget(&mut node.maps().uplink, name::UPLINK, &index)?;
            }
        }
    }
    for index in known.iter().filter(|index| !found.contains_key(index)) {
        for passage in [Passage::Underlay, Passage::Leaving] {
            links::close_passage(node, &mut netlink, passage, *index)?;
        }
        forget(&mut node.maps().uplink, name::UPLINK, index)?;
    }
    host::route_services(&node.config, &mut netlink, node.services_interface, found.values().next().copied())
}

/// Begins to make the links at the interfaces that lead out now, and at the services' own.
pub(crate) fn begin_links(
    config: &Config,
    pins: &Pins,
    netlink: &mut Netlink,
    services: u32,
) -> Result<JoinHandle<LinksAhead>, Error> {
    let found = find(&config.name, &netlink.links()?, &netlink.addresses()?);
    let at_uplink = |index: u32| [(Passage::Leaving, index), (Passage::Underlay, index)];
    let at_uplinks = found.into_keys().flat_map(at_uplink);
    links::ahead::begin(pins, iter::once((Passage::Services, services)).chain(at_uplinks))
}

/// Puts this build's programs in the place of those that run.
pub(crate) fn adopt(node: &Node, netlink: &mut Netlink) -> Result<(), Error> {
    let exists: HashSet<u32> = netlink.links()?.iter().map(|link| link.header.index).collect();
    for index in known(node)? {
        if exists.contains(&index) {
            open(node, netlink, index)?;
        }
    }
    Ok(())
}

fn open(node: &Node, netlink: &mut Netlink, index: u32) -> Result<(), Error> {
    // What leaves first: an answer is expected only of what was let out.
    links::open_passage(node, netlink, Passage::Leaving, index)?;
    links::open_passage(node, netlink, Passage::Underlay, index)
}

/// Whether the programs hang at an interface. Of filters nothing is asked: they go only with their interface.
fn is_open(node: &Node, index: u32) -> Result<bool, Error> {
    if !node.has_tcx {
        return Ok(true);
    }
    let open = |passage| Ok::<_, Error>(links::open_passages(&node.pins, passage)?.contains(&index));
    Ok(open(Passage::Underlay)? && open(Passage::Leaving)?)
}

/// The interfaces that were given programs, of which some may be gone.
fn known(node: &Node) -> Result<Vec<u32>, Error> {
    node.maps().uplink.keys().collect::<Result<_, _>>().map_err(failed(name::UPLINK))
}

fn write(node: &Node, index: u32, addresses: Addresses) -> Result<(), Error> {
    let uplink = Uplink {
        ipv4: addresses.ipv4.map_or(Address4(0), |address| Address4::from_octets(address.octets())),
        ipv6: addresses.ipv6.map_or(Address6([0; 4]), |address| Address6::from_octets(address.octets())),
    };
    let mut maps = node.maps();
    if maps.uplink.get(&index, 0).is_ok_and(|known| known == uplink) {
        return Ok(());
    }
    put(&mut maps.uplink, (name::UPLINK, UPLINKS_MAX), &index, &uplink)
}

/// Of all interfaces those that lead out: with an Ethernet header and an address, and not made for replicas.
fn find(daemon: &str, links: &[LinkMessage], addresses: &[AddressMessage]) -> Uplinks {
    let mut uplinks = Uplinks::new();
    for link in links.iter().filter(|link| leads_out(daemon, link)) {
        let own = addresses.iter().filter(|address| address.header.index == link.header.index);
        let mut found = Addresses::default();
        for address in own {
            match usable(address) {
                // The first is the one that the kernel prefers.
                Some(IpAddr::V4(address)) => found.ipv4 = found.ipv4.or(Some(address)),
                Some(IpAddr::V6(address)) => found.ipv6 = found.ipv6.or(Some(address)),
                None => {}
            }
        }
        if found != Addresses::default() && uplinks.len() < UPLINKS_MAX as usize {
            uplinks.insert(link.header.index, found);
        }
    }
    uplinks
}

fn leads_out(daemon: &str, link: &LinkMessage) -> bool {
    let is_ours = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::IfName(name) => {
            name.strip_prefix(daemon).is_some_and(|rest| matches!(rest, "0" | "1"))
                || name.strip_prefix(INTERFACES).is_some_and(|rest| rest.parse::<u32>().is_ok())
        }
        _ => false,
    });
    link.header.link_layer_type == LinkLayerType::Ether
        && !link.header.flags.contains(LinkFlags::Loopback)
        && !is_ours
}

/// The address, if it is one under which others know the node.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    // Not yet sure to be unique, or about to go. (Of IPv4 "secondary" and of IPv6 "temporary" are one flag.)
    let unfit = AddressFlags::Tentative
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated
        | AddressFlags::Secondary;
    if flags.is_some_and(|flags| flags.intersects(unfit)) {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The addresses of all interfaces to the outside.
pub(crate) fn addresses(node: &Node) -> Result<Vec<IpAddr>, Error> {
    let maps = node.maps();
    let mut found = Vec::new();
    for uplink in maps.uplink.iter() {
        let (_, Uplink { ipv4, ipv6 }) = uplink.map_err(failed(name::UPLINK))?;
        found.extend((ipv4 != Address4::default()).then(|| IpAddr::from(ipv4.octets())));
        found.extend((ipv6 != Address6::default()).then(|| IpAddr::from(ipv6.octets())));
    }
    found.sort();
    Ok(found)
}

/// Makes the maps say which destinations replicas reach under their own addresses, and which only by a policy that names them.
pub(crate) fn write_exceptions(node: &Node) -> Result<(), Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
    for block in &node.config.unmasked {
        match block.trunc() {
            IpNet::V4(block) => {
                let key =
                    Key::new(block.prefix_len().into(), Address4::from_octets(block.network().octets()));
                put_prefix(&mut maps.unmasked_v4, (name::UNMASKED_V4, UNMASKED_MAX), &key, &1)?;
                v4.insert((block.prefix_len(), block.network()));
            }
            IpNet::V6(block) => {
                let key =
                    Key::new(block.prefix_len().into(), Address6::from_octets(block.network().octets()));
                put_prefix(&mut maps.unmasked_v6, (name::UNMASKED_V6, UNMASKED_MAX), &key, &1)?;
                v6.insert((block.prefix_len(), block.network()));
            }
        }
    }
    let found: Vec<Key<Address4>> =
        maps.unmasked_v4.keys().collect::<Result<_, _>>().map_err(failed(name::UNMASKED_V4))?;
    for key in found {
        if !v4.contains(&(key.prefix_len() as u8, key.data().octets().into())) {
            forget_prefix(&mut maps.unmasked_v4, name::UNMASKED_V4, &key)?;
        }
    }
    let found: Vec<Key<Address6>> =
        maps.unmasked_v6.keys().collect::<Result<_, _>>().map_err(failed(name::UNMASKED_V6))?;
    for key in found {
        if !v6.contains(&(key.prefix_len() as u8, key.data().octets().into())) {
            forget_prefix(&mut maps.unmasked_v6, name::UNMASKED_V6, &key)?;
        }
    }
    let guarded = &node.config.guarded;
    let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
    for &(port, protocol) in &guarded.ports {
        v4.insert(ServiceKey::<Address4>::published(port.to_be(), number(protocol)));
        v6.insert(ServiceKey::<Address6>::published(port.to_be(), number(protocol)));
    }
    for address in &guarded.addresses {
        match address {
            IpAddr::V4(address) => {
                v4.insert(ServiceKey::every_port(Address4::from_octets(address.octets())));
            }
            IpAddr::V6(address) => {
                v6.insert(ServiceKey::every_port(Address6::from_octets(address.octets())));
            }
        }
    }
    let room = maps.capacity(name::GUARDED_V4);
    crate::node::replace_keys(&mut maps.guarded_v4, (name::GUARDED_V4, room), &v4)?;
    crate::node::replace_keys(&mut maps.guarded_v6, (name::GUARDED_V6, room), &v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: LinkLayerType) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = kind;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        link
    }

    fn address(index: u32, address: &str, flags: AddressFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes =
            vec![AddressAttribute::Address(address.parse().unwrap()), AddressAttribute::Flags(flags)];
        message
    }

    #[test]
    fn every_interface_with_an_address_leads_out_but_ours() {
        let links = [
            link(1, "lo", LinkLayerType::Loopback),
            link(2, "eth0", LinkLayerType::Ether),
            link(3, "hm7", LinkLayerType::Ether),
            link(4, "hivemind0", LinkLayerType::Ether),
            link(5, "docker0", LinkLayerType::Ether),
            link(6, "eth1", LinkLayerType::Ether),
            link(7, "tun0", LinkLayerType::None),
        ];
        let none = AddressFlags::empty();
        let addresses = [
            address(1, "127.0.0.1", none),
            address(2, "192.0.2.1", none),
            address(2, "192.0.2.9", AddressFlags::Secondary),
            address(2, "2001:db8::7", AddressFlags::Tentative),
            address(2, "2001:db8::1", none),
            address(3, "10.200.0.1", none),
            address(4, "169.254.20.10", none),
            address(5, "172.17.0.1", none),
            address(7, "10.9.0.1", none),
        ];
        let found = find("hivemind", &links, &addresses);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [2, 5]);
        assert_eq!(found[&2].ipv4, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(found[&2].ipv6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(found[&5].ipv6, None);
    }
}
