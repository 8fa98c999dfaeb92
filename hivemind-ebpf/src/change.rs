//! Taking over connections from tables of another layout, while packets flow.
//!
//! From the moment at which the [gates](crate::gate) send packets to the programs of the new layout, one of these that does not
//! know a connection looks for it in the old table, and takes it over. The daemon takes over those of which no packet comes,
//! and then puts programs in the place of the gates that do none of this.

use crate::{
    flow::{Flow, now_ns},
    judge,
    maps::Maps,
};
use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use hivemind_common::{
    conntrack::{Key, Side},
    family::{Address4, Address6, Family, V4, V6},
    layout::previous,
};

#[map(name = "old_conntrack4")]
static OLD_CONNTRACK_V4: HashMap<Key<Address4>, previous::Entry> = HashMap::with_max_entries(1, 0);
#[map(name = "old_conntrack6")]
static OLD_CONNTRACK_V6: HashMap<Key<Address6>, previous::Entry> = HashMap::with_max_entries(1, 0);
/// The maps of the old layout of a family.
pub(crate) trait Old: Family + Sized {
    fn old_conntrack() -> &'static HashMap<Key<Self::Address>, previous::Entry>;
}

impl Old for V4 {
    #[inline(always)]
    fn old_conntrack() -> &'static HashMap<Key<Self::Address>, previous::Entry> {
        &OLD_CONNTRACK_V4
    }
}

impl Old for V6 {
    #[inline(always)]
    fn old_conntrack() -> &'static HashMap<Key<Self::Address>, previous::Entry> {
        &OLD_CONNTRACK_V6
    }
}

/// Takes over the connection that a packet is part of, if only the old table knows it. Before anything else is asked of it.
#[inline(always)]
fn take_over<F: Maps + Old>(flow: &Flow<F>) {
    // A copy: see `Flow::known`.
    let mut key = flow.key;
    if let Some(found) = flow.inner_tuple() {
        key = found.turn(Side::Low, key.protocol).0;
    }
    if F::conntrack().get_ptr(&key).is_some() {
        return;
    }
    let Some(old) = F::old_conntrack().get_ptr(&key) else { return };
    let Ok(entry) = judge::scratch() else { return };
    // SAFETY: a value of the map; its programs run no more, or are about to end.
    unsafe {
        if (*old).expires_ns <= flow.now {
            return;
        }
        (*old).turn_into(entry);
    }
    // Another CPU may have been faster, and know more already.
    let _ = F::conntrack().insert(&key, entry, BPF_NOEXIST.into());
}

/// Whether the old table holds a connection that is not over.
#[inline(always)]
pub(crate) fn is_live<F: Old>(key: &Key<F::Address>) -> bool {
    // SAFETY: a value of the map.
    F::old_conntrack().get_ptr(key).is_some_and(|old| unsafe { (*old).expires_ns > now_ns() })
}

/// See [`take_over`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_over_v4(flow: *const Flow<V4>) -> u32 {
    // SAFETY: the caller's own, or null.
    if let Some(flow) = unsafe { flow.as_ref() } {
        take_over(flow);
    }
    0
}

/// See [`take_over`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_over_v6(flow: *const Flow<V6>) -> u32 {
    // SAFETY: as above.
    if let Some(flow) = unsafe { flow.as_ref() } {
        take_over(flow);
    }
    0
}
