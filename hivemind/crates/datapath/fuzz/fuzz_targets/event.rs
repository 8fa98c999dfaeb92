#![no_main]
//! An event of the ring buffer.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_datapath::fuzzing::event(input));
