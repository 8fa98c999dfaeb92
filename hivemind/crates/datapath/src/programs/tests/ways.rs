//! Every way that a packet takes through a program, with every protocol, whole and in pieces, with options and extension
//! headers, and with the errors that come back.

use super::{
    frames::{cut, refresh, whole, with_headers, without_headers},
    overlay::{FAR_IDENTITY, OTHER, OWN_ADDRESS, far_v6, wrapped},
    sent::{Sent, sum, to_us},
    translation::{FAR, NODE, ON, SERVED, far6, node6, served6},
    *,
};
use hivemind_common::{
    overlay::BYTES,
    packet::{ICMP, ICMPV6, SCTP, UDP},
    service::{Service, ServiceKey},
};

const PORTS: [u16; 2] = [4_000, 80];
/// Extension headers of eight bytes: hop-by-hop options, destination options, routing.
const EXTENSIONS: [u8; 4] = [0, 60, 43, 60];

/// Two addresses: of who sends and of who gets it.
type Ends = [Vec<u8>; 2];

/// A way through a program.
struct Way {
    name: &'static str,
    make: fn() -> Bench,
    program: &'static str,
    /// Whether it comes from another node, in the overlay's headers.
    is_wrapped: bool,
    /// Whether it leaves for one.
    wraps: bool,
    /// Who sends what the way takes to whom.
    sent: fn(bool) -> Ends,
    /// Who sends it to whom, as its receiver sees it.
    seen: fn(bool) -> Ends,
    /// Whether the sender's port becomes another, unless it is SCTP's.
    changes_port: bool,
    /// Whether an echo goes that way too.
    has_echo: bool,
    pass: u32,
    /// What becomes of a packet that cannot be read.
    unread: u32,
    /// The program by which an error about the packet comes back, and what it returns. None where that looks up a route, which a
    /// test run has none of: real sockets show it.
    back: Option<(&'static str, u32)>,
}

fn own(is_v6: bool) -> Vec<u8> {
    if is_v6 { address6(1).octets().to_vec() } else { vec![10, 0, 0, 1] }
}

fn peer(is_v6: bool) -> Vec<u8> {
    if is_v6 { address6(2).octets().to_vec() } else { vec![10, 0, 0, 2] }
}

fn far(is_v6: bool) -> Vec<u8> {
    if is_v6 { far6().to_vec() } else { FAR.to_vec() }
}

fn node(is_v6: bool) -> Vec<u8> {
    if is_v6 { node6().to_vec() } else { NODE.to_vec() }
}

fn served(is_v6: bool) -> Vec<u8> {
    if is_v6 { served6().to_vec() } else { SERVED.to_vec() }
}

/// A replica of another node.
fn remote(is_v6: bool) -> Vec<u8> {
    if is_v6 { far_v6().to_vec() } else { super::overlay::FAR_V4.to_vec() }
}

/// A router somewhere.
fn router(is_v6: bool) -> Vec<u8> {
    far(is_v6).into_iter().map(|byte| byte ^ 1).collect()
}

fn serving(endpoint: u32) -> Bench {
    let mut bench = Bench::new();
    bench.serve(&[endpoint], 0);
    bench
}

/// A node at whose port 80 the endpoint 1 is published.
fn publishing() -> Bench {
    let mut bench = Bench::leading_out();
    bench.serve(&[1], 80);
    let (v4, v6) = (Address4::from_octets(NODE), Address6::from_octets(node6()));
    bench.hash(name::NODE_ADDRESS_V4).insert(v4, 1_u32, 0).unwrap();
    bench.hash(name::NODE_ADDRESS_V6).insert(v6, 1_u32, 0).unwrap();
    for protocol in [TCP, UDP, SCTP] {
        let port = 80_u16.to_be();
        let served = ServiceKey::port(Address4::from_octets(SERVED), port, protocol);
        let service: Service = bench.hash(name::SERVICE_V4).get(&served, 0).unwrap();
        let (v4, v6): (ServiceKey<Address4>, ServiceKey<Address6>) =
            (ServiceKey::published(port, protocol), ServiceKey::published(port, protocol));
        bench.hash(name::SERVICE_V4).insert(v4, service, 0).unwrap();
        bench.hash(name::SERVICE_V6).insert(v6, service, 0).unwrap();
    }
    bench
}

const WAYS: &[Way] = &[
    Way {
        name: "a replica to another of its node",
        make: Bench::new,
        program: name::FROM_REPLICA,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [own(v6), peer(v6)],
        seen: |v6| [own(v6), peer(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "a replica to a service",
        make: || serving(2),
        program: name::FROM_REPLICA,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [own(v6), served(v6)],
        seen: |v6| [own(v6), peer(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "a replica to itself by its service",
        make: || serving(1),
        program: name::FROM_REPLICA,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [own(v6), served(v6)],
        seen: |v6| [if v6 { HAIRPIN_V6.to_vec() } else { HAIRPIN_V4.to_vec() }, own(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        // It comes in by the same interface as what it is about.
        back: Some((name::FROM_REPLICA, REDIRECT)),
    },
    Way {
        name: "a replica to one of another node",
        make: || Bench::with_nodes(OTHER),
        program: name::FROM_REPLICA,
        is_wrapped: false,
        wraps: true,
        sent: |v6| [own(v6), remote(v6)],
        seen: |v6| [own(v6), remote(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "a replica to the outside, by the host's stack",
        make: Bench::leading_out,
        program: name::FROM_REPLICA,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [own(v6), far(v6)],
        seen: |v6| [own(v6), far(v6)],
        changes_port: false,
        has_echo: true,
        pass: OK,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "the outside to a replica, by the host's stack",
        make: Bench::new,
        program: name::TO_REPLICA,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [far(v6), own(v6)],
        seen: |v6| [far(v6), own(v6)],
        changes_port: false,
        has_echo: true,
        pass: OK,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "what the host's stack sends out for a replica",
        make: Bench::leading_out,
        program: name::TO_UNDERLAY,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [own(v6), far(v6)],
        seen: |v6| [node(v6), far(v6)],
        changes_port: true,
        has_echo: true,
        pass: ON,
        unread: SHOT,
        back: Some((name::FROM_UNDERLAY, REDIRECT)),
    },
    Way {
        name: "the outside to a published port",
        make: publishing,
        program: name::FROM_UNDERLAY,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [far(v6), node(v6)],
        seen: |v6| [far(v6), own(v6)],
        changes_port: false,
        has_echo: false,
        pass: REDIRECT,
        unread: ON,
        back: None,
    },
    Way {
        name: "the host's stack to a service",
        make: || serving(2),
        program: name::TO_SERVICE,
        is_wrapped: false,
        wraps: false,
        sent: |v6| [node(v6), served(v6)],
        seen: |v6| [node(v6), peer(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        back: None,
    },
    Way {
        name: "the host's stack to a replica of another node",
        make: || Bench::with_nodes(OTHER),
        program: name::TO_OVERLAY,
        is_wrapped: false,
        wraps: true,
        sent: |v6| [node(v6), remote(v6)],
        seen: |v6| [node(v6), remote(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        // The other node reads it.
        unread: REDIRECT,
        back: None,
    },
    Way {
        name: "another node's replica, brought in the overlay",
        make: || Bench::with_nodes(OTHER),
        program: name::FROM_UNDERLAY,
        is_wrapped: true,
        wraps: false,
        sent: |v6| [remote(v6), own(v6)],
        seen: |v6| [remote(v6), own(v6)],
        changes_port: false,
        has_echo: true,
        pass: REDIRECT,
        unread: SHOT,
        back: None,
    },
];

impl Way {
    /// The packet of a protocol that goes this way, if one does.
    fn sent(&self, is_v6: bool, protocol: u8) -> Option<Sent> {
        let [from, to] = (self.sent)(is_v6);
        let is_echo = protocol == ICMP || protocol == ICMPV6;
        let ports = if is_echo { [PORTS[0]; 2] } else { PORTS };
        // Enough for pieces to be cut from.
        let payload = (0..101).collect();
        (self.has_echo || !is_echo).then(|| Sent { payload, ..Sent::new(&from, &to, protocol, ports) })
    }

    /// What came out for a frame that went in, as an IP packet behind an Ethernet header.
    fn run(&self, bench: &Bench, frame: &[u8]) -> (u32, Vec<u8>) {
        let frame = match (self.is_wrapped, self.program) {
            (true, _) => wrapped(&OTHER, OWN_ADDRESS, FAR_IDENTITY, frame),
            (false, name::FROM_UNDERLAY) => to_us(frame.to_vec()),
            (false, _) => frame.to_vec(),
        };
        let (verdict, mut out) = bench.run_resized(self.program, &frame);
        if self.wraps && verdict == self.pass {
            out.drain(14..14 + BYTES as usize);
        }
        (verdict, out)
    }

    /// Checks that a packet came out as its receiver is to see it, and returns that.
    fn assert_seen(&self, sent: &Sent, out: &[u8], what: &str) -> Sent {
        let seen = sent.read(out);
        let [from, to] = (self.seen)(sent.is_v6);
        assert_eq!((&seen.source, &seen.destination), (&from, &to), "{}, {what}", self.name);
        if self.changes_port && sent.protocol != SCTP {
            assert!((61_000..61_016).contains(&seen.ports[0]), "{}, {what}: {:?}", self.name, seen.ports);
        } else {
            assert_eq!(seen.ports, sent.ports, "{}, {what}", self.name);
        }
        seen
    }
}

/// Calls `test` for every way, family and protocol.
fn everywhere(mut test: impl FnMut(&Way, &Bench, &Sent, &str)) {
    for way in WAYS {
        // Protocols and families are strangers to one another.
        let bench = (way.make)();
        for is_v6 in [false, true] {
            // Before Linux 6.3 IPv6 cannot be taken out of IPv4's headers, and no nodes are joined.
            if is_v6 && way.is_wrapped && crate::requirements::check_overlay().is_err() {
                continue;
            }
            for protocol in [TCP, UDP, SCTP, if is_v6 { ICMPV6 } else { ICMP }] {
                let Some(sent) = way.sent(is_v6, protocol) else { continue };
                let what = format!("IPv{}, protocol {protocol}", if is_v6 { 6 } else { 4 });
                test(way, &bench, &sent, &what);
            }
        }
    }
}

#[test]
fn every_protocol_goes_every_way_that_there_is_for_it_the_second_time_as_the_first() {
    let mut count = 0;
    everywhere(|way, bench, sent, what| {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (verdict, out) = way.run(bench, &sent.frame());
            assert_eq!(verdict, way.pass, "{}, {what}", way.name);
            seen.push(way.assert_seen(sent, &out, what));
        }
        assert_eq!(seen[0], seen[1], "{}, {what}", way.name);
        count += 1;
    });
    // One has no echo; one may not be there for IPv6.
    assert!(count >= 2 * (4 * WAYS.len() - 1) - 4, "{count}");
}

#[test]
fn options_and_extension_headers_are_stepped_over() {
    everywhere(|way, bench, sent, what| {
        for count in 1..=EXTENSIONS.len() {
            // One word of IPv4's, three, and so on, up to all that fit.
            let (kinds, options) = (&EXTENSIONS[..count], [4, 12, 24, 40][count - 1]);
            let frame = with_headers(&sent.frame(), kinds, options);
            let (verdict, out) = way.run(bench, &frame);
            assert_eq!(verdict, way.pass, "{}, {what}, {count} headers", way.name);
            way.assert_seen(sent, &without_headers(&out, kinds, options), what);
        }
    });
}

#[test]
fn a_chain_of_extension_headers_that_is_too_long_ends_the_packet_or_is_left_to_others() {
    let long = [EXTENSIONS[0], EXTENSIONS[1], EXTENSIONS[2], EXTENSIONS[3], EXTENSIONS[1]];
    everywhere(|way, bench, sent, what| {
        if !sent.is_v6 {
            return;
        }
        let before = bench.dropped(DropReason::TooManyExtensionHeaders);
        let frame = with_headers(&sent.frame(), &long, 0);
        let (verdict, out) = way.run(bench, &frame);
        assert_eq!(verdict, way.unread, "{}, {what}", way.name);
        let dropped = bench.dropped(DropReason::TooManyExtensionHeaders) - before;
        assert_eq!(dropped, u64::from(way.unread == SHOT), "{}, {what}", way.name);
        if way.unread == ON {
            assert_eq!(out, to_us(frame), "it was touched");
        }
    });
}

#[test]
fn pieces_follow_their_first_one_and_come_to_a_packet_whose_checksums_are_right() {
    everywhere(|way, bench, sent, what| {
        let pieces = cut(&sent.frame(), 48);
        let seen = pieces.map(|piece| {
            let (verdict, out) = way.run(bench, &piece);
            assert_eq!(verdict, way.pass, "{}, {what}", way.name);
            out
        });
        way.assert_seen(sent, &whole(&seen), what);
    });
}

#[test]
fn a_piece_that_comes_before_its_first_one_is_lost_and_the_first_passes() {
    everywhere(|way, bench, sent, what| {
        let before = bench.dropped(DropReason::LostFragment);
        let [first, later] = cut(&sent.frame(), 48);
        let (verdict, out) = way.run(bench, &later);
        assert_eq!(verdict, way.unread, "{}, {what}", way.name);
        let dropped = bench.dropped(DropReason::LostFragment) - before;
        assert_eq!(dropped, u64::from(way.unread == SHOT), "{}, {what}", way.name);
        if way.unread == ON {
            assert_eq!(out, to_us(later), "it was touched");
        }
        assert_eq!(way.run(bench, &first).0, way.pass, "{}, {what}", way.name);
    });
}

/// Kinds and codes of errors: destination unreachable by port, fragmentation needed or packet too big, time exceeded, parameter
/// problem.
const ERRORS_V4: [[u8; 2]; 4] = [[3, 3], [3, 4], [11, 0], [12, 0]];
const ERRORS_V6: [[u8; 2]; 4] = [[1, 4], [2, 0], [3, 0], [4, 0]];

/// The error that somebody sends about a packet, of which it shows the IP header and eight bytes.
pub(super) fn error(from: &[u8], to: &[u8], [kind, code]: [u8; 2], about: &[u8]) -> Vec<u8> {
    let is_v6 = from.len() == 16;
    let shown = &about[14..14 + if is_v6 { 48 } else { 28 }];
    let protocol = if is_v6 { ICMPV6 } else { ICMP };
    // The writer of frames knows no errors: it is all payload to it, and its checksum is made here.
    let told = Sent {
        protocol,
        payload: [&[kind, code, 0, 0, 0, 0, 5, 0][..], shown].concat(),
        ..Sent::new(from, to, 0, [0; 2])
    };
    let checksum = !told.sum_of(&told.payload);
    let mut frame = Sent { protocol: 0, ..told }.frame();
    let start = if is_v6 { 54 } else { 34 };
    frame[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    frame[if is_v6 { 20 } else { 23 }] = protocol;
    if !is_v6 {
        refresh(&mut frame);
    }
    frame
}

/// Checks the checksums of an error, and that it goes to the sender of this packet and shows it, but for the checksum of its
/// transport header.
fn assert_about(out: &[u8], from: &[u8], to: &[u8], about: &Sent, what: &str) {
    let is_v6 = about.is_v6;
    let (addresses, start) = if is_v6 { (22..54, 54) } else { (26..34, 34) };
    assert_eq!(out[addresses], [from, to].concat(), "{what}: who tells whom");
    if !is_v6 {
        assert_eq!(sum(&out[14..34]), 0xffff, "{what}: the IP header's checksum");
    }
    let protocol = if is_v6 { ICMPV6 } else { ICMP };
    let told = Sent { protocol, ..Sent::new(from, to, 0, [0; 2]) };
    assert_eq!(told.sum_of(&out[start..]), 0xffff, "{what}: the error's checksum");
    let (mut shown, mut expected) = (out[start + 8..].to_vec(), about.frame()[14..].to_vec());
    expected.truncate(shown.len());
    let behind = if is_v6 { 40 } else { 20 };
    let checksum = match about.protocol {
        UDP => Some(behind + 6),
        ICMP | ICMPV6 => Some(behind + 2),
        _ => None,
    };
    for bytes in [&mut shown, &mut expected] {
        if let Some(at) = checksum {
            bytes[at..at + 2].fill(0);
        }
        if !is_v6 {
            bytes[10..12].fill(0);
        }
    }
    assert_eq!(shown, expected, "{what}: what is shown");
}

#[test]
fn errors_about_what_went_a_way_come_back_with_what_its_sender_knows() {
    let mut ways = std::collections::BTreeSet::new();
    everywhere(|way, bench, sent, what| {
        let Some((program, pass)) = way.back else { return };
        // The connection is one that was judged.
        if way.program == name::TO_UNDERLAY {
            assert_eq!(bench.run(name::FROM_REPLICA, &sent.frame()).0, OK);
        }
        let (_, out) = way.run(bench, &sent.frame());
        let seen = way.assert_seen(sent, &out, what);
        for kind in if sent.is_v6 { ERRORS_V6 } else { ERRORS_V4 } {
            let what = format!("{}, {what}, {kind:?}", way.name);
            // A replica tells for itself; a router of somebody far away.
            let teller = if program == name::FROM_REPLICA { own(sent.is_v6) } else { router(sent.is_v6) };
            let told = error(&teller, &seen.source, kind, &out);
            let told = if program == name::FROM_UNDERLAY { to_us(told) } else { told };
            let (verdict, back) = bench.run(program, &told);
            assert_eq!(verdict, pass, "{what}");
            let from = if program == name::FROM_REPLICA { served(sent.is_v6) } else { teller };
            assert_about(&back, &from, &sent.source, sent, &what);
        }
        ways.insert(way.name);
    });
    assert_eq!(ways.len(), 2);
}

#[test]
fn errors_about_what_is_not_translated_pass_untouched_if_the_connection_is_known() {
    for is_v6 in [false, true] {
        for kind in if is_v6 { ERRORS_V6 } else { ERRORS_V4 } {
            let bench = Bench::new();
            // What the one replica sent to the other, and what came from outside by the host's stack.
            let asked = Sent::new(&own(is_v6), &peer(is_v6), TCP, PORTS);
            let out = Sent::new(&own(is_v6), &far(is_v6), UDP, PORTS);
            let came = Sent::new(&far(is_v6), &own(is_v6), UDP, [53, 54]);
            let answered = Sent::new(&peer(is_v6), &own(is_v6), UDP, [55, 56]);
            for (program, sent, pass, told, to) in [
                // The first asks the other; the error is the first one's own, about an answer.
                (name::FROM_REPLICA, &asked, REDIRECT, asked.answer(), peer(is_v6)),
                (name::FROM_REPLICA, &out, OK, out.answer(), far(is_v6)),
                (name::FROM_REPLICA, &came, OK, came.clone(), far(is_v6)),
                (name::FROM_REPLICA, &answered, REDIRECT, answered.clone(), peer(is_v6)),
            ] {
                let told = error(&own(is_v6), &to, kind, &told.frame());
                let before = bench.dropped(DropReason::UnrelatedError);
                let stranger = bench.run(program, &told).0;
                assert_eq!((stranger, bench.dropped(DropReason::UnrelatedError)), (SHOT, before + 1));
                // From here on it is known, by whichever side sent first.
                let first = if sent.source == own(is_v6) { sent.clone() } else { sent.answer() };
                bench.run(program, &first.frame());
                let (verdict, passed) = bench.run(program, &told);
                assert_eq!((verdict, &passed[14..]), (pass, &told[14..]), "{kind:?} {sent:?}");
            }
            // To a replica by the host's stack, of a router.
            let sent = Sent::new(&own(is_v6), &far(is_v6), UDP, PORTS);
            let told = error(&router(is_v6), &own(is_v6), kind, &sent.frame());
            assert_eq!(bench.run(name::TO_REPLICA, &told), (OK, told));
        }
    }
}
