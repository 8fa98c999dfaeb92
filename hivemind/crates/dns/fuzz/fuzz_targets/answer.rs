#![no_main]
//! An answer of an upstream of the DNS server.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_dns::fuzzing::answer(input));
