#![no_main]
//! A datagram, as it is and sealed.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_membership::fuzzing::fuzz_one(input));
