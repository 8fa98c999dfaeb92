//! The addresses of other nodes' replicas.

use crate::{
    Error, RemoteEndpoint, identity_bits,
    maps::{failed, forget, put},
    node::Node,
    sockets::Family,
};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use hivemind_common::{
    endpoint::{AddressEntry, OUTSIDE},
    family::{Address4, Address6},
    name,
    node::{NODES_MAX, OWN},
};
use std::{
    collections::HashSet,
    hash::Hash,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Takes note of some replicas, and forgets others.
pub(crate) fn set(
    node: &Node,
    wanted: &[RemoteEndpoint],
    gone: &[(Ipv4Addr, Ipv6Addr)],
) -> Result<(), Error> {
    check(wanted)?;
    let wanted_v4 = wanted.iter().map(|endpoint| (v4(endpoint.ipv4), entry(endpoint)));
    let wanted_v6 = wanted.iter().map(|endpoint| (v6(endpoint.ipv6), entry(endpoint)));
    let kept: HashSet<_> = wanted.iter().map(|endpoint| (endpoint.ipv4, endpoint.ipv6)).collect();
    let kept_v4: HashSet<_> = kept.iter().map(|(ipv4, _)| *ipv4).collect();
    let kept_v6: HashSet<_> = kept.iter().map(|(_, ipv6)| *ipv6).collect();
    let gone_v4 = gone.iter().map(|(ipv4, _)| *ipv4).filter(|ipv4| !kept_v4.contains(ipv4)).map(v4);
    let gone_v6 = gone.iter().map(|(_, ipv6)| *ipv6).filter(|ipv6| !kept_v6.contains(ipv6)).map(v6);
    change(node, |node| {
        let mut guard = node.maps();
        let maps = &mut *guard;
        let room = [name::ADDRESS_EXACT_V4, name::ADDRESS_EXACT_V6].map(|map| (map, maps.capacity(map)));
        let put_v4 = put_all(&mut maps.address_exact_v4, room[0], wanted_v4)?;
        let put_v6 = put_all(&mut maps.address_exact_v6, room[1], wanted_v6)?;
        let gone_v4 = forget_all(node, &mut maps.address_exact_v4, room[0].0, gone_v4)?;
        let gone_v6 = forget_all(node, &mut maps.address_exact_v6, room[1].0, gone_v6)?;
        Ok(put_v4 || put_v6 || gone_v4 || gone_v6)
    })
}

/// Forgets all replicas but these.
pub(crate) fn replace(node: &Node, all: &[RemoteEndpoint]) -> Result<(), Error> {
    check(all)?;
    let wanted_v4: HashSet<_> = all.iter().map(|endpoint| v4(endpoint.ipv4)).collect();
    let wanted_v6: HashSet<_> = all.iter().map(|endpoint| v6(endpoint.ipv6)).collect();
    change(node, |node| {
        let mut guard = node.maps();
        let maps = &mut *guard;
        let room = [name::ADDRESS_EXACT_V4, name::ADDRESS_EXACT_V6].map(|map| (map, maps.capacity(map)));
        let stale_v4 = others(&maps.address_exact_v4, room[0].0, &wanted_v4)?;
        let stale_v6 = others(&maps.address_exact_v6, room[1].0, &wanted_v6)?;
        // Removed first: at worst an address is unknown for a moment, and there is room for the new ones.
        let gone_v4 = forget_all(node, &mut maps.address_exact_v4, room[0].0, stale_v4.into_iter())?;
        let gone_v6 = forget_all(node, &mut maps.address_exact_v6, room[1].0, stale_v6.into_iter())?;
        let entries_v4 = all.iter().map(|endpoint| (v4(endpoint.ipv4), entry(endpoint)));
        let entries_v6 = all.iter().map(|endpoint| (v6(endpoint.ipv6), entry(endpoint)));
        let put_v4 = put_all(&mut maps.address_exact_v4, room[0], entries_v4)?;
        let put_v6 = put_all(&mut maps.address_exact_v6, room[1], entries_v6)?;
        Ok(put_v4 || put_v6 || gone_v4 || gone_v6)
    })
}

/// Makes a change of which it is known whether it changed anything; if it did, or failed on the way, flows with whatever is
/// not of this node are judged again.
fn change(node: &Node, make: impl FnOnce(&Node) -> Result<bool, Error>) -> Result<(), Error> {
    match make(node) {
        Ok(false) => Ok(()),
        Ok(true) => begin_epoch(node),
        Err(error) => begin_epoch(node).and(Err(error)),
    }
}

/// Has all flows with an end that is not of this node judged again.
pub(crate) fn begin_epoch(node: &Node) -> Result<(), Error> {
    let mut maps = node.maps();
    let epoch = node.next_generation();
    maps.generation.set(OUTSIDE, epoch, 0).map_err(failed(name::GENERATION))
}

fn check(endpoints: &[RemoteEndpoint]) -> Result<(), Error> {
    let wrong = |endpoint: &RemoteEndpoint, reason| {
        Err(Error::Spec { what: format!("replica {} of another node", endpoint.ipv4), reason })
    };
    endpoints.iter().try_for_each(|endpoint| {
        if !identity_bits::fit(endpoint.identity) {
            return wrong(endpoint, identity_bits::too_many());
        }
        let number = u32::from(endpoint.node);
        if number == OWN || number >= NODES_MAX {
            return wrong(endpoint, format!("{number} is no node's number"));
        }
        Ok(())
    })
}

fn entry(endpoint: &RemoteEndpoint) -> AddressEntry {
    AddressEntry { identity: endpoint.identity, endpoint: OUTSIDE, node: endpoint.node.into() }
}

fn v4(address: Ipv4Addr) -> Address4 {
    Address4::from_octets(address.octets())
}

fn v6(address: Ipv6Addr) -> Address6 {
    Address6::from_octets(address.octets())
}

fn is_remote(entry: &AddressEntry) -> bool {
    entry.endpoint == OUTSIDE && entry.node != OWN
}

/// The addresses of other nodes' replicas that are in the map and not wanted.
fn others<K: Pod + Eq + Hash>(
    map: &HashMap<MapData, K, AddressEntry>,
    name: &'static str,
    wanted: &HashSet<K>,
) -> Result<Vec<K>, Error> {
    let mut stale = Vec::new();
    for found in map.iter() {
        let (key, entry) = found.map_err(failed(name))?;
        if is_remote(&entry) && !wanted.contains(&key) {
            stale.push(key);
        }
    }
    Ok(stale)
}

/// Whether anything was changed. An address of this node's own endpoint stays that.
fn put_all<K: Pod>(
    map: &mut HashMap<MapData, K, AddressEntry>,
    room: (&'static str, u32),
    wanted: impl Iterator<Item = (K, AddressEntry)>,
) -> Result<bool, Error> {
    let mut changed = false;
    for (key, entry) in wanted {
        let known = get(map, room.0, &key)?;
        let is_ours = known.is_some_and(|known| known.endpoint != OUTSIDE);
        if !is_ours && known != Some(entry) {
            put(map, room, &key, &entry)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether anything was changed. What is not of another node stays.
fn forget_all<K: Family>(
    node: &Node,
    map: &mut HashMap<MapData, K, AddressEntry>,
    name: &'static str,
    gone: impl Iterator<Item = K>,
) -> Result<bool, Error> {
    let mut changed = false;
    for key in gone {
        if get(map, name, &key)?.is_some_and(|known| is_remote(&known)) {
            forget(map, name, &key)?;
            node.gone.note_endpoint([key.ip()]);
            changed = true;
        }
    }
    Ok(changed)
}

fn get<K: Pod>(
    map: &HashMap<MapData, K, AddressEntry>,
    name: &'static str,
    key: &K,
) -> Result<Option<AddressEntry>, Error> {
    match map.get(key, 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(name)(error)),
    }
}
