//! From the bytes of a frame to the tuple of its flow.
//!
//! Reading goes through [`Bytes`], which the programs implement with the kernel's bounded copy (it also reads what
//! lies outside the linear part of a packet) and tests with a slice. Offsets never exceed 14 + 4 × 2048 bytes.

use crate::{
    drop_reason::DropReason,
    family::{Address4, Address6},
};

/// Length of an Ethernet header without tags.
pub const ETHERNET_BYTES: u32 = 14;
/// How many IPv6 extension headers are followed.
pub const EXTENSION_HEADERS_MAX: u32 = 4;

/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;
/// ICMPv6's protocol number.
pub const ICMPV6: u8 = 58;
/// SCTP's protocol number.
pub const SCTP: u8 = 132;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// TCP's FIN bit.
pub const TCP_FIN: u8 = 0x01;
/// TCP's SYN bit.
pub const TCP_SYN: u8 = 0x02;
/// TCP's RST bit.
pub const TCP_RST: u8 = 0x04;
/// TCP's ACK bit.
pub const TCP_ACK: u8 = 0x10;

/// Read access to a frame, from its Ethernet header on.
pub trait Bytes {
    /// The `4 × N` bytes at `offset` as words in memory order, or `None` if the frame ends before.
    ///
    /// Words, because the eBPF target cannot join bytes on its stack: it would load them one by one.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
}

/// What the data path wants to know of a packet. Ports are as in the packet: network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; an echo's identifier; else zero.
    pub source_port: u16,
    /// Destination port; an echo's identifier; else zero.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// TCP's flags, zero for everything else and for fragments after the first.
    pub tcp_flags: u8,
}

struct Transport {
    source_port: u16,
    destination_port: u16,
    tcp_flags: u8,
}

/// Parses an IPv4 packet (RFC 791) behind an Ethernet header.
///
/// # Errors
/// The reason to drop it: [`DropReason::Truncated`] or [`DropReason::WrongVersion`].
#[inline(always)]
pub fn parse_v4(bytes: &impl Bytes) -> Result<Packet<Address4>, DropReason> {
    let ip: [u32; 5] = bytes.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
    let [version_and_length, _, total_high, total_low] = ip[0].to_ne_bytes();
    if version_and_length >> 4 != 4 {
        return Err(DropReason::WrongVersion);
    }
    let header_bytes = (version_and_length & 0xf) as u32 * 4;
    let total_bytes = u16::from_be_bytes([total_high, total_low]) as u32;
    // A total length of zero is how the kernel writes a packet of more than 64 KiB before it is cut (BIG TCP).
    if header_bytes < 20 || (total_bytes != 0 && total_bytes < header_bytes) {
        return Err(DropReason::Truncated);
    }
    let [_, _, fragment_high, fragment_low] = ip[1].to_ne_bytes();
    let later_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let transport = transport(bytes, ETHERNET_BYTES + header_bytes, protocol, later_fragment)?;
    Ok(Packet {
        source: Address4(ip[3]),
        destination: Address4(ip[4]),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol,
        tcp_flags: transport.tcp_flags,
    })
}

/// Parses an IPv6 packet (RFC 8200) behind an Ethernet header, through at most [`EXTENSION_HEADERS_MAX`] headers.
///
/// # Errors
/// The reason to drop it: [`DropReason::Truncated`], [`DropReason::WrongVersion`] or
/// [`DropReason::TooManyExtensionHeaders`].
#[inline(always)]
pub fn parse_v6(bytes: &impl Bytes) -> Result<Packet<Address6>, DropReason> {
    let ip: [u32; 2] = bytes.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
    if ip[0].to_ne_bytes()[0] >> 4 != 6 {
        return Err(DropReason::WrongVersion);
    }
    let [_, _, next, _] = ip[1].to_ne_bytes();
    let (protocol, offset, later_fragment) = skip_extensions(bytes, next)?;
    let transport = transport(bytes, offset, protocol, later_fragment)?;
    // Last, so that the eBPF compiler need not keep eight words on its small stack over the calls above.
    let [a, b, c, d, e, f, g, h] = bytes.read(ETHERNET_BYTES + 8).ok_or(DropReason::Truncated)?;
    Ok(Packet {
        source: Address6([a, b, c, d]),
        destination: Address6([e, f, g, h]),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol,
        tcp_flags: transport.tcp_flags,
    })
}

/// The transport protocol, where its header begins, and whether this is a fragment after the first.
#[inline(always)]
fn skip_extensions(bytes: &impl Bytes, first: u8) -> Result<(u8, u32, bool), DropReason> {
    let mut next = first;
    let mut offset = ETHERNET_BYTES + 40;
    let mut later_fragment = false;
    let mut followed = 0;
    while is_extension(next) {
        if followed == EXTENSION_HEADERS_MAX {
            return Err(DropReason::TooManyExtensionHeaders);
        }
        followed += 1;
        let [word] = bytes.read(offset).ok_or(DropReason::Truncated)?;
        let header = word.to_ne_bytes();
        if next == FRAGMENT {
            later_fragment = u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0;
            offset += 8;
        } else if next == AUTHENTICATION {
            offset += (header[1] as u32 + 2) * 4;
        } else {
            offset += (header[1] as u32 + 1) * 8;
        }
        next = header[0];
        // What follows a later fragment's header is payload, whatever that header says.
        if later_fragment {
            break;
        }
    }
    Ok((next, offset, later_fragment))
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    next == HOP_BY_HOP
        || next == ROUTING
        || next == FRAGMENT
        || next == AUTHENTICATION
        || next == DESTINATION_OPTIONS
}

#[inline(always)]
fn transport(
    bytes: &impl Bytes,
    offset: u32,
    protocol: u8,
    later_fragment: bool,
) -> Result<Transport, DropReason> {
    let mut found = Transport { source_port: 0, destination_port: 0, tcp_flags: 0 };
    // Only the first fragment carries ports; the others are tracked as a flow without any.
    if later_fragment {
        return Ok(found);
    }
    if protocol == TCP {
        let tcp: [u32; 4] = bytes.read(offset).ok_or(DropReason::Truncated)?;
        (found.source_port, found.destination_port) = halves(tcp[0]);
        found.tcp_flags = tcp[3].to_ne_bytes()[1];
    } else if protocol == UDP || protocol == SCTP {
        // RFC 768 and RFC 9260: both begin with the two ports.
        let [ports] = bytes.read(offset).ok_or(DropReason::Truncated)?;
        (found.source_port, found.destination_port) = halves(ports);
    } else if protocol == ICMP || protocol == ICMPV6 {
        let icmp: [u32; 2] = bytes.read(offset).ok_or(DropReason::Truncated)?;
        let kind = icmp[0].to_ne_bytes()[0];
        // Echo request and reply (RFC 792, RFC 4443): the identifier tells one ping from another.
        let echo = if protocol == ICMP { kind == 8 || kind == 0 } else { kind == 128 || kind == 129 };
        if echo {
            let (identifier, _) = halves(icmp[1]);
            found.source_port = identifier;
            found.destination_port = identifier;
        }
    }
    Ok(found)
}

/// The two 16-bit fields of a word in memory order, each as it lies there.
#[inline(always)]
fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    struct Frame<'a>(&'a [u8]);

    impl Bytes for Frame<'_> {
        fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
            let bytes = self.0.get(offset as usize..offset as usize + 4 * N)?;
            let mut words = [0; N];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_ne_bytes(chunk.try_into().unwrap());
            }
            Some(words)
        }
    }

    fn ipv4(options: usize, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let header = 20 + options;
        let mut frame = vec![0; 14 + header];
        frame[14] = 0x40 | (header / 4) as u8;
        frame[16..18].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 2]);
        frame.extend_from_slice(payload);
        frame
    }

    fn ipv6(extensions: &[(u8, usize)], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[14] = 0x60;
        frame[22..38].fill(0xfd);
        frame[38..54].fill(0xfe);
        let mut next_at = 20;
        for &(kind, units) in extensions {
            frame[next_at] = kind;
            next_at = frame.len();
            let mut header = vec![0; 8 * (units + 1)];
            header[1] = if kind == AUTHENTICATION { (units * 2) as u8 } else { units as u8 };
            frame.extend(header);
        }
        frame[next_at] = protocol;
        frame.extend_from_slice(payload);
        frame
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[0..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        header[13] = flags;
        header
    }

    #[test]
    fn tcp_over_ipv4_is_read_behind_any_options() {
        for options in [0, 4, 20, 40] {
            let frame = ipv4(options, TCP, 0, &tcp(TCP_SYN));
            let packet = parse_v4(&Frame(&frame)).unwrap();
            assert_eq!(packet.source, Address4::from_octets([10, 0, 0, 1]));
            assert_eq!(packet.destination, Address4::from_octets([10, 0, 0, 2]));
            assert_eq!(u16::from_be(packet.source_port), 0x1234);
            assert_eq!(u16::from_be(packet.destination_port), 80);
            assert_eq!(packet.tcp_flags, TCP_SYN);
        }
    }

    #[test]
    fn a_later_fragment_has_no_ports_whatever_its_payload_says() {
        let frame = ipv4(0, TCP, 185, &tcp(TCP_SYN));
        let packet = parse_v4(&Frame(&frame)).unwrap();
        assert_eq!((packet.source_port, packet.destination_port, packet.tcp_flags), (0, 0, 0));
        let first = ipv4(0, UDP, 0x2000, &[0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(u16::from_be(parse_v4(&Frame(&first)).unwrap().destination_port), 2);
    }

    #[test]
    fn an_echo_is_told_apart_by_its_identifier_and_an_error_is_not() {
        let echo = parse_v4(&Frame(&ipv4(0, ICMP, 0, &[8, 0, 0, 0, 0xab, 0xcd, 0, 1]))).unwrap();
        assert_eq!(u16::from_be(echo.source_port), 0xabcd);
        assert_eq!(echo.source_port, echo.destination_port);
        let error = parse_v4(&Frame(&ipv4(0, ICMP, 0, &[3, 0, 0, 0, 0xab, 0xcd, 0, 1]))).unwrap();
        assert_eq!(error.source_port, 0);
    }

    #[test]
    fn tcp_over_ipv6_is_read_behind_four_extension_headers_and_not_behind_five() {
        let four = [(HOP_BY_HOP, 0), (DESTINATION_OPTIONS, 2), (ROUTING, 1), (AUTHENTICATION, 1)];
        let packet = parse_v6(&Frame(&ipv6(&four, TCP, &tcp(TCP_ACK)))).unwrap();
        assert_eq!(u16::from_be(packet.destination_port), 80);
        assert_eq!(packet.protocol, TCP);
        let five = [(DESTINATION_OPTIONS, 0); 5];
        assert_eq!(parse_v6(&Frame(&ipv6(&five, TCP, &tcp(0)))), Err(DropReason::TooManyExtensionHeaders));
    }

    #[test]
    fn a_later_ipv6_fragment_keeps_its_protocol_and_loses_its_ports() {
        let mut frame = ipv6(&[(FRAGMENT, 0)], UDP, &[0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(u16::from_be(parse_v6(&Frame(&frame)).unwrap().destination_port), 2);
        frame[56..58].copy_from_slice(&(8u16 << 3).to_be_bytes());
        let later = parse_v6(&Frame(&frame)).unwrap();
        assert_eq!((later.protocol, later.destination_port), (UDP, 0));
    }

    #[test]
    fn a_header_that_lies_about_its_length_or_version_is_refused() {
        let mut frame = ipv4(0, UDP, 0, &[0; 8]);
        frame[14] = 0x44;
        assert_eq!(parse_v4(&Frame(&frame)), Err(DropReason::Truncated));
        frame[14] = 0x65;
        assert_eq!(parse_v4(&Frame(&frame)), Err(DropReason::WrongVersion));
        assert_eq!(parse_v6(&Frame(&ipv4(40, UDP, 0, &[0; 8]))), Err(DropReason::WrongVersion));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_fail_other_than_with_a_reason(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_v4(&Frame(&frame));
            let _ = parse_v6(&Frame(&frame));
        }

        #[test]
        fn a_frame_cut_anywhere_before_its_ports_is_truncated(cut in 14usize..48) {
            let frame = ipv4(0, TCP, 0, &tcp(TCP_SYN));
            prop_assert_eq!(parse_v4(&Frame(&frame[..cut])), Err(DropReason::Truncated));
        }
    }
}
