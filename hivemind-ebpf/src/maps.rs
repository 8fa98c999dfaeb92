//! Every map, and the trait that finds a family's. Capacities here are placeholders that the loader overrides.

use aya_ebpf::{
    Global,
    bindings::bpf_timer,
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use core::ffi::c_void;
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    endpoint::{AddressEntry, EndpointState},
    family::{Address4, Address6, Family, V4, V6},
    service::{Backend, Cell, Reverse, ReverseKey, Service, ServiceKey},
};

#[unsafe(no_mangle)]
pub(crate) static NODE_NETNS_COOKIE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static COLLECT_INTERVAL_NS: Global<u64> = Global::new(10_000_000_000);

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
    /// The endpoint's address in this family.
    fn address_of(state: &EndpointState) -> Self::Address;
}

macro_rules! maps {
    ($family:ty, $field:ident, $conntrack:ident, $exact:ident, $service:ident, $backend:ident, $reverse:ident, $node:ident) => {
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
            fn address_of(state: &EndpointState) -> Self::Address {
                state.$field
            }
        }
    };
}

maps!(V4, ipv4, CONNTRACK_V4, ADDRESS_EXACT_V4, SERVICE_V4, BACKEND_V4, REVERSE_V4, NODE_ADDRESS_V4);
maps!(V6, ipv6, CONNTRACK_V6, ADDRESS_EXACT_V6, SERVICE_V6, BACKEND_V6, REVERSE_V6, NODE_ADDRESS_V6);

/// Both tables of connections as the kernel's helpers want them: IPv4, IPv6.
#[inline(always)]
pub(crate) fn conntrack_pointers() -> [*mut c_void; 2] {
    [(&raw const CONNTRACK_V4).cast_mut().cast(), (&raw const CONNTRACK_V6).cast_mut().cast()]
}
