//! What the programs count and tell.

use super::policy::{closed, rule, say, value};
use super::*;
use hivemind_common::{
    endpoint::NO_GENERATION,
    policy::{ALLOW, DENY, EGRESS, rule_number},
    telemetry::{EVENT_CLOSED, EVENT_DROPPED, EVENT_NEW, event_class},
};
use hivemind_policy::Transport;

const UDP: u8 = 17;
const ANYBODY: [u8; 4] = [198, 51, 100, 7];
const WORLD: u32 = 2;

fn out(protocol: u8, ports: [u16; 2], flags: u8) -> Vec<u8> {
    frame_v4([10, 0, 0, 1], ANYBODY, protocol, ports, flags)
}

fn back(protocol: u8, ports: [u16; 2], flags: u8) -> Vec<u8> {
    frame_v4(ANYBODY, [10, 0, 0, 1], protocol, [ports[1], ports[0]], flags)
}

#[test]
fn a_connection_is_told_when_it_begins_and_when_it_ends_with_exact_totals() {
    let mut bench = Bench::new();
    let mut tables = closed(EGRESS);
    say(&mut tables, EGRESS | WORLD, Transport::Any, value(ALLOW, 1, rule(3)));
    bench.set_policy(1, &tables);
    let ports = [40_000, 80];
    let sent = [out(TCP, ports, TCP_SYN), out(TCP, ports, TCP_ACK), out(TCP, ports, TCP_FIN | TCP_ACK)];
    let mut long = back(TCP, ports, TCP_ACK);
    long.extend([0; 500]);
    let answers = [back(TCP, ports, TCP_SYN | TCP_ACK), long, back(TCP, ports, TCP_FIN | TCP_ACK)];
    for (frame, answer) in sent.iter().zip(&answers) {
        assert_eq!(bench.run(name::FROM_REPLICA, frame).0, OK);
        assert_eq!(bench.run(name::TO_REPLICA, answer).0, OK);
    }
    // After its end it is not told again.
    assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP, ports, TCP_ACK)).0, OK);
    let ip_bytes = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame.len() as u64 - 14).sum::<u64>();
    let events = bench.events();
    let [begun, closed] = events[..] else { panic!("{events:?}") };
    assert_eq!((begun.kind, closed.kind), (EVENT_NEW, EVENT_CLOSED));
    assert_eq!((closed.bytes, closed.packets), ([ip_bytes(&sent), ip_bytes(&answers)], [3, 3]));
    for event in [begun, closed] {
        assert_eq!(event.identities, [identity(1), WORLD]);
        assert_eq!(event.ports.map(u16::from_be), ports);
        assert_eq!((event.family, event.protocol, event.rules), (4, TCP, [rule(3), 0]));
        assert_eq!(event.addresses[0][0], u32::from_ne_bytes([10, 0, 0, 1]));
        assert_eq!(event.addresses[1][0], u32::from_ne_bytes(ANYBODY));
    }
    assert_eq!(closed.began_ns, begun.began_ns);
    let pairs = bench.pairs();
    let key = PairKey {
        source: identity(1),
        destination: WORLD,
        port: 80_u16.to_be(),
        protocol: TCP,
        verdict: ALLOW,
    };
    let (_, totals) = pairs.iter().find(|(found, _)| *found == key).unwrap();
    assert_eq!(totals.bytes, [ip_bytes(&sent) + 40, ip_bytes(&answers)]);
    assert_eq!((totals.packets, totals.connections), ([4, 3], 1));
}

/// Runs a program on a frame that the kernel is to cut into segments of `size` bytes each, of which it says how many there are,
/// or not yet (0).
fn run_uncut(bench: &Bench, program: &str, frame: &[u8], size: u32, segments: u32) {
    // Where `struct __sk_buff` of <linux/bpf.h> says so.
    const GSO_SEGS: usize = 164;
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    context[GSO_SEGS..][..4].copy_from_slice(&segments.to_ne_bytes());
    context[GSO_SIZE..][..4].copy_from_slice(&size.to_ne_bytes());
    let options =
        TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat: 1, ..TestRunOptions::new() };
    let verdict = bench.program(program).test_run(options).unwrap().return_value;
    assert_eq!(verdict, OK, "{program}");
}

#[test]
fn what_the_kernel_cuts_later_counts_as_the_segments_with_the_headers_of_each() {
    let ports = [40_000, 80];
    for (protocol, headers) in [(TCP, [20 + 20, 20 + 32]), (UDP, [20 + 8, 20 + 8])] {
        // Of a first packet, and of a later one; the kernel has counted the segments, or not yet.
        for counted in [3, 0] {
            let mut bench = Bench::new();
            let frames = [out(protocol, ports, TCP_ACK), back(protocol, ports, TCP_ACK)];
            let sizes = frames.each_ref().map(|frame| frame.len() as u64 - 14);
            bench.run(name::FROM_REPLICA, &frames[0]);
            bench.run(name::TO_REPLICA, &frames[1]);
            let [mut long, mut long_back] = frames;
            // An answer whose TCP header has options.
            long_back[46] = 0x80;
            long.resize(14 + headers[0] + 2_900, 0);
            long_back.resize(14 + headers[1] + 2_001, 0);
            run_uncut(&bench, name::FROM_REPLICA, &long, 1_000, counted);
            run_uncut(&bench, name::TO_REPLICA, &long_back, 1_000, counted);
            let pairs = bench.pairs();
            let (_, totals) = pairs.iter().find(|(key, _)| key.protocol == protocol).unwrap();
            assert_eq!(totals.packets, [1 + 3, 1 + 3], "{protocol}, {counted} counted");
            let bytes = [2_900 + 3 * headers[0] as u64, 2_001 + 3 * headers[1] as u64];
            assert_eq!(
                totals.bytes,
                [sizes[0] + bytes[0], sizes[1] + bytes[1]],
                "{protocol}, {counted} counted"
            );
            let [entry] = bench.connections()[..] else { panic!("not one entry") };
            assert_eq!(entry.packets, [4, 4]);
            assert_eq!(entry.bytes.iter().sum::<u64>(), totals.bytes.iter().sum::<u64>());
        }
        // A connection that begins with one.
        let mut bench = Bench::new();
        let mut first = out(protocol, ports, TCP_ACK);
        first.resize(14 + headers[0] + 2_000, 0);
        run_uncut(&bench, name::FROM_REPLICA, &first, 1_000, 2);
        let [entry] = bench.connections()[..] else { panic!("not one entry") };
        let bytes = 2_000 + 2 * headers[0] as u64;
        assert!(entry.packets.contains(&2) && entry.bytes.contains(&bytes), "{entry:?}");
        let pairs = bench.pairs();
        let (_, totals) = pairs.iter().find(|(key, _)| key.protocol == protocol).unwrap();
        assert_eq!((totals.packets, totals.bytes), ([2, 0], [bytes, 0]));
    }
}

#[test]
fn what_fills_up_a_short_frame_does_not_count() {
    let mut bench = Bench::new();
    let [mut first, mut answer] = [out(UDP, [40_000, 53], 0), back(UDP, [40_000, 53], 0)];
    // Of 29 and of 46 bytes, as a network card brings them.
    first[17] = 29;
    first.resize(60, 0);
    answer.resize(60, 0);
    answer[17] = 46;
    assert_eq!(bench.run(name::FROM_REPLICA, &first).0, OK);
    assert_eq!(bench.run(name::TO_REPLICA, &answer).0, OK);
    assert_eq!(bench.run(name::FROM_REPLICA, &first).0, OK);
    let pairs = bench.pairs();
    let (_, totals) = pairs.iter().find(|(key, _)| key.protocol == UDP).unwrap();
    assert_eq!((totals.bytes, totals.packets), ([2 * 29, 46], [2, 1]));
}

#[test]
fn what_is_denied_is_told_with_its_rule_and_counted_for_its_pair() {
    let mut bench = Bench::new();
    bench.set_policy(1, &closed(EGRESS));
    for _ in 0..3 {
        assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP, [40_000, 80], TCP_SYN)).0, SHOT);
    }
    let events = bench.events();
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!((event.kind, event.reason), (EVENT_DROPPED, DropReason::PolicyEgress as u8));
        assert_eq!((event.identities, event.rules[0]), ([identity(1), WORLD], rule_number(5, EGRESS, None)));
        assert_eq!((event.interface, event.began_ns), (INTERFACE, 0));
    }
    let pairs = bench.pairs();
    let (_, totals) = pairs.iter().find(|(key, _)| key.verdict == DENY).unwrap();
    assert_eq!((totals.bytes, totals.packets, totals.connections), ([120, 0], [3, 0], 3));
}

#[test]
fn pairs_that_find_no_number_count_together() {
    let mut bench = Bench::new();
    let mut bytes = 0;
    // 15 numbers; the table itself holds 16 pairs.
    for port in 1..=25 {
        let frame = out(UDP, [40_000, port], 0);
        bytes += frame.len() as u64 - 14;
        bench.run(name::FROM_REPLICA, &frame);
        let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
        let keys: Vec<_> = connections.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| connections.remove(key).unwrap());
    }
    let pairs = bench.pairs();
    assert_eq!(pairs.len(), 15 + 1);
    let (_, other) = pairs.last().unwrap();
    assert_eq!((other.connections, other.packets), (10, [10, 0]));
    assert_eq!(pairs.iter().map(|(_, totals)| totals.bytes[0]).sum::<u64>(), bytes);
}

#[test]
fn every_reason_to_drop_has_an_event_of_its_own() {
    let mut bench = Bench::new();
    for (frame, reason) in faults() {
        let class = event_class(EVENT_DROPPED, reason as u8);
        let (told, _) = bench.budget(class);
        assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, SHOT, "{}", reason.name());
        let events = bench.events();
        let [event] = events[..] else { panic!("{}: {events:?}", reason.name()) };
        assert_eq!((event.kind, event.reason), (EVENT_DROPPED, reason as u8));
        assert_eq!(bench.budget(class), (told + 1, 0));
    }
    bench.set_policy(1, &closed(EGRESS));
    bench.run(name::FROM_REPLICA, &tcp_v6(1, 2));
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!((event.family, event.reason), (6, DropReason::PolicyEgress as u8));
    bench.erase_policy(bench.generation, &closed(EGRESS));
    bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN));
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!(event.reason, DropReason::NoPolicy as u8);
}

#[test]
fn what_is_dropped_for_the_state_of_a_table_is_told_too() {
    let mut bench = Bench::new();
    bench.run(name::TO_REPLICA, &tcp_v4(200, 9, TCP_SYN));
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!((event.reason, event.family), (DropReason::WrongEndpoint as u8, 4));
    // As many flows as the table holds, and one more.
    for port in 1..=16 {
        assert_eq!(bench.run(name::FROM_REPLICA, &out(UDP, [port, 53], 0)).0, OK, "{port}");
    }
    bench.events();
    assert_eq!(bench.run(name::FROM_REPLICA, &out(UDP, [17, 53], 0)).0, SHOT);
    let [event] = bench.events()[..] else { panic!("not one event") };
    let sent_by = (event.reason, event.identities, u16::from_be(event.ports[0]));
    assert_eq!(sent_by, (DropReason::ConntrackFull as u8, [identity(1), WORLD], 17));
    bench.set_generation(1, NO_GENERATION);
    bench.run(name::FROM_REPLICA, &out(UDP, [1, 53], 0));
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!((event.reason, event.interface), (DropReason::NoEndpoint as u8, INTERFACE));
}

#[test]
fn a_flood_of_denied_packets_is_counted_whole_and_told_in_part() {
    let mut bench = Bench::new();
    bench.set_policy(1, &closed(EGRESS));
    let frame = out(TCP, [40_000, 80], TCP_SYN);
    let mut verdict = vec![0; frame.len()];
    let options = TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut verdict),
        repeat: 10_000,
        ..TestRunOptions::new()
    };
    bench.program(name::FROM_REPLICA).test_run(options).unwrap();
    assert_eq!(bench.dropped(DropReason::PolicyEgress), 10_000);
    let (told, lost) = bench.budget(event_class(EVENT_DROPPED, DropReason::PolicyEgress as u8));
    assert_eq!(told + lost, 10_000);
    assert_eq!(bench.events().len() as u64, told);
    // A second's worth on each processor at once, and a little more for the time that passes.
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=400 * processors).contains(&told), "{told} told");
}

#[test]
fn a_connection_that_falls_silent_is_told_when_it_is_collected() {
    let mut bench = Bench::new();
    bench.run(name::FROM_REPLICA, &out(UDP, [40_000, 53], 0));
    bench.events();
    let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
    let (key, mut entry) = connections.iter().next().unwrap().unwrap();
    entry.expires_ns = 1;
    connections.insert(key, entry, 0).unwrap();
    bench.run(name::COLLECT, &tcp_v4(1, 2, 0));
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!((event.kind, event.identities), (EVENT_CLOSED, [identity(1), WORLD]));
}

#[test]
fn the_programs_can_be_measured_with_each_part_of_their_work() {
    for features in [0, 2, 3, FEATURES_ALL] {
        let times = crate::program_times(features, 10_000).unwrap();
        println!("{features}: {times:?}");
        assert!(times.iter().all(|time| time.ns > 0.0), "{times:?}");
    }
}
