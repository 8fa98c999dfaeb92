//! Addresses outside of endpoints whose identity is known.

use crate::{
    Error, identity_bits,
    maps::{failed, forget, put},
    node::Node,
};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use hivemind_common::{
    endpoint::{AddressEntry, OUTSIDE},
    family::{Address4, Address6},
    name,
    node::OWN,
};
use std::{collections::BTreeMap, hash::Hash, net::IpAddr};

/// Makes the maps say of addresses outside of endpoints just this. Flows with such addresses are judged again.
pub(crate) fn set(node: &Node, addresses: &[(IpAddr, u32)]) -> Result<(), Error> {
    if let Some((address, _)) = addresses.iter().find(|(_, identity)| !identity_bits::fit(*identity)) {
        return Err(Error::Spec {
            what: format!("identity of {address}"),
            reason: identity_bits::too_many(),
        });
    }
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    for (address, identity) in addresses {
        match address {
            IpAddr::V4(address) => drop(v4.insert(address.octets(), *identity)),
            IpAddr::V6(address) => drop(v6.insert(address.octets(), *identity)),
        }
    }
    let v4: Vec<_> =
        v4.into_iter().map(|(octets, identity)| (Address4::from_octets(octets), identity)).collect();
    let v6: Vec<_> =
        v6.into_iter().map(|(octets, identity)| (Address6::from_octets(octets), identity)).collect();
    let mut guard = node.maps();
    let maps = &mut *guard;
    let room = [name::ADDRESS_EXACT_V4, name::ADDRESS_EXACT_V6].map(|map| (map, maps.capacity(map)));
    let changed_v4 = replace(&mut maps.address_exact_v4, room[0], &v4)?;
    let changed_v6 = replace(&mut maps.address_exact_v6, room[1], &v6)?;
    if changed_v4 || changed_v6 {
        let epoch = node.next_generation();
        maps.generation.set(OUTSIDE, epoch, 0).map_err(failed(name::GENERATION))?;
    }
    Ok(())
}

/// Whether anything was changed. An endpoint's own address keeps its identity.
fn replace<K: Pod + Eq + Hash>(
    map: &mut HashMap<MapData, K, AddressEntry>,
    room: (&'static str, u32),
    wanted: &[(K, u32)],
) -> Result<bool, Error> {
    let found: Vec<(K, AddressEntry)> = map.iter().collect::<Result<_, _>>().map_err(failed(room.0))?;
    let mut changed = false;
    for (key, entry) in &found {
        if entry.endpoint == OUTSIDE && entry.node == OWN && !wanted.iter().any(|(other, _)| other == key) {
            forget(map, room.0, key)?;
            changed = true;
        }
    }
    for (key, identity) in wanted {
        let entry = AddressEntry { identity: *identity, endpoint: OUTSIDE, node: OWN };
        let known = found.iter().find(|(other, _)| other == key).map(|(_, known)| *known);
        let is_endpoints = known.is_some_and(|known| known.endpoint != OUTSIDE);
        if !is_endpoints && known != Some(entry) {
            put(map, room, key, &entry)?;
            changed = true;
        }
    }
    Ok(changed)
}
