extern crate std;
use super::*;
use crate::family::Address;
use core::cell::RefCell;
use proptest::prelude::*;
use std::{vec, vec::Vec};

struct Frame<'a>(&'a [u8], Memory);

type Memory = RefCell<Vec<(Vec<u8>, u32)>>;

fn seen(bytes: &[u8]) -> Frame<'_> {
    Frame(bytes, Memory::default())
}

fn name<A: Address>(key: &FragmentKey<A>) -> Vec<u8> {
    let words = [key.source.words(), key.destination.words(), [key.identification, key.protocol, 0, 0]];
    words.as_flattened().iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl<A: Address> Fragments<A> for Frame<'_> {
    fn remember(&self, key: &FragmentKey<A>, ports: u32) {
        self.1.borrow_mut().push((name(key), ports));
    }
    fn recall(&self, key: &FragmentKey<A>) -> Option<u32> {
        self.1.borrow().iter().find(|(known, _)| *known == name(key)).map(|(_, ports)| *ports)
    }
}

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

proptest! {
    #[test]
    fn what_is_plain_is_read_alike_at_a_glance_and_in_full(
        is_v6: bool, first in 0x40u8..0x70, fragment in prop::sample::select(vec![0u16, 0x4000, 0x2000, 1]),
        protocol in prop::sample::select(vec![TCP, UDP, SCTP, ICMP, ICMPV6, 47, HOP_BY_HOP, FRAGMENT]),
        total in prop::sample::select(vec![0u16, 10, 28, 60]), rest in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = vec![0; 14];
        bytes.extend([first, 0]);
        bytes.extend(total.to_be_bytes());
        bytes.extend(if is_v6 { [0, 0, protocol, 64] } else { [0, 0, fragment.to_be_bytes()[0], fragment.to_be_bytes()[1]] });
        bytes.extend([64, protocol]);
        bytes.extend(rest);
        let (frame, again) = (seen(&bytes), seen(&bytes));
        if is_v6 {
            if let Some(packet) = plain_v6(&frame) {
                prop_assert_eq!(Ok(packet), parse_v6(&again));
            }
        } else if let Some(packet) = plain_v4(&frame) {
            prop_assert_eq!(Ok(packet), parse_v4(&again));
        }
    }
}

#[test]
fn most_packets_are_plain() {
    for protocol in [TCP, UDP] {
        assert!(plain_v4(&seen(&ipv4(0, protocol, 0, &[7; 40]))).is_some());
        assert!(plain_v6(&seen(&ipv6(&[], protocol, &[7; 40]))).is_some());
        assert!(plain_v4(&seen(&ipv4(4, protocol, 0, &[7; 40]))).is_none());
        assert!(plain_v4(&seen(&ipv4(0, protocol, MORE_FRAGMENTS, &[7; 40]))).is_none());
        assert!(plain_v4(&seen(&ipv4(0, protocol, 185, &[7; 40]))).is_none());
        assert!(plain_v6(&seen(&ipv6(&[(HOP_BY_HOP, 0)], protocol, &[7; 40]))).is_none());
    }
    for protocol in [ICMP, ICMPV6, SCTP, 47] {
        assert!(plain_v4(&seen(&ipv4(0, protocol, 0, &[7; 40]))).is_none());
        assert!(plain_v6(&seen(&ipv6(&[], protocol, &[7; 40]))).is_none());
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

/// Sends an error back to whoever sent the packet inside it.
fn back(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        frame.copy_within(54..58, 30);
    } else {
        frame.copy_within(70..86, 38);
    }
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
        let packet = parse_v4(&seen(&frame)).unwrap();
        assert_eq!(packet.source, Address4::from_octets([10, 0, 0, 1]));
        assert_eq!(packet.destination, Address4::from_octets([10, 0, 0, 2]));
        assert_eq!(u16::from_be(packet.source_port), 0x1234);
        assert_eq!(u16::from_be(packet.destination_port), 80);
        assert_eq!(packet.tcp_flags, TCP_SYN);
    }
}

#[test]
fn a_later_fragment_has_the_ports_of_its_first_one_whatever_its_payload_says() {
    let later = ipv4(0, TCP, 185, &tcp(TCP_SYN));
    let mut before = seen(&later);
    assert_eq!(parse_v4(&before), Err(DropReason::LostFragment));
    let first = ipv4(0, TCP, 0x2000, &[&[0, 1, 0, 2][..], &[0; 16]].concat());
    before.0 = &first;
    let begin = parse_v4(&before).unwrap();
    before.0 = &later;
    let packet = parse_v4(&before).unwrap();
    assert_eq!((packet.kind, packet.tcp_flags), (Kind::Later, 0));
    assert_eq!(packet.source_port, begin.source_port);
    assert_eq!(u16::from_be(packet.destination_port), 2);
    // Of another packet, by its identification.
    let mut other = later.clone();
    other[19] = 9;
    before.0 = &other;
    assert_eq!(parse_v4(&before), Err(DropReason::LostFragment));
}

#[test]
fn an_echo_is_told_apart_by_its_identifier_and_an_error_is_not() {
    let echo = parse_v4(&seen(&ipv4(0, ICMP, 0, &[8, 0, 0, 0, 0xab, 0xcd, 0, 1]))).unwrap();
    assert_eq!(u16::from_be(echo.source_port), 0xabcd);
    assert_eq!(echo.source_port, echo.destination_port);
    let error = parse_v4(&seen(&ipv4(0, ICMP, 0, &[3, 0, 0, 0, 0xab, 0xcd, 0, 1]))).unwrap();
    assert_eq!(error.source_port, 0);
}

#[test]
fn tcp_over_ipv6_is_read_behind_four_extension_headers_and_not_behind_five() {
    let four = [(HOP_BY_HOP, 0), (DESTINATION_OPTIONS, 2), (ROUTING, 1), (AUTHENTICATION, 1)];
    let packet = parse_v6(&seen(&ipv6(&four, TCP, &tcp(TCP_ACK)))).unwrap();
    assert_eq!(u16::from_be(packet.destination_port), 80);
    assert_eq!(packet.protocol, TCP);
    let five = [(DESTINATION_OPTIONS, 0); 5];
    assert_eq!(parse_v6(&seen(&ipv6(&five, TCP, &tcp(0)))), Err(DropReason::TooManyExtensionHeaders));
}

#[test]
fn a_later_ipv6_fragment_has_the_protocol_and_the_ports_of_its_first_one() {
    let mut frame = ipv6(&[(FRAGMENT, 0)], UDP, &[0, 1, 0, 2, 0, 0, 0, 0]);
    frame[57] = 1;
    let (first, memory) = (frame.clone(), Memory::default());
    let first = Frame(&first, memory);
    assert_eq!(u16::from_be(parse_v6(&first).unwrap().destination_port), 2);
    frame[56..58].copy_from_slice(&(8u16 << 3).to_be_bytes());
    let later = parse_v6(&Frame(&frame, first.1)).unwrap();
    assert_eq!((later.kind, later.protocol, u16::from_be(later.destination_port)), (Kind::Later, UDP, 2));
    assert_eq!(parse_v6(&seen(&frame)), Err(DropReason::LostFragment));
}

#[test]
fn an_error_is_about_the_connection_of_the_packet_inside_turned_round() {
    let inside = &ipv4(4, UDP, 0, &[0x30, 0x39, 0, 53, 0, 0, 0, 0])[14..];
    let frame = back(ipv4(0, ICMP, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], inside].concat()));
    let outer = parse_v4(&seen(&frame)).unwrap();
    assert_eq!((outer.kind, outer.transport), (Kind::Error, 34));
    let error = parse_error_v4(&seen(&frame), outer.transport).unwrap();
    assert_eq!(error.source, Address4::from_octets([10, 0, 0, 2]));
    assert_eq!(error.destination, Address4::from_octets([10, 0, 0, 1]));
    assert_eq!((u16::from_be(error.source_port), u16::from_be(error.destination_port)), (53, 12345));
    assert_eq!((error.protocol, error.inner), (UDP, 34 + 8 + 24));
    assert_eq!(parse_error_v4(&seen(&frame[..64]), 34), Err(DropReason::Truncated));

    let inside = &ipv6(&[(DESTINATION_OPTIONS, 0)], TCP, &[0x30, 0x39, 0, 80, 0, 0, 0, 0])[14..];
    let frame = back(ipv6(&[], ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], inside].concat()));
    let outer = parse_v6(&seen(&frame)).unwrap();
    let error = parse_error_v6(&seen(&frame), outer.transport).unwrap();
    assert_eq!(error.source, Address6::from_octets([0xfe; 16]));
    assert_eq!(error.destination, outer.destination);
    assert_eq!((error.protocol, u16::from_be(error.source_port), error.inner), (TCP, 80, 54 + 8 + 48));
}

#[test]
fn an_error_to_another_than_the_sender_of_the_packet_inside_is_about_nothing() {
    let v4 = &ipv4(0, UDP, 0, &[0x30, 0x39, 0, 53, 0, 0, 0, 0])[14..];
    let v4 = back(ipv4(0, ICMP, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], v4].concat()));
    let v6 = &ipv6(&[], TCP, &[0x30, 0x39, 0, 80, 0, 0, 0, 0])[14..];
    let v6 = back(ipv6(&[], ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], v6].concat()));
    assert!(parse_error_v4(&seen(&v4), 34).is_ok() && parse_error_v6(&seen(&v6), 54).is_ok());
    for at in [30, 33, 54, 57] {
        let mut other = v4.clone();
        other[at] ^= 1;
        assert_eq!(parse_error_v4(&seen(&other), 34).map(|_| ()), Err(DropReason::UnrelatedError), "{at}");
    }
    for at in (38..54).chain(70..86) {
        let mut other = v6.clone();
        other[at] ^= 1;
        assert_eq!(parse_error_v6(&seen(&other), 54).map(|_| ()), Err(DropReason::UnrelatedError), "{at}");
    }
}

#[test]
fn a_header_that_lies_about_its_length_or_version_is_refused() {
    let mut frame = ipv4(0, UDP, 0, &[0; 8]);
    frame[14] = 0x44;
    assert_eq!(parse_v4(&seen(&frame)), Err(DropReason::Truncated));
    frame[14] = 0x65;
    assert_eq!(parse_v4(&seen(&frame)), Err(DropReason::WrongVersion));
    assert_eq!(parse_v6(&seen(&ipv4(40, UDP, 0, &[0; 8]))), Err(DropReason::WrongVersion));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_fail_other_than_with_a_reason(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_v4(&seen(&frame));
        let _ = parse_v6(&seen(&frame));
        for icmp in [34, 54] {
            let _ = parse_error_v4(&seen(&frame), icmp);
            let _ = parse_error_v6(&seen(&frame), icmp);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_before_its_ports_is_truncated(cut in 14usize..48) {
        let frame = ipv4(0, TCP, 0, &tcp(TCP_SYN));
        prop_assert_eq!(parse_v4(&seen(&frame[..cut])), Err(DropReason::Truncated));
    }
}
