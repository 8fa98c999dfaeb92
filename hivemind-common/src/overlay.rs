//! VXLAN over IPv4 (RFC 7348) as the programs write and read it: plain, so that every tool knows it. The network identifier
//! is the identity of the sender.

use crate::{
    family::Address4,
    node::{NodeState, OVERLAY_MAC},
    packet::{Bytes, ETHERNET_BYTES, UDP},
};

/// The UDP port.
pub const PORT: u16 = 4789;
/// How many bytes are put before an IP packet, besides the Ethernet header that every frame has: an IPv4, a UDP and a VXLAN
/// header, and the Ethernet header inside.
pub const BYTES: u32 = 50;
/// The same in whole words; half of the last one is left over.
pub const WORDS: usize = 13;

/// The first byte of a VXLAN header that names a network.
const HAS_NETWORK: u8 = 0x08;
const IP_BYTES: u32 = 20;
const UDP_BYTES: u32 = 8;
const VERSION_AND_LENGTH: u8 = 0x45;
const DO_NOT_FRAGMENT: u8 = 0x40;
const TTL: u8 = 64;
/// The least of the ports from which overlay packets are sent; there are as many more as the mask says.
const SOURCE_PORT: u16 = 0xc000;
const SOURCE_PORT_MASK: u32 = 0x3fff;

/// What stands between the outer Ethernet header and the IP packet inside, in memory order. `bytes` are those of the frame
/// behind its outer Ethernet header, `hash` is the flow's, `ethertype` in host order.
#[inline(always)]
pub fn headers(node: &NodeState, bytes: u32, hash: u32, identity: u32, ethertype: u16) -> [u32; WORDS] {
    // A packet of more than 64 KiB is cut before it is sent, and each piece gets its own length.
    let total = if bytes > 0xffff { 0 } else { bytes };
    let [_, _, total_high, total_low] = total.to_be_bytes();
    let datagram = if total == 0 { 0 } else { total - IP_BYTES };
    let [_, _, datagram_high, datagram_low] = datagram.to_be_bytes();
    let mut words = [
        u32::from_ne_bytes([VERSION_AND_LENGTH, 0, total_high, total_low]),
        u32::from_ne_bytes([0, 0, DO_NOT_FRAGMENT, 0]),
        u32::from_ne_bytes([TTL, UDP, 0, 0]),
        node.source.0,
        node.address.0,
        0,
        u32::from_ne_bytes([datagram_high, datagram_low, 0, 0]),
        u32::from_ne_bytes([HAS_NETWORK, 0, 0, 0]),
        (identity << 8).to_be(),
        u32::from_ne_bytes([OVERLAY_MAC[0], OVERLAY_MAC[1], OVERLAY_MAC[2], OVERLAY_MAC[3]]),
        u32::from_ne_bytes([OVERLAY_MAC[4], OVERLAY_MAC[5], OVERLAY_MAC[0], OVERLAY_MAC[1]]),
        u32::from_ne_bytes([OVERLAY_MAC[2], OVERLAY_MAC[3], OVERLAY_MAC[4], OVERLAY_MAC[5]]),
        0,
    ];
    let [port_high, port_low] = (SOURCE_PORT | (hash & SOURCE_PORT_MASK) as u16).to_be_bytes();
    let [to_high, to_low] = PORT.to_be_bytes();
    words[5] = u32::from_ne_bytes([port_high, port_low, to_high, to_low]);
    let [type_high, type_low] = ethertype.to_be_bytes();
    words[12] = u32::from_ne_bytes([type_high, type_low, 0, 0]);
    let checksum = checksum([words[0], words[1], words[2], words[3], words[4]]);
    let [a, b] = checksum.to_ne_bytes();
    words[2] = u32::from_ne_bytes([TTL, UDP, a, b]);
    words
}

/// The Internet checksum (RFC 1071) of an IPv4 header of five words, in memory order like the words.
#[inline(always)]
fn checksum(words: [u32; 5]) -> u16 {
    let mut sum = 0u64;
    for word in words {
        sum += u64::from(word);
    }
    // Ones' complement sums are the same in either byte order.
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// What the outer headers of an overlay packet say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// The node that sent it.
    pub source: Address4,
    /// The identity of whoever sent what is inside.
    pub identity: u32,
    /// The type of the frame inside, in host order.
    pub ethertype: u16,
}

/// Reads the outer headers, if the frame is an overlay packet to `own`. Its Ethernet type must be that of IPv4.
#[inline(always)]
pub fn read(frame: &impl Bytes, own: Address4) -> Option<Outer> {
    let ip: [u32; 6] = frame.read(ETHERNET_BYTES)?;
    let [version_and_length, _, _, _] = ip[0].to_ne_bytes();
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let [_, _, port_high, port_low] = ip[5].to_ne_bytes();
    let is_ours = protocol == UDP
        && u16::from_be_bytes([port_high, port_low]) == PORT
        && ip[4] == own.0
        && version_and_length == VERSION_AND_LENGTH;
    if !is_ours {
        return None;
    }
    let [_, _, fragment_high, fragment_low] = ip[1].to_ne_bytes();
    // More fragments, or a later one: nodes never send such.
    if u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0 {
        return None;
    }
    let vxlan: [u32; 2] = frame.read(ETHERNET_BYTES + IP_BYTES + UDP_BYTES)?;
    if vxlan[0].to_ne_bytes()[0] & HAS_NETWORK == 0 {
        return None;
    }
    let [inside]: [u32; 1] = frame.read(ETHERNET_BYTES + BYTES - 2)?;
    let [type_high, type_low, _, _] = inside.to_ne_bytes();
    Some(Outer {
        source: Address4(ip[3]),
        identity: u32::from_be(vxlan[1]) >> 8,
        ethertype: u16::from_be_bytes([type_high, type_low]),
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::family::{Family, V6};
    use std::vec::Vec;

    struct Frame(Vec<u8>);

    impl Bytes for Frame {
        fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
            let bytes = self.0.get(offset as usize..offset as usize + 4 * N)?;
            let mut words = [0; N];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_ne_bytes(chunk.try_into().unwrap());
            }
            Some(words)
        }
    }

    const OTHER: NodeState = NodeState {
        address: Address4::from_octets([192, 0, 2, 2]),
        source: Address4::from_octets([192, 0, 2, 1]),
        next_hop: Address4(0),
        interface: 0,
        mtu: 0,
        flags: 0,
    };

    fn frame(bytes: u32) -> Frame {
        let mut frame = std::vec![0; 14];
        for word in headers(&OTHER, bytes, 0x12345, 0xab_cdef, V6::ETHERTYPE) {
            frame.extend(word.to_ne_bytes());
        }
        frame.truncate(64);
        frame.extend([0x60, 0, 0, 0]);
        Frame(frame)
    }

    #[test]
    fn the_headers_are_those_of_the_standard() {
        let Frame(frame) = frame(1500);
        let ip = [0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 64, 17];
        assert_eq!(frame[14..24], ip);
        // The sum over a header with its checksum is zero, as every receiver checks.
        let sum: u32 =
            frame[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(frame[26..34], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(frame[34..42], [0xe3, 0x45, 0x12, 0xb5, 0x05, 0xc8, 0, 0]);
        assert_eq!(frame[42..50], [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
        assert_eq!(frame[50..64], [6, b'h', 255, 255, 255, 255, 6, b'h', 255, 255, 255, 255, 0x86, 0xdd]);
    }

    #[test]
    fn what_was_written_is_read_and_by_nobody_but_the_receiver() {
        let outer = Outer { source: OTHER.source, identity: 0xab_cdef, ethertype: V6::ETHERTYPE };
        assert_eq!(read(&frame(100), OTHER.address), Some(outer));
        assert_eq!(read(&frame(100), OTHER.source), None);
        // Version and length, fragment bits, protocol, port, VXLAN's flag.
        for (at, to) in [(14, 0x46), (20, 0x20), (21, 1), (23, 6), (37, 0), (42, 0)] {
            let mut changed = frame(100);
            changed.0[at] = to;
            assert_eq!(read(&changed, OTHER.address), None, "byte {at}");
        }
        let mut cut = frame(100);
        cut.0.truncate(60);
        assert_eq!(read(&cut, OTHER.address), None);
    }

    #[test]
    fn a_packet_beyond_the_length_field_says_zero() {
        let Frame(frame) = frame(70_000);
        assert_eq!((&frame[16..18], &frame[38..40]), (&[0, 0][..], &[0, 0][..]));
    }
}
