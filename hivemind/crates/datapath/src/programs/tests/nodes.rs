//! What the programs write for other nodes, and what they take from them, byte by byte.

use super::policy::{closed, say, value};
use super::*;
use hivemind_common::{
    node::{NodeState, OVERLAY_MAC, OWN},
    policy::{ALLOW, EGRESS},
};
use hivemind_policy::Transport;

/// `TC_ACT_UNSPEC`: the frame goes on as if the program were not there.
const UNSPEC: u32 = u32::MAX;
const OVERLAY_INTERFACE: u32 = 88;
const UPLINK: u32 = 99;
const OWN_NODE: [u8; 4] = [192, 0, 2, 1];
const OTHER_NODE: [u8; 4] = [192, 0, 2, 2];
const THIRD_NODE: [u8; 4] = [192, 0, 2, 3];
/// A replica of the other node, and one that nobody has told of.
const FAR: [u8; 4] = [10, 0, 2, 7];
const FAR_UNTOLD: [u8; 4] = [10, 0, 2, 8];
const FAR_IDENTITY: u32 = 0xab_cdef;
const HOST: u32 = 1;
const WORLD: u32 = 2;
const NODE: u32 = 4;

fn far6() -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[1], octets[15]) = (0xfd, 2, 7);
    octets
}

/// The node of [`Bench`] as the first of three: the second has replicas in 10.0.2.0/24 and fd02::/16.
fn joined() -> Bench {
    let mut bench = Bench::new();
    let state = |address, interface| NodeState {
        address: Address4::from_octets(address),
        source: Address4::from_octets(OWN_NODE),
        next_hop: Address4::from_octets(address),
        interface,
        ..NodeState::default()
    };
    bench.set_node(OWN, state(OWN_NODE, OVERLAY_INTERFACE));
    bench.set_node(2, state(OTHER_NODE, UPLINK));
    bench.set_node(3, state(THIRD_NODE, 0));
    for (address, number) in [(OTHER_NODE, 2), (THIRD_NODE, 3)] {
        bench
            .hash::<Address4, u32>(name::NODE_BY_ADDRESS)
            .insert(Address4::from_octets(address), number, 0)
            .unwrap();
    }
    bench.set_range(name::NODE_RANGE_V4, 16, Address4::from_octets([10, 0, 0, 0]), OWN);
    bench.set_range(name::NODE_RANGE_V4, 24, Address4::from_octets([10, 0, 2, 0]), 2);
    bench.set_range(name::NODE_RANGE_V4, 24, Address4::from_octets([10, 0, 3, 0]), 3);
    let mut prefix = [0; 16];
    prefix[0] = 0xfd;
    bench.set_range(name::NODE_RANGE_V6, 8, Address6::from_octets(prefix), OWN);
    prefix[1] = 2;
    bench.set_range(name::NODE_RANGE_V6, 16, Address6::from_octets(prefix), 2);
    let entry = AddressEntry { identity: FAR_IDENTITY, endpoint: OUTSIDE, node: 2 };
    bench.hash(name::ADDRESS_EXACT_V4).insert(Address4::from_octets(FAR), entry, 0).unwrap();
    bench.hash(name::ADDRESS_EXACT_V6).insert(Address6::from_octets(far6()), entry, 0).unwrap();
    bench
}

impl Bench {
    fn set_node(&mut self, number: u32, state: NodeState) {
        self.array(name::NODE_STATE).set(number, state, 0).unwrap();
    }

    fn set_range<A: Pod>(&mut self, map: &str, bits: u32, network: A, node: u32) {
        let mut ranges = LpmTrie::try_from(self.ebpf.map_mut(map).unwrap()).unwrap();
        ranges.insert(&aya::maps::lpm_trie::Key::new(bits, network), node, 0).unwrap();
    }

    /// Runs a frame that must be dropped, and for this reason alone.
    fn refuses(&self, program: &str, frame: &[u8], reason: DropReason) {
        let count = || DropReason::ALL.map(|reason| self.dropped(reason));
        let mut expected = count();
        expected[reason as usize] += 1;
        assert_eq!(self.run_resized(program, frame).0, SHOT, "{}", reason.name());
        assert_eq!(count(), expected, "{}", reason.name());
    }
}

/// A frame between two nodes with this one inside, addressed to the loopback interface, which has no MAC address.
fn wrapped(nodes: [[u8; 4]; 2], identity: u32, inside: &[u8]) -> Vec<u8> {
    let datagram = u16::try_from(8 + 8 + inside.len()).unwrap();
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + datagram).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(nodes.concat());
    frame.extend([0xc0, 0, 0x12, 0xb5]);
    frame.extend(datagram.to_be_bytes());
    frame.extend([0, 0, 8, 0, 0, 0]);
    frame.extend((identity << 8).to_be_bytes());
    frame.extend(inside);
    frame
}

fn from_other(identity: u32, inside: &[u8]) -> Vec<u8> {
    wrapped([OTHER_NODE, OWN_NODE], identity, inside)
}

/// The sum of a header of 16-bit words, as every receiver makes it: all ones if its checksum is right.
fn sum(header: &[u8]) -> u32 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16)
}

#[test]
fn a_packet_for_another_node_is_wrapped_in_plain_vxlan_that_names_its_sender() {
    let bench = joined();
    let v4 = frame_v4([10, 0, 0, 1], FAR, TCP, [0x1234, 80], TCP_SYN);
    let v6 = frame_v6(address6(1).octets(), far6(), TCP, [0x1234, 80], TCP_SYN);
    // The first packet, and one of the flow that is known then.
    for frame in [&v4, &v4, &v6, &v6] {
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, frame);
        assert_eq!((verdict, out.len()), (REDIRECT, frame.len() + 50));
        // The outer Ethernet header is the kernel's to write, once it knows the neighbour.
        let total = u16::try_from(out.len() - 14).unwrap();
        assert_eq!(out[14..18], [[0x45, 0], total.to_be_bytes()].concat());
        assert_eq!(out[18..24], [0, 0, 0x40, 0, 64, 17]);
        assert_eq!(sum(&out[14..34]), 0xffff);
        assert_eq!(out[26..34], [OWN_NODE, OTHER_NODE].concat());
        assert!(out[34] >= 0xc0, "the source port says which flow it is");
        assert_eq!(out[36..38], 4789_u16.to_be_bytes());
        assert_eq!(out[38..42], [(total - 20).to_be_bytes(), [0, 0]].concat());
        let [_, a, b, c] = identity(1).to_be_bytes();
        assert_eq!(out[42..50], [8, 0, 0, 0, a, b, c, 0]);
        assert_eq!(out[50..62], [OVERLAY_MAC, OVERLAY_MAC].concat());
        // All of the packet itself, as the replica sent it.
        assert_eq!(out[62..], frame[12..]);
    }
}

#[test]
fn packets_of_one_flow_leave_from_one_port_and_those_of_many_from_many() {
    let bench = joined();
    let port = |source: u16| {
        let (_, out) =
            bench.run_resized(name::FROM_REPLICA, &frame_v4([10, 0, 0, 1], FAR, TCP, [source, 80], TCP_SYN));
        u16::from_be_bytes([out[34], out[35]])
    };
    assert_eq!(port(1), port(1));
    let ports: std::collections::HashSet<u16> = (1..10).map(port).collect();
    assert!(ports.len() > 5, "{ports:?}");
}

#[test]
fn a_packet_from_another_node_is_unwrapped_and_redirected_to_its_endpoint() {
    let mut bench = joined();
    let macs: Vec<u8> =
        EndpointState::macs(OWN_MAC, GATEWAY_MAC).iter().flat_map(|word| word.to_ne_bytes()).collect();
    let v4 = frame_v4(FAR, [10, 0, 0, 1], TCP, [0x1234, 80], TCP_SYN);
    let v6 = frame_v6(far6(), address6(1).octets(), TCP, [0x1234, 80], TCP_SYN);
    for frame in [&v4, &v4, &v6, &v6] {
        let (verdict, out) = bench.run_resized(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, frame));
        assert_eq!((verdict, &out[..12]), (REDIRECT, &macs[..]));
        assert_eq!(out[12..], frame[12..]);
    }
    let [entry] = bench.connections()[..] else { panic!("not one entry") };
    let far = usize::from(entry.endpoints[0] != OUTSIDE);
    assert_eq!((entry.node(far), entry.identities[far]), (2, FAR_IDENTITY));
    // The answer is of the same entry, and goes back by that node.
    let (verdict, out) = bench
        .run_resized(name::FROM_REPLICA, &frame_v4([10, 0, 0, 1], FAR, TCP, [80, 0x1234], TCP_SYN | TCP_ACK));
    assert_eq!((verdict, &out[30..34]), (REDIRECT, &OTHER_NODE[..]));
    let [entry] = bench.connections()[..] else { panic!("not one entry") };
    assert!(entry.seen.iter().all(|&seen| seen != 0), "the answer was not seen: {entry:?}");
}

#[test]
fn what_is_not_for_the_overlay_goes_on_untouched() {
    let bench = joined();
    let inside = frame_v4(FAR, [10, 0, 0, 1], TCP, [0x1234, 80], TCP_SYN);
    let good = from_other(FAR_IDENTITY, &inside);
    let change = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    let others = [
        // Another protocol, another port, a packet to somebody else, a fragment, another Ethernet type.
        change(23, TCP),
        change(37, 0xb6),
        change(33, 9),
        change(20, 0x20),
        frame_v6(far6(), address6(1).octets(), TCP, [1, 2], TCP_SYN),
        ethernet(0x0806).into_iter().chain([0; 40]).collect(),
        good[..40].to_vec(),
    ];
    for frame in others {
        assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &frame), (UNSPEC, frame));
    }
    // Of a node that is in no cluster nothing is taken, whoever it seems to be for.
    let alone = Bench::new();
    assert_eq!(alone.run_resized(name::FROM_UNDERLAY, &good), (UNSPEC, good));
}

#[test]
fn what_another_node_may_not_send_is_dropped_with_its_reason() {
    let bench = joined();
    let tcp = |source| frame_v4(source, [10, 0, 0, 1], TCP, [0x1234, 80], TCP_SYN);
    let strange = wrapped([[192, 0, 2, 9], OWN_NODE], FAR_IDENTITY, &tcp(FAR));
    bench.refuses(name::FROM_UNDERLAY, &strange, DropReason::UnknownNode);
    // A replica of the third node, one of this node, and an address in nobody's range.
    for source in [[10, 0, 3, 1], [10, 0, 0, 2], [10, 0, 9, 9]] {
        bench.refuses(
            name::FROM_UNDERLAY,
            &from_other(FAR_IDENTITY, &tcp(source)),
            DropReason::SpoofedSource,
        );
    }
    let mut arp = ethernet(0x0806);
    arp.extend([0; 40]);
    bench.refuses(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &arp), DropReason::NotIp);
    let mut multicast = tcp(FAR);
    multicast[30] = 224;
    bench.refuses(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &multicast), DropReason::NotUnicast);
    let mut old = tcp(FAR);
    old[14] = 0x65;
    bench.refuses(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &old), DropReason::WrongVersion);
}

#[test]
fn a_flow_that_another_node_takes_over_is_judged_again_and_refused() {
    let bench = joined();
    let frame = frame_v4(FAR, [10, 0, 0, 1], TCP, [0x1234, 80], TCP_SYN);
    assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &frame)).0, REDIRECT);
    let stolen = wrapped([THIRD_NODE, OWN_NODE], FAR_IDENTITY, &frame);
    bench.refuses(name::FROM_UNDERLAY, &stolen, DropReason::SpoofedSource);
}

#[test]
fn a_sender_is_judged_by_the_identity_that_its_node_tells() {
    let mut bench = joined();
    let mut tables = closed(0);
    say(&mut tables, FAR_IDENTITY, Transport::Any, value(ALLOW, 1, 7));
    bench.set_policy(1, &tables);
    let frame = |port| frame_v4(FAR, [10, 0, 0, 1], TCP, [port, 80], TCP_SYN);
    assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &frame(1))).0, REDIRECT);
    for (port, identity) in [(2, 0), (3, 999), (4, NODE)] {
        bench.refuses(name::FROM_UNDERLAY, &from_other(identity, &frame(port)), DropReason::PolicyIngress);
    }
    // The same flow under another identity is another flow to a policy.
    bench.refuses(name::FROM_UNDERLAY, &from_other(999, &frame(1)), DropReason::PolicyIngress);
}

#[test]
fn another_nodes_processes_are_not_taken_for_this_nodes_own() {
    let mut bench = joined();
    bench.set_policy(1, &closed(0));
    let frame = frame_v4(OTHER_NODE, [10, 0, 0, 1], TCP, [0x1234, 80], TCP_SYN);
    bench.refuses(name::FROM_UNDERLAY, &from_other(HOST, &frame), DropReason::PolicyIngress);
    let pairs = bench.pairs();
    assert!(pairs.iter().any(|(key, _)| key.source == NODE), "{pairs:?}");
}

#[test]
fn a_replica_that_nobody_has_told_of_is_reached_by_its_range_but_no_policy_lets_it() {
    let mut bench = joined();
    let frame = |port| frame_v4([10, 0, 0, 1], FAR_UNTOLD, TCP, [port, 80], TCP_SYN);
    let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &frame(1));
    assert_eq!((verdict, &out[30..34]), (REDIRECT, &OTHER_NODE[..]));
    let mut tables = closed(EGRESS);
    say(&mut tables, EGRESS | FAR_IDENTITY, Transport::Any, value(ALLOW, 1, 7));
    say(&mut tables, EGRESS | WORLD, Transport::Any, value(ALLOW, 1, 8));
    bench.set_policy(1, &tables);
    bench.refuses(name::FROM_REPLICA, &frame(1), DropReason::PolicyEgress);
    bench.refuses(name::FROM_REPLICA, &frame(2), DropReason::PolicyEgress);
    let known = frame_v4([10, 0, 0, 1], FAR, TCP, [3, 80], TCP_SYN);
    assert_eq!(bench.run_resized(name::FROM_REPLICA, &known).0, REDIRECT);
}

#[test]
fn without_a_way_to_its_node_a_packet_is_dropped() {
    let bench = joined();
    let frame = frame_v4([10, 0, 0, 1], [10, 0, 3, 1], TCP, [0x1234, 80], TCP_SYN);
    bench.refuses(name::FROM_REPLICA, &frame, DropReason::NoNodeRoute);
}

#[test]
fn a_packet_that_is_too_long_for_the_way_is_left_to_the_hosts_stack() {
    let mut bench = joined();
    let frame = frame_v4([10, 0, 0, 1], FAR, TCP, [0x1234, 80], TCP_SYN);
    let mut narrow = NodeState {
        address: Address4::from_octets(OTHER_NODE),
        source: Address4::from_octets(OWN_NODE),
        next_hop: Address4::from_octets(OTHER_NODE),
        interface: UPLINK,
        mtu: 40,
        flags: 0,
    };
    bench.set_node(2, narrow);
    assert_eq!(bench.run_resized(name::FROM_REPLICA, &frame).0, REDIRECT, "it just fits");
    narrow.mtu = 39;
    bench.set_node(2, narrow);
    assert_eq!(bench.run_resized(name::FROM_REPLICA, &frame), (OK, frame));
}

#[test]
fn what_the_host_sends_bears_the_identity_of_another_nodes_processes() {
    let bench = joined();
    let frame = frame_v4(OWN_NODE, FAR, TCP, [0x1234, 80], TCP_SYN);
    let (verdict, out) = bench.run_resized(name::TO_OVERLAY, &frame);
    assert_eq!((verdict, out.len()), (REDIRECT, frame.len() + 50));
    assert_eq!(out[46..50], [0, 0, 4, 0]);
    assert_eq!(out[62..], frame[12..]);
    // What is for no other node is left to the device, which drops it.
    let stray = frame_v4(OWN_NODE, [198, 51, 100, 7], TCP, [0x1234, 80], TCP_SYN);
    assert_eq!(bench.run_resized(name::TO_OVERLAY, &stray), (OK, stray));
}

#[test]
fn an_answer_to_the_host_comes_in_by_the_overlays_own_interface() {
    let bench = joined();
    let frame = frame_v4(FAR, OWN_NODE, TCP, [80, 0x1234], TCP_SYN | TCP_ACK);
    let (verdict, out) = bench.run_resized(name::FROM_UNDERLAY, &from_other(FAR_IDENTITY, &frame));
    assert_eq!((verdict, &out[..6]), (REDIRECT, &OVERLAY_MAC[..]));
    assert_eq!(out[12..], frame[12..]);
}
