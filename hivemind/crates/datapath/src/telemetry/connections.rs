//! The connections that are known now.

use crate::{
    Error, FlowEvent, FlowKind, FlowPeer,
    bpffs::Pins,
    maps::{failed, open},
    telemetry::events::Clocks,
};
use aya::{
    Pod,
    maps::{Map, MapData, MapError},
};
use hivemind_common::{
    conntrack::{Entry, Key, REFUSED},
    endpoint::OUTSIDE,
    family::{Address4, Address6},
    name,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// A table of connections.
type Connections<K> = aya::maps::HashMap<MapData, K, Entry>;

/// The most entries that are looked at in a table.
const LOOKS_MAX: usize = 1 << 20;

/// At most `max` connections that are live. Blocks for about a microsecond a connection.
pub(crate) fn live(pins: &Pins, max: usize) -> Result<Vec<FlowEvent>, Error> {
    let mut found = Vec::new();
    each(pins, |connection| {
        found.push(connection);
        found.len() < max
    })?;
    Ok(found)
}

/// Those of these addresses that live connections were begun with. Blocks for about a microsecond a connection.
pub(crate) fn in_use(pins: &Pins, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Error> {
    let mut used = BTreeSet::new();
    each(pins, |connection| {
        used.extend(connection.destination.address.filter(|address| addresses.contains(address)));
        used.len() < addresses.len()
    })?;
    Ok(used)
}

/// Hands every live connection to `take` until that has enough.
fn each(pins: &Pins, mut take: impl FnMut(FlowEvent) -> bool) -> Result<(), Error> {
    let clocks = Clocks::now();
    let mut wants_more = true;
    let v4 = table::<Key<Address4>>(pins, name::CONNTRACK_V4)?;
    read(&v4, name::CONNTRACK_V4, |key, entry| {
        let connection = told(key, entry, clocks, |address: Address4| address.octets().into());
        wants_more = connection.is_none_or(&mut take);
        wants_more
    })?;
    if !wants_more {
        return Ok(());
    }
    let v6 = table::<Key<Address6>>(pins, name::CONNTRACK_V6)?;
    read(&v6, name::CONNTRACK_V6, |key, entry| {
        told(key, entry, clocks, |address: Address6| address.octets().into()).is_none_or(&mut take)
    })
}

/// What one end has in the tables of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Share {
    /// Connections that it is an end of.
    pub(crate) connections: u64,
    /// Those of them that it began.
    pub(crate) begun: u64,
}

/// What each endpoint has, by its index; [`OUTSIDE`] has what is no endpoint's. What is refused by a policy counts, since it takes
/// room. Blocks for about a microsecond a connection.
pub(crate) fn by_endpoint(pins: &Pins) -> Result<HashMap<u32, Share>, Error> {
    let mut shares = HashMap::new();
    let now = Clocks::now().monotonic_ns();
    let v4 = table::<Key<Address4>>(pins, name::CONNTRACK_V4)?;
    read(&v4, name::CONNTRACK_V4, |_, entry| {
        count(&mut shares, entry, now);
        true
    })?;
    let v6 = table::<Key<Address6>>(pins, name::CONNTRACK_V6)?;
    read(&v6, name::CONNTRACK_V6, |_, entry| {
        count(&mut shares, entry, now);
        true
    })?;
    Ok(shares)
}

/// Counts a connection for those endpoints of the node that are its ends.
fn count(shares: &mut HashMap<u32, Share>, entry: &Entry, now_ns: u64) {
    if entry.expires_ns <= now_ns {
        return;
    }
    let begun_by = entry.endpoints[entry.begun_by().index()];
    let [a, b] = entry.endpoints;
    let ends = match (a, b) {
        (OUTSIDE, other) | (other, OUTSIDE) => [Some(other), None],
        (a, b) => [Some(a), (a != b).then_some(b)],
    };
    for endpoint in ends.into_iter().flatten() {
        let share = shares.entry(endpoint).or_default();
        share.connections += 1;
        share.begun += u64::from(endpoint == begun_by);
    }
}

fn table<K: Pod>(pins: &Pins, map: &'static str) -> Result<Connections<K>, Error> {
    Connections::try_from(Map::HashMap(open(pins, map)?)).map_err(failed(map))
}

/// Hands every entry to `take` until that has enough. The table changes meanwhile: an entry may be missed, or met twice
/// if the kernel begins again because the one that it stood at is gone; so it ends after a bounded number of looks.
fn read<K: Pod>(
    table: &Connections<K>,
    map: &'static str,
    mut take: impl FnMut(&K, &Entry) -> bool,
) -> Result<(), Error> {
    for found in table.iter().take(LOOKS_MAX) {
        match found {
            Ok((key, entry)) => {
                if !take(&key, &entry) {
                    return Ok(());
                }
            }
            // It went between the look at its key and the look at its value.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(failed(map)(error)),
        }
    }
    Ok(())
}

/// A connection as it is known, if it is live and nobody refuses it.
pub(crate) fn told<A: Copy>(
    key: &Key<A>,
    entry: &Entry,
    clocks: Clocks,
    ip: impl Fn(A) -> IpAddr,
) -> Option<FlowEvent> {
    if entry.expires_ns <= clocks.monotonic_ns() || entry.flags & REFUSED != 0 {
        return None;
    }
    let first = entry.begun_by().index();
    let second = entry.begun_by().other().index();
    let peer = |end: usize| FlowPeer {
        address: Some(ip(key.addresses[end])),
        port: u16::from_be(key.ports[end]),
        identity: entry.identities[end],
    };
    Some(FlowEvent {
        time: clocks.time(clocks.monotonic_ns()),
        began: Some(clocks.time(entry.began_ns)),
        kind: FlowKind::Live,
        source: peer(first),
        destination: peer(second),
        protocol: key.protocol,
        egress_rule: entry.rules[first],
        ingress_rule: entry.rules[second],
        bytes: [entry.bytes[first], entry.bytes[second]],
        packets: [entry.packets[first], entry.packets[second]],
        interface: entry.interfaces[first],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_common::conntrack::BEGUN_BY_HIGH;

    #[test]
    fn a_connection_counts_once_for_each_endpoint_that_it_has() {
        let mut shares = HashMap::new();
        for endpoints in [[1, 2], [2, OUTSIDE], [OUTSIDE, 2], [3, 3], [OUTSIDE, OUTSIDE]] {
            count(&mut shares, &Entry { expires_ns: 11, endpoints, ..Entry::default() }, 10);
        }
        count(&mut shares, &Entry { expires_ns: 10, endpoints: [1, 2], ..Entry::default() }, 10);
        let share = |connections, begun| Share { connections, begun };
        let expected = [(1, share(1, 1)), (2, share(3, 1)), (3, share(1, 1)), (OUTSIDE, share(1, 1))];
        assert_eq!(shares, HashMap::from(expected));
    }

    #[test]
    fn a_connection_is_told_from_the_end_that_began_it() {
        let key = Key {
            addresses: [Address4::from_octets([10, 0, 0, 1]), Address4::from_octets([10, 0, 0, 2])],
            ports: [80_u16.to_be(), 40_000_u16.to_be()],
            protocol: 6,
            ..Key::default()
        };
        let clocks = Clocks::now();
        let entry = Entry {
            expires_ns: u64::MAX,
            identities: [301, 300],
            rules: [4097, 0],
            bytes: [200, 100],
            flags: BEGUN_BY_HIGH,
            ..Entry::default()
        };
        let ip = |address: Address4| address.octets().into();
        let flow = told(&key, &entry, clocks, ip).unwrap();
        assert_eq!((flow.source.identity, flow.source.port), (300, 40_000));
        assert_eq!((flow.destination.identity, flow.destination.port), (301, 80));
        assert_eq!((flow.egress_rule, flow.ingress_rule, flow.bytes), (0, 4097, [100, 200]));
        let refused = Entry { flags: BEGUN_BY_HIGH | REFUSED, ..entry };
        assert!(told(&key, &refused, clocks, ip).is_none());
        let expired = Entry { expires_ns: 0, ..entry };
        assert!(told(&key, &expired, clocks, ip).is_none());
    }
}
