//! What the fuzzer would do, on every run: what it found once, then random inputs and damaged ones.

#![allow(missing_docs, clippy::unwrap_used)]

use hivemind_datapath::fuzzing::{event, netlink};
use proptest::{prelude::*, sample::Index};
use std::{fs, path::Path};

/// Hands everything to `target` that once was too much for it.
fn again(name: &str, target: fn(&[u8])) {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(name);
    for file in fs::read_dir(found).into_iter().flatten().flatten() {
        target(&fs::read(file.path()).unwrap());
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    again("event", event);
    again("netlink", netlink);
}

/// A message of netlink: its length, type, flags, number, port, and a body.
fn message() -> impl Strategy<Value = Vec<u8>> {
    // Those that are asked for: links, addresses, routes; errors, and the end of a list.
    let kinds = prop::sample::select(vec![16_u16, 20, 24, 2, 3]);
    let attributes = prop::collection::vec((0_u16..64, prop::collection::vec(any::<u8>(), 0..24)), 0..6);
    (kinds, prop::collection::vec(any::<u8>(), 0..20), attributes).prop_map(|(kind, head, attributes)| {
        let mut body = head;
        for (kind, value) in attributes {
            body.resize(body.len().next_multiple_of(4), 0);
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn no_bytes_of_the_ring_buffer_bring_the_reader_down(mut bytes in prop::collection::vec(any::<u8>(), 112), kind: u8) {
        bytes[110 - 2] = kind % 4;
        event(&bytes);
        event(&bytes[..usize::from(kind) % 112]);
    }

    #[test]
    fn no_bytes_of_the_kernel_s_bring_netlink_down(
        messages in prop::collection::vec(message(), 1..4),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut: Index,
    ) {
        let mut bytes = messages.concat();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        netlink(&bytes);
    }
}
