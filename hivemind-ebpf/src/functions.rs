//! What the kernel verifies on its own: functions of global linkage.
//!
//! The verifier follows a call of any other function with all that it knows of the caller, once for each way in which the
//! caller may have come there; ways multiply. A global function it follows once, with arguments of which it knows nothing
//! but their types, and then believes its callers about it. So the programs are cut where much has been found out and little
//! of it is needed further on: behind the headers, before the judgement, at each telling. Loading them then takes a tenth of
//! the time.
//!
//! The price: an argument is a number, the context, or a pointer to one thing without padding, which may be null as far as
//! the verifier knows, and is both read and written as far as its callers know.

use crate::{
    collect,
    flow::Flow,
    frame::Frame,
    judge,
    maps::Maps,
    replica::{judge_entering, judge_leaving},
    tell, underlay,
};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    family::{Address4, Address6, V4, V6},
    packet,
};

/// The functions of a family.
pub(crate) trait Functions: Maps {
    /// Reads the headers and finds the flow. Returns zero, or one more than the number of the reason to drop the frame.
    fn read(frame: Frame, flow: &mut Flow<Self>) -> u32;
    /// See [`judge_leaving`].
    fn judge_leaving(frame: Frame, flow: &Flow<Self>) -> i32;
    /// See [`judge_entering`].
    fn judge_entering(frame: Frame, flow: &Flow<Self>) -> i32;
    /// See [`underlay::judge_arriving`].
    fn judge_arriving(frame: Frame, flow: &Flow<Self>, node: u32, identity: u32) -> i32;
    /// See [`judge::verdict`].
    fn verdict(flow: &Flow<Self>, entry: &mut Entry, begun_by: u32) -> u32;
    /// Tells of a connection. `what` is made by [`tell::begun_first`].
    fn tell(key: &Key<Self::Address>, entry: &Entry, what: u32, interface: u32, now: u64);
}

macro_rules! functions {
    ($family:ty, $address:ty, $parse:path, $read:ident, $leaving:ident, $entering:ident, $arriving:ident, $verdict:ident, $tell:ident) => {
        impl Functions for $family {
            #[inline(always)]
            fn read(frame: Frame, flow: &mut Flow<Self>) -> u32 {
                $read(frame.context(), flow)
            }
            #[inline(always)]
            fn judge_leaving(frame: Frame, flow: &Flow<Self>) -> i32 {
                $leaving(frame.context(), flow)
            }
            #[inline(always)]
            fn judge_entering(frame: Frame, flow: &Flow<Self>) -> i32 {
                $entering(frame.context(), flow)
            }
            #[inline(always)]
            fn judge_arriving(frame: Frame, flow: &Flow<Self>, node: u32, identity: u32) -> i32 {
                $arriving(frame.context(), flow, node, identity)
            }
            #[inline(always)]
            fn verdict(flow: &Flow<Self>, entry: &mut Entry, begun_by: u32) -> u32 {
                $verdict(flow, entry, begun_by)
            }
            #[inline(always)]
            fn tell(key: &Key<$address>, entry: &Entry, what: u32, interface: u32, now: u64) {
                $tell(key, entry, what, interface, now);
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $read(context: *mut __sk_buff, flow: *mut Flow<$family>) -> u32 {
            // SAFETY: the caller's own, or null.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return DropReason::Internal as u32 + 1 };
            match $parse(&Frame::of(context)) {
                Ok(packet) => {
                    *flow = Flow::of(packet);
                    0
                }
                Err(reason) => reason as u32 + 1,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $leaving(context: *mut __sk_buff, flow: *const Flow<$family>) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_ref() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            judge_leaving(frame, flow).unwrap_or_else(|reason| tell::drop_flow(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $entering(context: *mut __sk_buff, flow: *const Flow<$family>) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_ref() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            judge_entering(frame, flow).unwrap_or_else(|reason| tell::drop_flow(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $arriving(
            context: *mut __sk_buff,
            flow: *const Flow<$family>,
            node: u32,
            identity: u32,
        ) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_ref() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            underlay::judge_arriving(frame, flow, node, identity)
                .unwrap_or_else(|reason| tell::drop_flow(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $verdict(flow: *const Flow<$family>, entry: *mut Entry, begun_by: u32) -> u32 {
            // SAFETY: as above.
            let (Some(flow), Some(entry)) = (unsafe { (flow.as_ref(), entry.as_mut()) }) else {
                return DropReason::NoPolicy as u32;
            };
            judge::verdict(flow, entry, begun_by)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(
            key: *const Key<$address>,
            entry: *const Entry,
            what: u32,
            interface: u32,
            now: u64,
        ) -> u32 {
            // SAFETY: as above.
            if let (Some(key), Some(entry)) = unsafe { (key.as_ref(), entry.as_ref()) } {
                tell::tell::<$family>(key, entry, what, interface, now);
            }
            0
        }
    };
}

functions!(
    V4,
    Address4,
    packet::parse_v4,
    read_v4,
    judge_leaving_v4,
    judge_entering_v4,
    judge_arriving_v4,
    verdict_v4,
    tell_v4
);
functions!(
    V6,
    Address6,
    packet::parse_v6,
    read_v6,
    judge_leaving_v6,
    judge_entering_v6,
    judge_arriving_v6,
    verdict_v6,
    tell_v6
);

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

/// See [`collect::collect_if_due`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn collect_if_due(now: u64) -> u32 {
    collect::collect_if_due(now);
    0
}
