#![no_main]
//! A datagram of the kernel by netlink.

libfuzzer_sys::fuzz_target!(|input: &[u8]| hivemind_datapath::fuzzing::netlink(input));
