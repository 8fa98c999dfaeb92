//! Collecting expired connections inside the kernel, by a timer that goes on while no daemon runs.
//!
//! From user space the time between the look at an entry and its deletion would be without a bound. Here it is nanoseconds, in which
//! a packet that comes after its connection has expired can renew it: that is as if it had come after the deletion.

use crate::{
    flow::now_ns,
    functions::Functions,
    maps::{COLLECT_INTERVAL_NS, COLLECTOR, Collector, conntrack_pointers, does, translation_pointers},
    tell::begun_first,
};
use aya_ebpf::{
    bindings::TC_ACT_OK,
    helpers::generated::{
        bpf_for_each_map_elem, bpf_map_delete_elem, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start,
    },
    macros::classifier,
    programs::TcContext,
};
use core::ffi::c_void;
use hivemind_common::{
    conntrack::{END_TOLD, Entry, Key, Phase, Side, phase},
    family::{Family, V4, V6},
    telemetry::{EVENT_CLOSED, FEATURE_TELEMETRY},
    translation::{OUTER, Translation, UNUSED_NS},
};

/// `CLOCK_MONOTONIC` of `<linux/time.h>`.
const CLOCK_MONOTONIC: u64 = 1;
/// Least time between two collections that full tables ask for.
const PAUSE_NS: u64 = 1_000_000_000;

struct Sweep {
    now: u64,
    live: u64,
    removed: u64,
    /// Not zero: what is closing goes too.
    is_full: u64,
}

/// Collects now and arms the timer, in place of whatever timer an earlier daemon armed. Run by the daemon.
#[classifier]
pub fn collect(_: TcContext) -> i32 {
    let Some(collector) = COLLECTOR.get_ptr_mut(0) else {
        return -1;
    };
    // SAFETY: the value of the map; the timer is touched by helpers only.
    unsafe {
        let timer = &raw mut (*collector).timer;
        // Fails if the timer exists already, which is as good.
        bpf_timer_init(timer, (&raw const COLLECTOR).cast_mut().cast(), CLOCK_MONOTONIC);
        if bpf_timer_set_callback(timer, on_timer as *mut c_void) != 0 {
            return -1;
        }
        sweep(collector, now_ns(), false);
        if bpf_timer_start(timer, COLLECT_INTERVAL_NS.load(), 0) != 0 {
            return -1;
        }
    }
    TC_ACT_OK
}

extern "C" fn on_timer(_map: *mut c_void, _key: *mut u32, collector: *mut Collector) -> i32 {
    // SAFETY: the kernel hands the value that the timer lies in.
    unsafe {
        sweep(collector, now_ns(), false);
        bpf_timer_start(&raw mut (*collector).timer, COLLECT_INTERVAL_NS.load(), 0);
    }
    0
}

/// Collects unless it was done a moment ago: what a full table of connections does before it refuses.
#[inline(always)]
pub(crate) fn collect_if_due(now: u64) {
    if let Some(collector) = COLLECTOR.get_ptr_mut(0) {
        // SAFETY: the value of the map; two CPUs that collect at once do no harm.
        unsafe {
            if now.saturating_sub((*collector).started_ns) > PAUSE_NS {
                sweep(collector, now, true);
            }
        }
    }
}

/// # Safety
/// `collector` is the value of the map `collector`.
#[inline(always)]
unsafe fn sweep(collector: *mut Collector, now: u64, is_full: bool) {
    let [v4, v6] = conntrack_pointers();
    // SAFETY: the caller's promise; the helper calls back with entries of a map of connections.
    unsafe {
        (*collector).started_ns = now;
        let mut found = Sweep { now, live: 0, removed: 0, is_full: u64::from(is_full) };
        bpf_for_each_map_elem(v4, sweep_v4 as *mut c_void, (&raw mut found).cast(), 0);
        (*collector).live[0] = found.live;
        (*collector).removed[0] += found.removed;
        let mut found = Sweep { now, live: 0, removed: 0, is_full: u64::from(is_full) };
        bpf_for_each_map_elem(v6, sweep_v6 as *mut c_void, (&raw mut found).cast(), 0);
        (*collector).live[1] = found.live;
        (*collector).removed[1] += found.removed;
        let [v4, v6] = translation_pointers();
        let mut found = Sweep { now, live: 0, removed: 0, is_full: u64::from(is_full) };
        bpf_for_each_map_elem(v4, sweep_translation_v4 as *mut c_void, (&raw mut found).cast(), 0);
        (*collector).translations[0] = found.live;
        let mut found = Sweep { now, live: 0, removed: 0, is_full: u64::from(is_full) };
        bpf_for_each_map_elem(v6, sweep_translation_v6 as *mut c_void, (&raw mut found).cast(), 0);
        (*collector).translations[1] = found.live;
        (*collector).runs += 1;
    }
}

extern "C" fn sweep_v4(
    map: *mut c_void,
    key: *mut Key<<V4 as Family>::Address>,
    entry: *mut Entry,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the kernel hands a live entry, its key, and the caller's `Sweep`.
    unsafe { sweep_entry::<V4>(map, key, entry, sweep) }
}

extern "C" fn sweep_v6(
    map: *mut c_void,
    key: *mut Key<<V6 as Family>::Address>,
    entry: *mut Entry,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: as above.
    unsafe { sweep_entry::<V6>(map, key, entry, sweep) }
}

/// # Safety
/// A live entry, its key, its map, and the caller's `Sweep`.
#[inline(always)]
unsafe fn sweep_entry<F: Functions>(
    map: *mut c_void,
    key: *mut Key<F::Address>,
    entry: *mut Entry,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the caller's promise.
    unsafe {
        let is_over = (*sweep).is_full != 0 && matches!(phase((*entry).seen), Phase::Closing);
        if (*entry).expires_ns > (*sweep).now && !is_over {
            (*sweep).live += 1;
            return 0;
        }
        if does(FEATURE_TELEMETRY) && (*entry).flags & END_TOLD == 0 {
            let what = begun_first((*entry).begun_by(), EVENT_CLOSED, 0);
            // A copy: the key itself must not be handed to a function that could write it.
            let key = *key;
            F::tell(&key, &*entry, what, 0, (*sweep).now);
        }
        bpf_map_delete_elem(map, key.cast());
        (*sweep).removed += 1;
    }
    0
}

extern "C" fn sweep_translation_v4(
    map: *mut c_void,
    key: *mut Key<<V4 as Family>::Address>,
    record: *mut Translation<<V4 as Family>::Address>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the kernel hands a live record, its key, and the caller's `Sweep`.
    unsafe { sweep_translation::<V4>(map, key, record, sweep) }
}

extern "C" fn sweep_translation_v6(
    map: *mut c_void,
    key: *mut Key<<V6 as Family>::Address>,
    record: *mut Translation<<V6 as Family>::Address>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: as above.
    unsafe { sweep_translation::<V6>(map, key, record, sweep) }
}

/// # Safety
/// A live record, its key, its map, and the caller's `Sweep`.
#[inline(always)]
unsafe fn sweep_translation<F: Functions>(
    map: *mut c_void,
    key: *mut Key<F::Address>,
    record: *mut Translation<F::Address>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the caller's promise.
    unsafe {
        let known = *record;
        let own = *key;
        let inner = if own.face == OUTER { known.turn(Side::Low, own.protocol).0 } else { own };
        let is_live = match F::conntrack().get_ptr(&inner) {
            Some(entry) => (*entry).expires_ns > (*sweep).now,
            None => false,
        };
        let is_live = is_live || F::was_live(&inner);
        // One that was made since the sweep began is younger still, though its connection has no entry yet.
        if is_live || (*sweep).now.saturating_sub(known.used_ns) < UNUSED_NS {
            (*sweep).live += 1;
        } else {
            bpf_map_delete_elem(map, key.cast());
        }
    }
    0
}
