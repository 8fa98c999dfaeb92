//! Saying no in a service's name: a reset of TCP (RFC 9293 section 3.10.7.1), an ICMP error for everything else (RFC 792,
//! RFC 4443), as the host that has the address would say it if there were one.
//!
//! Each function gives what stands behind the Ethernet header, whole, in words in memory order.

use crate::{
    family::{Address4, Address6},
    packet::{ICMP, ICMPV6, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

/// Words of an IPv4 header without options.
const IP4: usize = 5;
/// Words of an IPv6 header.
const IP6: usize = 10;
/// Words of a reset over IPv4.
pub const RESET_V4: usize = IP4 + 5;
/// Words of a reset over IPv6.
pub const RESET_V6: usize = IP6 + 5;
/// Words of the packet that is refused which an ICMP error shows: its IP header and eight bytes.
pub const QUOTE_V4: usize = IP4 + 2;
/// As [`QUOTE_V4`], for IPv6.
pub const QUOTE_V6: usize = IP6 + 2;
/// Words of an ICMP error over IPv4.
pub const ERROR_V4: usize = IP4 + 2 + QUOTE_V4;
/// Words of an ICMP error over IPv6.
pub const ERROR_V6: usize = IP6 + 2 + QUOTE_V6;

const TTL: u8 = 64;
const DO_NOT_FRAGMENT: u8 = 0x40;
/// Destination unreachable, port unreachable.
const PORT_UNREACHABLE_V4: [u8; 2] = [3, 3];
const PORT_UNREACHABLE_V6: [u8; 2] = [1, 4];

/// The header of a TCP packet that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its first four words: ports, sequence number, acknowledgement, length and flags.
    pub tcp: [u32; 4],
    /// How many bytes it carries behind its header.
    pub data_bytes: u32,
}

/// The reset that answers a TCP packet from `source` to `destination`; none answers a reset.
#[inline(always)]
pub fn reset_v4(source: Address4, destination: Address4, asked: &Asked) -> Option<[u32; RESET_V4]> {
    let tcp = reset(asked)?;
    let mut words = [0; RESET_V4];
    header_v4(&mut words, destination, source, TCP, 4 * RESET_V4 as u16);
    let pseudo = sum(&[destination.0, source.0, u32::from_ne_bytes([0, TCP, 0, 20])], 0);
    words[IP4..].copy_from_slice(&with_checksum(tcp, pseudo));
    Some(words)
}

/// As [`reset_v4`], for IPv6.
#[inline(always)]
pub fn reset_v6(source: Address6, destination: Address6, asked: &Asked) -> Option<[u32; RESET_V6]> {
    let tcp = reset(asked)?;
    let mut words = [0; RESET_V6];
    header_v6(&mut words, destination, source, TCP, 20);
    let pseudo = pseudo_v6(destination, source, TCP, 20);
    words[IP6..].copy_from_slice(&with_checksum(tcp, pseudo));
    Some(words)
}

/// The ICMP error that answers a packet of which this is the beginning.
#[inline(always)]
pub fn error_v4(quote: [u32; QUOTE_V4]) -> [u32; ERROR_V4] {
    let mut words = [0; ERROR_V4];
    header_v4(&mut words, Address4(quote[4]), Address4(quote[3]), ICMP, 4 * ERROR_V4 as u16);
    words[IP4 + 2..].copy_from_slice(&quote);
    let [kind, code] = PORT_UNREACHABLE_V4;
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let [a, b] = (!fold(sum(&quote, u64::from(first)))).to_ne_bytes();
    words[IP4] = u32::from_ne_bytes([kind, code, a, b]);
    words
}

/// As [`error_v4`], for IPv6.
#[inline(always)]
pub fn error_v6(quote: [u32; QUOTE_V6]) -> [u32; ERROR_V6] {
    let mut words = [0; ERROR_V6];
    let source = Address6([quote[2], quote[3], quote[4], quote[5]]);
    let destination = Address6([quote[6], quote[7], quote[8], quote[9]]);
    let bytes = 8 + 4 * QUOTE_V6 as u16;
    header_v6(&mut words, destination, source, ICMPV6, bytes);
    words[IP6 + 2..].copy_from_slice(&quote);
    let [kind, code] = PORT_UNREACHABLE_V6;
    let pseudo = pseudo_v6(destination, source, ICMPV6, bytes);
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let [a, b] = (!fold(sum(&quote, pseudo + u64::from(first)))).to_ne_bytes();
    words[IP6] = u32::from_ne_bytes([kind, code, a, b]);
    words
}

/// A TCP header that resets, without its checksum.
#[inline(always)]
fn reset(asked: &Asked) -> Option<[u32; 5]> {
    let [ports, sequence, acknowledged, rest] = asked.tcp;
    let flags = rest.to_ne_bytes()[1];
    if flags & TCP_RST != 0 {
        return None;
    }
    let [a, b, c, d] = ports.to_ne_bytes();
    let turned = u32::from_ne_bytes([c, d, a, b]);
    let phantom = (flags & TCP_SYN != 0) as u32 + (flags & TCP_FIN != 0) as u32;
    let (sequence, acknowledgement, flags) = if flags & TCP_ACK != 0 {
        (acknowledged, 0, TCP_RST)
    } else {
        let next = u32::from_be(sequence).wrapping_add(phantom).wrapping_add(asked.data_bytes);
        (0, next.to_be(), TCP_RST | TCP_ACK)
    };
    Some([turned, sequence, acknowledgement, u32::from_ne_bytes([0x50, flags, 0, 0]), 0])
}

#[inline(always)]
fn with_checksum(mut tcp: [u32; 5], pseudo: u64) -> [u32; 5] {
    let [a, b] = (!fold(sum(&tcp, pseudo))).to_ne_bytes();
    tcp[4] = u32::from_ne_bytes([a, b, 0, 0]);
    tcp
}

#[inline(always)]
fn header_v4<const N: usize>(
    words: &mut [u32; N],
    source: Address4,
    destination: Address4,
    protocol: u8,
    bytes: u16,
) {
    let [high, low] = bytes.to_be_bytes();
    words[0] = u32::from_ne_bytes([0x45, 0, high, low]);
    words[1] = u32::from_ne_bytes([0, 0, DO_NOT_FRAGMENT, 0]);
    words[2] = u32::from_ne_bytes([TTL, protocol, 0, 0]);
    words[3] = source.0;
    words[4] = destination.0;
    let [a, b] = (!fold(sum(&[words[0], words[1], words[2], words[3], words[4]], 0))).to_ne_bytes();
    words[2] = u32::from_ne_bytes([TTL, protocol, a, b]);
}

#[inline(always)]
fn header_v6<const N: usize>(
    words: &mut [u32; N],
    source: Address6,
    destination: Address6,
    protocol: u8,
    bytes: u16,
) {
    let [high, low] = bytes.to_be_bytes();
    words[0] = u32::from_ne_bytes([0x60, 0, 0, 0]);
    words[1] = u32::from_ne_bytes([high, low, protocol, TTL]);
    words[2] = source.0[0];
    words[3] = source.0[1];
    words[4] = source.0[2];
    words[5] = source.0[3];
    words[6] = destination.0[0];
    words[7] = destination.0[1];
    words[8] = destination.0[2];
    words[9] = destination.0[3];
}

/// The sum over IPv6's pseudo-header (RFC 8200 section 8.1).
#[inline(always)]
fn pseudo_v6(source: Address6, destination: Address6, protocol: u8, bytes: u16) -> u64 {
    let [high, low] = bytes.to_be_bytes();
    let rest = [u32::from_ne_bytes([0, 0, high, low]), u32::from_ne_bytes([0, 0, 0, protocol])];
    sum(&rest, sum(&destination.0, sum(&source.0, 0)))
}

/// A sum of words, in which carries are not folded yet.
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N], start: u64) -> u64 {
    let mut sum = start;
    for word in words {
        sum += *word as u64;
    }
    sum
}

/// The ones' complement sum of 16-bit words (RFC 1071), which is the same in either byte order.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::packet::UDP;
    use std::vec::Vec;

    const CLIENT: Address4 = Address4::from_octets([10, 0, 0, 1]);
    const SERVICE: Address4 = Address4::from_octets([10, 204, 0, 1]);

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// The sum as a receiver makes it: all ones if the checksum is right.
    fn received(bytes: &[u8], pseudo: &[u8]) -> u32 {
        let all = [pseudo, bytes].concat();
        let sum: u32 =
            all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        (sum & 0xffff) + (sum >> 16)
    }

    fn asked(flags: u8, data_bytes: u32) -> Asked {
        let tcp = [
            u32::from_ne_bytes([0x30, 0x39, 0, 80]),
            0xffff_ffff_u32.to_be(),
            77_u32.to_be(),
            u32::from_ne_bytes([0x50, flags, 0, 0]),
        ];
        Asked { tcp, data_bytes }
    }

    #[test]
    fn a_first_packet_is_reset_by_one_that_acknowledges_it() {
        let reset = bytes(&reset_v4(CLIENT, SERVICE, &asked(TCP_SYN, 3)).unwrap());
        assert_eq!(received(&reset[..20], &[]), 0xffff);
        assert_eq!(reset[12..20], [10, 204, 0, 1, 10, 0, 0, 1]);
        let pseudo = [&reset[12..20], &[0, TCP, 0, 20]].concat();
        assert_eq!(received(&reset[20..], &pseudo), 0xffff);
        assert_eq!(reset[20..24], [0, 80, 0x30, 0x39]);
        assert_eq!(reset[24..28], [0; 4]);
        // The first byte after 2³² - 1, a SYN and three bytes.
        assert_eq!(reset[28..32], 3_u32.to_be_bytes());
        assert_eq!(reset[33], TCP_RST | TCP_ACK);
    }

    #[test]
    fn a_later_packet_is_reset_where_it_says_and_a_reset_is_not() {
        let reset = bytes(&reset_v4(CLIENT, SERVICE, &asked(TCP_ACK, 3)).unwrap());
        assert_eq!((&reset[24..28], reset[33]), (&77_u32.to_be_bytes()[..], TCP_RST));
        assert_eq!(reset_v4(CLIENT, SERVICE, &asked(TCP_RST, 0)), None);
    }

    #[test]
    fn an_error_shows_the_packet_and_its_checksums_are_right() {
        let mut quote = [0; QUOTE_V4];
        header_v4(&mut quote, CLIENT, SERVICE, UDP, 33);
        quote[5] = u32::from_ne_bytes([0x30, 0x39, 0, 53]);
        let error = bytes(&error_v4(quote));
        assert_eq!((received(&error[..20], &[]), received(&error[20..], &[])), (0xffff, 0xffff));
        assert_eq!((&error[12..20], &error[20..22]), (&[10, 204, 0, 1, 10, 0, 0, 1][..], &[3, 3][..]));
        assert_eq!(error[28..], bytes(&quote));
    }

    #[test]
    fn ipv6_says_the_same() {
        let (client, service) = (Address6::from_octets([0xfd; 16]), Address6::from_octets([0xfe; 16]));
        let reset = bytes(&reset_v6(client, service, &asked(TCP_SYN, 0)).unwrap());
        let pseudo = [&reset[8..40], &[0, 0, 0, 20, 0, 0, 0, TCP]].concat();
        assert_eq!(received(&reset[40..], &pseudo), 0xffff);
        assert_eq!(reset[8..24], [0xfe; 16]);
        let mut quote = [0; QUOTE_V6];
        header_v6(&mut quote, client, service, UDP, 8);
        quote[10] = u32::from_ne_bytes([0x30, 0x39, 0, 53]);
        let error = bytes(&error_v6(quote));
        let pseudo = [&error[8..40], &[0, 0, 0, 56, 0, 0, 0, ICMPV6]].concat();
        assert_eq!(received(&error[40..], &pseudo), 0xffff);
        assert_eq!((error[40], error[41], error.len()), (1, 4, 96));
    }
}
