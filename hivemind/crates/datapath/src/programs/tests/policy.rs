//! Who may speak to whom, as the programs decide it.

use super::*;
use hivemind_common::policy::{ALLOW, ANY_PEER, DENY, EGRESS, HAS_PREFIXES, PREFIX_PEER, rule_number};
use hivemind_policy::{TableEntry, TablePrefix, Transport};

const UDP: u8 = 17;
const ANYBODY: [u8; 4] = [198, 51, 100, 7];
/// The identity of whoever is neither a replica nor the node.
const WORLD: u32 = 2;

pub(super) fn rule(index: u32) -> u32 {
    rule_number(5, EGRESS, Some(index))
}

pub(super) fn value(verdict: u8, precedence: u32, rule: u32) -> PolicyEntry {
    PolicyEntry { rule, precedence, verdict, ..PolicyEntry::default() }
}

/// Nothing may pass in one direction, but what is said later; the other is open.
pub(super) fn closed(direction: u32) -> Tables {
    let mut tables = Tables::open();
    for entry in &mut tables.entries {
        if entry.peer == direction | ANY_PEER {
            entry.value = value(DENY, 0, rule_number(5, direction, None));
        }
    }
    tables
}

pub(super) fn say(tables: &mut Tables, peer: u32, transport: Transport, value: PolicyEntry) {
    tables.entries.push(TableEntry { peer, transport, value });
}

fn port(port: u16) -> Transport {
    Transport::Ports { protocol: TCP, port, bits: 16 }
}

/// A frame from the endpoint 1 to anybody.
fn outward(destination: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
    frame_v4([10, 0, 0, 1], destination, protocol, [40_000, port], TCP_SYN)
}

#[test]
fn without_a_policy_nothing_passes_in_either_direction() {
    let bench = Bench::without_policy();
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, SHOT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, SHOT);
    assert_eq!(bench.run(name::TO_REPLICA, &tcp_v4(200, 1, TCP_SYN)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::NoPolicy), 3);
}

#[test]
fn a_policy_that_is_not_written_lets_nothing_through() {
    let mut bench = Bench::new();
    bench.erase_policy(1, &Tables::open());
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::NoPolicy), 1);
}

#[test]
fn the_first_packet_is_denied_already_and_leaves_no_connection() {
    let mut bench = Bench::new();
    bench.set_policy(1, &closed(EGRESS));
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, SHOT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::PolicyEgress), 2);
    assert!(bench.connections().is_empty());
    bench.set_policy(1, &Tables::open());
    bench.set_policy(2, &closed(0));
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, SHOT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::PolicyIngress), 2);
    assert!(bench.connections().is_empty());
}

#[test]
fn a_peer_is_allowed_by_its_identity_on_the_ports_that_are_said() {
    let mut bench = Bench::new();
    let mut tables = closed(0);
    say(&mut tables, identity(1), port(80), value(ALLOW, 1, rule(0)));
    bench.set_policy(2, &tables);
    let to = |protocol, port| outward([10, 0, 0, 2], protocol, port);
    assert_eq!(bench.run(name::FROM_REPLICA, &to(TCP, 80)).0, REDIRECT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, REDIRECT);
    assert_eq!(bench.run(name::FROM_REPLICA, &to(TCP, 81)).0, SHOT);
    assert_eq!(bench.run(name::FROM_REPLICA, &to(UDP, 80)).0, SHOT);
    assert!(bench.connections().iter().all(|entry| entry.rules.contains(&rule(0))));
    // Another identity behind the same rule.
    let mut tables = closed(0);
    say(&mut tables, identity(7), Transport::Any, value(ALLOW, 1, rule(0)));
    bench.set_policy(2, &tables);
    assert_eq!(bench.run(name::FROM_REPLICA, &to(TCP, 80)).0, SHOT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, SHOT);
}

#[test]
fn a_range_of_ports_is_allowed_to_its_last_and_no_further() {
    let mut bench = Bench::new();
    let mut tables = closed(EGRESS);
    let ports = Transport::Ports { protocol: TCP, port: 8080, bits: 13 };
    say(&mut tables, EGRESS | WORLD, ports, value(ALLOW, 1, rule(0)));
    bench.set_policy(1, &tables);
    for (port, verdict) in [(8079, SHOT), (8080, OK), (8087, OK), (8088, SHOT)] {
        assert_eq!(bench.run(name::FROM_REPLICA, &outward(ANYBODY, TCP, port)).0, verdict, "{port}");
    }
}

#[test]
fn a_block_of_addresses_is_allowed_but_for_the_blocks_excepted_from_it() {
    for direction in [EGRESS, 0] {
        let mut bench = Bench::new();
        let mut tables = closed(direction);
        for entry in &mut tables.entries {
            entry.value.flags = HAS_PREFIXES;
        }
        let blocks = [
            ("198.51.100.0/24", 1, ALLOW),
            ("198.51.100.64/26", 2, DENY),
            ("2001:db8::/32", 1, ALLOW),
            ("2001:db8:1::/48", 2, DENY),
        ];
        for (net, number, verdict) in blocks {
            let net = net.parse().unwrap();
            tables.prefixes.push(TablePrefix { side: direction, net, number });
            let peer = direction | PREFIX_PEER | number;
            say(&mut tables, peer, Transport::Any, value(verdict, 1, rule(number)));
        }
        bench.set_policy(1, &tables);
        let passes = |other: [u8; 4]| {
            let (program, frame) = match direction {
                EGRESS => (name::FROM_REPLICA, frame_v4([10, 0, 0, 1], other, TCP, [40_000, 80], TCP_SYN)),
                _ => (name::TO_REPLICA, frame_v4(other, [10, 0, 0, 1], TCP, [40_000, 80], TCP_SYN)),
            };
            bench.run(program, &frame).0 == OK
        };
        assert!(passes([198, 51, 100, 1]) && passes([198, 51, 100, 128]));
        assert!(!passes([198, 51, 100, 64]) && !passes([198, 51, 100, 127]));
        assert!(!passes([198, 51, 101, 1]) && !passes([203, 0, 113, 1]));
        let passes = |other: &str| {
            let (other, own): (Ipv6Addr, _) = (other.parse().unwrap(), address6(1).octets());
            let (program, frame) = match direction {
                EGRESS => (name::FROM_REPLICA, frame_v6(own, other.octets(), TCP, [40_000, 80], TCP_SYN)),
                _ => (name::TO_REPLICA, frame_v6(other.octets(), own, TCP, [40_000, 80], TCP_SYN)),
            };
            bench.run(program, &frame).0 == OK
        };
        assert!(passes("2001:db8::1") && passes("2001:db8:2::1"));
        assert!(!passes("2001:db8:1::1") && !passes("2001:db9::1"));
    }
}

#[test]
fn replies_of_an_allowed_connection_pass_where_a_new_one_would_not() {
    let mut bench = Bench::new();
    bench.set_policy(1, &closed(0));
    let out = frame_v4([10, 0, 0, 1], ANYBODY, TCP, [40_000, 80], TCP_SYN);
    assert_eq!(bench.run(name::FROM_REPLICA, &out).0, OK);
    for flags in [TCP_SYN | TCP_ACK, TCP_ACK] {
        let back = frame_v4(ANYBODY, [10, 0, 0, 1], TCP, [80, 40_000], flags);
        assert_eq!(bench.run(name::TO_REPLICA, &back).0, OK);
    }
    let inward = frame_v4(ANYBODY, [10, 0, 0, 1], TCP, [80, 40_001], TCP_SYN);
    assert_eq!(bench.run(name::TO_REPLICA, &inward).0, SHOT);
}

#[test]
fn a_connection_is_judged_again_with_the_next_packet_to_deny_it_and_to_allow_it() {
    let mut bench = Bench::new();
    let out = |flags| frame_v4([10, 0, 0, 1], ANYBODY, TCP, [40_000, 80], flags);
    let back = |flags| frame_v4(ANYBODY, [10, 0, 0, 1], TCP, [80, 40_000], flags);
    assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP_SYN)).0, OK);
    assert_eq!(bench.run(name::TO_REPLICA, &back(TCP_SYN | TCP_ACK)).0, OK);
    for _ in 0..2 {
        bench.set_policy(1, &closed(EGRESS));
        // The server speaks first: what it sends belongs to a connection that may not be any more.
        assert_eq!(bench.run(name::TO_REPLICA, &back(TCP_ACK)).0, SHOT);
        assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP_ACK)).0, SHOT);
        assert_eq!(bench.run(name::TO_REPLICA, &back(TCP_ACK)).0, SHOT);
        bench.set_policy(1, &Tables::open());
        assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP_ACK)).0, OK);
        assert_eq!(bench.run(name::TO_REPLICA, &back(TCP_ACK)).0, OK);
    }
    let denied = bench.dropped(DropReason::PolicyEgress);
    assert_eq!(denied, 6, "a server's answer was taken for a connection of its own");
}

#[test]
fn the_other_ends_packets_do_not_reopen_a_connection_that_is_refused() {
    let mut bench = Bench::new();
    let out = frame_v4([10, 0, 0, 1], ANYBODY, UDP, [40_000, 53], 0);
    let back = frame_v4(ANYBODY, [10, 0, 0, 1], UDP, [53, 40_000], 0);
    assert_eq!(bench.run(name::FROM_REPLICA, &out).0, OK);
    assert_eq!(bench.run(name::TO_REPLICA, &back).0, OK);
    // Ingress stays open: were the answer taken for a first packet, it would pass and bring the connection back.
    bench.set_policy(1, &closed(EGRESS));
    for _ in 0..3 {
        assert_eq!(bench.run(name::TO_REPLICA, &back).0, SHOT);
        assert_eq!(bench.run(name::FROM_REPLICA, &out).0, SHOT);
    }
}

#[test]
fn the_greater_precedence_counts_and_a_denial_among_equals() {
    let mut bench = Bench::new();
    let cases = [(1, ALLOW, 2, DENY, SHOT), (2, ALLOW, 1, DENY, OK), (1, ALLOW, 1, DENY, SHOT)];
    for (any, any_says, peer, peer_says, verdict) in cases {
        let mut tables = Tables::open();
        for entry in &mut tables.entries {
            entry.value = value(any_says, any, rule(0));
        }
        say(&mut tables, EGRESS | WORLD, Transport::Any, value(peer_says, peer, rule(1)));
        bench.set_policy(1, &tables);
        assert_eq!(bench.run(name::FROM_REPLICA, &outward(ANYBODY, TCP, 80)).0, verdict);
    }
}

#[test]
fn without_the_feature_policy_everything_passes() {
    let bench = Bench::with_features(FEATURES_ALL & !FEATURE_POLICY);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, REDIRECT);
    let bench = Bench::with_features(0);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, REDIRECT);
}
