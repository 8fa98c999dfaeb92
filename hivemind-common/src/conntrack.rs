//! One entry a connection: its key, its value, and the life of its state.
//!
//! A connection is keyed by its canonical tuple: the protocol and the two ends in sorted order. So a packet of either
//! direction finds the entry with one lookup, and forward and reply can never disagree. The packet's sender is then
//! the low or the high [`Side`], and everything the entry says of an end is an array indexed by side.
//!
//! State is kept as what has been seen from each side, one byte a side. Each byte is written by packets of its own
//! direction only, so two CPUs that handle the two directions never overwrite one another's news.

use crate::{endpoint::OUTSIDE, family::Address, packet};

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// How long a TCP connection may take to be answered.
pub const TCP_OPENING_NS: u64 = 60 * SECOND_NS;
/// How long an established TCP connection may be silent.
pub const TCP_ESTABLISHED_NS: u64 = 6 * 3600 * SECOND_NS;
/// How long a TCP connection is remembered after both sides closed it, or one reset it.
pub const TCP_CLOSING_NS: u64 = 10 * SECOND_NS;
/// How long a UDP flow may be silent.
pub const UDP_NS: u64 = 120 * SECOND_NS;
/// How long a ping may be silent; also ICMP errors.
pub const ICMP_NS: u64 = 30 * SECOND_NS;
/// How long any other protocol may be silent.
pub const OTHER_NS: u64 = 120 * SECOND_NS;
/// An expiry is written again only when it moves by this much: a shared cache line is not dirtied for less.
pub const REFRESH_NS: u64 = SECOND_NS;

/// One of the two ends of a canonical tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The end that comes first.
    Low,
    /// The end that comes second.
    High,
}

impl Side {
    /// The index of this side's half of an entry's arrays.
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Low => 0,
            Self::High => 1,
        }
    }

    /// The other end.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Key of `conntrack_v4` and `conntrack_v6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Key<A> {
    /// Addresses: low, high.
    pub addresses: [A; 2],
    /// Ports in network order: low, high.
    pub ports: [u16; 2],
    /// Transport protocol.
    pub protocol: u8,
    /// Zero, or [`crate::translation::OUTER`] in a key of the records of translation.
    pub face: u8,
    /// Always zero.
    pub padding: u16,
}

impl<A: Address> Key<A> {
    /// The canonical key of a packet, and the side that sent it.
    #[inline(always)]
    pub fn of(packet: &packet::Packet<A>) -> (Self, Side) {
        let ports = [packet.source_port, packet.destination_port];
        Self::between([packet.source, packet.destination], ports, packet.protocol)
    }

    /// The canonical key of two ends, and the side of the first one.
    #[inline(always)]
    pub fn between(addresses: [A; 2], ports: [u16; 2], protocol: u8) -> (Self, Side) {
        let in_order = if addresses[0] == addresses[1] {
            ports[0] <= ports[1]
        } else {
            addresses[0].is_before(addresses[1])
        };
        let (addresses, ports, side) = if in_order {
            (addresses, ports, Side::Low)
        } else {
            ([addresses[1], addresses[0]], [ports[1], ports[0]], Side::High)
        };
        (Self { addresses, ports, protocol, face: 0, padding: 0 }, side)
    }
}

/// `flags` of an [`Entry`]: the high side sent the first packet.
pub const BEGUN_BY_HIGH: u8 = 1;
/// `flags` of an [`Entry`]: its end was told already.
pub const END_TOLD: u8 = 2;
/// `flags` of an [`Entry`]: a policy refuses it now. It is kept so that a packet of either side is known for what it is:
/// part of a connection that one certain side began.
pub const REFUSED: u8 = 4;
/// `flags` of an [`Entry`]: one side knows the connection under another tuple, which [`crate::translation`] has.
pub const TRANSLATED: u8 = 8;
/// `flags` of an [`Entry`]: it leaves the node under one of the node's own addresses.
pub const MASQUERADED: u8 = 16;

/// In an [`Entry::way`]: packets go to the node as they are, without the overlay.
pub const AS_IS: u32 = 1 << 31;

/// How long a connection that policy refuses is remembered after its last packet: longer than the longest pause between two
/// retransmissions (120 s, RFC 6298 section 2.5 allows as little as 60).
pub const REFUSED_NS: u64 = 300 * SECOND_NS;

/// Value of `conntrack_v4` and `conntrack_v6`. Arrays are indexed by [`Side`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The version of the layout under which the entry was made, or zero for this one. First, so that all else is elsewhere.
    #[cfg(feature = "next-layout")]
    pub made_under: u64,
    /// When the entry may be collected, in nanoseconds of the monotonic clock.
    pub expires_ns: u64,
    /// When the first packet was seen, in nanoseconds of the monotonic clock.
    pub began_ns: u64,
    /// The generation under which each end was judged.
    pub generations: [u64; 2],
    /// Bytes of IP packets that each side sent.
    pub bytes: [u64; 2],
    /// Packets that each side sent; the segments of a packet that the kernel cuts later count singly.
    pub packets: [u64; 2],
    /// Endpoint index of each end, or [`crate::endpoint::OUTSIDE`].
    pub endpoints: [u32; 2],
    /// The interface by which each end is reached; zero is the host's stack, or another node.
    pub interfaces: [u32; 2],
    /// The workload identity of each end.
    pub identities: [u32; 2],
    /// The rule of each end's policy that allowed the connection: of the end that began it an egress rule, of the other an
    /// ingress rule. Zero: no policy governs that end.
    pub rules: [u32; 2],
    /// The pair's number in telemetry; zero is the collective one.
    pub pair: u32,
    /// The first twelve bytes of a frame to each end, as words in memory order. Of an end on another node the first word is
    /// the way there: see [`Entry::way`].
    pub frame_macs: [[u32; 3]; 2],
    /// What each side has sent so far: see [`observe`].
    pub seen: [u8; 2],
    /// [`BEGUN_BY_HIGH`], [`END_TOLD`], [`REFUSED`], [`TRANSLATED`], [`MASQUERADED`].
    pub flags: u8,
    /// Always zero.
    pub padding: u8,
}

impl Entry {
    /// The number of the other node by which an end is reached, with [`AS_IS`] or without; zero if there is none.
    #[inline(always)]
    pub fn way(&self, side: usize) -> u32 {
        let i = side & 1;
        if self.endpoints[i] == OUTSIDE { self.frame_macs[i][0] } else { 0 }
    }

    /// The number of the other node by which an end is reached; zero if there is none.
    #[inline(always)]
    pub fn node(&self, side: usize) -> u32 {
        self.way(side) & !AS_IS
    }

    /// The side that sent the first packet.
    #[inline(always)]
    pub fn begun_by(&self) -> Side {
        if self.flags & BEGUN_BY_HIGH != 0 { Side::High } else { Side::Low }
    }

    /// Zero for a packet of the side that sent the first one, one for an answer.
    #[inline(always)]
    pub fn way_from(&self, side: usize) -> usize {
        const { assert!(BEGUN_BY_HIGH == 1) };
        differ((self.flags & BEGUN_BY_HIGH) as usize, side & 1)
    }
}

/// One if two sides are not the same, else zero.
#[inline(always)]
pub fn differ(side: usize, other: usize) -> usize {
    // Linux 6.1 knows nothing of what an exclusive or of two numbers can be. So it is told afterwards, where the compiler does
    // not see that it knows better.
    core::hint::black_box(side ^ other) & 1
}

/// Which side is taken to have begun a connection of which no beginning was seen, only a packet that `sender` sent.
///
/// TCP says itself whether a packet is a first one. One that is not belongs to a connection that was made before this table
/// was, or that was silent for too long: its server is taken to be at the lower port, as servers are. Otherwise an answer
/// would be judged as if the server had begun, and let its client in where no policy does.
#[inline(always)]
pub fn beginner(sender: Side, protocol: u8, tcp_flags: u8, port_of_sender: u16, port_of_other: u16) -> Side {
    let is_first = protocol != packet::TCP || is_opening(tcp_flags);
    if is_first || u16::from_be(port_of_sender) >= u16::from_be(port_of_other) {
        sender
    } else {
        sender.other()
    }
}

/// Whether these TCP flags are those of a connection's very first packet.
#[inline(always)]
pub fn is_opening(tcp_flags: u8) -> bool {
    tcp_flags & (packet::TCP_SYN | packet::TCP_ACK | packet::TCP_RST) == packet::TCP_SYN
}

/// Whether a packet with these TCP flags begins a new connection under the tuple of one that is closing.
#[inline(always)]
pub fn reopens(seen: [u8; 2], protocol: u8, tcp_flags: u8) -> bool {
    protocol == packet::TCP && is_opening(tcp_flags) && matches!(phase(seen), Phase::Closing)
}

/// In `seen`: this side has sent something.
pub const SEEN_ANY: u8 = 1;
/// In `seen`: this side has closed.
pub const SEEN_FIN: u8 = 2;
/// In `seen`: this side has reset the connection.
pub const SEEN_RST: u8 = 4;

/// Where a connection stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Only one side has spoken.
    Opening,
    /// Both sides have spoken.
    Established,
    /// Both sides have closed, or one has reset.
    Closing,
}

/// The phase that follows from what both sides have sent.
#[inline(always)]
pub fn phase(seen: [u8; 2]) -> Phase {
    let [low, high] = seen;
    if (low | high) & SEEN_RST != 0 || low & high & SEEN_FIN != 0 {
        Phase::Closing
    } else if low & high & SEEN_ANY != 0 {
        Phase::Established
    } else {
        Phase::Opening
    }
}

/// What both sides have sent, once `side` has sent a packet with these TCP flags (zero for other protocols).
///
/// A SYN on a closing connection opens a new one under the same tuple (RFC 9293 section 3.6.1 lets the side in
/// TIME-WAIT accept it).
#[inline(always)]
pub fn observe(seen: [u8; 2], side: usize, tcp_flags: u8) -> [u8; 2] {
    let mut news = SEEN_ANY;
    if tcp_flags & packet::TCP_FIN != 0 {
        news |= SEEN_FIN;
    }
    if tcp_flags & packet::TCP_RST != 0 {
        news |= SEEN_RST;
    }
    let seen = if is_opening(tcp_flags) && matches!(phase(seen), Phase::Closing) { [0, 0] } else { seen };
    // Both in one number, and not by cases: the verifier would follow each of them through all that comes after.
    let news = (news as u16) << (8 * (side & 1));
    (u16::from_le_bytes(seen) | news).to_le_bytes()
}

/// How long a connection in this state is kept without a packet, in nanoseconds.
#[inline(always)]
pub fn timeout_ns(protocol: u8, seen: [u8; 2]) -> u64 {
    if protocol == packet::TCP {
        match phase(seen) {
            Phase::Opening => TCP_OPENING_NS,
            Phase::Established => TCP_ESTABLISHED_NS,
            Phase::Closing => TCP_CLOSING_NS,
        }
    } else if protocol == packet::UDP {
        UDP_NS
    } else if protocol == packet::ICMP || protocol == packet::ICMPV6 {
        ICMP_NS
    } else {
        OTHER_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        family::{Address4, Address6},
        packet::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_directions_of_a_flow_have_one_key_and_opposite_sides(
            source: u32, destination: u32, ports: [u16; 2], protocol: u8
        ) {
            let ends = [Address4(source), Address4(destination)];
            let (key, side) = Key::between(ends, ports, protocol);
            let (reply_key, reply_side) = Key::between([ends[1], ends[0]], [ports[1], ports[0]], protocol);
            prop_assert_eq!(key, reply_key);
            if (source, ports[0]) != (destination, ports[1]) {
                prop_assert_eq!(side.other(), reply_side);
            }
            prop_assert_eq!(key.addresses[side.index()], ends[0]);
            prop_assert_eq!(key.ports[side.index()], ports[0]);
            prop_assert_eq!(key.addresses[side.other().index()], ends[1]);
        }

        #[test]
        fn both_directions_of_an_ipv6_flow_have_one_key(
            source: [u32; 4], destination: [u32; 4], common in 0usize..4, ports: [u16; 2]
        ) {
            let mut destination = destination;
            destination[..common].copy_from_slice(&source[..common]);
            let ends = [Address6(source), Address6(destination)];
            let back = Key::between([ends[1], ends[0]], [ports[1], ports[0]], UDP).0;
            prop_assert_eq!(Key::between(ends, ports, UDP).0, back);
        }

        #[test]
        fn different_flows_have_different_keys(a: [u32; 2], b: [u32; 2], ports_a: [u16; 2], ports_b: [u16; 2]) {
            let key = |ends: [u32; 2], ports| Key::between(ends.map(Address4), ports, TCP).0;
            let turned = ([b[1], b[0]], [ports_b[1], ports_b[0]]);
            prop_assume!((a, ports_a) != (b, ports_b) && (a, ports_a) != turned);
            prop_assert_ne!(key(a, ports_a), key(b, ports_b));
        }

        #[test]
        fn no_order_of_packets_leaves_a_reset_connection_open(
            flags in prop::collection::vec((any::<bool>(), any::<u8>()), 0..20)
        ) {
            let mut seen = [0, 0];
            for (low, flags) in flags {
                seen = observe(seen, usize::from(!low), flags & !TCP_SYN);
            }
            seen = observe(seen, 0, TCP_RST);
            prop_assert_eq!(phase(seen), Phase::Closing);
        }
    }

    #[test]
    fn a_connection_opens_establishes_and_closes_from_both_sides() {
        let mut seen = observe([0, 0], 1, TCP_SYN);
        assert_eq!(timeout_ns(TCP, seen), TCP_OPENING_NS);
        seen = observe(seen, 0, TCP_SYN | TCP_ACK);
        seen = observe(seen, 1, TCP_ACK);
        assert_eq!(timeout_ns(TCP, seen), TCP_ESTABLISHED_NS);
        seen = observe(seen, 1, TCP_FIN | TCP_ACK);
        assert_eq!(
            phase(seen),
            Phase::Established,
            "a half-closed connection may still carry data for hours"
        );
        seen = observe(seen, 0, TCP_FIN | TCP_ACK);
        assert_eq!(timeout_ns(TCP, seen), TCP_CLOSING_NS);
    }

    #[test]
    fn a_syn_reopens_a_closing_connection_and_leaves_a_live_one_alone() {
        let closing = [SEEN_ANY | SEEN_FIN, SEEN_ANY | SEEN_FIN];
        assert_eq!(phase(observe(closing, 0, TCP_SYN)), Phase::Opening);
        let live = [SEEN_ANY, SEEN_ANY];
        assert_eq!(phase(observe(live, 0, TCP_SYN)), Phase::Established);
    }

    #[test]
    fn a_connection_met_in_its_middle_was_begun_by_the_higher_port() {
        let (client, server) = (41_000_u16.to_be(), 80_u16.to_be());
        assert_eq!(beginner(Side::Low, TCP, TCP_ACK, client, server), Side::Low);
        assert_eq!(beginner(Side::Low, TCP, TCP_ACK, server, client), Side::High);
        assert_eq!(beginner(Side::Low, TCP, TCP_SYN | TCP_ACK, server, client), Side::High);
        assert_eq!(
            beginner(Side::High, TCP, TCP_SYN, server, client),
            Side::High,
            "a first packet says so itself"
        );
        assert_eq!(beginner(Side::Low, UDP, 0, server, client), Side::Low);
    }

    #[test]
    fn packets_of_one_side_alone_never_hold_an_entry_for_hours() {
        let mut seen = [0, 0];
        for _ in 0..3 {
            seen = observe(seen, 0, TCP_ACK);
        }
        assert_eq!(timeout_ns(TCP, seen), TCP_OPENING_NS);
    }

    #[test]
    fn keys_and_entries_have_no_hole_that_the_kernel_would_compare() {
        assert_eq!(size_of::<Key<Address4>>(), 2 * 4 + 2 * 2 + 4);
        assert_eq!(size_of::<Key<Address6>>(), 2 * 16 + 2 * 2 + 4);
        let of_next = if cfg!(feature = "next-layout") { 8 } else { 0 };
        assert_eq!(size_of::<Entry>(), of_next + 8 + 8 + 16 + 16 + 16 + 8 + 8 + 8 + 8 + 4 + 24 + 4);
    }
}
