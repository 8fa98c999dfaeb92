//! What holds for every packet, whatever the maps say: random packets and states of the maps, and packets that are none.

mod garbage;

use super::{
    frames::{cut, whole, with_headers, without_headers},
    overlay::{FAR_IDENTITY, FAR_V4, OTHER, OWN_ADDRESS, far_v6, wrapped},
    sent::{Sent, sum, to_us},
    translation::{FAR, NODE, ON, SERVED, far6, node6, served6},
    ways::error,
    *,
};
use hivemind_common::{
    node::DIRECT,
    packet::{ICMP, ICMPV6, SCTP, UDP},
    translation::{Translation, Uplink},
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{TestError, TestRunner},
};
use std::{cell::RefCell, fmt::Debug};

/// Cases of each property. A packet costs some microseconds, a state of the maps some more.
pub(super) const CASES: u32 = 600;
/// Runs a property over many cases with one set of programs.
pub(super) fn holds<S: Strategy>(
    cases: u32,
    bench: Bench,
    strategy: &S,
    test: impl Fn(&mut Bench, S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: Debug,
{
    runs(TestRunner::new(config(cases)), &RefCell::new(bench), strategy, test);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

fn runs<S: Strategy>(
    mut runner: TestRunner,
    bench: &RefCell<Bench>,
    strategy: &S,
    test: impl Fn(&mut Bench, S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: Debug,
{
    match runner.run(strategy, |case| test(&mut bench.borrow_mut(), case)) {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\n{case:#?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

impl Bench {
    /// Forgets every connection.
    pub(super) fn forget_connections(&mut self) {
        self.clear::<Key<Address4>, Entry>(name::CONNTRACK_V4);
        self.clear::<Key<Address6>, Entry>(name::CONNTRACK_V6);
        self.clear::<Key<Address4>, Translation<Address4>>(name::TRANSLATION_V4);
        self.clear::<Key<Address6>, Translation<Address6>>(name::TRANSLATION_V6);
    }

    pub(super) fn clear<K: Pod, V: Pod>(&mut self, map: &str) {
        let mut map = self.hash::<K, V>(map);
        let keys: Vec<K> = map.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| map.remove(key).unwrap());
    }

    fn all_connections(&mut self) -> Vec<Entry> {
        let mut entries = self.connections();
        let v6: Vec<_> = self.hash::<Key<Address6>, Entry>(name::CONNTRACK_V6).iter().collect();
        entries.extend(v6.into_iter().map(|found| found.unwrap().1));
        entries
    }

    /// Has this endpoint sit at the interface of the test run, with its MAC address, and the other one elsewhere.
    fn seat(&mut self, index: u32) {
        let own = EndpointState::macs(OWN_MAC, GATEWAY_MAC);
        for (of, interface, frame_macs) in [(index, INTERFACE, own), (3 - index, PEER_INTERFACE, PEER_MACS)] {
            let state: EndpointState = self.array(name::ENDPOINT_STATE).get(&of, 0).unwrap();
            let state = EndpointState { interface, frame_macs, ..state };
            self.array(name::ENDPOINT_STATE).set(of, state, 0).unwrap();
            self.hash(name::ENDPOINT_BY_INTERFACE).insert(interface, of, 0).unwrap();
        }
    }

    fn set_uplink(&mut self, has_v4: bool, has_v6: bool) {
        let uplink = Uplink {
            ipv4: if has_v4 { Address4::from_octets(NODE) } else { Address4::default() },
            ipv6: if has_v6 { Address6::from_octets(node6()) } else { Address6::default() },
        };
        self.hash(name::UPLINK).insert(INTERFACE, uplink, 0).unwrap();
    }

    /// Whether replicas keep their addresses where the bench's outside is.
    fn set_unmasked(&mut self, is_unmasked: bool) {
        let v4 = aya::maps::lpm_trie::Key::new(24, Address4::from_octets(FAR));
        let v6 = aya::maps::lpm_trie::Key::new(64, Address6::from_octets(far6()));
        let mut blocks = LpmTrie::try_from(self.ebpf.map_mut(name::UNMASKED_V4).unwrap()).unwrap();
        if is_unmasked {
            blocks.insert(&v4, 1_u32, 0).unwrap()
        } else {
            drop(blocks.remove(&v4))
        }
        let mut blocks = LpmTrie::try_from(self.ebpf.map_mut(name::UNMASKED_V6).unwrap()).unwrap();
        if is_unmasked { blocks.insert(&v6, 1_u32, 0).unwrap() } else { drop(blocks.remove(&v6)) }
    }

    fn dropped_in_all(&self) -> u64 {
        DropReason::ALL.into_iter().map(|reason| self.dropped(reason)).sum()
    }
}

fn own(is_v6: bool, index: u8) -> Vec<u8> {
    if is_v6 { address6(index).octets().to_vec() } else { vec![10, 0, 0, index] }
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

fn remote(is_v6: bool) -> Vec<u8> {
    if is_v6 { far_v6().to_vec() } else { FAR_V4.to_vec() }
}

/// TCP, UDP, SCTP, echo, by number.
fn protocol(kind: usize, is_v6: bool) -> u8 {
    [TCP, UDP, SCTP, if is_v6 { ICMPV6 } else { ICMP }][kind]
}

/// What a packet is besides its ends: family, protocol, ports, payload, headers between, and where it is cut.
#[derive(Clone, Debug)]
struct Shape {
    is_v6: bool,
    protocol: u8,
    ports: [u16; 2],
    payload: Vec<u8>,
    /// Extension headers of IPv6.
    kinds: Vec<u8>,
    /// Bytes of IPv4's options.
    options: usize,
    /// In how many units of eight bytes the packet is cut, if it is.
    cut: Option<usize>,
}

impl Shape {
    fn any() -> impl Strategy<Value = Self> {
        let headers = (prop::collection::vec(prop::sample::select(vec![0_u8, 43, 60]), 0..4), 0_usize..=10);
        let rest = (prop::collection::vec(any::<u8>(), 32..120), headers, prop::option::of(3_usize..6));
        (any::<bool>(), 0_usize..4, any::<[u16; 2]>(), rest).prop_map(
            |(is_v6, kind, ports, (payload, (kinds, words), cut))| {
                let ports = if kind == 3 { [ports[0].max(1); 2] } else { ports };
                let protocol = protocol(kind, is_v6);
                Self { is_v6, protocol, ports, payload, kinds, options: 4 * words, cut }
            },
        )
    }

    fn sent(&self, from: &[u8], to: &[u8]) -> Sent {
        Sent { payload: self.payload.clone(), ..Sent::new(from, to, self.protocol, self.ports) }
    }

    /// Sends a packet of this shape, whole or in two pieces, and reads what came out. Checks all checksums and that nothing but
    /// addresses and ports is another.
    fn pass(&self, bench: &Bench, program: &str, sent: &Sent, pass: u32) -> Result<Sent, TestCaseError> {
        let to = |frame: Vec<u8>| if program == name::FROM_UNDERLAY { to_us(frame) } else { frame };
        let Some(units) = self.cut else {
            let frame = with_headers(&sent.frame(), &self.kinds, self.options);
            let (verdict, out) = bench.run(program, &to(frame));
            prop_assert_eq!(verdict, pass, "{:?}", bench.reasons());
            return Ok(sent.read(&without_headers(&out, &self.kinds, self.options)));
        };
        // Headers between and pieces together are what the table of ways is for.
        let mut pieces = Vec::new();
        for piece in cut(&sent.frame(), 8 * units) {
            let (verdict, out) = bench.run(program, &to(piece));
            prop_assert_eq!(verdict, pass, "{:?}", bench.reasons());
            pieces.push(out);
        }
        let pieces: [Vec<u8>; 2] = pieces.try_into().unwrap();
        Ok(sent.read(&whole(&pieces)))
    }
}

impl Bench {
    /// For what reasons anything was dropped.
    fn reasons(&self) -> Vec<&'static str> {
        let dropped = DropReason::ALL.into_iter().filter(|&reason| self.dropped(reason) > 0);
        dropped.map(DropReason::name).collect()
    }

    /// Checks that there is one connection, and that both its ends were heard.
    fn assert_one_connection(&mut self) -> Result<(), TestCaseError> {
        let entries = self.all_connections();
        prop_assert_eq!(
            entries.len(),
            1,
            "the answer is another connection than the question: {:?}",
            entries
        );
        prop_assert!(entries[0].seen.iter().all(|&seen| seen != 0), "{:?}", entries[0]);
        Ok(())
    }
}

#[test]
fn what_leaves_masqueraded_is_answered_as_if_it_had_never_been_and_by_one_connection() {
    holds(CASES, Bench::leading_out(), &Shape::any(), |bench, shape| {
        bench.forget_connections();
        let sent = shape.sent(&own(shape.is_v6, 1), &far(shape.is_v6));
        // As the host's stack would have it: judged, routed, sent out.
        let judged = shape.pass(bench, name::FROM_REPLICA, &sent, OK)?;
        prop_assert_eq!(&judged, &sent);
        let seen = shape.pass(bench, name::TO_UNDERLAY, &sent, ON)?;
        prop_assert_eq!((&seen.source, &seen.destination), (&node(shape.is_v6), &sent.destination));
        let answer = seen.answer();
        let back = shape.pass(bench, name::FROM_UNDERLAY, &answer, REDIRECT)?;
        prop_assert_eq!(back, sent.answer());
        bench.assert_one_connection()
    });
}

#[test]
fn what_asks_a_service_is_answered_by_it_and_by_one_connection() {
    let strategy =
        (Shape::any(), prop::sample::select(vec![vec![1_u32], vec![2], vec![1, 2], vec![2, 2, 1]]));
    holds(CASES, Bench::new(), &strategy, |bench, (shape, endpoints)| {
        bench.forget_connections();
        bench.seat(1);
        bench.serve(&endpoints, 0);
        let sent = shape.sent(&own(shape.is_v6, 1), &served(shape.is_v6));
        let seen = shape.pass(bench, name::FROM_REPLICA, &sent, REDIRECT)?;
        let to = (1..=2).find(|&index| seen.destination == own(shape.is_v6, index));
        let to = to.filter(|&to| endpoints.contains(&u32::from(to)));
        prop_assert!(to.is_some(), "{:?} is none of {:?}", seen.destination, endpoints);
        // Whoever was asked answers from where it sits.
        bench.seat(to.unwrap_or(1).into());
        let back = shape.pass(bench, name::FROM_REPLICA, &seen.answer(), REDIRECT)?;
        prop_assert_eq!(back, sent.answer());
        bench.assert_one_connection()
    });
}

#[test]
fn what_the_node_asks_of_a_service_is_answered_by_it() {
    let strategy = (Shape::any(), 1_u32..=2);
    holds(CASES, Bench::new(), &strategy, |bench, (shape, endpoint)| {
        bench.forget_connections();
        bench.seat(endpoint);
        bench.serve(&[endpoint], 0);
        let sent = shape.sent(&node(shape.is_v6), &served(shape.is_v6));
        let seen = shape.pass(bench, name::TO_SERVICE, &sent, REDIRECT)?;
        prop_assert_eq!((&seen.source, &seen.destination), (&sent.source, &own(shape.is_v6, endpoint as u8)));
        prop_assert_eq!(seen.ports, sent.ports);
        let entries = bench.all_connections();
        prop_assert_eq!(entries.len(), 1);
        Ok(())
    });
}

#[test]
fn an_answer_is_always_part_of_the_connection_that_it_answers() {
    // Without translation: to another endpoint, to the outside, from there.
    let strategy = (Shape::any(), 0_usize..3);
    holds(CASES, Bench::new(), &strategy, |bench, (shape, way)| {
        bench.forget_connections();
        bench.seat(1);
        let [one, two, out] = [own(shape.is_v6, 1), own(shape.is_v6, 2), far(shape.is_v6)];
        let (sent, program, pass) = match way {
            0 => (shape.sent(&one, &two), name::FROM_REPLICA, REDIRECT),
            1 => (shape.sent(&one, &out), name::FROM_REPLICA, OK),
            _ => (shape.sent(&out, &one), name::TO_REPLICA, OK),
        };
        prop_assert_eq!(&shape.pass(bench, program, &sent, pass)?, &sent);
        let answer = sent.answer();
        let (program, pass) = match way {
            0 => {
                bench.seat(2);
                (name::FROM_REPLICA, REDIRECT)
            }
            1 => (name::TO_REPLICA, OK),
            _ => (name::FROM_REPLICA, OK),
        };
        prop_assert_eq!(&shape.pass(bench, program, &answer, pass)?, &answer);
        bench.assert_one_connection()
    });
}

/// Who may be at an end of a random packet.
#[derive(Clone, Copy, Debug)]
enum Somebody {
    Replica(u8),
    /// An address of this node's range that nobody has.
    Nobody,
    Far,
    Node,
    Remote,
    Service,
    /// Of another network on the node, such as another container engine's.
    Neighbour,
}

impl Somebody {
    fn any() -> impl Strategy<Value = Self> {
        prop::sample::select(vec![
            Self::Replica(1),
            Self::Replica(2),
            Self::Nobody,
            Self::Far,
            Self::Node,
            Self::Remote,
            Self::Service,
            Self::Neighbour,
        ])
    }

    fn address(self, is_v6: bool) -> Vec<u8> {
        match self {
            Self::Replica(index) => own(is_v6, index),
            Self::Nobody => own(is_v6, 99),
            Self::Far => far(is_v6),
            Self::Node => node(is_v6),
            Self::Remote => remote(is_v6),
            Self::Service => served(is_v6),
            Self::Neighbour if is_v6 => {
                let mut octets = node6();
                octets[7] = 17;
                octets.to_vec()
            }
            Self::Neighbour => vec![172, 17, 0, 2],
        }
    }
}

/// A packet of anybody to anybody, perhaps an error about one of anybody to anybody, perhaps with wrong bytes.
#[derive(Clone, Debug)]
struct Stray {
    shape: Shape,
    ends: [Somebody; 2],
    /// An error of these ends about a packet of the ends above.
    error: Option<([Somebody; 2], usize)>,
    piece: usize,
    changes: Vec<(Index, u8)>,
}

impl Stray {
    fn any(changes: usize) -> impl Strategy<Value = Self> {
        let ends = || [Somebody::any(), Somebody::any()];
        let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..=changes);
        (Shape::any(), ends(), prop::option::of((ends(), 0_usize..4)), 0_usize..2, changes)
            .prop_map(|(shape, ends, error, piece, changes)| Self { shape, ends, error, piece, changes })
    }

    fn frame(&self) -> Vec<u8> {
        let Self { shape, ends, error: told, piece, changes } = self;
        let [from, to] = ends.map(|end| end.address(shape.is_v6));
        let sent = shape.sent(&from, &to);
        let mut frame = match (told, shape.cut) {
            (Some((ends, kind)), _) => {
                let [from, to] = ends.map(|end| end.address(shape.is_v6));
                let kinds = if shape.is_v6 {
                    [[1, 4], [2, 0], [3, 0], [4, 0]]
                } else {
                    [[3, 3], [3, 4], [11, 0], [12, 0]]
                };
                error(&from, &to, kinds[*kind], &sent.frame())
            }
            (None, Some(units)) => cut(&sent.frame(), 8 * units)[*piece].clone(),
            (None, None) => with_headers(&sent.frame(), &shape.kinds, shape.options),
        };
        for (at, to) in changes {
            // The kernel's test run looks at the Ethernet type.
            let at = 14 + at.index(frame.len() - 14);
            frame[at] = *to;
        }
        frame
    }
}

/// Of a frame that is IP: whether its source is in the range of replicas, and its destination.
fn source_and_destination(frame: &[u8]) -> Option<(bool, Vec<u8>)> {
    let (is_v6, at) = match frame.get(12..14)? {
        [8, 0] => (false, 26),
        _ => (true, 22),
    };
    let bytes = if is_v6 { 16 } else { 4 };
    let (source, destination) = (frame.get(at..at + bytes)?, frame.get(at + bytes..at + 2 * bytes)?);
    Some((is_internal(source), destination.to_vec()))
}

fn is_internal(address: &[u8]) -> bool {
    match address.len() {
        4 => address[..3] == [10, 0, 0],
        _ => address[..14] == address6(0).octets()[..14],
    }
}

fn is_of_another_node(address: &[u8]) -> bool {
    match address.len() {
        4 => address[..3] == [10, 0, 1],
        _ => address[..8] == far_v6()[..8],
    }
}

/// What is internal within the packet that an ICMP error of IPv4 or IPv6 shows: its receiver, to whom the error says it was
/// known by that address.
fn shows_internal(frame: &[u8]) -> bool {
    let is_v6 = frame[12..14] != [8, 0];
    let (start, protocol) = if is_v6 { (54, frame[20]) } else { (34, frame[23]) };
    let is_error = match (is_v6, frame.get(start)) {
        (false, Some(&kind)) => protocol == ICMP && frame[14] == 0x45 && [3, 11, 12].contains(&kind),
        (true, Some(&kind)) => protocol == ICMPV6 && (1..=4).contains(&kind),
        _ => false,
    };
    let at = start + 8 + if is_v6 { 24 } else { 16 };
    let shown = frame.get(at..at + if is_v6 { 16 } else { 4 });
    is_error && shown.is_some_and(is_internal)
}

#[test]
fn nothing_leaves_the_node_with_an_internal_address_that_it_should_not_have() {
    let mut bench = Bench::with_nodes(OTHER);
    bench.serve(&[1, 2], 0);
    let node_v4 = Address4::from_octets(NODE);
    bench.hash(name::NODE_ADDRESS_V4).insert(node_v4, 1_u32, 0).unwrap();
    // What went before may be anything: connections that stand, were refused, are translated.
    let strategy = (
        prop::collection::vec((0_usize..4, Stray::any(0)), 0..6),
        Stray::any(2),
        any::<(bool, bool, bool)>(),
        any::<bool>(),
    );
    let left = RefCell::new([0_u32; 2]);
    holds(2 * CASES, bench, &strategy, |bench, (before, stray, (has_v4, has_v6, is_unmasked), keeps)| {
        if !keeps {
            bench.forget_connections();
        }
        bench.set_uplink(has_v4, has_v6);
        bench.set_unmasked(is_unmasked);
        for (way, stray) in before {
            let program = [name::FROM_REPLICA, name::TO_REPLICA, name::TO_SERVICE, name::FROM_UNDERLAY][way];
            let frame = stray.frame();
            bench.run(program, &if way == 3 { to_us(frame) } else { frame });
        }
        let frame = stray.frame();
        let answers = bench.is_answer(&frame);
        let (verdict, out) = bench.run(name::TO_UNDERLAY, &frame);
        prop_assert!([ON, SHOT].contains(&verdict), "{:#x}", verdict);
        if verdict == SHOT {
            left.borrow_mut()[0] += 1;
            return Ok(());
        }
        left.borrow_mut()[1] += 1;
        let Some((is_internal, destination)) = source_and_destination(&out) else { return Ok(()) };
        // As long as the blocks of `set_unmasked`.
        let block = if stray.shape.is_v6 { 8 } else { 3 };
        let is_far = destination[..block] == far(stray.shape.is_v6)[..block];
        let may = is_of_another_node(&destination) || (is_unmasked && is_far) || answers;
        prop_assert!(!is_internal || may, "it leaves to {:?} as {:02x?}", destination, &out[14..]);
        let (was_internal, _) = source_and_destination(&frame).unwrap();
        // An error of a replica's shows by which name it was known.
        prop_assert!(!was_internal || may || !shows_internal(&out), "{:02x?}", &out[14..]);
        Ok(())
    });
    let [dropped, left] = left.into_inner();
    assert!(dropped > CASES / 10 && left > CASES / 10, "one-sided: {dropped} dropped, {left} left");
}

impl Bench {
    /// Whether a packet, as it is, answers a connection that somebody began with the replica's own address.
    fn is_answer(&mut self, frame: &[u8]) -> bool {
        let known = |entry: &Entry, side: usize| {
            entry.flags & hivemind_common::conntrack::MASQUERADED == 0 && entry.begun_by().index() != side
        };
        let ours = |address: &[u8], sides: [Vec<u8>; 2]| sides.iter().position(|side| side == address);
        let is_v6 = frame[12..14] != [8, 0];
        let source = if is_v6 { &frame[22..38] } else { &frame[26..30] };
        if is_v6 {
            let found: Vec<_> = self.hash::<Key<Address6>, Entry>(name::CONNTRACK_V6).iter().collect();
            found.into_iter().map(Result::unwrap).any(|(key, entry)| {
                let sides = key.addresses.map(|address| address.octets().to_vec());
                ours(source, sides).is_some_and(|side| known(&entry, side))
            })
        } else {
            let found: Vec<_> = self.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4).iter().collect();
            found.into_iter().map(Result::unwrap).any(|(key, entry)| {
                let sides = key.addresses.map(|address| address.octets().to_vec());
                ours(source, sides).is_some_and(|side| known(&entry, side))
            })
        }
    }
}

#[test]
fn the_checksum_that_these_properties_are_checked_by_is_that_of_the_rfc() {
    // RFC 1071, section 3.
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}
