//! Every map, and the trait that finds a family's. Capacities here are placeholders that the loader overrides.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, bpf_timer},
    btf_maps,
    helpers::generated::bpf_map_lookup_elem,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, Stack, lpm_trie},
};
use core::ffi::c_void;
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    endpoint::{AddressEntry, EndpointState},
    family::{Address4, Address6, Family, V4, V6},
    node::{NODES_MAX, NodeState},
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    service::{Backend, Cell, Reverse, ReverseKey, Service, ServiceKey},
    telemetry::{EVENT_CLASSES, EventBudget, FEATURES_ALL, PairCounters, PairKey, RttHistogram, RttKey},
};

#[unsafe(no_mangle)]
pub(crate) static NODE_NETNS_COOKIE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static COLLECT_INTERVAL_NS: Global<u64> = Global::new(10_000_000_000);

#[unsafe(no_mangle)]
pub(crate) static FEATURES: Global<u32> = Global::new(FEATURES_ALL);

#[map(name = "conntrack_v4")]
static CONNTRACK_V4: HashMap<Key<Address4>, Entry> = HashMap::with_max_entries(1, 0);
#[map(name = "conntrack_v6")]
static CONNTRACK_V6: HashMap<Key<Address6>, Entry> = HashMap::with_max_entries(1, 0);
#[map(name = "ep_by_interface")]
pub(crate) static ENDPOINT_BY_INTERFACE: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "endpoint_state")]
pub(crate) static ENDPOINT_STATE: Array<EndpointState> = Array::with_max_entries(1, 0);
#[map(name = "generation")]
pub(crate) static GENERATION: Array<u64> = Array::with_max_entries(1, 0);
#[map(name = "addr_exact_v4")]
static ADDRESS_EXACT_V4: HashMap<Address4, AddressEntry> = HashMap::with_max_entries(1, 0);
#[map(name = "addr_exact_v6")]
static ADDRESS_EXACT_V6: HashMap<Address6, AddressEntry> = HashMap::with_max_entries(1, 0);
#[map(name = "drop_counters")]
pub(crate) static DROP_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DropReason::COUNT, 0);

#[map(name = "service_v4")]
static SERVICE_V4: HashMap<ServiceKey<Address4>, Service> = HashMap::with_max_entries(1, 0);
#[map(name = "service_v6")]
static SERVICE_V6: HashMap<ServiceKey<Address6>, Service> = HashMap::with_max_entries(1, 0);
#[map(name = "service_table")]
pub(crate) static SERVICE_TABLE: Array<Cell> = Array::with_max_entries(1, 0);
#[map(name = "backend_v4")]
static BACKEND_V4: HashMap<u32, Backend<Address4>> = HashMap::with_max_entries(1, 0);
#[map(name = "backend_v6")]
static BACKEND_V6: HashMap<u32, Backend<Address6>> = HashMap::with_max_entries(1, 0);
#[map(name = "reverse_v4")]
static REVERSE_V4: LruHashMap<ReverseKey<Address4>, Reverse<Address4>> = LruHashMap::with_max_entries(1, 0);
#[map(name = "reverse_v6")]
static REVERSE_V6: LruHashMap<ReverseKey<Address6>, Reverse<Address6>> = LruHashMap::with_max_entries(1, 0);
#[map(name = "node_address_v4")]
static NODE_ADDRESS_V4: HashMap<Address4, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "node_address_v6")]
static NODE_ADDRESS_V6: HashMap<Address6, u32> = HashMap::with_max_entries(1, 0);

#[map(name = "node_state")]
pub(crate) static NODE_STATE: Array<NodeState> = Array::with_max_entries(NODES_MAX, 0);
#[map(name = "node_by_address")]
pub(crate) static NODE_BY_ADDRESS: HashMap<Address4, u32> = HashMap::with_max_entries(NODES_MAX, 0);
#[map(name = "node_range_v4")]
static NODE_RANGE_V4: LpmTrie<Address4, u32> = LpmTrie::with_max_entries(2 * NODES_MAX, 0);
#[map(name = "node_range_v6")]
static NODE_RANGE_V6: LpmTrie<Address6, u32> = LpmTrie::with_max_entries(2 * NODES_MAX, 0);

#[map(name = "policy")]
pub(crate) static POLICY: LpmTrie<PolicyKey, PolicyEntry> = LpmTrie::with_max_entries(1, 0);
#[map(name = "policy_cidr_v4")]
static POLICY_PREFIX_V4: LpmTrie<PrefixKey<Address4>, u32> = LpmTrie::with_max_entries(1, 0);
#[map(name = "policy_cidr_v6")]
static POLICY_PREFIX_V6: LpmTrie<PrefixKey<Address6>, u32> = LpmTrie::with_max_entries(1, 0);

#[map(name = "pair")]
pub(crate) static PAIR: HashMap<PairKey, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "pair_free")]
pub(crate) static PAIR_FREE: Stack<u32> = Stack::with_max_entries(1, 0);
#[map(name = "pair_counters")]
pub(crate) static PAIR_COUNTERS: PerCpuArray<PairCounters> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "rtt")]
pub(crate) static RTT: PerCpuHashMap<RttKey, RttHistogram> =
    PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "events")]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map(name = "event_budgets")]
pub(crate) static EVENT_BUDGETS: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(EVENT_CLASSES, 0);
/// Where an entry is put together: it would not fit the stack beside the rest. A program never runs within another on
/// one CPU, so one is enough.
#[map(name = "scratch")]
pub(crate) static SCRATCH: PerCpuArray<Entry> = PerCpuArray::with_max_entries(1, 0);

/// The value of `collector`: `hivemind_common::endpoint::CollectorState` with the kernel's own type for the timer,
/// which it recognises by name.
#[repr(C)]
pub(crate) struct Collector {
    pub(crate) timer: bpf_timer,
    pub(crate) started_ns: u64,
    pub(crate) runs: u64,
    pub(crate) live: [u64; 2],
    pub(crate) removed: [u64; 2],
}

// SAFETY: the kernel serialises the timer; the figures beside it may be torn between CPUs, which costs nothing.
unsafe impl Sync for Collector {}

#[btf_map(name = "collector")]
pub(crate) static COLLECTOR: btf_maps::Array<Collector, 1> = btf_maps::Array::new();

/// The maps of one family, and what depends on it besides.
pub(crate) trait Maps: Family + Sized {
    fn conntrack() -> &'static HashMap<Key<Self::Address>, Entry>;
    fn address_exact() -> &'static HashMap<Self::Address, AddressEntry>;
    fn service() -> &'static HashMap<ServiceKey<Self::Address>, Service>;
    fn backend() -> &'static HashMap<u32, Backend<Self::Address>>;
    fn reverse() -> &'static LruHashMap<ReverseKey<Self::Address>, Reverse<Self::Address>>;
    fn node_address() -> &'static HashMap<Self::Address, u32>;
    fn policy_prefix() -> &'static LpmTrie<PrefixKey<Self::Address>, u32>;
    fn node_range() -> &'static LpmTrie<Self::Address, u32>;
    /// The endpoint's address in this family.
    fn address_of(state: &EndpointState) -> Self::Address;
}

macro_rules! maps {
    ($family:ty, $field:ident, $conntrack:ident, $exact:ident, $service:ident, $backend:ident, $reverse:ident, $node:ident, $prefix:ident, $range:ident) => {
        impl Maps for $family {
            #[inline(always)]
            fn conntrack() -> &'static HashMap<Key<Self::Address>, Entry> {
                &$conntrack
            }
            #[inline(always)]
            fn address_exact() -> &'static HashMap<Self::Address, AddressEntry> {
                &$exact
            }
            #[inline(always)]
            fn service() -> &'static HashMap<ServiceKey<Self::Address>, Service> {
                &$service
            }
            #[inline(always)]
            fn backend() -> &'static HashMap<u32, Backend<Self::Address>> {
                &$backend
            }
            #[inline(always)]
            fn reverse() -> &'static LruHashMap<ReverseKey<Self::Address>, Reverse<Self::Address>> {
                &$reverse
            }
            #[inline(always)]
            fn node_address() -> &'static HashMap<Self::Address, u32> {
                &$node
            }
            #[inline(always)]
            fn policy_prefix() -> &'static LpmTrie<PrefixKey<Self::Address>, u32> {
                &$prefix
            }
            #[inline(always)]
            fn node_range() -> &'static LpmTrie<Self::Address, u32> {
                &$range
            }
            #[inline(always)]
            fn address_of(state: &EndpointState) -> Self::Address {
                state.$field
            }
        }
    };
}

maps!(
    V4,
    ipv4,
    CONNTRACK_V4,
    ADDRESS_EXACT_V4,
    SERVICE_V4,
    BACKEND_V4,
    REVERSE_V4,
    NODE_ADDRESS_V4,
    POLICY_PREFIX_V4,
    NODE_RANGE_V4
);
maps!(
    V6,
    ipv6,
    CONNTRACK_V6,
    ADDRESS_EXACT_V6,
    SERVICE_V6,
    BACKEND_V6,
    REVERSE_V6,
    NODE_ADDRESS_V6,
    POLICY_PREFIX_V6,
    NODE_RANGE_V6
);

/// The value in an LPM trie for a key of which every bit counts.
#[inline(always)]
pub(crate) fn longest<K, V: Copy>(trie: &'static LpmTrie<K, V>, bits: u32, data: K) -> Option<V> {
    // The library's own key type is packed, which this target reads and writes byte by byte.
    #[repr(C)]
    struct Aligned<K> {
        bits: u32,
        data: K,
    }
    let key = Aligned { bits, data };
    let map: *const LpmTrie<K, V> = trie;
    // SAFETY: the key has the layout of `lpm_trie::Key` (asserted below), and lives over the call.
    let found = unsafe { bpf_map_lookup_elem(map.cast_mut().cast(), (&raw const key).cast()) };
    const { assert!(size_of::<Aligned<K>>() == size_of::<lpm_trie::Key<K>>()) };
    // SAFETY: a value of the map; values are replaced, never changed.
    unsafe { found.cast::<V>().as_ref() }.copied()
}

/// Whose range an address is in: the number of another node, zero for this node's or nobody's, `None` if it is no replica's.
#[inline(always)]
pub(crate) fn node_of<F: Maps>(address: F::Address) -> Option<u32> {
    longest(F::node_range(), 8 * size_of::<F::Address>() as u32, address)
}

/// Whether a part of the work is done at all: the verifier knows, and leaves out what is not.
#[inline(always)]
pub(crate) fn does(feature: u32) -> bool {
    FEATURES.load() & feature != 0
}

/// Both tables of connections as the kernel's helpers want them: IPv4, IPv6.
#[inline(always)]
pub(crate) fn conntrack_pointers() -> [*mut c_void; 2] {
    [(&raw const CONNTRACK_V4).cast_mut().cast(), (&raw const CONNTRACK_V6).cast_mut().cast()]
}
