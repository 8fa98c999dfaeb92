//! The pinned maps as the daemon's typed handles.

use crate::{Error, bpffs::Pins};
use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, lpm_trie::Key},
};
use hivemind_common::{
    endpoint::{AddressEntry, CollectorState, EndpointState},
    family::{Address4, Address6},
    name,
    node::NodeState,
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    service::{Backend, Cell, Service, ServiceKey},
    telemetry::DropKey,
    translation::Uplink,
};

/// Every map that the daemon reads or writes. Connections and reverse entries are the programs' alone.
pub(crate) struct Maps {
    pub(crate) endpoint_by_interface: HashMap<MapData, u32, u32>,
    pub(crate) endpoint_state: Array<MapData, EndpointState>,
    pub(crate) generation: Array<MapData, u64>,
    pub(crate) address_exact_v4: HashMap<MapData, Address4, AddressEntry>,
    pub(crate) address_exact_v6: HashMap<MapData, Address6, AddressEntry>,
    pub(crate) drop_counters: PerCpuArray<MapData, u64>,
    /// The kernel's number of that map, which no other map has before the next boot.
    pub(crate) drops_id: u32,
    pub(crate) collector: Array<MapData, CollectorState>,
    pub(crate) service_v4: HashMap<MapData, ServiceKey<Address4>, Service>,
    pub(crate) service_v6: HashMap<MapData, ServiceKey<Address6>, Service>,
    pub(crate) service_table: Array<MapData, Cell>,
    pub(crate) backend_v4: HashMap<MapData, u32, Backend<Address4>>,
    pub(crate) backend_v6: HashMap<MapData, u32, Backend<Address6>>,
    pub(crate) node_address_v4: HashMap<MapData, Address4, u32>,
    pub(crate) node_address_v6: HashMap<MapData, Address6, u32>,
    pub(crate) uplink: HashMap<MapData, u32, Uplink>,
    pub(crate) guarded_v4: HashMap<MapData, ServiceKey<Address4>, u32>,
    pub(crate) guarded_v6: HashMap<MapData, ServiceKey<Address6>, u32>,
    pub(crate) unmasked_v4: LpmTrie<MapData, Address4, u32>,
    pub(crate) unmasked_v6: LpmTrie<MapData, Address6, u32>,
    pub(crate) endpoint_drops: PerCpuHashMap<MapData, DropKey, u64>,
    pub(crate) node_state: Array<MapData, NodeState>,
    pub(crate) node_by_address: HashMap<MapData, Address4, u32>,
    pub(crate) node_range_v4: LpmTrie<MapData, Address4, u32>,
    pub(crate) node_range_v6: LpmTrie<MapData, Address6, u32>,
    /// Capacities of the maps that can fill up, in the order of [`name::MAPS`].
    pub(crate) capacities: Vec<(&'static str, u32)>,
}

impl Maps {
    /// Opens the pins that loading the object has made or found.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            endpoint_by_interface: hash(pins, name::ENDPOINT_BY_INTERFACE)?,
            endpoint_state: array(pins, name::ENDPOINT_STATE)?,
            generation: array(pins, name::GENERATION)?,
            address_exact_v4: hash(pins, name::ADDRESS_EXACT_V4)?,
            address_exact_v6: hash(pins, name::ADDRESS_EXACT_V6)?,
            drop_counters: per_cpu_array(pins, name::DROP_COUNTERS)?,
            drops_id: open(pins, name::DROP_COUNTERS)?.info().map_err(failed(name::DROP_COUNTERS))?.id(),
            collector: array(pins, name::COLLECTOR)?,
            service_v4: hash(pins, name::SERVICE_V4)?,
            service_v6: hash(pins, name::SERVICE_V6)?,
            service_table: array(pins, name::SERVICE_TABLE)?,
            backend_v4: hash(pins, name::BACKEND_V4)?,
            backend_v6: hash(pins, name::BACKEND_V6)?,
            node_address_v4: hash(pins, name::NODE_ADDRESS_V4)?,
            node_address_v6: hash(pins, name::NODE_ADDRESS_V6)?,
            uplink: hash(pins, name::UPLINK)?,
            guarded_v4: hash(pins, name::GUARDED_V4)?,
            guarded_v6: hash(pins, name::GUARDED_V6)?,
            unmasked_v4: trie(pins, name::UNMASKED_V4)?,
            unmasked_v6: trie(pins, name::UNMASKED_V6)?,
            endpoint_drops: PerCpuHashMap::try_from(Map::PerCpuHashMap(open(pins, name::ENDPOINT_DROPS)?))
                .map_err(failed(name::ENDPOINT_DROPS))?,
            node_state: array(pins, name::NODE_STATE)?,
            node_by_address: hash(pins, name::NODE_BY_ADDRESS)?,
            node_range_v4: trie(pins, name::NODE_RANGE_V4)?,
            node_range_v6: trie(pins, name::NODE_RANGE_V6)?,
            capacities: capacities(pins)?,
        })
    }

    /// How many entries fit into a map.
    pub(crate) fn capacity(&self, map: &str) -> u32 {
        self.capacities.iter().find(|(name, _)| *name == map).map_or(0, |(_, capacity)| *capacity)
    }
}

/// The maps of policies, by themselves: writing a large policy keeps nobody else waiting.
pub(crate) struct PolicyMaps {
    pub(crate) entries: LpmTrie<MapData, PolicyKey, PolicyEntry>,
    pub(crate) prefixes_v4: LpmTrie<MapData, PrefixKey<Address4>, u32>,
    pub(crate) prefixes_v6: LpmTrie<MapData, PrefixKey<Address6>, u32>,
}

impl PolicyMaps {
    /// Opens the pins that loading the object has made or found.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            entries: trie(pins, name::POLICY)?,
            prefixes_v4: trie(pins, name::POLICY_PREFIX_V4)?,
            prefixes_v6: trie(pins, name::POLICY_PREFIX_V6)?,
        })
    }
}

fn capacities(pins: &Pins) -> Result<Vec<(&'static str, u32)>, Error> {
    name::MAPS.into_iter().map(|map| Ok((map, capacity_of(pins, map)?))).collect()
}

/// How many entries fit into a pinned map.
pub(crate) fn capacity_of(pins: &Pins, map: &'static str) -> Result<u32, Error> {
    Ok(open(pins, map)?.info().map_err(failed(map))?.max_entries())
}

fn trie<K: Pod, V: Pod>(pins: &Pins, map: &'static str) -> Result<LpmTrie<MapData, K, V>, Error> {
    LpmTrie::try_from(Map::LpmTrie(open(pins, map)?)).map_err(failed(map))
}

/// A pinned map without a type.
pub(crate) fn open(pins: &Pins, map: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(pins.map(map)).map_err(failed(map))
}

fn hash<K: Pod, V: Pod>(pins: &Pins, map: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::try_from(Map::HashMap(open(pins, map)?)).map_err(failed(map))
}

fn array<V: Pod>(pins: &Pins, map: &'static str) -> Result<Array<MapData, V>, Error> {
    Array::try_from(Map::Array(open(pins, map)?)).map_err(failed(map))
}

fn per_cpu_array<V: Pod>(pins: &Pins, map: &'static str) -> Result<PerCpuArray<MapData, V>, Error> {
    PerCpuArray::try_from(Map::PerCpuArray(open(pins, map)?)).map_err(failed(map))
}

/// For `map_err`: an operation on a map that failed.
pub(crate) fn failed(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, source }
}

/// Removes a key; one that is not there is no error.
pub(crate) fn forget<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), Error> {
    match map.remove(key) {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(failed(name)),
    }
}

/// Removes a prefix; one that is not there is no error.
pub(crate) fn forget_prefix<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    name: &'static str,
    key: &Key<K>,
) -> Result<(), Error> {
    match map.remove(key) {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(failed(name)),
    }
}

/// Writes a prefix, telling a full map from other failures.
pub(crate) fn put_prefix<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    (name, capacity): (&'static str, u32),
    key: &Key<K>,
    value: &V,
) -> Result<(), Error> {
    match map.insert(key, value, 0) {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOSPC) => {
            Err(Error::MapFull { map: name, capacity })
        }
        result => result.map_err(failed(name)),
    }
}

/// Writes an entry, telling a full map from other failures.
pub(crate) fn put<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    (name, capacity): (&'static str, u32),
    key: &K,
    value: &V,
) -> Result<(), Error> {
    match map.insert(key, value, 0) {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            Err(Error::MapFull { map: name, capacity })
        }
        result => result.map_err(failed(name)),
    }
}
