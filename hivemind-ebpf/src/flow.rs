//! Connections: finding the entry, knowing whether it still stands, noting a packet in it, remembering a new one.

use crate::{
    end::generation,
    frame::Frame,
    functions::{Functions, collect_if_due},
    maps::{Maps, does, pair_counters},
    tell::begun_first,
};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use hivemind_common::{
    conntrack::{self, END_TOLD, Entry, Key, Phase, REFUSED, Side},
    drop_reason::DropReason,
    family::Family,
    packet::{self, Kind, Packet},
    telemetry::{EVENT_CLOSED, FEATURE_TELEMETRY},
    translation::{OUTER, Translation},
};

/// Nanoseconds of the monotonic clock, a tick coarse.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Writes zeros, in words of eight bytes. Said plainly the compiler would call a function that does it byte by byte.
///
/// # Safety
/// A value of numbers only, whose size and alignment are multiples of eight bytes.
#[inline(always)]
pub(crate) unsafe fn empty<T>(place: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    for i in 0..size_of::<T>() / 8 {
        // SAFETY: the caller's promise.
        unsafe { place.cast::<u64>().add(i).write_volatile(0) };
    }
}

/// In [`Flow::bits`], above TCP's flags: it is a fragment after the first.
const LATER: u32 = 1 << 8;
/// In [`Flow::bits`]: it is an ICMP error about the flow.
const ERROR: u32 = 1 << 9;
/// In [`Flow::bits`]: it came under the flow's outer tuple.
const WAS_OUTER: u32 = 1 << 10;

/// A packet's flow. Without padding, since it goes to functions that the kernel verifies on their own.
#[repr(C)]
pub(crate) struct Flow<F: Family> {
    pub(crate) key: Key<F::Address>,
    /// The index of the side that sent the packet. Not a [`Side`]: read back from memory, of one the compiler knows that it
    /// is 0 or 1, and leaves out the mask by which the verifier would know it too.
    sender: u32,
    /// TCP's flags, and what else the packet is.
    bits: u32,
    /// Where the transport header begins; of an ICMP error, the ICMP header.
    transport: u32,
    /// Where the transport header of the packet inside an ICMP error begins.
    inner: u32,
    pub(crate) now: u64,
}

impl<F: Functions> Flow<F> {
    #[inline(always)]
    pub(crate) fn of(packet: &Packet<F::Address>) -> Self {
        let (key, side) = Key::of(packet);
        let what = match packet.kind {
            Kind::Whole => 0,
            Kind::Later => LATER,
            Kind::Error => ERROR,
        };
        Self {
            key,
            sender: side.index() as u32,
            bits: u32::from(packet.tcp_flags) | what,
            transport: packet.transport,
            inner: packet.inner,
            now: now_ns(),
        }
    }

    /// Whether nothing that the entry's verdicts depended on has changed since, and the packet is part of it.
    #[inline(always)]
    pub(crate) fn stands(&self, entry: &Entry) -> bool {
        entry.expires_ns > self.now
            && entry.flags & REFUSED == 0
            && generation(entry.endpoints[0]) == entry.generations[0]
            && generation(entry.endpoints[1]) == entry.generations[1]
            && !conntrack::reopens(entry.seen, self.key.protocol, self.tcp_flags())
    }

    /// Notes the packet in an entry that stands.
    #[inline(always)]
    pub(crate) fn observe(&self, frame: Frame, entry: &mut Entry) {
        let seen = conntrack::observe(entry.seen, self.from(), self.tcp_flags());
        if does(FEATURE_TELEMETRY) {
            self.count(frame, entry);
        }
        if self.is_error() {
            // It says nothing about what the ends do.
            return;
        }
        if seen[0] != entry.seen[0] {
            entry.seen[0] = seen[0];
        }
        if seen[1] != entry.seen[1] {
            entry.seen[1] = seen[1];
        }
        let expires = self.now + conntrack::timeout_ns(self.key.protocol, seen);
        // Wrapping: an expiry that comes closer (the connection closes) is written too.
        if expires.wrapping_sub(entry.expires_ns) > conntrack::REFRESH_NS {
            entry.expires_ns = expires;
        }
        if does(FEATURE_TELEMETRY)
            && self.key.protocol == packet::TCP
            && entry.flags & END_TOLD == 0
            && is_over(seen)
        {
            entry.flags |= END_TOLD;
            F::tell(
                &self.key,
                entry,
                begun_first(entry.begun_by(), EVENT_CLOSED, 0),
                frame.interface(),
                self.now,
            );
        }
    }

    /// Adds the packet to the connection's own figures and to its pair's.
    #[inline(always)]
    fn count(&self, frame: Frame, entry: &mut Entry) {
        let (bytes, packets) = frame.on_wire::<F>(self.transport, self.key.protocol);
        let side = self.from();
        entry.bytes[side] += bytes;
        entry.packets[side] += packets;
        if let Some(counters) = pair_counters(entry.pair) {
            let way = entry.way_from(side);
            // SAFETY: a pointer to this CPU's slot; programs on one CPU do not preempt one another within it.
            unsafe {
                (*counters).bytes[way] += bytes;
                (*counters).packets[way] += packets;
            }
        }
    }

    /// Writes the entry, in place of whatever there is under the tuple.
    ///
    /// # Errors
    /// [`DropReason::ConntrackFull`] if the table is full of live connections.
    #[inline(always)]
    pub(crate) fn remember(&self, entry: &Entry) -> Result<(), DropReason> {
        // A copy: see `known`.
        let key = self.key;
        // Replaced as a whole: another CPU sees the old entry or the new one, never a mixture.
        if F::conntrack().insert(&key, entry, 0).is_ok() {
            return Ok(());
        }
        collect_if_due(self.now);
        F::conntrack().insert(&key, entry, 0).map_err(|_| DropReason::ConntrackFull)
    }
}

impl<F: Family> Flow<F> {
    /// TCP's flags, zero for everything else.
    #[inline(always)]
    pub(crate) fn tcp_flags(&self) -> u8 {
        self.bits as u8
    }

    /// Whether the packet is an ICMP error about the flow.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        self.bits & ERROR != 0
    }

    /// Whether the packet is a fragment without a transport header.
    #[inline(always)]
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.bits & LATER != 0
    }

    /// Whether the packet came under the flow's outer tuple.
    #[inline(always)]
    pub(crate) fn was_outer(&self) -> bool {
        self.bits & WAS_OUTER != 0
    }

    /// Notes that the packet came under the flow's outer tuple.
    #[inline(always)]
    pub(crate) fn set_was_outer(&mut self) {
        self.bits |= WAS_OUTER;
    }

    /// Where the transport header begins, or an ICMP error's own.
    #[inline(always)]
    pub(crate) fn transport(&self) -> u32 {
        self.transport
    }

    /// Where the transport header of the packet inside an ICMP error begins.
    #[inline(always)]
    pub(crate) fn inner(&self) -> u32 {
        self.inner
    }

    /// Takes the tuple of the connection's other face.
    #[inline(always)]
    pub(crate) fn become_other(&mut self, key: Key<F::Address>, side: Side) {
        self.key = key;
        self.sender = side.index() as u32;
    }

    /// The side that sent the packet.
    #[inline(always)]
    pub(crate) fn side(&self) -> Side {
        if self.sender & 1 == 0 { Side::Low } else { Side::High }
    }

    /// The index of that side.
    #[inline(always)]
    pub(crate) fn from(&self) -> usize {
        (self.sender & 1) as usize
    }

    /// The index of the other side.
    #[inline(always)]
    pub(crate) fn to(&self) -> usize {
        (!self.sender & 1) as usize
    }
}

impl<F: Maps> Flow<F> {
    #[inline(always)]
    pub(crate) fn source(&self) -> F::Address {
        *self.address(self.from())
    }

    /// Where the packet goes.
    #[inline(always)]
    pub(crate) fn destination(&self) -> F::Address {
        *self.address(self.to())
    }

    /// The address of a side. By calculation and not by cases: the verifier would follow each of them through all that comes
    /// after. So it is not for a flow on the stack, with whose addresses it lets nobody calculate.
    #[inline(always)]
    pub(crate) fn address(&self, side: usize) -> &F::Address {
        // SAFETY: one of two.
        unsafe { &*(&raw const self.key.addresses).cast::<F::Address>().add(side & 1) }
    }

    /// As [`Flow::destination`], and the port there in network order, of a flow on the stack.
    #[inline(always)]
    pub(crate) fn goes_to(&self) -> (F::Address, u16) {
        // Both read, and one of them chosen then: else the compiler chooses where to read, and calculates all the same.
        // SAFETY: a valid reference.
        let [low, high] = [0, 1].map(|i| unsafe { (&raw const self.key.addresses[i]).read_volatile() });
        // SAFETY: as above.
        let [low_port, high_port] = [0, 1].map(|i| unsafe { (&raw const self.key.ports[i]).read_volatile() });
        match self.side() {
            Side::Low => (high, high_port),
            Side::High => (low, low_port),
        }
    }

    /// The ports of the sender and of the receiver, in network order.
    #[inline(always)]
    pub(crate) fn ports(&self) -> (u16, u16) {
        (self.port(self.from()), self.port(self.to()))
    }

    /// The port of a side, in network order; see [`Flow::address`].
    #[inline(always)]
    pub(crate) fn port(&self, side: usize) -> u16 {
        // SAFETY: one of two.
        unsafe { (&raw const self.key.ports).cast::<u16>().add(side & 1).read_volatile() }
    }

    /// The outer tuple to which this is the inner one, if there is any.
    #[inline(always)]
    pub(crate) fn outer(&self) -> Option<&'static mut Translation<F::Address>> {
        self.other_face(0)
    }

    /// The inner tuple to which this is the outer one, if there is any.
    #[inline(always)]
    pub(crate) fn inner_tuple(&self) -> Option<&'static mut Translation<F::Address>> {
        self.other_face(OUTER)
    }

    #[inline(always)]
    fn other_face(&self, face: u8) -> Option<&'static mut Translation<F::Address>> {
        // A copy: see `known`.
        let key = Key { face, ..self.key };
        // SAFETY: a value of the map, of which only the time is ever written again.
        F::translation().get_ptr_mut(&key).map(|found| unsafe { &mut *found })
    }

    /// What is remembered of the flow.
    #[inline(always)]
    pub(crate) fn entry(&self) -> Option<&'static mut Entry> {
        // SAFETY: a value of the map. Other CPUs may write it at the same time; every field stays a number, and the
        // meaning of a torn entry is bounded by its generations, which are read whole.
        F::conntrack().get_ptr_mut(&self.key).map(|entry| unsafe { &mut *entry })
    }

    /// As [`Flow::entry`], for functions that were handed the flow: as a map's key Linux 6.1 takes nothing that lies in the
    /// argument of a function that it verifies on its own, but a copy on that function's stack.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<&'static mut Entry> {
        let key = self.key;
        // SAFETY: as above.
        F::conntrack().get_ptr_mut(&key).map(|entry| unsafe { &mut *entry })
    }
}

#[inline(always)]
fn is_over(seen: [u8; 2]) -> bool {
    matches!(conntrack::phase(seen), Phase::Closing)
}
