//! Every map, and the trait that finds a family's. Capacities here are placeholders that the loader overrides.

use crate::{frame::Frame, route::Lookup, step::Handed};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_timer},
    btf_maps,
    helpers::generated::{bpf_get_smp_processor_id, bpf_map_lookup_elem},
    macros::{btf_map, map},
    maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf, Stack,
        lpm_trie,
    },
};
use core::ffi::c_void;
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    endpoint::{AddressEntry, EndpointState},
    family::{Address, Address4, Address6, Family, V4, V6},
    name::step,
    node::{NODES_MAX, NodeState},
    packet::{Bytes, FragmentKey},
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    service::{Affinity, AffinityKey, Backend, Cell, Reverse, ReverseKey, Service, ServiceKey},
    telemetry::{
        DropKey, EVENT_CLASSES, EventBudget, FEATURES_ALL, PairCounters, PairKey, RttHistogram, RttKey,
    },
    translation::{Pair, Translation, Uplink},
    verdict::VerdictKey,
};

#[unsafe(no_mangle)]
pub(crate) static NODE_NETNS_COOKIE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static COLLECT_INTERVAL_NS: Global<u64> = Global::new(10_000_000_000);

#[unsafe(no_mangle)]
pub(crate) static FEATURES: Global<u32> = Global::new(FEATURES_ALL);

/// The range of services: network, mask; then the same of this node's replicas.
#[unsafe(no_mangle)]
pub(crate) static SERVICE_RANGE_V4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SERVICE_MASK_V4: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
pub(crate) static SERVICE_RANGE_V6: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
pub(crate) static SERVICE_MASK_V6: Global<[u32; 4]> = Global::new([u32::MAX; 4]);
#[unsafe(no_mangle)]
pub(crate) static REPLICA_RANGE_V4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static REPLICA_MASK_V4: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
pub(crate) static REPLICA_RANGE_V6: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
pub(crate) static REPLICA_MASK_V6: Global<[u32; 4]> = Global::new([u32::MAX; 4]);
#[unsafe(no_mangle)]
pub(crate) static HAIRPIN_V4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAIRPIN_V6: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
pub(crate) static SERVICE_INTERFACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static MASQ_PORT_FIRST: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static MASQ_PORT_COUNT: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
pub(crate) static PAIRS: Global<u32> = Global::new(1);

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

#[map(name = "translation_v4")]
static TRANSLATION_V4: HashMap<Key<Address4>, Translation<Address4>> = HashMap::with_max_entries(1, 0);
#[map(name = "translation_v6")]
static TRANSLATION_V6: HashMap<Key<Address6>, Translation<Address6>> = HashMap::with_max_entries(1, 0);
#[map(name = "fragment_v4")]
static FRAGMENT_V4: LruHashMap<FragmentKey<Address4>, u32> = LruHashMap::with_max_entries(1, 0);
#[map(name = "fragment_v6")]
static FRAGMENT_V6: LruHashMap<FragmentKey<Address6>, u32> = LruHashMap::with_max_entries(1, 0);
#[map(name = "affinity")]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(1, 0);
#[map(name = "uplink")]
pub(crate) static UPLINK: HashMap<u32, Uplink> = HashMap::with_max_entries(1, 0);
#[map(name = "guarded_v4")]
static GUARDED_V4: HashMap<ServiceKey<Address4>, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "guarded_v6")]
static GUARDED_V6: HashMap<ServiceKey<Address6>, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "unmasked_v4")]
static UNMASKED_V4: LpmTrie<Address4, u32> = LpmTrie::with_max_entries(1, 0);
#[map(name = "unmasked_v6")]
static UNMASKED_V6: LpmTrie<Address6, u32> = LpmTrie::with_max_entries(1, 0);

#[map(name = "endpoint_drops")]
pub(crate) static ENDPOINT_DROPS: PerCpuHashMap<DropKey, u64> =
    PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "pair")]
pub(crate) static PAIR: HashMap<PairKey, u32> = HashMap::with_max_entries(1, 0);
#[map(name = "pair_free")]
pub(crate) static PAIR_FREE: Stack<u32> = Stack::with_max_entries(1, 0);
#[map(name = "pair_counters")]
static PAIR_COUNTERS: Array<PairCounters> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "rtt")]
pub(crate) static RTT: PerCpuHashMap<RttKey, RttHistogram> =
    PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "verdicts")]
pub(crate) static VERDICTS: PerCpuHashMap<VerdictKey, u64> =
    PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "events")]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map(name = "event_budgets")]
pub(crate) static EVENT_BUDGETS: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(EVENT_CLASSES, 0);
/// Where an entry is put together: it would not fit the stack beside the rest. A program never runs within another on
/// one CPU, so one is enough.
#[map(name = "scratch")]
pub(crate) static SCRATCH: PerCpuArray<Entry> = PerCpuArray::with_max_entries(1, 0);

/// Where both records of a connection's translation are put together; IPv4's are smaller.
#[map(name = "binding")]
pub(crate) static BINDING: PerCpuArray<Pair<Address6>> = PerCpuArray::with_max_entries(1, 0);

/// Where a route is asked for: it would not fit the stack.
#[map(name = "route")]
pub(crate) static ROUTE: PerCpuArray<Lookup> = PerCpuArray::with_max_entries(1, 0);

/// What one program hands to the next.
#[map(name = "handed")]
pub(crate) static HANDED: PerCpuArray<Handed> = PerCpuArray::with_max_entries(1, 0);
/// The programs that others go on with, by [`hivemind_common::name::step`].
#[map(name = "steps")]
pub(crate) static STEPS: ProgramArray = ProgramArray::with_max_entries(step::COUNT, 0);

/// The value of `collector`: `hivemind_common::endpoint::CollectorState` with the kernel's own type for the timer,
/// which it recognises by name.
#[repr(C)]
pub(crate) struct Collector {
    pub(crate) timer: bpf_timer,
    pub(crate) started_ns: u64,
    pub(crate) runs: u64,
    pub(crate) live: [u64; 2],
    pub(crate) removed: [u64; 2],
    pub(crate) translations: [u64; 2],
}

// SAFETY: the kernel serialises the timer; the figures beside it may be torn between CPUs, which costs nothing.
unsafe impl Sync for Collector {}

#[btf_map(name = "collector")]
pub(crate) static COLLECTOR: btf_maps::Array<Collector, 1> = btf_maps::Array::new();

/// The maps of one family, and what depends on it besides.
pub(crate) trait Maps: Family + Sized {
    fn conntrack() -> &'static HashMap<Key<Self::Address>, Entry>;
    fn translation() -> &'static HashMap<Key<Self::Address>, Translation<Self::Address>>;
    fn fragment() -> &'static LruHashMap<FragmentKey<Self::Address>, u32>;
    fn address_exact() -> &'static HashMap<Self::Address, AddressEntry>;
    fn service() -> &'static HashMap<ServiceKey<Self::Address>, Service>;
    fn backend() -> &'static HashMap<u32, Backend<Self::Address>>;
    fn reverse() -> &'static LruHashMap<ReverseKey<Self::Address>, Reverse<Self::Address>>;
    fn node_address() -> &'static HashMap<Self::Address, u32>;
    fn policy_prefix() -> &'static LpmTrie<PrefixKey<Self::Address>, u32>;
    fn node_range() -> &'static LpmTrie<Self::Address, u32>;
    fn guarded() -> &'static HashMap<ServiceKey<Self::Address>, u32>;
    fn unmasked() -> &'static LpmTrie<Self::Address, u32>;
    /// The endpoint's address in this family.
    fn address_of(state: &EndpointState) -> Self::Address;
    /// An uplink's address in this family.
    fn uplink_address(uplink: &Uplink) -> Self::Address;
    /// The address at an offset of a frame.
    fn read_address(frame: Frame, offset: u32) -> Option<Self::Address>;
    /// Whether the address is of the services' range.
    fn is_service(address: Self::Address) -> bool;
    /// Whether the address is of the range of this node's replicas.
    fn is_replica(address: Self::Address) -> bool;
    /// The address under which a replica meets itself.
    fn hairpin() -> Self::Address;
    /// The number of the other node that has this address, if one has.
    fn node_at(address: Self::Address) -> Option<u32>;
}

macro_rules! maps {
    ($family:ty, $field:ident, { $($function:ident: $type:ty = $map:ident,)+ }, $address:expr, $read:expr, $ranges:expr, $hairpin:expr, $node_at:expr) => {
        impl Maps for $family {
            $(
                #[inline(always)]
                fn $function() -> &'static $type {
                    &$map
                }
            )+
            #[inline(always)]
            fn address_of(state: &EndpointState) -> Self::Address {
                state.$field
            }
            #[inline(always)]
            fn uplink_address(uplink: &Uplink) -> Self::Address {
                uplink.$field
            }
            #[inline(always)]
            fn read_address(frame: Frame, offset: u32) -> Option<Self::Address> {
                $read(frame, offset)
            }
            #[inline(always)]
            fn is_service(address: Self::Address) -> bool {
                let [network, mask, _, _] = $ranges();
                address.is_in(network, mask)
            }
            #[inline(always)]
            fn is_replica(address: Self::Address) -> bool {
                let [_, _, network, mask] = $ranges();
                address.is_in(network, mask)
            }
            #[inline(always)]
            fn hairpin() -> Self::Address {
                $address($hairpin.load())
            }
            #[inline(always)]
            fn node_at(address: Self::Address) -> Option<u32> {
                $node_at(address)
            }
        }
    };
}

maps!(
    V4,
    ipv4,
    {
        conntrack: HashMap<Key<Self::Address>, Entry> = CONNTRACK_V4,
        translation: HashMap<Key<Self::Address>, Translation<Self::Address>> = TRANSLATION_V4,
        fragment: LruHashMap<FragmentKey<Self::Address>, u32> = FRAGMENT_V4,
        address_exact: HashMap<Self::Address, AddressEntry> = ADDRESS_EXACT_V4,
        service: HashMap<ServiceKey<Self::Address>, Service> = SERVICE_V4,
        backend: HashMap<u32, Backend<Self::Address>> = BACKEND_V4,
        reverse: LruHashMap<ReverseKey<Self::Address>, Reverse<Self::Address>> = REVERSE_V4,
        node_address: HashMap<Self::Address, u32> = NODE_ADDRESS_V4,
        policy_prefix: LpmTrie<PrefixKey<Self::Address>, u32> = POLICY_PREFIX_V4,
        node_range: LpmTrie<Self::Address, u32> = NODE_RANGE_V4,
        guarded: HashMap<ServiceKey<Self::Address>, u32> = GUARDED_V4,
        unmasked: LpmTrie<Self::Address, u32> = UNMASKED_V4,
    },
    Address4,
    |frame: Frame, offset| frame.read(offset).map(|[word]| Address4(word)),
    || [&SERVICE_RANGE_V4, &SERVICE_MASK_V4, &REPLICA_RANGE_V4, &REPLICA_MASK_V4].map(|word| Address4(word.load())),
    HAIRPIN_V4,
    |address| NODE_BY_ADDRESS.get_ptr(address).map(
        // SAFETY: a value of the map.
        |number| unsafe { *number }
    )
);
maps!(
    V6,
    ipv6,
    {
        conntrack: HashMap<Key<Self::Address>, Entry> = CONNTRACK_V6,
        translation: HashMap<Key<Self::Address>, Translation<Self::Address>> = TRANSLATION_V6,
        fragment: LruHashMap<FragmentKey<Self::Address>, u32> = FRAGMENT_V6,
        address_exact: HashMap<Self::Address, AddressEntry> = ADDRESS_EXACT_V6,
        service: HashMap<ServiceKey<Self::Address>, Service> = SERVICE_V6,
        backend: HashMap<u32, Backend<Self::Address>> = BACKEND_V6,
        reverse: LruHashMap<ReverseKey<Self::Address>, Reverse<Self::Address>> = REVERSE_V6,
        node_address: HashMap<Self::Address, u32> = NODE_ADDRESS_V6,
        policy_prefix: LpmTrie<PrefixKey<Self::Address>, u32> = POLICY_PREFIX_V6,
        node_range: LpmTrie<Self::Address, u32> = NODE_RANGE_V6,
        guarded: HashMap<ServiceKey<Self::Address>, u32> = GUARDED_V6,
        unmasked: LpmTrie<Self::Address, u32> = UNMASKED_V6,
    },
    Address6,
    |frame: Frame, offset| frame.read(offset).map(Address6),
    || [&SERVICE_RANGE_V6, &SERVICE_MASK_V6, &REPLICA_RANGE_V6, &REPLICA_MASK_V6].map(|words| Address6(words.load())),
    HAIRPIN_V6,
    // Nodes know one another by IPv4.
    |_| None
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

/// Both tables of translations, as [`conntrack_pointers`].
#[inline(always)]
pub(crate) fn translation_pointers() -> [*mut c_void; 2] {
    [(&raw const TRANSLATION_V4).cast_mut().cast(), (&raw const TRANSLATION_V6).cast_mut().cast()]
}

/// A pair's counters on this processor. Programs on one processor do not preempt one another within them.
#[inline(always)]
pub(crate) fn pair_counters(pair: u32) -> Option<*mut PairCounters> {
    // SAFETY: the helper takes nothing.
    let processor = unsafe { bpf_get_smp_processor_id() };
    PAIR_COUNTERS.get_ptr_mut(processor.wrapping_mul(PAIRS.load()).wrapping_add(pair))
}
