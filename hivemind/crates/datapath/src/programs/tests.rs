//! The programs one packet at a time (BPF_PROG_TEST_RUN), with maps of their own. Needs root.

#[cfg(feature = "next-layout")]
mod change;
mod drops;
mod frames;
mod loading;
mod nodes;
mod overlay;
mod policy;
mod properties;
mod random;
mod sent;
mod telemetry;
mod translation;
mod verdicts;
mod verifier;
mod ways;
mod worlds;

use super::{OBJECT, measure};
use crate::policy::rows::{self, NetKey};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf, Stack},
    programs::{Program, SchedClassifier, TestRun, TestRunOptions},
};
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    endpoint::{AddressEntry, EndpointState, OUTSIDE},
    family::{Address4, Address6},
    name,
    packet::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    policy::{PolicyEntry, PolicyKey, PrefixKey},
    telemetry::{Event, EventBudget, FEATURE_POLICY, FEATURES_ALL, PAIR_OTHER, PairCounters, PairKey},
};
use hivemind_policy::Tables;
use std::net::Ipv6Addr;

/// A test run's packets come in by the loopback interface.
/// How many pairs there are, the collective one among them.
const PAIRS: u32 = 16;
const INTERFACE: u32 = 1;
const PEER_INTERFACE: u32 = 77;
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [6, 0, 0, 0, 0, 1];
const PEER_MACS: [u32; 3] = EndpointState::macs([2, 0, 0, 0, 0, 2], [6, 0, 0, 0, 0, 2]);
/// Under which a replica meets itself, and of which range services' addresses are.
const HAIRPIN_V4: [u8; 4] = [169, 254, 20, 10];
const HAIRPIN_V6: [u8; 16] = [0xfd, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const SERVICES_V6: [u8; 16] = [0xfd, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// No program makes a frame longer by more.
const GROWS_MAX: usize = 200;
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
const TRANSPORT_V4: usize = 14 + 20;

struct Bench {
    ebpf: Ebpf,
    /// The last number that a policy got.
    generation: u32,
}

impl Bench {
    /// Two endpoints: number 1 at the interface of the test run, number 2 elsewhere.
    fn new() -> Self {
        let mut bench = Self::without_policy();
        for index in [1, 2] {
            bench.set_policy(index, &Tables::open());
        }
        bench
    }

    /// As [`Bench::new`], but neither endpoint has a policy yet.
    fn without_policy() -> Self {
        Self::with_features(FEATURES_ALL)
    }

    fn with_features(features: u32) -> Self {
        measure::leave_network();
        let mut loader = EbpfLoader::new();
        loader.override_global(name::FEATURES, &features, true);
        let words = |octets: [u8; 16]| Address6::from_octets(octets).0;
        let v4 = [[10, 204, 0, 0], [255, 255, 0, 0], [10, 0, 0, 0], [255, 255, 255, 0], HAIRPIN_V4]
            .map(u32::from_ne_bytes);
        let mut all_but_two = [255; 16];
        all_but_two[14..].fill(0);
        let v6 = [SERVICES_V6, all_but_two, address6(0).octets(), all_but_two, HAIRPIN_V6].map(words);
        for (name, value) in [
            name::SERVICE_RANGE_V4,
            name::SERVICE_MASK_V4,
            name::REPLICA_RANGE_V4,
            name::REPLICA_MASK_V4,
            name::HAIRPIN_V4,
        ]
        .into_iter()
        .zip(&v4)
        {
            loader.override_global(name, value, true);
        }
        for (name, value) in [
            name::SERVICE_RANGE_V6,
            name::SERVICE_MASK_V6,
            name::REPLICA_RANGE_V6,
            name::REPLICA_MASK_V6,
            name::HAIRPIN_V6,
        ]
        .into_iter()
        .zip(&v6)
        {
            loader.override_global(name, value, true);
        }
        loader.override_global(name::MASQUERADE_PORT_FIRST, &61_000_u32, true);
        loader.override_global(name::MASQUERADE_PORT_COUNT, &16_u32, true);
        loader.override_global(name::PAIRS, &PAIRS, true);
        for map in name::MAPS {
            let entries = match map {
                name::DROP_COUNTERS
                | name::COLLECTOR
                | name::EVENT_BUDGETS
                | name::SCRATCH
                | name::BINDING
                | name::ROUTE
                | name::HANDED
                | name::STEPS => continue,
                name::TRANSLATION_V4 | name::TRANSLATION_V6 => 64,
                name::EVENTS => 1 << 17,
                name::FRAGMENT_V4 | name::FRAGMENT_V6 | name::AFFINITY => 1024,
                name::PAIR_COUNTERS => PAIRS * super::processors(),
                name::POLICY | name::POLICY_PREFIX_V4 | name::POLICY_PREFIX_V6 => 4096,
                _ => 16,
            };
            loader.map_max_entries(map, entries);
        }
        let mut ebpf = loader.load(OBJECT).unwrap();
        for (_, program) in ebpf.programs_mut() {
            if let Program::SchedClassifier(program) = program {
                program.load().unwrap();
            }
        }
        super::fill_steps(&mut ebpf).unwrap();
        let mut bench = Self { ebpf, generation: 0 };
        let own = EndpointState::macs(OWN_MAC, GATEWAY_MAC);
        for (index, interface, frame_macs) in [(1, INTERFACE, own), (2, PEER_INTERFACE, PEER_MACS)] {
            let ipv4 = Address4::from_octets([10, 0, 0, index as u8]);
            let ipv6 = address6(index as u8);
            let state =
                EndpointState { ipv4, ipv6, interface, identity: identity(index), policy: 0, frame_macs };
            bench.array(name::ENDPOINT_STATE).set(index, state, 0).unwrap();
            bench.hash(name::ENDPOINT_BY_INTERFACE).insert(interface, index, 0).unwrap();
            let entry = AddressEntry { identity: identity(index), endpoint: index, node: 0 };
            bench.hash(name::ADDRESS_EXACT_V4).insert(ipv4, entry, 0).unwrap();
            bench.hash(name::ADDRESS_EXACT_V6).insert(ipv6, entry, 0).unwrap();
        }
        for (index, generation) in [(OUTSIDE, 10), (1, 11), (2, 12)] {
            bench.set_generation(index, generation);
        }
        let mut free: Stack<&mut MapData, u32> =
            Stack::try_from(bench.ebpf.map_mut(name::PAIR_FREE).unwrap()).unwrap();
        for number in (1..PAIRS).rev() {
            free.push(number, 0).unwrap();
        }
        bench
    }

    /// Has an endpoint judged by these tables, as the daemon does it: written under a new number, then switched to.
    fn set_policy(&mut self, index: u32, tables: &Tables) {
        self.generation += 1;
        let number = self.generation;
        self.write_policy(number, tables);
        let mut state: EndpointState = self.array(name::ENDPOINT_STATE).get(&index, 0).unwrap();
        state.policy = number;
        self.array(name::ENDPOINT_STATE).set(index, state, 0).unwrap();
        self.set_generation(index, 1_000 + u64::from(number));
    }

    fn write_policy(&mut self, number: u32, tables: &Tables) {
        let mut entries = LpmTrie::try_from(self.ebpf.map_mut(name::POLICY).unwrap()).unwrap();
        for entry in &tables.entries {
            entries.insert(&rows::entry_key(number, entry), entry.value, 0).unwrap();
        }
        for prefix in &tables.prefixes {
            match rows::prefix_key(number, prefix) {
                NetKey::V4(key) => {
                    let map = self.ebpf.map_mut(name::POLICY_PREFIX_V4).unwrap();
                    LpmTrie::try_from(map).unwrap().insert(&key, prefix.number, 0).unwrap();
                }
                NetKey::V6(key) => {
                    let map = self.ebpf.map_mut(name::POLICY_PREFIX_V6).unwrap();
                    LpmTrie::try_from(map).unwrap().insert(&key, prefix.number, 0).unwrap();
                }
            }
        }
    }

    fn erase_policy(&mut self, number: u32, tables: &Tables) {
        let mut entries: LpmTrie<_, PolicyKey, PolicyEntry> =
            LpmTrie::try_from(self.ebpf.map_mut(name::POLICY).unwrap()).unwrap();
        for entry in &tables.entries {
            entries.remove(&rows::entry_key(number, entry)).unwrap();
        }
        for prefix in &tables.prefixes {
            match rows::prefix_key(number, prefix) {
                NetKey::V4(key) => {
                    let map = self.ebpf.map_mut(name::POLICY_PREFIX_V4).unwrap();
                    let mut map: LpmTrie<_, PrefixKey<Address4>, u32> = LpmTrie::try_from(map).unwrap();
                    map.remove(&key).unwrap();
                }
                NetKey::V6(key) => {
                    let map = self.ebpf.map_mut(name::POLICY_PREFIX_V6).unwrap();
                    let mut map: LpmTrie<_, PrefixKey<Address6>, u32> = LpmTrie::try_from(map).unwrap();
                    map.remove(&key).unwrap();
                }
            }
        }
    }

    /// What was told since this was last asked.
    fn events(&mut self) -> Vec<Event> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut(name::EVENTS).unwrap()).unwrap();
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            assert_eq!(item.len(), size_of::<Event>());
            // SAFETY: of that length, and plain data: every bit pattern is a value.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// Totals of every pair that has a number, and under the number zero those of all others.
    fn pairs(&mut self) -> Vec<(PairKey, PairCounters)> {
        let mut numbers: Vec<(PairKey, u32)> =
            self.hash::<PairKey, u32>(name::PAIR).iter().map(Result::unwrap).collect();
        numbers.push((PairKey::default(), PAIR_OTHER));
        let counters: Array<_, PairCounters> =
            Array::try_from(self.ebpf.map(name::PAIR_COUNTERS).unwrap()).unwrap();
        let total = |number: u32| {
            let by_processor = (0..super::processors()).map(|cpu| counters.get(&(cpu * PAIRS + number), 0));
            by_processor.map(Result::unwrap).fold(PairCounters::default(), |sum, cpu| PairCounters {
                bytes: [sum.bytes[0] + cpu.bytes[0], sum.bytes[1] + cpu.bytes[1]],
                packets: [sum.packets[0] + cpu.packets[0], sum.packets[1] + cpu.packets[1]],
                connections: sum.connections + cpu.connections,
            })
        };
        numbers.into_iter().map(|(key, number)| (key, total(number))).collect()
    }

    fn budget(&self, class: u32) -> (u64, u64) {
        let budgets: PerCpuArray<_, EventBudget> =
            PerCpuArray::try_from(self.ebpf.map(name::EVENT_BUDGETS).unwrap()).unwrap();
        let cpus = budgets.get(&class, 0).unwrap();
        cpus.iter().fold((0, 0), |(told, lost), cpu| (told + cpu.told, lost + cpu.lost))
    }

    fn array<V: Pod>(&mut self, map: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(map).unwrap()).unwrap()
    }

    fn hash<K: Pod, V: Pod>(&mut self, map: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(map).unwrap()).unwrap()
    }

    fn set_generation(&mut self, index: u32, generation: u64) {
        self.array(name::GENERATION).set(index, generation, 0).unwrap();
    }

    fn program(&self, program: &str) -> &SchedClassifier {
        let Some(Program::SchedClassifier(found)) = self.ebpf.program(program) else { panic!("{program}") };
        found
    }

    /// The verdict, and the frame as it went on, as long as it was.
    fn run(&self, program: &str, frame: &[u8]) -> (u32, Vec<u8>) {
        let (verdict, mut out) = self.run_resized(program, frame);
        out.resize(frame.len(), 0);
        (verdict, out)
    }

    /// The verdict, and the frame as it went on, which may have grown or shrunk.
    fn run_resized(&self, program: &str, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + GROWS_MAX];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::new()
        };
        let result = self.program(program).test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let counters = PerCpuArray::try_from(self.ebpf.map(name::DROP_COUNTERS).unwrap()).unwrap();
        let counts: aya::maps::PerCpuValues<u64> = counters.get(&(reason as u32), 0).unwrap();
        counts.iter().sum()
    }

    fn connections(&mut self) -> Vec<Entry> {
        let found: Vec<_> = self.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4).iter().collect();
        found.into_iter().map(|found| found.unwrap().1).collect()
    }
}

/// The identity of an endpoint of [`Bench`].
fn identity(index: u32) -> u32 {
    300 + index
}

fn address6(last: u8) -> Address6 {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, last);
    Address6::from_octets(octets)
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    [&GATEWAY_MAC[..], &OWN_MAC[..], &ethertype.to_be_bytes()[..]].concat()
}

fn tcp_v4(source: u8, destination: u8, flags: u8) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, source, 10, 0, 0, destination]);
    frame.extend([0x12, 0x34, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

fn tcp_v6(source: u8, destination: u8) -> Vec<u8> {
    let mut frame = ethernet(0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 20, TCP, 64]);
    frame.extend(address6(source).octets());
    frame.extend(address6(destination).octets());
    frame.extend([0x12, 0x34, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, TCP_SYN, 0, 0, 0, 0, 0, 0]);
    frame
}

/// A frame that the endpoint 1 would send, with twenty bytes after the IP header.
fn frame_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: [u16; 2], tcp_flags: u8) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source.into_iter().chain(destination));
    frame.extend(transport(ports, tcp_flags));
    frame
}

fn frame_v6(
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    ports: [u16; 2],
    tcp_flags: u8,
) -> Vec<u8> {
    let mut frame = ethernet(0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
    frame.extend(source.into_iter().chain(destination));
    frame.extend(transport(ports, tcp_flags));
    frame
}

fn transport(ports: [u16; 2], tcp_flags: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    bytes.extend([0, 20, 0, 0, 0, 0, 0, 0, 0x50, tcp_flags, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn reply(frame: &[u8]) -> Vec<u8> {
    let mut reply = frame.to_vec();
    reply[26..30].copy_from_slice(&frame[30..34]);
    reply[30..34].copy_from_slice(&frame[26..30]);
    reply[34..36].copy_from_slice(&frame[36..38]);
    reply[36..38].copy_from_slice(&frame[34..36]);
    reply
}

#[test]
fn a_frame_to_a_local_endpoint_is_readdressed_and_redirected_on_the_first_packet_and_the_second() {
    let mut bench = Bench::new();
    let macs: Vec<u8> = PEER_MACS.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for _ in 0..2 {
        for frame in [tcp_v4(1, 2, TCP_SYN), tcp_v6(1, 2)] {
            let (verdict, out) = bench.run(name::FROM_REPLICA, &frame);
            assert_eq!((verdict, &out[..12]), (REDIRECT, &macs[..]));
            assert_eq!(out[12..], frame[12..]);
        }
    }
    let [entry] = bench.connections()[..] else { panic!("not one entry") };
    assert_eq!(entry.endpoints.iter().sum::<u32>(), 3);
    assert!(entry.generations.contains(&1_001) && entry.generations.contains(&1_002));
}

#[test]
fn a_frame_to_the_outside_goes_to_the_hosts_stack_unchanged_and_is_tracked() {
    let mut bench = Bench::new();
    let frame = tcp_v4(1, 200, TCP_SYN);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame), (OK, frame.clone()));
    assert_eq!(bench.run(name::TO_REPLICA, &reply(&frame)).0, OK);
    let [entry] = bench.connections()[..] else { panic!("not one entry") };
    assert!(entry.seen.iter().all(|&seen| seen != 0), "the reply was not seen: {entry:?}");
    assert!(entry.endpoints.contains(&OUTSIDE));
}

/// Frames that `from_replica` drops without asking a policy, and why.
fn faults() -> Vec<(Vec<u8>, DropReason)> {
    let good = tcp_v4(1, 2, TCP_SYN);
    let change = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    let mut extended = tcp_v6(1, 2);
    extended[20] = 60;
    // Five headers of eight bytes, each saying that another follows.
    let options: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(5);
    extended.splice(54..54, options);
    vec![
        (ethernet(0x0806).into_iter().chain([0; 40]).collect(), DropReason::NotIp),
        (good[..TRANSPORT_V4 + 8].to_vec(), DropReason::Truncated),
        (change(14, 0x44), DropReason::Truncated),
        (change(14, 0x65), DropReason::WrongVersion),
        (extended, DropReason::TooManyExtensionHeaders),
        (change(30, 224), DropReason::NotUnicast),
        (change(29, 9), DropReason::SpoofedSource),
        (change(11, 9), DropReason::SpoofedMac),
    ]
}

#[test]
fn every_fault_has_its_own_reason() {
    let bench = Bench::new();
    for (frame, reason) in faults() {
        let before = bench.dropped(reason);
        assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, SHOT, "{}", reason.name());
        assert_eq!(bench.dropped(reason), before + 1, "{}", reason.name());
    }
    assert_eq!(bench.run(name::TO_REPLICA, &tcp_v4(200, 2, TCP_SYN)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::WrongEndpoint), 1);
}

#[test]
fn without_a_generation_nothing_passes_in_either_direction() {
    let mut bench = Bench::new();
    let frame = tcp_v4(1, 2, TCP_SYN);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, REDIRECT);
    bench.set_generation(2, 0);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, SHOT);
    bench.set_generation(2, 12);
    bench.set_generation(1, 0);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, SHOT);
    assert_eq!(bench.run(name::TO_REPLICA, &tcp_v4(200, 1, TCP_SYN)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::NoEndpoint), 3);
}

#[test]
fn a_new_generation_has_a_known_flow_judged_again() {
    let mut bench = Bench::new();
    let frame = tcp_v4(1, 2, TCP_ACK);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, REDIRECT);
    // The address has no endpoint any more: what was redirected a moment ago is the host's to answer.
    bench
        .hash::<Address4, AddressEntry>(name::ADDRESS_EXACT_V4)
        .remove(&Address4::from_octets([10, 0, 0, 2]))
        .unwrap();
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, REDIRECT, "judged again without a cause");
    bench.set_generation(2, 99);
    assert_eq!(bench.run(name::FROM_REPLICA, &frame).0, OK);
}

#[test]
fn a_connection_that_both_sides_close_expires_soon() {
    let mut bench = Bench::new();
    let out = |flags| tcp_v4(1, 200, flags);
    let expiry = |bench: &mut Bench| bench.connections()[0].expires_ns;
    bench.run(name::FROM_REPLICA, &out(TCP_SYN));
    bench.run(name::TO_REPLICA, &reply(&out(TCP_SYN | TCP_ACK)));
    let established = expiry(&mut bench);
    bench.run(name::FROM_REPLICA, &out(TCP_FIN | TCP_ACK));
    bench.run(name::TO_REPLICA, &reply(&out(TCP_FIN | TCP_ACK)));
    let closing = expiry(&mut bench);
    assert!(established - closing > 5 * 3600 * 1_000_000_000, "{established} {closing}");
}

#[test]
fn a_full_table_makes_room_of_what_is_over_and_never_of_what_lives() {
    let mut bench = Bench::new();
    // Of a table of sixteen, the hash of the kernel may hold some more.
    let passes = |bench: &Bench, port: u16| {
        bench.run(name::FROM_REPLICA, &frame_v4([10, 0, 0, 1], [10, 0, 0, 2], TCP, [port, 80], TCP_SYN)).0
            == REDIRECT
    };
    let live: Vec<u16> = (1..=200).take_while(|&port| passes(&bench, port)).collect();
    assert!(live.len() >= 16 && live.len() < 200, "{live:?}");
    assert!(bench.dropped(DropReason::ConntrackFull) > 0);
    let of = |port: u16| {
        Key::between(
            [[10, 0, 0, 1], [10, 0, 0, 2]].map(Address4::from_octets),
            [port.to_be(), 80_u16.to_be()],
            TCP,
        )
        .0
    };
    // One of them is reset. The next collection is due a moment after the last.
    bench.run(name::FROM_REPLICA, &frame_v4([10, 0, 0, 1], [10, 0, 0, 2], TCP, [live[3], 80], TCP_RST));
    let mut state: hivemind_common::endpoint::CollectorState =
        bench.array(name::COLLECTOR).get(&0, 0).unwrap();
    state.started_ns = 0;
    bench.array(name::COLLECTOR).set(0, state, 0).unwrap();
    assert!(passes(&bench, 500), "there is room for one");
    let connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
    assert!(connections.get(&of(live[3]), 0).is_err());
    assert!(live.iter().filter(|&&port| port != live[3]).all(|&port| connections.get(&of(port), 0).is_ok()));
}

#[test]
fn a_collection_removes_the_expired_and_counts_the_live() {
    let mut bench = Bench::new();
    for destination in 100..104 {
        bench.run(name::FROM_REPLICA, &tcp_v4(1, destination, TCP_SYN));
    }
    let keys: Vec<_> =
        bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4).keys().map(Result::unwrap).collect();
    let mut connections = bench.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
    for key in &keys[..3] {
        let mut entry = connections.get(key, 0).unwrap();
        entry.expires_ns = 1;
        connections.insert(key, entry, 0).unwrap();
    }
    assert_eq!(bench.run(name::COLLECT, &tcp_v4(1, 2, 0)).0, 0);
    assert_eq!(bench.connections().len(), 1);
    let state: hivemind_common::endpoint::CollectorState = bench.array(name::COLLECTOR).get(&0, 0).unwrap();
    assert_eq!((state.live, state.removed, state.runs), ([1, 0], [3, 0], 1));
}
