//! One input of a fuzzer, for `fuzz/` and the test that feeds this without one.

use hickory_proto::rr::{LowerName, Name, RecordType};

use crate::exchange::{matching, question};
use crate::forwarder::Key;
use crate::question::{Question, Rejection};
use crate::server::Protocol;
use crate::wire::{KeyBytes, Usual, ttl_positions};

/// Reads `input` as a client's query, the quick way and the thorough one.
///
/// # Panics
/// If reading does, or if the two do not read the same.
pub fn query(input: &[u8]) {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let thorough = Question::read(input, protocol);
        if let Err(Rejection::Malformed(reply) | Rejection::Refused(reply)) = &thorough {
            let _ = reply;
        }
        // What is unusual is left to the thorough one.
        let Some(quick) = Usual::read(input, protocol) else { continue };
        let Ok(thorough) = thorough else { continue };
        assert_eq!(u16::from_be_bytes(quick.id), thorough.metadata.id);
        assert_eq!(RecordType::from(quick.record_type), thorough.query.query_type());
        assert_eq!(quick.answer_bytes_max, thorough.answer_bytes_max);
        assert_eq!(quick.dnssec_ok, thorough.edns.map(|edns| edns.dnssec_ok));
        let key = KeyBytes::of(&thorough.name, thorough.query.query_type(), false, false);
        assert_eq!(quick.local_key().bytes(), key.bytes(), "a name is kept under two keys");
    }
}

/// Reads `input` as an upstream's answer, and finds the times to live in it.
///
/// # Panics
/// If reading does, or finds a time where there is no room for one.
pub fn answer(input: &[u8]) {
    let Ok(name) = Name::from_ascii("a.example.") else { return };
    let key = Key {
        name: LowerName::new(&name),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    };
    let mut asked = question(&key, true);
    // Whatever its number is, so that more than one in 65,536 matches.
    if let Some(&[high, low]) = input.first_chunk() {
        asked.metadata.id = u16::from_be_bytes([high, low]);
    }
    if let Some(answer) = matching(&asked, input) {
        assert_eq!(answer.metadata.id, asked.metadata.id);
    }
    for at in ttl_positions(input).into_iter().flatten() {
        assert!(usize::from(at) + 4 <= input.len(), "a time to live at {at} of {}", input.len());
    }
}
