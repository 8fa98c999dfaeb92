//! Tables as entries of the maps, and back. No kernel here.

use aya::maps::lpm_trie::Key;
use hivemind_common::{
    family::{Address4, Address6},
    policy::{
        ANY_PEER, EGRESS, KEY_BITS, NUMBER_BITS, PEER_BITS, PolicyEntry, PolicyKey, PrefixKey, SET_BITS,
        SIDE, prefix_set,
    },
};
use hivemind_policy::{TableEntry, TablePrefix, Tables, Transport};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;

/// How many entries tables take in each map: entries, IPv4 prefixes, IPv6 prefixes.
pub(crate) fn count(tables: &Tables) -> [u32; 3] {
    let v4 = tables.prefixes.iter().filter(|prefix| prefix.net.addr().is_ipv4()).count();
    [tables.entries.len(), v4, tables.prefixes.len() - v4]
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// What is wrong with tables, if anything: they must say something of every connection.
pub(crate) fn fault(tables: &Tables) -> Option<&'static str> {
    let is_default =
        |entry: &&TableEntry| entry.peer & !SIDE == ANY_PEER && entry.transport == Transport::Any;
    let defaults: BTreeSet<u32> =
        tables.entries.iter().filter(is_default).map(|entry| entry.peer & SIDE).collect();
    let sides = tables.entries.iter().map(|entry| entry.peer & SIDE);
    let mut sides = sides.chain(tables.prefixes.iter().map(|prefix| prefix.side)).chain([0, EGRESS]);
    if sides.any(|side| !defaults.contains(&side)) {
        return Some("a direction, or a tier of it, has no entry for any peer");
    }
    if tables.prefixes.iter().any(|prefix| prefix.number >> NUMBER_BITS != 0) {
        return Some("a prefix's number is too large");
    }
    let wrong = |transport| matches!(transport, Transport::Ports { bits, .. } if !(1..=16).contains(&bits));
    tables
        .entries
        .iter()
        .any(|entry| wrong(entry.transport))
        .then_some("a port prefix has less than 1 or more than 16 bits")
}

/// The key of an entry under the policy's number.
pub(crate) fn entry_key(number: u32, entry: &TableEntry) -> Key<PolicyKey> {
    let transport = match entry.transport {
        Transport::Any => [0; 4],
        Transport::Protocol(protocol) => [protocol, 0, 0, 0],
        Transport::Ports { protocol, port, bits } => {
            let [high, low] = (port & mask(bits)).to_be_bytes();
            [protocol, high, low, 0]
        }
    };
    let data = PolicyKey { policy: number, peer: entry.peer, transport };
    Key::new(PEER_BITS + entry.transport.bits(), data)
}

/// The policy's number and the entry that a key and a value of the map stand for.
pub(crate) fn entry_of(key: &Key<PolicyKey>, value: PolicyEntry) -> (u32, TableEntry) {
    let data = key.data();
    let [protocol, high, low, _] = data.transport;
    let transport = match key.prefix_len().min(KEY_BITS).saturating_sub(PEER_BITS) {
        0 => Transport::Any,
        bits @ 9.. => Transport::Ports {
            protocol,
            port: u16::from_be_bytes([high, low]),
            bits: u8::try_from(bits - 8).unwrap_or(16),
        },
        _ => Transport::Protocol(protocol),
    };
    (data.policy, TableEntry { peer: data.peer, transport, value })
}

/// The key of a prefix, in the map of its family.
pub(crate) enum NetKey {
    /// In `policy_cidr_v4`.
    V4(Key<PrefixKey<Address4>>),
    /// In `policy_cidr_v6`.
    V6(Key<PrefixKey<Address6>>),
}

/// The key of a prefix under the policy's number.
pub(crate) fn prefix_key(number: u32, prefix: &TablePrefix) -> NetKey {
    let set = prefix_set(number, prefix.side);
    let bits = SET_BITS + u32::from(prefix.net.prefix_len());
    match prefix.net {
        IpNet::V4(net) => {
            let address = Address4::from_octets(net.network().octets());
            NetKey::V4(Key::new(bits, PrefixKey { set, address }))
        }
        IpNet::V6(net) => {
            let address = Address6::from_octets(net.network().octets());
            NetKey::V6(Key::new(bits, PrefixKey { set, address }))
        }
    }
}

/// The policy's number and the prefix that a key and a value of `policy_cidr_v4` stand for.
pub(crate) fn prefix_of_v4(key: &Key<PrefixKey<Address4>>, number: u32) -> Option<(u32, TablePrefix)> {
    let data = key.data();
    let bits = u8::try_from(key.prefix_len().saturating_sub(SET_BITS)).ok()?;
    let net = Ipv4Net::new(data.address.octets().into(), bits).ok()?;
    Some(prefix_of(data.set, net.into(), number))
}

/// As [`prefix_of_v4`], of `policy_cidr_v6`.
pub(crate) fn prefix_of_v6(key: &Key<PrefixKey<Address6>>, number: u32) -> Option<(u32, TablePrefix)> {
    let data = key.data();
    let bits = u8::try_from(key.prefix_len().saturating_sub(SET_BITS)).ok()?;
    let net = Ipv6Net::new(data.address.octets().into(), bits).ok()?;
    Some(prefix_of(data.set, net.into(), number))
}

fn prefix_of(set: u32, net: IpNet, number: u32) -> (u32, TablePrefix) {
    (set & !SIDE, TablePrefix { side: set & SIDE, net, number })
}

/// Tables read from the maps, in the order that tables have.
pub(crate) fn sorted(mut tables: Tables) -> Tables {
    tables.entries.sort_by_key(|entry| (entry.peer, entry.transport));
    tables.prefixes.sort();
    tables
}

fn mask(bits: u8) -> u16 {
    u16::MAX << (16 - u16::from(bits.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transport() -> impl Strategy<Value = Transport> {
        prop_oneof![
            Just(Transport::Any),
            any::<u8>().prop_map(Transport::Protocol),
            (any::<u8>(), any::<u16>(), 1u8..=16).prop_map(|(protocol, port, bits)| Transport::Ports {
                protocol,
                port: port & mask(bits),
                bits
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_is_read_back_from_the_map_as_it_was_written(
            number in 1u32..1 << NUMBER_BITS, peer: u32, transport in transport(), rule: u32, precedence: u32
        ) {
            let value = PolicyEntry { rule, precedence, verdict: 1, flags: 1, padding: [0; 2] };
            let entry = TableEntry { peer, transport, value };
            prop_assert_eq!(entry_of(&entry_key(number, &entry), value), (number, entry));
        }

        #[test]
        fn a_prefix_is_read_back_from_the_map_as_it_was_written(
            number in 1u32..1 << NUMBER_BITS, side: u32, v4: u32, v6: u128, bits in 0u8..=32, prefix in 0u32..1 << NUMBER_BITS
        ) {
            for net in [
                IpNet::from(Ipv4Net::new(v4.into(), bits).unwrap().trunc()),
                IpNet::from(Ipv6Net::new(v6.into(), bits * 4).unwrap().trunc()),
            ] {
                let written = TablePrefix { side: side & SIDE, net, number: prefix };
                let read = match prefix_key(number, &written) {
                    NetKey::V4(key) => prefix_of_v4(&key, prefix),
                    NetKey::V6(key) => prefix_of_v6(&key, prefix),
                };
                prop_assert_eq!(read, Some((number, written)));
            }
        }
    }

    #[test]
    fn tables_that_say_nothing_of_some_connections_are_refused() {
        assert_eq!(fault(&Tables::open()), None);
        let mut one_way = Tables::open();
        one_way.entries.pop();
        assert!(fault(&one_way).is_some());
        assert!(fault(&Tables::default()).is_some());
    }
}
