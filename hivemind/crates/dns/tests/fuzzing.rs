//! What the fuzzer would do, on every run: what it found once, then random inputs and damaged messages.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::Path};

use hivemind_dns::fuzzing::{answer, query};
use proptest::{prelude::*, sample::Index};

/// A query for the addresses of `a.example` with an OPT record, and the answer to it.
const QUERY: &[u8] =
    b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x01a\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
const ANSWER: &[u8] = b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x01a\x07example\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";

/// Hands everything to `target` that once was too much for it.
fn again(name: &str, target: fn(&[u8])) {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(name);
    for file in fs::read_dir(found).into_iter().flatten().flatten() {
        target(&fs::read(file.path()).unwrap());
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    again("query", query);
    again("answer", answer);
}

/// A message, some of its bytes others, some taken out, cut.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let message = prop::sample::select(vec![QUERY.to_vec(), ANSWER.to_vec()]);
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..5);
    let more = prop::collection::vec(any::<u8>(), 0..30);
    (message, changes, more, any::<Index>()).prop_map(|(mut bytes, changes, more, at)| {
        let at = at.index(bytes.len());
        if more.len() % 3 == 0 {
            bytes.splice(at..at, more);
        } else if more.len() % 3 == 1 {
            bytes.truncate(at);
        }
        for (at, to) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn no_bytes_of_a_client_or_of_an_upstream_bring_the_server_down(
        damaged in damaged(), random in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        for bytes in [damaged, random] {
            query(&bytes);
            answer(&bytes);
        }
    }
}
