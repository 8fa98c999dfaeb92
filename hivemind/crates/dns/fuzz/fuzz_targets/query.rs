#![no_main]
//! A query of a client of the DNS server.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_dns::fuzzing::query(input));
