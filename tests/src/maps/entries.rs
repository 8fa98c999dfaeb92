//! How many entries the pinned maps have.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuHashMap},
};
use hivemind_common::{
    conntrack::{Entry, Key},
    endpoint::AddressEntry,
    family::{Address4, Address6},
    name,
    packet::FragmentKey,
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    service::{Affinity, AffinityKey, Backend, Reverse, ReverseKey, Service, ServiceKey},
    telemetry::{DropKey, PairKey, RttHistogram, RttKey},
    translation::{Translation, Uplink},
    verdict::VerdictKey,
};

use super::PinnedMaps;

/// Counts the entries of a map.
type Count = fn(MapData) -> Result<u64, MapError>;

/// Every pinned map that entries come to and go from. Of arrays, queues and rings there is no telling: their slots are always
/// there.
const COUNTED: [(&str, Count); 33] = [
    (name::CONNTRACK_V4, hash::<Key<Address4>, Entry>),
    (name::CONNTRACK_V6, hash::<Key<Address6>, Entry>),
    (name::ENDPOINT_BY_INTERFACE, hash::<u32, u32>),
    (name::ADDRESS_EXACT_V4, hash::<Address4, AddressEntry>),
    (name::ADDRESS_EXACT_V6, hash::<Address6, AddressEntry>),
    (name::SERVICE_V4, hash::<ServiceKey<Address4>, Service>),
    (name::SERVICE_V6, hash::<ServiceKey<Address6>, Service>),
    (name::BACKEND_V4, hash::<u32, Backend<Address4>>),
    (name::BACKEND_V6, hash::<u32, Backend<Address6>>),
    (name::REVERSE_V4, hash::<ReverseKey<Address4>, Reverse<Address4>>),
    (name::REVERSE_V6, hash::<ReverseKey<Address6>, Reverse<Address6>>),
    (name::NODE_ADDRESS_V4, hash::<Address4, u32>),
    (name::NODE_ADDRESS_V6, hash::<Address6, u32>),
    (name::POLICY, trie::<PolicyKey, PolicyEntry>),
    (name::POLICY_PREFIX_V4, trie::<PrefixKey<Address4>, u32>),
    (name::POLICY_PREFIX_V6, trie::<PrefixKey<Address6>, u32>),
    (name::PAIR, hash::<PairKey, u32>),
    (name::RTT, each_cpu::<RttKey, RttHistogram>),
    (name::VERDICTS, each_cpu::<VerdictKey, u64>),
    (name::NODE_BY_ADDRESS, hash::<Address4, u32>),
    (name::NODE_RANGE_V4, trie::<Address4, u32>),
    (name::NODE_RANGE_V6, trie::<Address6, u32>),
    (name::TRANSLATION_V4, hash::<Key<Address4>, Translation<Address4>>),
    (name::TRANSLATION_V6, hash::<Key<Address6>, Translation<Address6>>),
    (name::FRAGMENT_V4, hash::<FragmentKey<Address4>, u32>),
    (name::FRAGMENT_V6, hash::<FragmentKey<Address6>, u32>),
    (name::AFFINITY, hash::<AffinityKey, Affinity>),
    (name::UPLINK, hash::<u32, Uplink>),
    (name::GUARDED_V4, hash::<ServiceKey<Address4>, u32>),
    (name::GUARDED_V6, hash::<ServiceKey<Address6>, u32>),
    (name::UNMASKED_V4, trie::<Address4, u32>),
    (name::UNMASKED_V6, trie::<Address6, u32>),
    (name::ENDPOINT_DROPS, each_cpu::<DropKey, u64>),
];

impl PinnedMaps {
    /// How many entries each map has that entries come to and go from. A map that changes meanwhile may be told wrong.
    ///
    /// # Errors
    /// When a map is not there.
    pub fn entries(&self) -> Result<BTreeMap<&'static str, u64>> {
        let count = |(map, count): (&'static str, Count)| {
            let entries = count(self.open(map)?).with_context(|| format!("cannot count {map}"))?;
            Ok((map, entries))
        };
        COUNTED.into_iter().map(count).collect()
    }
}

fn hash<K: Pod, V: Pod>(map: MapData) -> Result<u64, MapError> {
    Ok(HashMap::<_, K, V>::try_from(Map::HashMap(map))?.keys().count() as u64)
}

fn each_cpu<K: Pod, V: Pod>(map: MapData) -> Result<u64, MapError> {
    Ok(PerCpuHashMap::<_, K, V>::try_from(Map::PerCpuHashMap(map))?.keys().count() as u64)
}

fn trie<K: Pod, V: Pod>(map: MapData) -> Result<u64, MapError> {
    Ok(LpmTrie::<_, K, V>::try_from(Map::LpmTrie(map))?.keys().count() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Those whose slots are always there.
    const FIXED: [&str; 15] = [
        name::ENDPOINT_STATE,
        name::GENERATION,
        name::DROP_COUNTERS,
        name::COLLECTOR,
        name::SERVICE_TABLE,
        name::PAIR_FREE,
        name::PAIR_COUNTERS,
        name::EVENTS,
        name::EVENT_BUDGETS,
        name::NODE_STATE,
        name::SCRATCH,
        name::BINDING,
        name::ROUTE,
        name::HANDED,
        name::STEPS,
    ];

    #[test]
    fn every_map_is_counted_or_has_slots_that_are_always_there() {
        let counted = COUNTED.into_iter().map(|(map, _)| map);
        let all: BTreeSet<_> = counted.chain(FIXED).collect();
        assert_eq!(all, name::MAPS.into_iter().collect());
        assert_eq!(COUNTED.len() + FIXED.len(), name::MAPS.len());
    }
}
