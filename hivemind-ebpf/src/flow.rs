//! Connections: finding the entry, knowing whether it still stands, judging anew, remembering.

use crate::{
    collect,
    frame::Frame,
    maps::{ENDPOINT_BY_INTERFACE, ENDPOINT_STATE, GENERATION, Maps},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use hivemind_common::{
    conntrack::{self, BEGUN_BY_HIGH, Entry, Key, Side},
    drop_reason::DropReason,
    endpoint::{EndpointState, NO_GENERATION, OUTSIDE},
    family::Family,
    packet::Packet,
};

/// One end of a flow, judged.
pub(crate) struct End {
    endpoint: u32,
    generation: u64,
    interface: u32,
    frame_macs: [u32; 3],
}

/// Nanoseconds of the monotonic clock, a tick coarse.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A packet's flow.
pub(crate) struct Flow<F: Family> {
    key: Key<F::Address>,
    /// The side that sent the packet.
    pub(crate) side: Side,
    tcp_flags: u8,
    /// What both sides sent before.
    pub(crate) seen: [u8; 2],
    now: u64,
}

impl<F: Maps> Flow<F> {
    #[inline(always)]
    pub(crate) fn of(packet: Packet<F::Address>) -> Self {
        let (key, side) = Key::of(&packet);
        Self { key, side, tcp_flags: packet.tcp_flags, seen: [0; 2], now: now_ns() }
    }

    #[inline(always)]
    fn source(&self) -> F::Address {
        match self.side {
            Side::Low => self.key.addresses[0],
            Side::High => self.key.addresses[1],
        }
    }

    /// Where the packet goes.
    #[inline(always)]
    pub(crate) fn destination(&self) -> F::Address {
        match self.side {
            Side::Low => self.key.addresses[1],
            Side::High => self.key.addresses[0],
        }
    }

    /// What is remembered of the flow.
    #[inline(always)]
    pub(crate) fn entry(&self) -> Option<&'static mut Entry> {
        // SAFETY: a value of the map. Other CPUs may write it at the same time; every field stays a number, and the
        // meaning of a torn entry is bounded by its generations, which are read whole.
        F::conntrack().get_ptr_mut(&self.key).map(|entry| unsafe { &mut *entry })
    }

    /// Whether nothing that the entry's verdicts depended on has changed since.
    #[inline(always)]
    pub(crate) fn stands(&self, entry: &Entry) -> bool {
        entry.expires_ns > self.now
            && generation(entry.endpoints[0]) == entry.generations[0]
            && generation(entry.endpoints[1]) == entry.generations[1]
    }

    /// Notes the packet in an entry that stands.
    #[inline(always)]
    pub(crate) fn observe(&self, entry: &mut Entry) {
        let seen = conntrack::observe(entry.seen, self.side, self.tcp_flags);
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
    }

    /// Remembers the flow, whose sender and receiver have been judged.
    ///
    /// # Errors
    /// [`DropReason::ConntrackFull`] if the table is full of live connections.
    #[inline(always)]
    pub(crate) fn remember(&self, from: &End, to: &End) -> Result<(), DropReason> {
        let seen = conntrack::observe(self.seen, self.side, self.tcp_flags);
        let (low, high, flags) = match self.side {
            Side::Low => (from, to, 0),
            Side::High => (to, from, BEGUN_BY_HIGH),
        };
        let entry = Entry {
            expires_ns: self.now + conntrack::timeout_ns(self.key.protocol, seen),
            generations: [low.generation, high.generation],
            endpoints: [low.endpoint, high.endpoint],
            interfaces: [low.interface, high.interface],
            rules: [0; 2],
            pair: 0,
            frame_macs: [low.frame_macs, high.frame_macs],
            seen,
            flags,
            padding: 0,
        };
        // Replaced as a whole: another CPU sees the old entry or the new one, never a mixture.
        if F::conntrack().insert(&self.key, &entry, 0).is_ok() {
            return Ok(());
        }
        collect::collect_if_due(self.now);
        F::conntrack().insert(&self.key, &entry, 0).map_err(|_| DropReason::ConntrackFull)
    }
}

/// The endpoint behind an interface, with its state.
#[inline(always)]
fn endpoint_at(interface: u32) -> Result<(u32, u64, &'static EndpointState), DropReason> {
    let index = ENDPOINT_BY_INTERFACE.get_ptr(interface).ok_or(DropReason::NoEndpoint)?;
    // SAFETY: a value of the map; it may change under us, but not go away before the program ends.
    endpoint(unsafe { *index })
}

/// An endpoint that has a generation. The generation is read before the state: if the state changes in between, the
/// flow is remembered under the old generation and judged again with its next packet.
#[inline(always)]
fn endpoint(index: u32) -> Result<(u32, u64, &'static EndpointState), DropReason> {
    let generation = generation(index);
    if index == OUTSIDE || generation == NO_GENERATION {
        return Err(DropReason::NoEndpoint);
    }
    let state = ENDPOINT_STATE.get(index).ok_or(DropReason::NoEndpoint)?;
    Ok((index, generation, state))
}

#[inline(always)]
fn generation(index: u32) -> u64 {
    match GENERATION.get_ptr(index) {
        // SAFETY: an aligned u64 in an array, which the kernel and the daemon write whole.
        Some(slot) => unsafe { slot.read_volatile() },
        None => NO_GENERATION,
    }
}

impl End {
    /// The outside: whatever is reached through the host's stack.
    #[inline(always)]
    pub(crate) fn outside() -> Self {
        Self { endpoint: OUTSIDE, generation: generation(OUTSIDE), interface: 0, frame_macs: [0; 3] }
    }

    /// The endpoint that a frame came from, once it is sure that it is who it says.
    #[inline(always)]
    pub(crate) fn sender<F: Maps>(frame: Frame, flow: &Flow<F>) -> Result<Self, DropReason> {
        let interface = frame.interface();
        let (index, generation, state) = endpoint_at(interface)?;
        if F::address_of(state) != flow.source() {
            return Err(DropReason::SpoofedSource);
        }
        let (first, last) = frame.source_mac()?;
        if !state.is_replica_mac(first, last) {
            return Err(DropReason::SpoofedMac);
        }
        Ok(Self { endpoint: index, generation, interface, frame_macs: state.frame_macs })
    }

    /// The endpoint behind the interface by which a frame leaves, if the frame is addressed to it.
    #[inline(always)]
    pub(crate) fn behind<F: Maps>(frame: Frame, flow: &Flow<F>) -> Result<Self, DropReason> {
        let interface = frame.interface();
        let (index, generation, state) = endpoint_at(interface)?;
        if F::address_of(state) != flow.destination() {
            return Err(DropReason::WrongEndpoint);
        }
        Ok(Self { endpoint: index, generation, interface, frame_macs: state.frame_macs })
    }

    /// Hands a frame to this end.
    #[inline(always)]
    pub(crate) fn take(&self, frame: Frame) -> Result<i32, DropReason> {
        frame.deliver(self.interface, &self.frame_macs)
    }

    /// Whoever has the destination address.
    #[inline(always)]
    pub(crate) fn receiver<F: Maps>(flow: &Flow<F>) -> Result<Self, DropReason> {
        let Some(found) = F::address_exact().get_ptr(flow.destination()) else {
            return Ok(Self::outside());
        };
        // SAFETY: a value of the map, as above.
        let index = unsafe { (*found).endpoint };
        if index == OUTSIDE {
            return Ok(Self::outside());
        }
        let (index, generation, state) = endpoint(index)?;
        // The index may have gone to another endpoint between the two lookups.
        if F::address_of(state) != flow.destination() {
            return Err(DropReason::NoEndpoint);
        }
        Ok(Self { endpoint: index, generation, interface: state.interface, frame_macs: state.frame_macs })
    }
}
