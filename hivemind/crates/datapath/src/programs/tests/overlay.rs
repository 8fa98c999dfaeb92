//! Packets between nodes, byte by byte.

use super::*;
use hivemind_common::{
    node::{DIRECT, NodeState, OVERLAY_MAC, OWN},
    overlay::{self, BYTES},
};

/// `TC_ACT_UNSPEC`: whoever comes next may have it.
pub(super) const NEXT: u32 = u32::MAX;
pub(super) const UPLINK: u32 = 88;
pub(super) const OVERLAY_INTERFACE: u32 = 99;
pub(super) const OWN_ADDRESS: Address4 = Address4::from_octets([192, 0, 2, 1]);
pub(super) const OTHER: NodeState = NodeState {
    address: Address4::from_octets([192, 0, 2, 2]),
    source: OWN_ADDRESS,
    next_hop: Address4::from_octets([192, 0, 2, 2]),
    interface: UPLINK,
    mtu: 0,
    flags: 0,
};
/// A replica of the other node, and its identity.
pub(super) const FAR_V4: [u8; 4] = [10, 0, 1, 5];
pub(super) const FAR_IDENTITY: u32 = 400;

pub(super) fn far_v6() -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[7], octets[15]) = (0xfd, 1, 5);
    octets
}

impl Bench {
    /// Two nodes: this one has 10.0.0.0/24, number 2 has 10.0.1.0/24 and fd00:0:0:1::/64; number 3 has 10.0.2.0/24 and no way
    /// to it.
    pub(super) fn with_nodes(other: NodeState) -> Self {
        let mut bench = Self::new();
        let own = NodeState {
            address: OWN_ADDRESS,
            source: OWN_ADDRESS,
            interface: OVERLAY_INTERFACE,
            flags: other.flags,
            ..NodeState::default()
        };
        bench.array(name::NODE_STATE).set(OWN, own, 0).unwrap();
        bench.array(name::NODE_STATE).set(2, other, 0).unwrap();
        bench.hash(name::NODE_BY_ADDRESS).insert(OTHER.address, 2u32, 0).unwrap();
        let mut ranges = LpmTrie::try_from(bench.ebpf.map_mut(name::NODE_RANGE_V4).unwrap()).unwrap();
        let v4 = |bits, octets| aya::maps::lpm_trie::Key::new(bits, Address4::from_octets(octets));
        ranges.insert(&v4(16, [10, 0, 0, 0]), 0u32, 0).unwrap();
        ranges.insert(&v4(24, [10, 0, 1, 0]), 2u32, 0).unwrap();
        ranges.insert(&v4(24, [10, 0, 2, 0]), 3u32, 0).unwrap();
        let mut ranges = LpmTrie::try_from(bench.ebpf.map_mut(name::NODE_RANGE_V6).unwrap()).unwrap();
        let v6 = |bits, octets| aya::maps::lpm_trie::Key::new(bits, Address6::from_octets(octets));
        ranges.insert(&v6(48, address6(0).octets()), 0u32, 0).unwrap();
        ranges.insert(&v6(64, far_v6()), 2u32, 0).unwrap();
        bench
    }
}

/// What the other node would send: an IP packet in its headers, to the loopback interface, which has no MAC address.
pub(super) fn wrapped(from: &NodeState, to: Address4, identity: u32, inner: &[u8]) -> Vec<u8> {
    let way = NodeState { source: from.address, address: to, ..*from };
    let ethertype = u16::from_be_bytes([inner[12], inner[13]]);
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    let bytes = BYTES + inner.len() as u32 - 14;
    for word in overlay::headers(&way, bytes, 0, identity, ethertype) {
        frame.extend(word.to_ne_bytes());
    }
    frame.truncate(14 + BYTES as usize);
    frame.extend(&inner[14..]);
    frame
}

fn sent(is_v6: bool) -> Vec<u8> {
    if is_v6 {
        frame_v6(address6(1).octets(), far_v6(), TCP, [1000, 80], TCP_SYN)
    } else {
        frame_v4([10, 0, 0, 1], FAR_V4, TCP, [1000, 80], TCP_SYN)
    }
}

fn answer(is_v6: bool) -> Vec<u8> {
    if is_v6 {
        frame_v6(far_v6(), address6(1).octets(), TCP, [80, 1000], TCP_SYN | TCP_ACK)
    } else {
        frame_v4(FAR_V4, [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN | TCP_ACK)
    }
}

#[test]
fn a_packet_to_another_nodes_replica_gets_the_headers_of_vxlan_with_its_senders_identity() {
    let bench = Bench::with_nodes(OTHER);
    for is_v6 in [false, true] {
        let frame = sent(is_v6);
        // The first packet and a later one.
        for _ in 0..2 {
            let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &frame);
            assert_eq!((verdict, out.len()), (REDIRECT, frame.len() + BYTES as usize));
            let mut expected =
                wrapped(&NodeState { address: OWN_ADDRESS, ..OTHER }, OTHER.address, identity(1), &frame);
            // Whatever the flow's hash is.
            assert!(u16::from_be_bytes([out[34], out[35]]) >= 0xc000);
            expected[34..36].copy_from_slice(&out[34..36]);
            assert_eq!(out[14..], expected[14..]);
        }
    }
    let nowhere = frame_v4([10, 0, 0, 1], [10, 0, 2, 1], TCP, [1000, 80], TCP_SYN);
    assert_eq!(bench.run(name::FROM_REPLICA, &nowhere).0, SHOT);
    assert_eq!(bench.dropped(DropReason::NoNodeRoute), 1);
}

#[test]
fn a_packet_from_another_node_is_taken_out_of_its_headers_and_handed_to_the_endpoint() {
    let mut bench = Bench::with_nodes(OTHER);
    let macs: Vec<u8> = [&OWN_MAC[..], &GATEWAY_MAC[..]].concat();
    for is_v6 in [false, true] {
        bench.run_resized(name::FROM_REPLICA, &sent(is_v6));
        let inner = answer(is_v6);
        for _ in 0..2 {
            let frame = wrapped(&OTHER, OWN_ADDRESS, FAR_IDENTITY, &inner);
            let (verdict, out) = bench.run_resized(name::FROM_UNDERLAY, &frame);
            assert_eq!((verdict, &out[..12]), (REDIRECT, &macs[..]));
            assert_eq!(out[12..], inner[12..]);
        }
    }
    let [entry] = bench.connections()[..] else { panic!("not one entry") };
    assert!(entry.identities.contains(&FAR_IDENTITY) && entry.seen.iter().all(|&seen| seen != 0));
    assert_eq!(entry.node(0) + entry.node(1), 2);
}

#[test]
fn what_is_not_for_a_replica_goes_to_the_hosts_stack() {
    let bench = Bench::with_nodes(OTHER);
    let inner = frame_v4(FAR_V4, [198, 51, 100, 1], TCP, [80, 1000], TCP_ACK);
    let frame = wrapped(&OTHER, OWN_ADDRESS, FAR_IDENTITY, &inner);
    let (verdict, out) = bench.run_resized(name::FROM_UNDERLAY, &frame);
    assert_eq!((verdict, &out[..6]), (REDIRECT, &OVERLAY_MAC[..]));
    assert_eq!(out[14..], inner[14..]);
}

#[test]
fn what_is_no_overlay_packet_for_this_node_passes_by_untouched() {
    let bench = Bench::with_nodes(OTHER);
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let overlay = wrapped(&OTHER, OWN_ADDRESS, FAR_IDENTITY, &answer(false));
    let to_another = wrapped(&OTHER, OTHER.address, FAR_IDENTITY, &answer(false));
    let mut other_port = overlay.clone();
    other_port[37] += 1;
    let mut other_machine = overlay.clone();
    other_machine[0] = 2;
    for frame in [arp, tcp_v4(1, 2, TCP_SYN), tcp_v6(1, 2), to_another, other_port, other_machine] {
        assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &frame), (NEXT, frame));
    }
    let (verdict, _) = bench.run_resized(name::FROM_UNDERLAY, &overlay);
    assert_eq!(verdict, REDIRECT);
}

#[test]
fn what_another_node_may_not_send_is_dropped_with_its_reason() {
    let bench = Bench::with_nodes(OTHER);
    let stranger = NodeState { address: Address4::from_octets([192, 0, 2, 9]), ..OTHER };
    let from = |source| frame_v4(source, [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN);
    let multicast = frame_v4(FAR_V4, [224, 0, 0, 1], TCP, [80, 1000], TCP_SYN);
    for (sender, inner, reason) in [
        (stranger, from(FAR_V4), DropReason::UnknownNode),
        (OTHER, from([10, 0, 0, 2]), DropReason::SpoofedSource),
        (OTHER, from([10, 0, 2, 2]), DropReason::SpoofedSource),
        (OTHER, from([10, 0, 9, 9]), DropReason::SpoofedSource),
        (OTHER, multicast, DropReason::NotUnicast),
    ] {
        let frame = wrapped(&sender, OWN_ADDRESS, FAR_IDENTITY, &inner);
        assert_eq!(bench.run(name::FROM_UNDERLAY, &frame).0, SHOT, "{}", reason.name());
        assert!(bench.dropped(reason) > 0, "{}", reason.name());
    }
    // By the host's stack a replica of another node never comes.
    assert_eq!(bench.run(name::TO_REPLICA, &from(FAR_V4)).0, SHOT);
    assert_eq!(bench.dropped(DropReason::SpoofedSource), 4);
}

#[test]
fn an_answer_goes_to_the_node_that_brought_the_question_also_when_it_is_judged_again() {
    let mut bench = Bench::with_nodes(OTHER);
    let client = [198, 51, 100, 7];
    let question = frame_v4(client, [10, 0, 0, 1], TCP, [1000, 80], TCP_SYN);
    let answer = frame_v4([10, 0, 0, 1], client, TCP, [80, 1000], TCP_SYN | TCP_ACK);
    let frame = wrapped(&OTHER, OWN_ADDRESS, 2, &question);
    assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &frame).0, REDIRECT);
    for generation in [10, 20] {
        bench.set_generation(OUTSIDE, generation);
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &answer);
        assert_eq!((verdict, &out[30..34]), (REDIRECT, &OTHER.address.octets()[..]));
    }
    // A connection of its own to the same address goes out as ever.
    let own = frame_v4([10, 0, 0, 1], client, TCP, [81, 1000], TCP_SYN);
    assert_eq!(bench.run(name::FROM_REPLICA, &own).0, OK);
}

#[test]
fn what_is_longer_than_the_path_takes_goes_to_the_hosts_stack() {
    for is_v6 in [false, true] {
        let frame = sent(is_v6);
        let bytes = frame.len() as u32 - 14;
        let fits = Bench::with_nodes(NodeState { mtu: bytes, ..OTHER });
        assert_eq!(fits.run_resized(name::FROM_REPLICA, &frame).0, REDIRECT);
        let too_long = Bench::with_nodes(NodeState { mtu: bytes - 1, ..OTHER });
        assert_eq!(too_long.run_resized(name::FROM_REPLICA, &frame), (OK, frame));
    }
}

#[test]
fn with_direct_routing_ipv4_goes_as_it_is_and_ipv6_in_the_overlay() {
    let bench = Bench::with_nodes(NodeState { flags: DIRECT, ..OTHER });
    let macs: Vec<u8> = [&OWN_MAC[..], &GATEWAY_MAC[..]].concat();
    for _ in 0..2 {
        let frame = sent(false);
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &frame);
        assert_eq!((verdict, &out[14..]), (REDIRECT, &frame[14..]));
        let frame = sent(true);
        let (verdict, out) = bench.run_resized(name::FROM_REPLICA, &frame);
        assert_eq!((verdict, out.len()), (REDIRECT, frame.len() + BYTES as usize));
        let mut back = answer(false);
        back[..12].fill(0);
        let (verdict, out) = bench.run_resized(name::FROM_UNDERLAY, &back);
        assert_eq!((verdict, &out[..12], &out[14..]), (REDIRECT, &macs[..], &back[14..]));
    }
    // What no replica of another node sent, or what no endpoint gets, is the host's.
    let from_outside = frame_v4([198, 51, 100, 1], [10, 0, 0, 1], TCP, [80, 1000], TCP_SYN);
    let to_nobody = frame_v4(FAR_V4, [10, 0, 0, 99], TCP, [80, 1000], TCP_SYN);
    for mut frame in [from_outside, to_nobody] {
        frame[..12].fill(0);
        assert_eq!(bench.run_resized(name::FROM_UNDERLAY, &frame), (NEXT, frame));
    }
}
