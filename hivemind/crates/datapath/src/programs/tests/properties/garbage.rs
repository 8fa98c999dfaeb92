//! What holds for bytes that are no packet, or nearly one.

use super::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Packets that are none cost nothing but themselves.
const GARBAGE_CASES: u32 = 1_500;
/// So many that each verdict is among them.
const SAME_GARBAGE_CASES: u32 = 4_000;

/// The programs that packets come to, and what they may return.
const PROGRAMS: [(&str, &[u32]); 6] = [
    (name::FROM_REPLICA, &[OK, SHOT, REDIRECT]),
    (name::TO_REPLICA, &[OK, SHOT]),
    (name::FROM_UNDERLAY, &[ON, SHOT, REDIRECT]),
    (name::TO_UNDERLAY, &[ON, SHOT]),
    (name::TO_OVERLAY, &[OK, SHOT, REDIRECT]),
    (name::TO_SERVICE, &[OK, SHOT, REDIRECT]),
];

/// Bytes that may be anything, or nearly a packet.
#[derive(Clone, Debug)]
enum Garbage {
    Bytes(Vec<u8>),
    Damaged { stray: Box<Stray>, cut: Index, is_wrapped: bool },
}

impl Garbage {
    fn any() -> impl Strategy<Value = Self> {
        let kinds = prop::sample::select(vec![[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0, 0]]);
        let bytes = (prop::collection::vec(any::<u8>(), 60..400), kinds, any::<bool>()).prop_map(
            |(mut bytes, kind, is_ours)| {
                bytes[12..14].copy_from_slice(&kind);
                if is_ours {
                    bytes[..12].copy_from_slice(&ethernet(0)[..12]);
                    bytes[14] = if kind == [8, 0] { 0x45 } else { 0x60 };
                }
                Self::Bytes(bytes)
            },
        );
        let damaged = (Stray::any(12), any::<Index>(), any::<bool>())
            .prop_map(|(stray, cut, is_wrapped)| Self::Damaged { stray: Box::new(stray), cut, is_wrapped });
        prop_oneof![1 => bytes, 3 => damaged]
    }

    fn frame(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Damaged { stray, cut, is_wrapped } => {
                let mut frame = stray.frame();
                // At least what the kernel's test run wants: an IP header.
                let least = 54.min(frame.len());
                frame.truncate(least + cut.index(frame.len() - least + 1));
                if *is_wrapped { wrapped(&OTHER, OWN_ADDRESS, FAR_IDENTITY, &frame) } else { frame }
            }
        }
    }
}

#[test]
fn no_bytes_make_a_program_return_what_it_may_not_and_what_is_dropped_is_counted_once() {
    let furnished = || {
        let mut bench = Bench::with_nodes(hivemind_common::node::NodeState { flags: DIRECT, ..OTHER });
        bench.serve(&[1, 2], 0);
        bench.set_uplink(true, true);
        let (v4, v6) = (Address4::from_octets(NODE), Address6::from_octets(node6()));
        bench.hash(name::NODE_ADDRESS_V4).insert(v4, 1_u32, 0).unwrap();
        bench.hash(name::NODE_ADDRESS_V6).insert(v6, 1_u32, 0).unwrap();
        RefCell::new(bench)
    };
    let returned = RefCell::new(std::collections::BTreeMap::<(&str, u32), u32>::new());
    let strategy = (Garbage::any(), any::<bool>());
    let test = |bench: &mut Bench, (garbage, is_ours): (Garbage, bool)| {
        let frame = garbage.frame();
        for (program, may_be) in PROGRAMS {
            let frame =
                if program == name::FROM_UNDERLAY && is_ours { to_us(frame.clone()) } else { frame.clone() };
            let (before, refused) = (bench.dropped_in_all(), bench.dropped(DropReason::NoBackend));
            let (verdict, _) = bench.run_resized(program, &frame);
            prop_assert!(may_be.contains(&verdict), "{}: {:#x}", program, verdict);
            *returned.borrow_mut().entry((program, verdict)).or_default() += 1;
            // Who is answered in a service's name gets something back.
            let answered = bench.dropped(DropReason::NoBackend) - refused;
            let expected = if verdict == SHOT { 1 } else { answered };
            prop_assert_eq!(bench.dropped_in_all() - before, expected, "{}", program);
        }
        Ok(())
    };
    runs(TestRunner::new(config(GARBAGE_CASES)), &furnished(), &strategy, test);
    returned.borrow_mut().clear();
    // Always the same ones, so that it is not a matter of luck whether all of that is reached.
    let always = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    runs(TestRunner::new_with_rng(config(SAME_GARBAGE_CASES), always), &furnished(), &strategy, test);
    for (program, may_be) in PROGRAMS {
        // For no node's address of another node's range: one packet in tens of thousands, and a case of its own among the drops.
        for verdict in may_be.iter().filter(|verdict| (program, **verdict) != (name::TO_OVERLAY, SHOT)) {
            let count = returned.borrow().get(&(program, *verdict)).copied().unwrap_or_default();
            assert!(count > 0, "{program} never returned {verdict:#x}: the packets are not random enough");
        }
    }
}
