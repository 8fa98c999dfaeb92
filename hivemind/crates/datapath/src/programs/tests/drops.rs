//! Every reason to drop a packet, by packets that are dropped for it.

use super::{
    overlay::{FAR_IDENTITY, FAR_V4, OTHER, OWN_ADDRESS, wrapped},
    policy::closed,
    sent::Sent,
    translation::{FAR, NODE, ON, SERVED, far6, served6},
    *,
};
use hivemind_common::{
    node::NodeState,
    packet::{SCTP, UDP},
    policy::{DENY, EGRESS},
    service::ServiceKey,
    telemetry::{DROPS_OF_HOST, DropKey, EVENT_DROPPED},
};

/// A packet that is dropped.
struct Dropped {
    bench: Bench,
    program: &'static str,
    frame: Vec<u8>,
    /// Whose it is: an endpoint's index, or of none.
    whose: u32,
}

/// Where `struct __sk_buff` of <linux/bpf.h> says by which interface a frame came in.
const INGRESS_IFINDEX: usize = 36;

/// The reason, how it comes to that, and how it is made to come.
type Case = (DropReason, &'static str, fn() -> Dropped);

fn of(bench: Bench, program: &'static str, frame: Vec<u8>, whose: u32) -> Dropped {
    Dropped { bench, program, frame, whose }
}

/// Sent by the endpoint 1.
fn sent(bench: Bench, frame: Vec<u8>) -> Dropped {
    of(bench, name::FROM_REPLICA, frame, 1)
}

/// Sent to the endpoint 1 by the host's stack.
fn taken(bench: Bench, frame: Vec<u8>) -> Dropped {
    of(bench, name::TO_REPLICA, frame, 1)
}

/// At an interface that is no endpoint's. Of one that came in there the context of a test run says nothing, if it is not told
/// to: it is taken for the host's.
fn elsewhere(mut bench: Bench, program: &'static str, frame: Vec<u8>) -> Dropped {
    bench.leave_interface();
    of(bench, program, frame, DROPS_OF_HOST)
}

/// Brought by another node, if it is one.
fn brought(from: &NodeState, inner: &[u8]) -> Dropped {
    let frame = wrapped(from, OWN_ADDRESS, FAR_IDENTITY, inner);
    elsewhere(Bench::with_nodes(OTHER), name::FROM_UNDERLAY, frame)
}

/// A good frame with another byte.
fn changed(at: usize, to: u8) -> Vec<u8> {
    let mut frame = tcp_v4(1, 2, TCP_SYN);
    frame[at] = to;
    frame
}

/// A frame of IPv6 in which options stand as often as that.
fn extended(times: usize) -> Vec<u8> {
    let mut frame = tcp_v6(1, 2);
    frame[20] = 60;
    let mut options = [60, 0, 1, 4, 0, 0, 0, 0].repeat(times);
    // Behind the last of them comes TCP.
    options[8 * (times - 1)] = TCP;
    frame[19] += 8 * times as u8;
    frame.splice(54..54, options);
    frame
}

fn multicast6() -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[1], octets[15]) = (0xff, 2, 1);
    octets
}

/// A frame of a later fragment, of which no first one was seen.
fn later(mut frame: Vec<u8>) -> Vec<u8> {
    frame[18..22].copy_from_slice(&[0, 77, 0, 4]);
    frame
}

/// The endpoint 1 has used up its connections to one destination.
fn without_ports() -> Bench {
    let bench = Bench::leading_out();
    for port in 1..=16 {
        let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [port, 443]);
        assert_eq!(bench.run(name::TO_UNDERLAY, &sent.frame()).0, ON);
    }
    bench
}

fn full_of_connections() -> Bench {
    let bench = Bench::new();
    let fits = |port: u16| {
        let frame = frame_v4([10, 0, 0, 1], [10, 0, 0, 2], TCP, [port, 80], TCP_SYN);
        bench.run(name::FROM_REPLICA, &frame).0 == REDIRECT
    };
    assert!((1..=200).take_while(|&port| fits(port)).count() < 200);
    bench
}

fn full_of_translations() -> Bench {
    let bench = Bench::leading_out();
    let fits = |port| {
        let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, port]);
        bench.run(name::TO_UNDERLAY, &sent.frame()).0 == ON
    };
    assert!((1..=200).take_while(|&port| fits(port)).count() < 200);
    bench
}

fn serving(backends: &[u32], target: u16) -> Bench {
    let mut bench = Bench::new();
    bench.serve(backends, target);
    bench
}

fn with_policy(index: u32, tables: &Tables) -> Bench {
    let mut bench = Bench::new();
    bench.set_policy(index, tables);
    bench
}

/// An ICMP error of the endpoint 1 about a packet of nobody.
fn unrelated() -> Vec<u8> {
    let shown = Sent::new(&FAR, &[10, 0, 0, 1], UDP, [9, 9]).frame();
    let mut frame = ethernet(0x0800);
    frame.extend([0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1]);
    frame.extend(FAR);
    frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    frame.extend(&shown[14..42]);
    frame
}

const CASES: &[Case] = &[
    (DropReason::NotIp, "a replica asks for a MAC address", || {
        sent(Bench::new(), ethernet(0x0806).into_iter().chain([0; 40]).collect())
    }),
    (DropReason::NotIp, "the host's stack asks a replica for one", || {
        taken(Bench::new(), ethernet(0x0806).into_iter().chain([0; 40]).collect())
    }),
    (DropReason::NotIp, "another node brings something else", || {
        brought(&OTHER, &ethernet(0x0806).into_iter().chain([0; 40]).collect::<Vec<_>>())
    }),
    (DropReason::Truncated, "TCP's header is not all there", || {
        sent(Bench::new(), tcp_v4(1, 2, TCP_SYN)[..TRANSPORT_V4 + 8].to_vec())
    }),
    (DropReason::Truncated, "TCP's header is not all there, behind IPv6's", || {
        taken(Bench::new(), tcp_v6(1, 2)[..14 + 40 + 8].to_vec())
    }),
    (DropReason::Truncated, "IPv4's header is said to be too short", || {
        sent(Bench::new(), changed(14, 0x44))
    }),
    (DropReason::WrongVersion, "IPv6 in a frame of IPv4", || sent(Bench::new(), changed(14, 0x65))),
    (DropReason::WrongVersion, "IPv4 in a frame of IPv6", || {
        let mut frame = tcp_v6(1, 2);
        frame[14] = 0x45;
        taken(Bench::new(), frame)
    }),
    (DropReason::TooManyExtensionHeaders, "a replica sends five", || sent(Bench::new(), extended(5))),
    (DropReason::NotUnicast, "to all hosts", || sent(Bench::new(), changed(30, 224))),
    (DropReason::NotUnicast, "to all nodes of IPv6", || {
        sent(Bench::new(), frame_v6(address6(1).octets(), multicast6(), UDP, [1, 2], 0))
    }),
    (DropReason::NotUnicast, "from another node", || {
        brought(&OTHER, &frame_v4(FAR_V4, [224, 0, 0, 1], TCP, [80, 1000], TCP_SYN))
    }),
    (DropReason::NotUnicast, "from the host's stack", || {
        taken(Bench::new(), frame_v4(NODE, [224, 0, 0, 1], UDP, [80, 1000], 0))
    }),
    (DropReason::NoEndpoint, "the sender is gone", || {
        let mut bench = Bench::new();
        bench.set_generation(1, 0);
        sent(bench, tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::NoEndpoint, "the receiver is gone", || {
        let mut bench = Bench::new();
        bench.set_generation(2, 0);
        sent(bench, tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::NoEndpoint, "nobody sits at the interface", || {
        elsewhere(Bench::new(), name::FROM_REPLICA, tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::SpoofedSource, "a replica has another's address", || sent(Bench::new(), changed(29, 9))),
    (DropReason::SpoofedSource, "the same, and asks a service", || {
        let spoofed = Sent::new(&[10, 0, 0, 9], &SERVED, TCP, [4_000, 80]);
        sent(serving(&[2], 80), spoofed.frame())
    }),
    (DropReason::SpoofedSource, "another node sends from this one's range", || {
        brought(&OTHER, &frame_v4([10, 0, 0, 2], [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN))
    }),
    (DropReason::SpoofedSource, "somebody outside has a replica's address", || {
        taken(Bench::new(), tcp_v4(2, 1, TCP_SYN))
    }),
    (DropReason::SpoofedSource, "the same asks a service", || {
        let spoofed = Sent::new(&[10, 0, 0, 2], &SERVED, TCP, [4_000, 80]);
        elsewhere(serving(&[2], 80), name::TO_SERVICE, spoofed.frame())
    }),
    (DropReason::SpoofedMac, "a replica has another's", || sent(Bench::new(), changed(11, 9))),
    (DropReason::WrongEndpoint, "what is another's comes to its interface", || {
        taken(Bench::new(), tcp_v4(200, 2, TCP_SYN))
    }),
    (DropReason::ConntrackFull, "all others live", || {
        let frame = frame_v4([10, 0, 0, 1], [10, 0, 0, 2], TCP, [201, 80], TCP_SYN);
        sent(full_of_connections(), frame)
    }),
    (DropReason::Rewrite, "SCTP's port would have to be another", || {
        sent(serving(&[2], 8080), Sent::new(&[10, 0, 0, 1], &SERVED, SCTP, [4_000, 80]).frame())
    }),
    (DropReason::Internal, "there is no program for the next step", || {
        let mut bench = Bench::new();
        let steps = bench.ebpf.map_mut(name::STEPS).unwrap();
        let mut steps = aya::maps::ProgramArray::try_from(steps).unwrap();
        steps.clear_index(&name::step::SETTLE).unwrap();
        sent(bench, tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::PolicyEgress, "nothing may leave", || {
        sent(with_policy(1, &closed(EGRESS)), tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::PolicyEgress, "nothing may leave, of IPv6", || {
        sent(with_policy(1, &closed(EGRESS)), tcp_v6(1, 2))
    }),
    (DropReason::PolicyIngress, "nothing may enter", || {
        sent(with_policy(2, &closed(0)), tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::PolicyIngress, "the same, from outside", || {
        taken(with_policy(1, &closed(0)), tcp_v4(200, 1, TCP_SYN))
    }),
    (DropReason::PolicyIngress, "the same, by a service from the node", || {
        let mut bench = with_policy(2, &closed(0));
        bench.serve(&[2], 80);
        let asked = Sent::new(&NODE, &SERVED, TCP, [4_000, 80]).frame();
        Dropped { whose: 2, ..elsewhere(bench, name::TO_SERVICE, asked) }
    }),
    (DropReason::NoPolicy, "the sender has none yet", || {
        sent(Bench::without_policy(), tcp_v4(1, 2, TCP_SYN))
    }),
    (DropReason::NoPolicy, "the receiver has none yet", || {
        taken(Bench::without_policy(), tcp_v4(200, 1, TCP_SYN))
    }),
    (DropReason::UnknownNode, "a stranger speaks as a node", || {
        let stranger = NodeState { address: Address4::from_octets([192, 0, 2, 9]), ..OTHER };
        let inner = frame_v4(FAR_V4, [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN);
        brought(&stranger, &inner)
    }),
    (DropReason::NoNodeRoute, "the node was never reached", || {
        let nowhere = frame_v4([10, 0, 0, 1], [10, 0, 2, 1], TCP, [1000, 80], TCP_SYN);
        sent(Bench::with_nodes(OTHER), nowhere)
    }),
    (DropReason::NoNodeRoute, "the same, from the host's stack", || {
        let nowhere = frame_v4(NODE, [10, 0, 2, 1], TCP, [1000, 80], TCP_SYN);
        elsewhere(Bench::with_nodes(OTHER), name::TO_OVERLAY, nowhere)
    }),
    (DropReason::LostFragment, "a replica sends a later one only", || {
        sent(Bench::new(), later(frame_v4([10, 0, 0, 1], [10, 0, 0, 2], UDP, [1, 2], 0)))
    }),
    (DropReason::LostFragment, "the host's stack does, to a service", || {
        let asked = later(Sent::new(&NODE, &SERVED, UDP, [4_000, 80]).frame());
        elsewhere(serving(&[2], 80), name::TO_SERVICE, asked)
    }),
    (DropReason::UnrelatedError, "a replica tells of a packet of nobody", || sent(Bench::new(), unrelated())),
    (DropReason::NoBackend, "what cannot be answered asks a service without endpoints", || {
        let asked = Sent { tcp_flags: TCP_RST, ..Sent::new(&[10, 0, 0, 1], &SERVED, TCP, [4_000, 80]) };
        sent(serving(&[], 80), asked.frame())
    }),
    (DropReason::NoBackend, "the same, from the node, of IPv6", || {
        let asked = Sent { tcp_flags: TCP_RST, ..Sent::new(&far6(), &served6(), TCP, [4_000, 80]) };
        elsewhere(serving(&[], 80), name::TO_SERVICE, asked.frame())
    }),
    (DropReason::TranslationFull, "all others live", || {
        let frame = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, 201]).frame();
        elsewhere(full_of_translations(), name::TO_UNDERLAY, frame)
    }),
    (DropReason::NoPort, "all ports to the destination are taken", || {
        let frame = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [17, 443]).frame();
        elsewhere(without_ports(), name::TO_UNDERLAY, frame)
    }),
    (DropReason::Guarded, "the clouds' metadata", || {
        let mut bench = Bench::new();
        let metadata = Address4::from_octets([169, 254, 169, 254]);
        bench.hash(name::GUARDED_V4).insert(ServiceKey::every_port(metadata), 1_u32, 0).unwrap();
        sent(bench, frame_v4([10, 0, 0, 1], metadata.octets(), TCP, [4_000, 80], TCP_SYN))
    }),
    (DropReason::Guarded, "a server of the node's own", || {
        let mut bench = Bench::new();
        let node = Address6::from_octets(far6());
        bench.hash(name::NODE_ADDRESS_V6).insert(node, 1_u32, 0).unwrap();
        let key: ServiceKey<Address6> = ServiceKey::published(4483_u16.to_be(), TCP);
        bench.hash(name::GUARDED_V6).insert(key, 1_u32, 0).unwrap();
        sent(bench, frame_v6(address6(1).octets(), far6(), TCP, [4_000, 4483], TCP_SYN))
    }),
    (DropReason::InternalAddress, "there is no other to leave under", || {
        let frame = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, 443]).frame();
        elsewhere(Bench::new(), name::TO_UNDERLAY, frame)
    }),
];

impl Bench {
    /// The endpoint 1 sits at the interface of the test run no longer.
    fn leave_interface(&mut self) {
        self.hash::<u32, u32>(name::ENDPOINT_BY_INTERFACE).remove(&INTERFACE).unwrap();
    }

    /// Packets dropped of each end for each reason.
    fn drops_by_end(&self) -> Vec<(DropKey, u64)> {
        let counts: aya::maps::PerCpuHashMap<_, DropKey, u64> =
            aya::maps::PerCpuHashMap::try_from(self.ebpf.map(name::ENDPOINT_DROPS).unwrap()).unwrap();
        let counts = counts.iter().map(Result::unwrap);
        counts.map(|(key, cpus)| (key, cpus.iter().sum())).filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn every_reason_has_a_case() {
    for reason in DropReason::ALL {
        assert!(CASES.iter().any(|(of, ..)| *of == reason), "nothing is dropped for {}", reason.name());
    }
}

/// Attempts that pairs have as denied.
fn denied_attempts(bench: &mut Bench) -> u64 {
    let pairs = bench.pairs().into_iter();
    pairs.filter(|(key, _)| key.verdict == DENY).map(|(_, totals)| totals.connections).sum()
}

/// Checks that every fourth case, from this one on, is dropped for its reason and for no other, and is told so. Each needs maps of
/// its own, and the programs for them: on an emulated kernel all of them take too long for one test.
fn check_cases(from: usize) {
    for &(reason, how, make) in CASES.iter().skip(from).step_by(4) {
        let Dropped { mut bench, program, frame, whose } = make();
        let case = format!("{}: {how}", reason.name());
        let counts = |bench: &Bench| DropReason::ALL.map(|reason| bench.dropped(reason));
        let of_end = |bench: &Bench| {
            let drops = bench.drops_by_end();
            let key = DropKey { endpoint: whose, reason: reason as u32 };
            drops.into_iter().find(|(of, _)| *of == key).map_or(0, |(_, count)| count)
        };
        bench.events();
        let (mut expected, ends) = (counts(&bench), of_end(&bench));
        let (connections, records) = (bench.connections().len(), bench.records());
        let attempts = denied_attempts(&mut bench);
        assert_eq!(bench.run(program, &frame).0, SHOT, "{case}");
        expected[reason as usize] += 1;
        assert_eq!(counts(&bench), expected, "{case}");
        assert_eq!(of_end(&bench), ends + 1, "{case}: {:?}", bench.drops_by_end());
        // That there is no way is seen when all else was decided.
        if reason != DropReason::NoNodeRoute {
            assert_eq!(bench.connections().len(), connections, "{case}: a connection was made");
        }
        assert!(bench.records() <= records + 2, "{case}");
        // What is told as denied is counted as denied, and what is told as dropped is not.
        let attempt = u64::from(reason.is_denial());
        assert_eq!(denied_attempts(&mut bench), attempts + attempt, "{case}");
        let told: Vec<_> = bench.events().into_iter().filter(|event| event.kind == EVENT_DROPPED).collect();
        let [event] = told[..] else { panic!("{case}: {told:?}") };
        assert_eq!((event.reason, event.interface), (reason as u8, INTERFACE), "{case}");
    }
}

#[test]
fn every_case_is_dropped_for_its_reason_and_for_no_other_and_is_told_so_1_of_4() {
    check_cases(0);
}

#[test]
fn every_case_is_dropped_for_its_reason_and_for_no_other_and_is_told_so_2_of_4() {
    check_cases(1);
}

#[test]
fn every_case_is_dropped_for_its_reason_and_for_no_other_and_is_told_so_3_of_4() {
    check_cases(2);
}

#[test]
fn every_case_is_dropped_for_its_reason_and_for_no_other_and_is_told_so_4_of_4() {
    check_cases(3);
}

#[test]
fn what_was_dropped_is_not_told_as_the_packet_before() {
    // The endpoint 1 has just sent something, and what it was is still where this CPU puts entries together.
    let mut bench = Bench::new();
    assert_eq!(bench.run(name::FROM_REPLICA, &tcp_v4(1, 2, TCP_SYN)).0, REDIRECT);
    bench.leave_interface();
    bench.events();
    let foreign = Sent::new(&[10, 0, 0, 77], &FAR, TCP, [1, 443]);
    assert_eq!(bench.run(name::TO_UNDERLAY, &foreign.frame()).0, SHOT);
    let key = |endpoint, reason| DropKey { endpoint, reason: reason as u32 };
    assert_eq!(bench.drops_by_end(), [(key(DROPS_OF_HOST, DropReason::InternalAddress), 1)]);
    let [event] = bench.events()[..] else { panic!("not one event") };
    assert_eq!((event.identities, event.bytes), ([0; 2], [0; 2]));
}

#[test]
fn what_the_hosts_stack_sends_out_for_a_replica_is_the_replicas_when_it_is_dropped() {
    let mut bench = Bench::new();
    let sent = Sent::new(&[10, 0, 0, 1], &FAR, TCP, [1, 443]).frame();
    assert_eq!(bench.run(name::FROM_REPLICA, &sent).0, OK, "it is left to the host's stack");
    bench.leave_interface();
    // Another's packet in between.
    bench.run(name::TO_REPLICA, &tcp_v4(200, 2, TCP_SYN));
    assert_eq!(bench.run(name::TO_UNDERLAY, &sent).0, SHOT);
    let drop = DropKey { endpoint: 1, reason: DropReason::InternalAddress as u32 };
    assert!(bench.drops_by_end().contains(&(drop, 1)), "{:?}", bench.drops_by_end());
}

#[test]
fn what_came_in_and_is_no_endpoints_is_the_outsides() {
    let stranger = NodeState { address: Address4::from_octets([192, 0, 2, 9]), ..OTHER };
    let inner = frame_v4(FAR_V4, [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN);
    let Dropped { bench, program, frame, .. } = brought(&stranger, &inner);
    let mut context = [0_u8; 192];
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&INTERFACE.to_ne_bytes());
    let options =
        TestRunOptions { data_in: Some(&frame), ctx_in: Some(&context), repeat: 1, ..TestRunOptions::new() };
    assert_eq!(bench.program(program).test_run(options).unwrap().return_value, SHOT);
    let drop = DropKey { endpoint: OUTSIDE, reason: DropReason::UnknownNode as u32 };
    assert_eq!(bench.drops_by_end(), [(drop, 1)]);
}
