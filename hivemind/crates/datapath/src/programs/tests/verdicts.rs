//! What is counted for the rules of policies.

use super::policy::{closed, rule, say, value};
use super::*;
use aya::maps::{PerCpuHashMap, PerCpuValues};
use hivemind_common::{
    policy::{ALLOW, DENY, EGRESS, RULE_NONE, rule_number},
    verdict::{RULE_OTHER, VerdictKey},
};
use hivemind_policy::Transport;
use std::collections::BTreeMap;

const UDP: u8 = 17;
const ANYBODY: [u8; 4] = [198, 51, 100, 7];
const WORLD: u32 = 2;

fn verdicts(bench: &mut Bench) -> PerCpuHashMap<&mut MapData, VerdictKey, u64> {
    PerCpuHashMap::try_from(bench.ebpf.map_mut(name::VERDICTS).unwrap()).unwrap()
}

/// Connections by rule and verdict.
fn counted(bench: &mut Bench) -> BTreeMap<(u32, u8), u64> {
    let all = verdicts(bench);
    let sum =
        |(key, cpus): (VerdictKey, PerCpuValues<u64>)| ((key.rule, key.verdict as u8), cpus.iter().sum());
    all.iter().map(|found| sum(found.unwrap())).collect()
}

fn out(protocol: u8, port: u16, flags: u8) -> Vec<u8> {
    frame_v4([10, 0, 0, 1], ANYBODY, protocol, [40_000, port], flags)
}

fn ingress(index: Option<u32>) -> u32 {
    rule_number(6, 0, index)
}

/// To the other endpoint.
fn across(source_port: u16, port: u16, flags: u8) -> Vec<u8> {
    frame_v4([10, 0, 0, 1], [10, 0, 0, 2], TCP, [source_port, port], flags)
}

/// Everybody may be asked; the second endpoint takes port 80 of the first.
fn governed() -> Bench {
    let mut bench = Bench::new();
    let mut leaving = closed(EGRESS);
    say(&mut leaving, EGRESS | identity(2), Transport::Any, value(ALLOW, 1, rule(3)));
    bench.set_policy(1, &leaving);
    let mut entering = closed(0);
    let port = Transport::Ports { protocol: TCP, port: 80, bits: 16 };
    for entry in entering.entries.iter_mut().filter(|entry| entry.value.verdict == DENY) {
        entry.value.rule = ingress(None);
    }
    say(&mut entering, identity(1), port, value(ALLOW, 1, ingress(Some(0))));
    bench.set_policy(2, &entering);
    bench
}

#[test]
fn a_connection_counts_once_for_the_rule_of_each_end_however_many_packets_it_has() {
    let mut bench = governed();
    for flags in [TCP_SYN, TCP_ACK, TCP_ACK] {
        assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, flags)).0, REDIRECT);
    }
    assert_eq!(bench.run(name::FROM_REPLICA, &across(40_001, 80, TCP_SYN)).0, REDIRECT);
    let expected = BTreeMap::from([((rule(3), ALLOW), 2), ((ingress(Some(0)), ALLOW), 2)]);
    assert_eq!(counted(&mut bench), expected);
}

#[test]
fn whoever_denies_counts_the_attempt_and_who_was_asked_before_that_it_allowed_it() {
    let mut bench = governed();
    for _ in 0..3 {
        assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 81, TCP_SYN)).0, SHOT);
    }
    assert_eq!(bench.run(name::FROM_REPLICA, &out(TCP, 80, TCP_SYN)).0, SHOT);
    let expected = BTreeMap::from([
        ((rule(3), ALLOW), 3),
        ((ingress(None), DENY), 3),
        ((rule_number(5, EGRESS, None), DENY), 1),
    ]);
    assert_eq!(counted(&mut bench), expected);
}

#[test]
fn a_connection_that_is_judged_again_counts_only_if_it_is_denied_then_and_once() {
    let mut bench = governed();
    assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, TCP_SYN)).0, REDIRECT);
    let before = counted(&mut bench);
    bench.set_generation(2, 9_000);
    assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, TCP_ACK)).0, REDIRECT);
    assert_eq!(counted(&mut bench), before, "it is the same connection");
    bench.set_policy(2, &closed(0));
    for _ in 0..3 {
        assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, TCP_ACK)).0, SHOT);
    }
    let denied = counted(&mut bench)[&(rule_number(5, 0, None), DENY)];
    assert_eq!(denied, 1, "further packets of what was refused are no further attempts");
}

#[test]
fn what_no_policy_governs_and_what_is_dropped_for_another_reason_count_for_no_rule() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, TCP_SYN)).0, REDIRECT);
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v6(1, 2)).0, REDIRECT);
    assert_eq!(counted(&mut bench), BTreeMap::new());
    let mut bench = Bench::without_policy();
    assert_eq!(bench.run(name::FROM_REPLICA, &across(40_000, 80, TCP_SYN)).0, SHOT);
    assert_eq!(counted(&mut bench), BTreeMap::new());
    let mut bench = governed();
    // The table of connections is full: what was allowed did not come about.
    for port in 1..=16 {
        assert_eq!(bench.run(name::FROM_REPLICA, &across(port, 80, TCP_SYN)).0, REDIRECT, "{port}");
    }
    assert_eq!(bench.run(name::FROM_REPLICA, &across(17, 80, TCP_SYN)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::ConntrackFull), 1);
    assert_eq!(counted(&mut bench)[&(rule(3), ALLOW)], 16);
}

#[test]
fn both_families_count_for_the_same_rule() {
    let mut bench = Bench::new();
    bench.set_policy(1, &closed(EGRESS));
    bench.run(name::FROM_REPLICA, &tcp_v6(1, 2));
    bench.run(name::FROM_REPLICA, &out(UDP, 53, 0));
    assert_eq!(counted(&mut bench), BTreeMap::from([((rule_number(5, EGRESS, None), DENY), 2)]));
}

#[test]
fn rules_that_find_no_room_count_together_and_nothing_is_lost() {
    let mut bench = Bench::new();
    let cpus = aya::util::nr_cpus().unwrap();
    for verdict in [ALLOW, DENY] {
        let key = VerdictKey { rule: RULE_OTHER, verdict: verdict.into() };
        verdicts(&mut bench).insert(key, PerCpuValues::try_from(vec![0; cpus]).unwrap(), 0).unwrap();
    }
    let mut tables = closed(EGRESS);
    for port in 1..=25 {
        let transport = Transport::Ports { protocol: UDP, port, bits: 16 };
        say(&mut tables, EGRESS | WORLD, transport, value(ALLOW, 1, rule(u32::from(port))));
    }
    bench.set_policy(1, &tables);
    for port in (1..=25).chain([1, 25]) {
        assert_eq!(bench.run(name::FROM_REPLICA, &out(UDP, port, 0)).0, OK, "{port}");
        let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
        let keys: Vec<_> = connections.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| connections.remove(key).unwrap());
    }
    let counted = counted(&mut bench);
    // 16 entries, two of which are the others'.
    assert_eq!(counted.len(), 16);
    assert_eq!((counted[&(rule(1), ALLOW)], counted[&(RULE_OTHER, ALLOW)]), (2, 12));
    assert_eq!(counted.values().sum::<u64>(), 27);
    assert!(!counted.contains_key(&(RULE_NONE, ALLOW)));
}
