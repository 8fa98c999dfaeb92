//! One input of a fuzzer, for `fuzz/` and the test that feeds this without one.

use crate::{
    FlowKind,
    netlink::read,
    telemetry::events::{Clocks, parse},
};
use hivemind_common::telemetry::Event;

/// Reads `input` as an event of the ring buffer.
///
/// # Panics
/// If reading does, or takes for an event what is as long as none.
pub fn event(input: &[u8]) {
    let read = parse(input, Clocks::now());
    assert!(read.is_none() || input.len() == size_of::<Event>(), "an event of {} bytes", input.len());
    let Some(event) = read else { return };
    if let FlowKind::Dropped(reason) = event.kind {
        assert!(!reason.name().is_empty() && !reason.meaning().is_empty());
    }
    let families = [event.source, event.destination].map(|peer| peer.address.map(|ip| ip.is_ipv4()));
    assert!(families[0] == families[1], "an event of two families");
}

/// Reads `input` as a datagram of the kernel's by netlink.
///
/// # Panics
/// If reading does, or finds more messages than there is room for.
pub fn netlink(input: &[u8]) {
    if let Ok(messages) = read(input) {
        assert!(messages.len() <= input.len() / 16, "{} messages", messages.len());
    }
}
