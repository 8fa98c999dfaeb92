//! Marks the map types as plain data for the daemon's typed maps, and checks at compile time that none has a hole.

use crate::{
    conntrack::{Entry, Key},
    endpoint::{AddressEntry, CollectorState, EndpointState},
    family::{Address4, Address6},
    node::NodeState,
    packet::FragmentKey,
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    service::{Affinity, AffinityKey, Backend, Cell, Reverse, ReverseKey, Service, ServiceKey},
    telemetry::{DropKey, Event, EventBudget, PairCounters, PairKey, RttHistogram, RttKey},
    translation::{Translation, Uplink},
    verdict::VerdictKey,
};

/// Declares a type plain: its size must be the sum of its fields', given here a second time on purpose.
macro_rules! plain {
    ($($type:ty = $bytes:expr),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $bytes, "a map type has a hole or changed its size");
        #[cfg(feature = "aya")]
        // SAFETY: `repr(C)`, made of integers and arrays of them only, and without padding (asserted above), so every
        // bit pattern is a value and every byte is initialized.
        unsafe impl aya::Pod for $type {}
    )+};
}

#[cfg(feature = "next-layout")]
plain! { crate::layout::previous::Entry = 128 }

plain! {
    Address4 = 4,
    Address6 = 16,
    Key<Address4> = 16,
    Key<Address6> = 40,
    Entry = if cfg!(feature = "next-layout") { 136 } else { 128 },
    EndpointState = 44,
    AddressEntry = 12,
    NodeState = 24,
    CollectorState = 80,
    ServiceKey<Address4> = 8,
    ServiceKey<Address6> = 20,
    Service = 24,
    Cell = 8,
    Backend<Address4> = 16,
    Backend<Address6> = 28,
    ReverseKey<Address4> = 16,
    ReverseKey<Address6> = 28,
    Reverse<Address4> = 8,
    Reverse<Address6> = 20,
    AffinityKey = 24,
    Affinity = 16,
    FragmentKey<Address4> = 16,
    FragmentKey<Address6> = 40,
    Translation<Address4> = 32,
    Translation<Address6> = 56,
    Uplink = 20,
    PolicyKey = 12,
    PolicyEntry = 12,
    PrefixKey<Address4> = 8,
    PrefixKey<Address6> = 20,
    DropKey = 8,
    PairKey = 12,
    PairCounters = 40,
    RttKey = 12,
    RttHistogram = 176,
    Event = 112,
    EventBudget = 32,
    VerdictKey = 8,
}
