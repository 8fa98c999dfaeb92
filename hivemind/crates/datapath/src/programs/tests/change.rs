//! Taking over from programs of the layout before.

use super::{policy::closed, *};
use aya::maps::ProgramArray;
use hivemind_common::{layout::previous, name::gate, policy::EGRESS, telemetry::FEATURE_TAKE_OVER};

const UDP: u8 = 17;
const ANYBODY: [u8; 4] = [198, 51, 100, 7];
const REPLICA: [u8; 4] = [10, 0, 0, 1];

/// A bench at which endpoint 1 may only answer, and a connection to it that only the old table knows.
fn bench_with_old_connection(features: u32, expires_ns: u64) -> Bench {
    let mut bench = Bench::with_features(features);
    bench.set_policy(1, &closed(EGRESS));
    assert_eq!(bench.run(name::TO_REPLICA, &frame_v4(ANYBODY, REPLICA, UDP, [40_000, 53], 0)).0, OK);
    let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
    let (key, entry) = connections.iter().next().unwrap().unwrap();
    connections.remove(&key).unwrap();
    let old = previous::Entry {
        expires_ns,
        began_ns: entry.began_ns,
        generations: entry.generations,
        bytes: [1_000, 2_000],
        packets: [3, 4],
        endpoints: entry.endpoints,
        interfaces: entry.interfaces,
        identities: entry.identities,
        rules: entry.rules,
        pair: entry.pair,
        frame_macs: entry.frame_macs,
        seen: entry.seen,
        flags: entry.flags,
        padding: 0,
    };
    bench.hash(name::OLD_CONNTRACK_V4).insert(key, old, 0).unwrap();
    bench
}

fn answer() -> Vec<u8> {
    frame_v4(REPLICA, ANYBODY, UDP, [53, 40_000], 0)
}

#[test]
fn a_connection_that_only_the_old_table_knows_is_taken_over_by_its_next_packet() {
    let mut bench = bench_with_old_connection(FEATURES_ALL | FEATURE_TAKE_OVER, u64::MAX);
    assert_eq!(bench.run(name::FROM_REPLICA, &answer()).0, OK);
    let [entry] = bench.connections()[..] else { panic!("not one connection") };
    assert_eq!(entry.packets.iter().sum::<u64>(), 3 + 4 + 1);
}

#[test]
fn without_taking_over_its_answer_is_refused() {
    let bench = bench_with_old_connection(FEATURES_ALL, u64::MAX);
    assert_eq!(bench.run(name::FROM_REPLICA, &answer()).0, SHOT);
    assert_eq!(bench.dropped(DropReason::PolicyEgress), 1);
}

#[test]
fn a_connection_that_was_over_is_not_taken_over() {
    let bench = bench_with_old_connection(FEATURES_ALL | FEATURE_TAKE_OVER, 1);
    assert_eq!(bench.run(name::FROM_REPLICA, &answer()).0, SHOT);
}

#[test]
fn one_write_makes_all_gates_change_over() {
    let mut bench = Bench::new();
    // Of a frame that is no packet: the one lets it pass, the other does not.
    let [old, new] = [name::TO_OVERLAY, name::FROM_REPLICA].map(|program| {
        let Some(Program::SchedClassifier(found)) = bench.ebpf.program(program) else { panic!("{program}") };
        found.fd().unwrap().try_clone().unwrap()
    });
    let mut gates = ProgramArray::try_from(bench.ebpf.take_map(name::GATES).unwrap()).unwrap();
    for slot in 0..gate::HOOKS {
        gates.set(2 * slot + gate::OLD, &old, 0).unwrap();
        gates.set(2 * slot + gate::NEW, &new, 0).unwrap();
    }
    let frame = [0xff; 60];
    for (turn, verdict) in [(gate::OLD, OK), (gate::NEW, SHOT)] {
        bench.array(name::TURN).set(0, turn, 0).unwrap();
        for (_, gate) in gate::PROGRAMS {
            assert_eq!(bench.run(gate, &frame).0, verdict, "{gate}");
        }
    }
}
