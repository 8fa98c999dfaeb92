//! Functions that there is one of for both families.

use crate::{collect, frame::Frame, judge, tell, underlay, verdict};
use aya_ebpf::bindings::__sk_buff;
use hivemind_common::packet;

/// See [`underlay::send`].
#[inline(always)]
pub(crate) fn send(frame: Frame, way: u32, identity: u32) -> i32 {
    send_to_node(frame.context(), way, identity)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_to_node(context: *mut __sk_buff, way: u32, identity: u32) -> i32 {
    let frame = Frame::of(context);
    underlay::send(frame, way, identity).unwrap_or_else(|reason| tell::drop_unread(frame, reason as u32))
}

/// Drops a frame of which nothing is known.
#[inline(always)]
pub(crate) fn drop_unread(frame: Frame, reason: u32) -> i32 {
    drop_unread_frame(frame.context(), reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn drop_unread_frame(context: *mut __sk_buff, reason: u32) -> i32 {
    tell::drop_unread(Frame::of(context), reason)
}

/// See [`packet::extension`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn extension(context: *mut __sk_buff, kind: u32, offset: u32) -> u64 {
    // Far beyond where headers can be.
    packet::extension(&Frame::of(context), kind as u8, offset & 0xffff)
}

/// See [`Frame::segments`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn segments(context: *mut __sk_buff, transport: u32, protocol: u32) -> u64 {
    // Far beyond where headers can be, and near enough for Linux 6.1, which forgets what a sum was compared for.
    Frame::of(context).segments(transport & 0xfff, protocol as u8)
}

/// See [`judge::pair_number`]. The port is in network order; the verdict's sixteen bits are above the protocol's eight.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pair_number(
    source: u32,
    destination: u32,
    port: u32,
    protocol_and_verdict: u32,
) -> u32 {
    judge::pair_number(
        source,
        destination,
        port as u16,
        protocol_and_verdict as u8,
        (protocol_and_verdict >> 8) as u8,
    )
}

/// See [`verdict::count`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_verdicts(egress_rule: u32, ingress_rule: u32, reason: u32) -> u32 {
    verdict::count(egress_rule, ingress_rule, reason);
    0
}

/// See [`collect::collect_if_due`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn collect_if_due(now: u64) -> u32 {
    collect::collect_if_due(now);
    0
}
