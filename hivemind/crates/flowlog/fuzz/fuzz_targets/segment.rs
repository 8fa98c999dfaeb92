#![no_main]
//! A segment of the log of flows.

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hivemind_flowlog::fuzzing::segment(input);
});
