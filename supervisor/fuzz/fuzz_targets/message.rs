#![no_main]
//! What a program says to the store of descriptors.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_supervisor::fuzzing::message(input));
