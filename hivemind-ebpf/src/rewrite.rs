//! Giving a packet other ends, with all its checksums.

use crate::{flow::Flow, frame::Frame, maps::Maps};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_csum_diff, bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes,
    },
};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Family, V4},
    packet::{self, Bytes, ETHERNET_BYTES, ICMP_BYTES},
    translation::Translation,
};

/// Where the checksum of an IPv4 header stands in it.
const IP_CHECKSUM: u32 = 10;
/// Where the checksum of an ICMP message stands in it.
const ICMP_CHECKSUM: u32 = 2;
/// Where the identifier of an echo stands in it.
const ECHO_IDENTIFIER: u32 = 4;
const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
/// Where the lifetime stands in an IPv4 frame, and in an IPv6 one.
const TTL_V4: u32 = ETHERNET_BYTES + 8;
const HOP_LIMIT_V6: u32 = ETHERNET_BYTES + 7;

/// Where the source address stands in an IP header; the destination follows it.
#[inline(always)]
const fn source_offset<F: Family>() -> u32 {
    if F::VERSION == V4::VERSION { 12 } else { 8 }
}

/// Gives the packet the ends that the other face of its connection has, and the flow their tuple.
///
/// # Errors
/// [`DropReason::Rewrite`] if the kernel does not let it be changed; it is not whole then.
#[inline(always)]
pub(crate) fn turn<F: Maps>(
    frame: Frame,
    flow: &mut Flow<F>,
    other: &Translation<F::Address>,
) -> Result<(), DropReason> {
    let changed = difference(&flow.key.addresses, &other.addresses);
    let ports = flow.ports();
    let other_ports = (other.port(flow.from()), other.port(flow.to()));
    if flow.is_error() {
        turn_error(frame, flow, other, changed, ports, other_ports)?;
    } else {
        turn_transport(frame, flow, changed, ports, other_ports)?;
        frame.put_addresses::<F>(ETHERNET_BYTES, other, flow.from(), changed)?;
    }
    let (key, side) = other.turn(flow.side(), flow.key.protocol);
    flow.become_other(key, side);
    Ok(())
}

/// Two ports in one word, as they stand in a header.
#[inline(always)]
pub(crate) fn word(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Gives the transport header other ports, and its checksum what it is for them and for other addresses.
#[inline(always)]
fn turn_transport<F: Maps>(
    frame: Frame,
    flow: &Flow<F>,
    changed: u64,
    ports: (u16, u16),
    other: (u16, u16),
) -> Result<(), DropReason> {
    if flow.is_later_fragment() {
        return Ok(());
    }
    let (protocol, transport) = (flow.key.protocol, flow.transport());
    let (old, new) = (word(ports.0, ports.1), word(other.0, other.1));
    if protocol == packet::TCP || protocol == packet::UDP {
        // A UDP checksum of zero is none, and stays.
        let (at, flags) = if protocol == packet::TCP {
            (TCP_CHECKSUM, 0)
        } else {
            (UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0))
        };
        frame.fix_sum::<F>(transport + at, changed, flags)?;
        if old != new {
            frame.fix_words(transport + at, old, new, flags)?;
            frame.put(transport, (&raw const new).cast(), 4)?;
        }
        return Ok(());
    }
    if protocol == packet::ICMPV6 {
        frame.fix_sum::<F>(transport + ICMP_CHECKSUM, changed, 0)?;
    }
    if old == new {
        return Ok(());
    }
    if protocol == packet::ICMP || protocol == packet::ICMPV6 {
        // An echo's identifier stands for both.
        frame.fix_words(transport + ICMP_CHECKSUM, ports.0.into(), other.0.into(), 0)?;
        return frame.put(transport + ECHO_IDENTIFIER, (&raw const other.0).cast(), 2);
    }
    // SCTP's checksum would have to be made anew over the whole packet.
    Err(DropReason::Rewrite)
}

/// An ICMP error goes to whoever sent the packet inside it; both are readdressed.
#[inline(always)]
fn turn_error<F: Maps>(
    frame: Frame,
    flow: &Flow<F>,
    other: &Translation<F::Address>,
    changed: u64,
    ports: (u16, u16),
    other_ports: (u16, u16),
) -> Result<(), DropReason> {
    let icmp = flow.transport();
    let is_v4 = F::VERSION == V4::VERSION;
    if !is_v4 {
        // An IPv4 header has a checksum of its own, which makes up for the change.
        frame.fix_plain_sum(icmp + ICMP_CHECKSUM, changed)?;
    }
    // The packet inside was on its way from the receiver of the error to its sender.
    frame.put_addresses::<F>(icmp + ICMP_BYTES, other, flow.to(), changed)?;
    let (old, new) = (word(ports.1, ports.0), word(other_ports.1, other_ports.0));
    if old != new {
        let protocol = flow.key.protocol;
        if protocol == packet::TCP || protocol == packet::UDP {
            frame.fix_words(icmp + ICMP_CHECKSUM, old, new, 0)?;
            frame.put(flow.inner(), (&raw const new).cast(), 4)?;
        } else if protocol == packet::ICMP || protocol == packet::ICMPV6 {
            frame.fix_words(icmp + ICMP_CHECKSUM, ports.1.into(), other_ports.1.into(), 0)?;
            frame.put(flow.inner() + ECHO_IDENTIFIER, (&raw const other_ports.1).cast(), 2)?;
        } else {
            return Err(DropReason::Rewrite);
        }
    }
    // A router on the way keeps its address; the other end itself is known by another one.
    let is_from_end = frame.source::<F>() == Some(flow.source());
    if is_from_end {
        if !is_v4 {
            frame.fix_sum::<F>(icmp + ICMP_CHECKSUM, changed, 0)?;
        }
        return frame.put_addresses::<F>(ETHERNET_BYTES, other, flow.from(), changed);
    }
    let (from, to) = (flow.address(flow.to()), other.address(flow.to()));
    let changed = difference(from, to);
    if is_v4 {
        // SAFETY: a helper that takes the context.
        done(unsafe { bpf_l3_csum_replace(frame.context(), ETHERNET_BYTES + IP_CHECKSUM, 0, changed, 0) })?;
    } else {
        frame.fix_sum::<F>(icmp + ICMP_CHECKSUM, changed, 0)?;
    }
    let bytes = size_of::<F::Address>() as u32;
    frame.put(ETHERNET_BYTES + source_offset::<F>() + bytes, core::ptr::from_ref(to).cast(), bytes)
}

/// What a checksum over one changes by if it becomes the other. The order of addresses does not matter to a sum.
#[inline(always)]
fn difference<T>(old: &T, new: &T) -> u64 {
    let bytes = size_of::<T>() as u32;
    // SAFETY: the helper reads so many bytes at each pointer.
    let sum = unsafe {
        bpf_csum_diff(
            core::ptr::from_ref(old).cast_mut().cast(),
            bytes,
            core::ptr::from_ref(new).cast_mut().cast(),
            bytes,
            0,
        )
    };
    u64::from(sum as u32)
}

impl Frame {
    /// The source address of the IP header.
    #[inline(always)]
    pub(crate) fn source<F: Maps>(self) -> Option<F::Address> {
        F::read_address(self, ETHERNET_BYTES + source_offset::<F>())
    }

    /// The destination address of the IP header.
    #[inline(always)]
    pub(crate) fn destination<F: Maps>(self) -> Option<F::Address> {
        F::read_address(self, ETHERNET_BYTES + source_offset::<F>() + size_of::<F::Address>() as u32)
    }

    /// Corrects a transport checksum for other addresses in the pseudo-header.
    #[inline(always)]
    fn fix_sum<F: Family>(self, offset: u32, difference: u64, flags: u64) -> Result<(), DropReason> {
        let flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        // SAFETY: a helper that takes the context.
        let result = unsafe { bpf_l4_csum_replace(self.context(), offset, 0, difference, flags) };
        if F::VERSION != V4::VERSION {
            // The helper takes it that a header checksum makes up for the addresses in the sum that a device has made
            // over the whole packet, which IPv6 does not have. (Since Linux 6.16 a flag would say so.)
            // SAFETY: as above.
            unsafe { bpf_csum_update(self.context(), difference as u32) };
        }
        done(result)
    }

    /// Corrects a checksum for a change in what it is made over, given as a difference.
    #[inline(always)]
    fn fix_plain_sum(self, offset: u32, difference: u64) -> Result<(), DropReason> {
        // SAFETY: as above.
        done(unsafe { bpf_l4_csum_replace(self.context(), offset, 0, difference, 0) })
    }

    /// Corrects a checksum for a word that becomes another.
    #[inline(always)]
    fn fix_words(self, offset: u32, from: u32, to: u32, flags: u64) -> Result<(), DropReason> {
        if from == to {
            return Ok(());
        }
        // SAFETY: as above.
        done(unsafe { bpf_l4_csum_replace(self.context(), offset, from.into(), to.into(), flags | 4) })
    }

    /// Writes both addresses of the IP header at `header`, from `side` to the other, and its checksum if it has one.
    #[inline(always)]
    fn put_addresses<F: Maps>(
        self,
        header: u32,
        ends: &Translation<F::Address>,
        side: usize,
        difference: u64,
    ) -> Result<(), DropReason> {
        if F::VERSION == V4::VERSION {
            // SAFETY: as above.
            done(unsafe { bpf_l3_csum_replace(self.context(), header + IP_CHECKSUM, 0, difference, 0) })?;
        }
        let (source, destination) = (ends.address(side), ends.address(side ^ 1));
        let (at, bytes) = (header + source_offset::<F>(), size_of::<F::Address>() as u32);
        if F::VERSION == V4::VERSION {
            let both = [*source, *destination];
            return self.put(at, both.as_ptr().cast(), 2 * bytes);
        }
        self.put(at, core::ptr::from_ref(source).cast(), bytes)?;
        self.put(at + bytes, core::ptr::from_ref(destination).cast(), bytes)
    }

    /// Writes bytes, without a word to any checksum.
    #[inline(always)]
    fn put(self, offset: u32, bytes: *const u8, length: u32) -> Result<(), DropReason> {
        // SAFETY: the callers' `length` bytes at `bytes` are readable; the helper checks the packet's side.
        done(unsafe { bpf_skb_store_bytes(self.context(), offset, bytes.cast(), length, 0) })
    }

    /// Whether the packet is an ICMP message, right behind its IP header.
    #[inline(always)]
    pub(crate) fn is_icmp<F: Family>(self) -> bool {
        if F::VERSION == V4::VERSION {
            // Beside the lifetime.
            self.read::<1>(TTL_V4).is_some_and(|[word]| word.to_ne_bytes()[1] == packet::ICMP)
        } else {
            self.read::<1>(HOP_LIMIT_V6 - 3).is_some_and(|[word]| word.to_ne_bytes()[2] == packet::ICMPV6)
        }
    }

    /// Whether the packet may be forwarded once more.
    #[inline(always)]
    pub(crate) fn lives_on<F: Family>(self) -> bool {
        self.lifetime::<F>() > 1
    }

    #[inline(always)]
    fn lifetime<F: Family>(self) -> u8 {
        let word = if F::VERSION == V4::VERSION {
            self.read::<1>(TTL_V4).map(|[word]| word.to_ne_bytes()[0])
        } else {
            self.read::<1>(HOP_LIMIT_V6 - 3).map(|[word]| word.to_ne_bytes()[3])
        };
        word.unwrap_or(0)
    }

    /// Counts a hop, as every router does (RFC 1812 section 5.3.1, RFC 8200 section 3).
    #[inline(always)]
    pub(crate) fn age<F: Family>(self) -> Result<(), DropReason> {
        let lifetime = self.lifetime::<F>();
        let less = lifetime.wrapping_sub(1);
        if F::VERSION == V4::VERSION {
            // The lifetime is the upper half of its word; the protocol beside it stays.
            let (from, to) = (u16::from_ne_bytes([lifetime, 0]), u16::from_ne_bytes([less, 0]));
            let offset = ETHERNET_BYTES + IP_CHECKSUM;
            // SAFETY: as above.
            done(unsafe { bpf_l3_csum_replace(self.context(), offset, from.into(), to.into(), 2) })?;
            self.put(TTL_V4, &raw const less, 1)
        } else {
            self.put(HOP_LIMIT_V6, &raw const less, 1)
        }
    }
}

#[inline(always)]
fn done(result: i64) -> Result<(), DropReason> {
    if result == 0 { Ok(()) } else { Err(DropReason::Rewrite) }
}
