//! Telling what happened: counters of what was dropped, and events through the ring buffer, rationed.

use crate::{
    flow::{Flow, now_ns},
    frame::Frame,
    functions::Functions,
    maps::{DROP_COUNTERS, ENDPOINT_BY_INTERFACE, ENDPOINT_DROPS, EVENT_BUDGETS, EVENTS, SCRATCH, does},
};
use aya_ebpf::bindings::TC_ACT_SHOT;
use hivemind_common::{
    conntrack::{Entry, Key, Side},
    endpoint::OUTSIDE,
    family::{Address, Family},
    telemetry::{
        DROP_EVENTS_PER_S, DROPS_OF_HOST, DropKey, EVENT_DROPPED, Event, FEATURE_TELEMETRY,
        FLOW_EVENTS_PER_S, event_class,
    },
};

/// Which side comes first in the event, what kind it is and why it was dropped, in one word: a function has five arguments.
#[inline(always)]
pub(crate) fn begun_first(side: Side, kind: u8, reason: u8) -> u32 {
    (side.index() as u32) << 16 | (kind as u32) << 8 | reason as u32
}

/// Drops a frame of which nothing is known.
#[inline(always)]
pub(crate) fn drop_unread(frame: Frame, reason: u32) -> i32 {
    count_drop(frame, endpoint_at(frame), reason);
    if does(FEATURE_TELEMETRY) {
        let now = now_ns();
        if let Some(place) = place(event_class(EVENT_DROPPED, reason as u8), now) {
            let event = Event {
                time_ns: now,
                interface: frame.interface(),
                kind: EVENT_DROPPED,
                reason: reason as u8,
                ..Event::default()
            };
            // SAFETY: the ring buffer lends room for one event.
            unsafe { place.write(event) };
            submit(place);
        }
    }
    TC_ACT_SHOT
}

/// Counts and tells that a frame whose flow is known will not reach its destination; its ends, as far as they were found out,
/// are in the scratch entry.
#[inline(always)]
pub(crate) fn note_drop<F: Functions>(frame: Frame, flow: &Flow<F>, reason: u32) {
    let Some(entry) = SCRATCH.get_ptr(0) else { return };
    // SAFETY: this CPU's slot, which nobody else writes meanwhile.
    let entry = unsafe { &*entry };
    // Whose packet it is, else whom it is for; what the host's stack sends out for a replica is the replica's.
    let ends = [endpoint_at(frame), entry.endpoints[flow.to()], entry.endpoints[flow.from()]];
    let endpoint = ends.into_iter().find(|&endpoint| endpoint != OUTSIDE).unwrap_or(OUTSIDE);
    count_drop(frame, endpoint, reason);
    if does(FEATURE_TELEMETRY) {
        let begun_by = match flow.known() {
            Some(known) => known.begun_by(),
            None => flow.side(),
        };
        let what = begun_first(begun_by, EVENT_DROPPED, reason as u8);
        F::tell(&flow.key, entry, what, frame.interface(), flow.now);
    }
}

/// The index of the endpoint at whose interface the program sits, if it is one's.
#[inline(always)]
fn endpoint_at(frame: Frame) -> u32 {
    match ENDPOINT_BY_INTERFACE.get_ptr(frame.interface()) {
        // SAFETY: a value of the map.
        Some(index) => unsafe { *index },
        None => OUTSIDE,
    }
}

#[inline(always)]
fn count_drop(frame: Frame, endpoint: u32, reason: u32) {
    if let Some(count) = DROP_COUNTERS.get_ptr_mut(reason) {
        // SAFETY: a pointer to this CPU's slot; programs on one CPU do not preempt one another within it.
        unsafe { *count += 1 };
    }
    let is_host = endpoint == OUTSIDE && !frame.is_arriving();
    let key = DropKey { endpoint: if is_host { DROPS_OF_HOST } else { endpoint }, reason };
    match ENDPOINT_DROPS.get_ptr_mut(&key) {
        // SAFETY: as above.
        Some(count) => unsafe { *count += 1 },
        // Fails if there is no room: the total has it all the same.
        None => drop(ENDPOINT_DROPS.insert(&key, &1, 0)),
    }
}

/// Tells of a connection: see [`Functions::tell`].
#[inline(always)]
pub(crate) fn tell<F: Family>(key: &Key<F::Address>, entry: &Entry, what: u32, interface: u32, now: u64) {
    let (kind, reason) = ((what >> 8) as u8, what as u8);
    let Some(event) = place(event_class(kind, reason), now) else { return };
    let (first, second) = if what >> 16 == 0 { (0, 1) } else { (1, 0) };
    // SAFETY: the ring buffer lends room for one event, which is written whole.
    unsafe {
        (*event).time_ns = now;
        (*event).began_ns = entry.began_ns;
        (*event).bytes = [entry.bytes[first], entry.bytes[second]];
        (*event).packets = [entry.packets[first], entry.packets[second]];
        // Word by word: else the compiler calls a function that copies byte by byte, whose frame Linux 6.1 counts with 32 bytes.
        for (place, side) in [first, second].into_iter().enumerate() {
            let to = (&raw mut (*event).addresses[place]).cast::<u32>();
            let words = key.addresses[side].words();
            for (i, word) in words.into_iter().enumerate() {
                to.add(i).write_volatile(word);
            }
        }
        (*event).identities = [entry.identities[first], entry.identities[second]];
        (*event).rules = [entry.rules[first], entry.rules[second]];
        (*event).interface = interface;
        (*event).ports = [key.ports[first], key.ports[second]];
        (*event).protocol = key.protocol;
        (*event).family = F::VERSION;
        (*event).kind = kind;
        (*event).reason = reason;
        (*event).padding = [0; 1];
    }
    submit(event);
}

/// Room for one event, if the class may tell one more; else it is counted as lost.
#[inline(always)]
fn place(class: u32, now: u64) -> Option<*mut Event> {
    let budget = EVENT_BUDGETS.get_ptr_mut(class)?;
    let per_s = if class < 2 { FLOW_EVENTS_PER_S } else { DROP_EVENTS_PER_S };
    // SAFETY: a pointer to this CPU's slot, as above.
    let budget = unsafe { &mut *budget };
    if budget.take(now, per_s) {
        let ring: *const _ = &raw const EVENTS;
        // SAFETY: the map is a ring buffer.
        let event = unsafe {
            aya_ebpf::helpers::generated::bpf_ringbuf_reserve(
                ring.cast_mut().cast(),
                size_of::<Event>() as u64,
                0,
            )
        };
        if !event.is_null() {
            budget.told += 1;
            return Some(event.cast());
        }
    }
    budget.lost += 1;
    None
}

#[inline(always)]
fn submit(event: *mut Event) {
    // SAFETY: what `place` returned, handed in once.
    unsafe { aya_ebpf::helpers::generated::bpf_ringbuf_submit(event.cast(), 0) };
}
