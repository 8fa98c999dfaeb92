//! Translation, packet by packet: there, and back.

use super::{
    properties::{CASES, holds},
    sent::{Sent, sum, to_us},
    *,
};
use hivemind_common::{
    conntrack::MASQUERADED,
    packet::{ICMP, ICMPV6, SCTP, UDP},
    service::{BACKEND_ACTIVE, Backend, Cell, SERVICE_EVERY_PORT, Service, ServiceKey},
    translation::{Translation, Uplink},
};
use proptest::prelude::*;

/// `TC_ACT_UNSPEC`: it goes on.
pub(super) const ON: u32 = u32::MAX;
pub(super) const NODE: [u8; 4] = [192, 0, 2, 1];
pub(super) const FAR: [u8; 4] = [198, 51, 100, 7];
pub(super) const SERVED: [u8; 4] = [10, 204, 0, 1];

pub(super) fn node6() -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
}

pub(super) fn far6() -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
}

pub(super) fn served6() -> [u8; 16] {
    let mut octets = super::SERVICES_V6;
    octets[15] = 1;
    octets
}

impl Bench {
    /// As [`Bench::new`], and the interface of the test run leads out.
    pub(super) fn leading_out() -> Self {
        let mut bench = Self::new();
        let uplink = Uplink { ipv4: Address4::from_octets(NODE), ipv6: Address6::from_octets(node6()) };
        bench.hash(name::UPLINK).insert(INTERFACE, uplink, 0).unwrap();
        bench
    }

    /// A service with these endpoints of [`Bench`], whose port 80 is their `target`; on every port if that is zero.
    pub(super) fn serve(&mut self, endpoints: &[u32], target: u16) {
        let service = Service {
            id: 7,
            flags: if target == 0 { SERVICE_EVERY_PORT } else { 0 },
            table_base: 0,
            table_size: endpoints.len() as u32,
            target_port: target.to_be(),
            backends: endpoints.len() as u16,
            affinity_s: 0,
        };
        for (cell, &endpoint) in (0..).zip(endpoints) {
            self.array(name::SERVICE_TABLE).set(cell, Cell { backend: endpoint, service: 7 }, 0).unwrap();
            let ipv4 = Address4::from_octets([10, 0, 0, endpoint as u8]);
            let ipv6 = address6(endpoint as u8);
            self.hash(name::BACKEND_V4).insert(endpoint, backend(ipv4), 0).unwrap();
            self.hash(name::BACKEND_V6).insert(endpoint, backend(ipv6), 0).unwrap();
        }
        let (v4, v6) = (Address4::from_octets(SERVED), Address6::from_octets(served6()));
        if target == 0 {
            self.hash(name::SERVICE_V4).insert(ServiceKey::every_port(v4), service, 0).unwrap();
            self.hash(name::SERVICE_V6).insert(ServiceKey::every_port(v6), service, 0).unwrap();
        } else {
            for protocol in [TCP, UDP, SCTP] {
                let (v4, v6) = (
                    ServiceKey::port(v4, 80_u16.to_be(), protocol),
                    ServiceKey::port(v6, 80_u16.to_be(), protocol),
                );
                self.hash(name::SERVICE_V4).insert(v4, service, 0).unwrap();
                self.hash(name::SERVICE_V6).insert(v6, service, 0).unwrap();
            }
        }
    }

    fn forget_services(&mut self) {
        self.clear::<ServiceKey<Address4>, Service>(name::SERVICE_V4);
        self.clear::<ServiceKey<Address6>, Service>(name::SERVICE_V6);
    }

    pub(super) fn records(&mut self) -> usize {
        let v4 = self.hash::<Key<Address4>, Translation<Address4>>(name::TRANSLATION_V4).keys().count();
        v4 + self.hash::<Key<Address6>, Translation<Address6>>(name::TRANSLATION_V6).keys().count()
    }
}

fn backend<A>(address: A) -> Backend<A> {
    Backend { address, port: 0, state: BACKEND_ACTIVE, weight: 1, padding: 0, service: 7 }
}

#[test]
fn what_leaves_comes_back_as_if_it_had_never_been_translated() {
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    let strategy = (any::<bool>(), 0_usize..4, any::<[u16; 2]>(), payload);
    holds(CASES, Bench::leading_out(), &strategy, |bench, (is_v6, kind, ports, payload)| {
        bench.forget_connections();
        let protocol = [TCP, UDP, SCTP, if is_v6 { ICMPV6 } else { ICMP }][kind];
        let ports = match kind {
            3 => [ports[0].max(1); 2],
            _ => ports,
        };
        let (own, far, node) = if is_v6 {
            (address6(1).octets().to_vec(), far6().to_vec(), node6().to_vec())
        } else {
            (vec![10, 0, 0, 1], FAR.to_vec(), NODE.to_vec())
        };
        let sent = Sent { payload, ..Sent::new(&own, &far, protocol, ports) };
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (verdict, out) = bench.run(name::TO_UNDERLAY, &sent.frame());
            prop_assert_eq!(verdict, ON);
            seen.push(sent.read(&out));
        }
        prop_assert_eq!(&seen[0], &seen[1], "each packet of a flow is translated alike");
        prop_assert_eq!(&seen[0].source, &node);
        prop_assert_eq!(&seen[0].destination, &far);
        match kind {
            2 => prop_assert_eq!(seen[0].ports, ports),
            3 => prop_assert!((61_000..61_016).contains(&seen[0].ports[0])),
            _ => {
                prop_assert!((61_000..61_016).contains(&seen[0].ports[0]));
                prop_assert_eq!(seen[0].ports[1], ports[1]);
            }
        }
        prop_assert_eq!(bench.records(), 2);
        let answer = seen[0].answer();
        let (verdict, out) = bench.run(name::FROM_UNDERLAY, &to_us(answer.frame()));
        prop_assert_eq!(verdict, REDIRECT);
        prop_assert_eq!(answer.read(&out), sent.answer());
        Ok(())
    });
}

#[test]
fn a_replica_and_its_service_speak_to_one_another_as_they_think() {
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    let strategy = (any::<bool>(), 0_usize..3, 1_024_u16.., payload);
    holds(CASES, Bench::new(), &strategy, |bench, (is_v6, kind, port, payload)| {
        // It meets itself: both directions come in by the interface of the test run.
        bench.forget_connections();
        bench.forget_services();
        let protocol = [TCP, UDP, if is_v6 { ICMPV6 } else { ICMP }][kind];
        bench.serve(&[1], if kind == 2 { 0 } else { 8080 });
        let (own, served, itself) = if is_v6 {
            (address6(1).octets().to_vec(), served6().to_vec(), HAIRPIN_V6.to_vec())
        } else {
            (vec![10, 0, 0, 1], SERVED.to_vec(), HAIRPIN_V4.to_vec())
        };
        let ports = if kind == 2 { [port; 2] } else { [port, 80] };
        let sent = Sent { payload, ..Sent::new(&own, &served, protocol, ports) };
        let (verdict, out) = bench.run(name::FROM_REPLICA, &sent.frame());
        prop_assert_eq!(verdict, REDIRECT);
        let taken = sent.read(&out);
        prop_assert_eq!((&taken.source, &taken.destination), (&itself, &own));
        if kind != 2 {
            prop_assert_eq!(taken.ports, [port, 8080]);
        }
        for generation in [12, 13] {
            let (verdict, out) = bench.run(name::FROM_REPLICA, &taken.answer().frame());
            prop_assert_eq!(verdict, REDIRECT);
            prop_assert_eq!(taken.answer().read(&out), sent.answer());
            // The connection is judged anew, and the answer is the first that comes.
            bench.set_generation(1, generation);
        }
        let entries =
            bench.connections().len() + bench.hash::<Key<Address6>, Entry>(name::CONNTRACK_V6).keys().count();
        prop_assert_eq!(entries, 1, "one connection is one entry");
        Ok(())
    });
}

#[test]
fn two_connections_to_one_destination_never_share_a_port_and_a_seventeenth_finds_none() {
    let bench = Bench::leading_out();
    let mut ports = std::collections::HashSet::new();
    for port in 1..=16 {
        let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [port, 443]);
        let (verdict, out) = bench.run(name::TO_UNDERLAY, &sent.frame());
        assert_eq!(verdict, ON);
        assert!(ports.insert(sent.read(&out).ports[0]), "{ports:?}");
    }
    let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [17, 443]);
    assert_eq!(bench.run(name::TO_UNDERLAY, &sent.frame()).0, SHOT);
    assert_eq!(bench.dropped(DropReason::NoPort), 1);
    // To another destination all of them are free.
    let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [17, 444]);
    assert_eq!(bench.run(name::TO_UNDERLAY, &sent.frame()).0, ON);
}

#[test]
fn a_full_table_refuses_the_new_and_leaves_the_old() {
    let bench = Bench::leading_out();
    let frame = |port| Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, port]).frame();
    // Sixty-four records are thirty-two connections.
    let passed = (1..=100).filter(|&port| bench.run(name::TO_UNDERLAY, &frame(port)).0 == ON).count();
    assert_eq!(passed, 32);
    assert_eq!(bench.dropped(DropReason::TranslationFull), 68);
    assert_eq!(bench.run(name::TO_UNDERLAY, &frame(1)).0, ON);
}

#[test]
fn no_internal_address_leaves_where_there_is_no_other_and_nothing_else_is_touched() {
    let mut bench = Bench::new();
    let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, 443]);
    assert_eq!(bench.run(name::TO_UNDERLAY, &sent.frame()).0, SHOT);
    assert_eq!(bench.dropped(DropReason::InternalAddress), 1);
    let mut unmasked = LpmTrie::try_from(bench.ebpf.map_mut(name::UNMASKED_V4).unwrap()).unwrap();
    unmasked
        .insert(&aya::maps::lpm_trie::Key::new(24, Address4::from_octets([198, 51, 100, 0])), 1u32, 0)
        .unwrap();
    let foreign = Sent::new(&[172, 17, 0, 2], &FAR, TCP, [1, 443]);
    for sent in [sent, foreign] {
        assert_eq!(bench.run(name::TO_UNDERLAY, &sent.frame()), (ON, sent.frame()));
    }
    assert_eq!(bench.records(), 0);
}

#[test]
fn what_comes_in_for_nobody_of_ours_goes_on_untouched() {
    let mut bench = Bench::leading_out();
    bench.serve(&[1], 8080);
    for port in [22, 80, 61_003] {
        let frame = to_us(Sent::new(&FAR, &NODE, TCP, [443, port]).frame());
        assert_eq!(bench.run(name::FROM_UNDERLAY, &frame), (ON, frame));
    }
    assert_eq!(bench.records(), 0);
}

#[test]
fn a_later_fragment_goes_where_its_first_one_went_and_a_lost_one_nowhere() {
    let bench = Bench::leading_out();
    let whole = Sent { payload: vec![7; 40], ..Sent::new(&[10, 0, 0, 1], &FAR, UDP, [1_000, 53]) };
    let mut first = whole.frame();
    let mut later = whole.frame();
    for (frame, field, id) in [(&mut first, 0x2000_u16, 5), (&mut later, 6, 5)] {
        frame[19] = id;
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        frame[24..26].fill(0);
        let header = sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&(!header).to_be_bytes());
    }
    assert_eq!(bench.run(name::TO_UNDERLAY, &later).0, SHOT);
    assert_eq!(bench.dropped(DropReason::LostFragment), 1);
    assert_eq!(bench.run(name::TO_UNDERLAY, &first).0, ON);
    let (verdict, out) = bench.run(name::TO_UNDERLAY, &later);
    assert_eq!((verdict, &out[26..30]), (ON, &NODE[..]));
    assert_eq!(sum(&out[14..34]), 0xffff);
    assert_eq!(out[34..], later[34..], "its payload is no header");
}

#[test]
fn a_service_without_a_backend_is_answered_for() {
    let mut bench = Bench::new();
    bench.serve(&[], 8080);
    for is_v6 in [false, true] {
        let (own, served) = if is_v6 {
            (address6(1).octets().to_vec(), served6().to_vec())
        } else {
            (vec![10, 0, 0, 1], SERVED.to_vec())
        };
        let sent = Sent::new(&own, &served, TCP, [4_000, 80]);
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &sent.frame());
        assert_eq!(verdict, REDIRECT);
        let start = if is_v6 { 54 } else { 34 };
        let (addresses, answer) = (if is_v6 { 22..54 } else { 26..34 }, sent.answer());
        assert_eq!(out[addresses], [&served[..], &own].concat());
        assert_eq!(out[start..start + 4], [0, 80, 15, 160]);
        assert_eq!(answer.sum_of(&out[start..]), 0xffff);
        assert_eq!((out.len(), out[start + 13]), (start + 20, TCP_RST | TCP_ACK));
        let sent = Sent::new(&own, &served, UDP, [4_000, 80]);
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &sent.frame());
        assert_eq!(verdict, REDIRECT);
        let quoted = if is_v6 { 48 } else { 28 };
        assert_eq!(out[start..start + 2], if is_v6 { [1, 4] } else { [3, 3] });
        assert_eq!(out[start + 8..], sent.frame()[14..14 + quoted]);
    }
    assert_eq!(bench.dropped(DropReason::NoBackend), 4);
}

#[test]
fn an_error_about_a_translated_packet_is_translated_with_what_it_shows() {
    for is_v6 in [false, true] {
        let bench = Bench::leading_out();
        let (own, far, router) = if is_v6 {
            (
                address6(1).octets().to_vec(),
                far6().to_vec(),
                [far6(), node6()][0].map(|byte| byte ^ 1).to_vec(),
            )
        } else {
            (vec![10, 0, 0, 1], FAR.to_vec(), vec![203, 0, 113, 9])
        };
        let sent = Sent::new(&own, &far, UDP, [1_000, 53]);
        assert_eq!(bench.run(name::FROM_REPLICA, &sent.frame()).0, OK, "the host's stack routes here");
        let (_, out) = bench.run(name::TO_UNDERLAY, &sent.frame());
        let seen = sent.read(&out);
        // A router on the way tells the node, and shows it what it got.
        let error = |of: &[u8]| {
            let header = if is_v6 { [2, 0, 0, 0, 0, 0, 5, 0] } else { [3, 4, 0, 0, 0, 0, 5, 0] };
            [&header[..], &of[14..14 + if is_v6 { 48 } else { 28 }]].concat()
        };
        let tell = |from: &[u8], to: &[u8], of: &[u8]| {
            // Of no protocol that the writer of frames knows: it is all payload, and its checksum is made here.
            let protocol = if is_v6 { ICMPV6 } else { ICMP };
            let mut told = Sent { payload: error(of), ..Sent::new(from, to, 0, [0; 2]) };
            told.protocol = protocol;
            let checksum = !told.sum_of(&told.payload);
            let mut frame = Sent { protocol: 0, ..told.clone() }.frame();
            let start = if is_v6 { 54 } else { 34 };
            frame[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
            frame[if is_v6 { 20 } else { 23 }] = protocol;
            if !is_v6 {
                frame[24..26].fill(0);
                let header = sum(&frame[14..34]);
                frame[24..26].copy_from_slice(&(!header).to_be_bytes());
            }
            (told, frame)
        };
        let (told, frame) = tell(&router, &seen.source, &out);
        let (verdict, out) = bench.run(name::FROM_UNDERLAY, &to_us(frame));
        assert_eq!(verdict, REDIRECT);
        let start = if is_v6 { 54 } else { 34 };
        let inner = Sent { source: router, destination: own, ..told };
        assert_eq!(inner.sum_of(&out[start..]), 0xffff, "the error's checksum");
        let addresses = if is_v6 { 22..54 } else { 26..34 };
        assert_eq!(out[addresses], [&inner.source[..], &inner.destination].concat());
        // The packet inside is the replica's own, but for its transport's checksum, which nobody looks at.
        let (shown, own) = (&out[start + 8..], &sent.frame()[14..]);
        assert_eq!(shown[..shown.len() - 2], own[..shown.len() - 2]);
        // Of a connection that nobody has there are no errors.
        let strange = Sent::new(&inner.destination, &inner.source, UDP, [9, 9]).frame();
        let (_, frame) = tell(&inner.source, &inner.destination, &strange);
        let before = bench.dropped(DropReason::UnrelatedError);
        assert_eq!(bench.run(name::TO_REPLICA, &frame).0, SHOT);
        assert_eq!(bench.dropped(DropReason::UnrelatedError), before + 1);
    }
}

#[test]
fn sctp_is_translated_as_long_as_its_ports_stay() {
    let mut bench = Bench::new();
    bench.serve(&[2], 80);
    let sent = Sent::new(&[10, 0, 0, 1], &SERVED, SCTP, [4_000, 80]);
    let (verdict, out) = bench.run(name::FROM_REPLICA, &sent.frame());
    assert_eq!(verdict, REDIRECT);
    assert_eq!(sent.read(&out).destination, [10, 0, 0, 2]);
    assert_eq!(out[34..], sent.frame()[34..], "its checksum covers no address");
    let mut bench = Bench::new();
    bench.serve(&[2], 8080);
    assert_eq!(bench.run(name::FROM_REPLICA, &sent.frame()).0, SHOT);
    assert_eq!(bench.dropped(DropReason::Rewrite), 1);
}

#[test]
fn a_client_keeps_its_own_connection_with_an_endpoint_apart_from_that_by_the_service() {
    let mut bench = Bench::new();
    bench.serve(&[2], 80);
    let direct = Sent::new(&[10, 0, 0, 1], &[10, 0, 0, 2], TCP, [4_000, 80]);
    assert_eq!(bench.run(name::FROM_REPLICA, &direct.frame()).0, REDIRECT);
    let served = Sent::new(&[10, 0, 0, 1], &SERVED, TCP, [4_000, 80]);
    let (verdict, out) = bench.run(name::FROM_REPLICA, &served.frame());
    assert_eq!(verdict, REDIRECT);
    assert_ne!(served.read(&out).ports[0], 4_000);
    assert_eq!(bench.connections().len(), 2);
}

#[test]
fn a_connection_that_is_over_makes_room_for_another_under_its_tuple() {
    let mut bench = Bench::new();
    bench.serve(&[2], 80);
    let direct = Sent::new(&[10, 0, 0, 1], &[10, 0, 0, 2], TCP, [4_000, 80]);
    let served = Sent::new(&[10, 0, 0, 1], &SERVED, TCP, [4_000, 80]);
    let reset = |sent: &Sent| Sent { tcp_flags: TCP_RST, ..sent.clone() }.frame();
    // To the endpoint itself, then by the service, then again to the endpoint.
    assert_eq!(bench.run(name::FROM_REPLICA, &direct.frame()).0, REDIRECT);
    assert_eq!(bench.run(name::FROM_REPLICA, &reset(&direct)).0, REDIRECT);
    let (verdict, out) = bench.run(name::FROM_REPLICA, &served.frame());
    assert_eq!((verdict, served.read(&out).ports[0]), (REDIRECT, 4_000));
    assert_eq!(bench.run(name::FROM_REPLICA, &reset(&served)).0, REDIRECT);
    let (verdict, out) = bench.run(name::FROM_REPLICA, &direct.frame());
    assert_eq!((verdict, &out[14..]), (REDIRECT, &direct.frame()[14..]));
    assert_eq!((bench.records(), bench.connections().len()), (0, 1));
}

#[test]
fn a_connection_with_an_endpoint_itself_steps_aside_for_that_by_the_service() {
    for protocol in [TCP, UDP] {
        let mut bench = Bench::new();
        bench.serve(&[2], 80);
        let ack = |sent: &Sent| Sent { tcp_flags: TCP_ACK, ..sent.clone() };
        let served = Sent::new(&[10, 0, 0, 1], &SERVED, protocol, [4_000, 80]);
        let (verdict, out) = bench.run(name::FROM_REPLICA, &served.frame());
        assert_eq!((verdict, served.read(&out).ports), (REDIRECT, [4_000, 80]));
        // Under the tuple that the endpoint knows already.
        let direct = Sent::new(&[10, 0, 0, 1], &[10, 0, 0, 2], protocol, [4_000, 80]);
        let (verdict, out) = bench.run(name::FROM_REPLICA, &direct.frame());
        let first = direct.read(&out);
        assert_eq!((verdict, &first.destination[..]), (REDIRECT, &[10, 0, 0, 2][..]));
        assert_ne!(first.ports[0], 4_000);
        // It keeps its port, and the service's connection hears nothing of it.
        for (sent, ports) in [(ack(&direct), first.ports), (ack(&served), [4_000, 80])] {
            let (verdict, out) = bench.run(name::FROM_REPLICA, &sent.frame());
            assert_eq!((verdict, sent.read(&out).ports), (REDIRECT, ports));
        }
        let mut packets: Vec<_> = bench.connections().iter().map(|entry| entry.packets).collect();
        packets.sort_unstable();
        assert_eq!(packets, [[2, 0], [2, 0]]);
        assert_eq!((bench.records(), bench.connections().len()), (4, 2));
    }
}

#[test]
fn whoever_was_asked_from_outside_answers_under_its_own_address_when_it_is_judged_anew() {
    for protocol in [TCP, UDP, ICMP] {
        let mut bench = Bench::new();
        let ports = if protocol == ICMP { [4_000; 2] } else { [4_000, 80] };
        let asked = Sent::new(&FAR, &[10, 0, 0, 1], protocol, ports);
        assert_eq!(bench.run(name::TO_REPLICA, &asked.frame()).0, OK);
        for generation in [12, 13] {
            let (verdict, out) = bench.run(name::FROM_REPLICA, &asked.answer().frame());
            assert_eq!((verdict, out), (OK, asked.answer().frame()));
            let flags: Vec<_> = bench.connections().iter().map(|entry| entry.flags & MASQUERADED).collect();
            assert_eq!(flags, [0]);
            bench.set_generation(1, generation);
        }
    }
}

#[test]
fn records_that_are_made_while_unused_ones_are_collected_stay() {
    let mut bench = Bench::new();
    bench.serve(&[2], 80);
    let sent = Sent::new(&[10, 0, 0, 1], &SERVED, UDP, [4_000, 80]);
    assert_eq!(bench.run(name::FROM_REPLICA, &sent.frame()).0, REDIRECT);
    // Of a packet that comes when a collection has looked at the clock, and whose connection is not written yet.
    let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
    for key in connections.keys().collect::<Result<Vec<_>, _>>().unwrap() {
        connections.remove(&key).unwrap();
    }
    let used = |bench: &mut Bench, used_ns| {
        let mut records = bench.hash::<Key<Address4>, Translation<Address4>>(name::TRANSLATION_V4);
        for (key, record) in records.iter().collect::<Result<Vec<_>, _>>().unwrap() {
            records.insert(key, Translation { used_ns, ..record }, 0).unwrap();
        }
    };
    used(&mut bench, u64::MAX / 2);
    bench.run(name::COLLECT, &sent.frame());
    assert_eq!(bench.records(), 2);
    used(&mut bench, 1);
    bench.run(name::COLLECT, &sent.frame());
    assert_eq!(bench.records(), 0);
}

#[test]
fn a_spoofed_source_gets_no_translation() {
    let mut bench = Bench::new();
    bench.serve(&[2], 80);
    let spoofed = Sent::new(&[10, 0, 0, 9], &SERVED, TCP, [4_000, 80]);
    assert_eq!(bench.run(name::FROM_REPLICA, &spoofed.frame()).0, SHOT);
    assert_eq!((bench.dropped(DropReason::SpoofedSource), bench.records()), (1, 0));
}
