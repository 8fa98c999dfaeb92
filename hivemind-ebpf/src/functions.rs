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
//!
//! The file is long because each function stands in it three times, as the linker, the families and the callers see it; what they do is
//! elsewhere.

mod single;

pub(crate) use single::{
    collect_if_due, count_verdicts, drop_unread, extension, pair_number, segments, send,
};

use crate::{
    flow::Flow,
    frame::Frame,
    host,
    judge::{self, Question},
    maps::Maps,
    refuse::Refuse,
    replica::{judge_entering, judge_leaving, refuse_replica},
    rewrite, tell,
    translate::{self, Found, Served},
    underlay,
};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use hivemind_common::{
    conntrack::{Entry, Key},
    drop_reason::DropReason,
    family::{Address4, Address6, V4, V6},
    packet::{self, Packet},
    policy::PolicyEntry,
    translation::Translation,
};

/// What a function returns that judges a packet, besides verdicts: go on with the next step. The steps are called one after the
/// other by the program, since the stacks of functions that call one another share 512 bytes.
pub(crate) const CONTINUE: i32 = -2;
/// As [`CONTINUE`]: the next step is [`Functions::outward`].
pub(crate) const OUTWARD: i32 = -3;
/// As [`CONTINUE`]: the next step is [`crate::step::aside`].
pub(crate) const ASIDE: i32 = -4;

/// Beside the number of a reason to drop a packet: it was not judged, so its ends are not in the scratch entry.
pub(crate) const UNJUDGED: u32 = 1 << 31;

/// The functions of a family.
pub(crate) trait Functions: Maps + Refuse {
    /// What [`Functions::read`] finds, of what nearly all packets are.
    fn plain(frame: Frame) -> Option<Packet<Self::Address>>;
    /// Reads the headers and finds the flow. Returns zero, or one more than the number of the reason to drop the frame.
    fn read(frame: Frame, flow: &mut Flow<Self>) -> u32;
    /// Takes over the connection that a packet is part of, if a table of the layout before has it that is being taken over.
    fn take_over(flow: &Flow<Self>);
    /// Whether a connection is live in a table of the layout before that is being taken over.
    fn was_live(key: &Key<Self::Address>) -> bool;
    /// See [`judge_leaving`].
    fn judge_leaving(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`judge_entering`].
    fn judge_entering(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`underlay::judge_arriving`].
    fn judge_arriving(frame: Frame, flow: &mut Flow<Self>, node: u32, identity: u32) -> i32;
    /// See [`underlay::judge_from_outside`].
    fn judge_from_outside(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`underlay::pass_from_outside`].
    fn pass_from_outside(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`judge::settle`].
    fn settle(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`judge::go_on`].
    fn go_on(frame: Frame, flow: &mut Flow<Self>, interface_zero: u32) -> i32;
    /// See [`translate::serve_known`].
    fn serve_known(frame: Frame, flow: &mut Flow<Self>) -> Result<Found, DropReason>;
    /// See [`translate::bind_service`].
    fn bind_service(flow: &Flow<Self>) -> Result<Served, DropReason>;
    /// See [`rewrite::turn`].
    fn turn(
        frame: Frame,
        flow: &mut Flow<Self>,
        other: &Translation<Self::Address>,
    ) -> Result<(), DropReason>;
    /// See [`translate::try_backend`].
    fn try_backend(flow: &Flow<Self>, backend: u32, ports: u32) -> u32;
    /// See [`translate::try_port`].
    fn try_port(flow: &Flow<Self>, interface: u32, attempt: u32) -> u32;
    /// See [`replica::refuse_replica`].
    fn refuse_replica(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`host::refuse_host`].
    fn refuse_host(frame: Frame, flow: &mut Flow<Self>, interface: u32) -> i32;
    /// See [`translate::outward`].
    fn outward(frame: Frame, flow: &mut Flow<Self>, is_noted: u32) -> i32;
    /// See [`translate::bind_aside`].
    fn bind_aside(flow: &Flow<Self>) -> Result<Served, DropReason>;
    /// See [`translate::tell_client`].
    fn tell_client(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`translate::leave_by`].
    fn leave_by(frame: Frame, flow: &mut Flow<Self>) -> i32;
    /// See [`judge::verdict`].
    fn verdict(flow: &Flow<Self>, entry: &mut Entry, about: u32) -> u32;
    /// See [`judge::strongest`].
    fn strongest(question: &Question<Self::Address>, side: u32, identity: u32) -> Option<PolicyEntry>;
    /// Drops a frame whose flow is known: see [`tell::note_drop`].
    fn drop(frame: Frame, flow: &Flow<Self>, reason: DropReason) -> i32 {
        Self::drop_as(frame, flow, reason as u32)
    }
    /// The same by the reason's number, with [`UNJUDGED`] or without.
    fn drop_as(frame: Frame, flow: &Flow<Self>, reason: u32) -> i32;
    /// Tells of a connection. `what` is made by [`tell::begun_first`].
    fn tell(key: &Key<Self::Address>, entry: &Entry, what: u32, interface: u32, now: u64);
}

/// A function that takes the context and a flow, and returns what is to become of the packet.
macro_rules! verdict {
    ($family:ty, $name:ident, |$frame:ident, $flow:ident| $body:expr) => {
        verdict!($family, $name, 0, |$frame, $flow| $body);
    };
    // What may have to be said besides the reason to drop it.
    ($family:ty, $name:ident, $besides:expr, |$frame:ident, $flow:ident| $body:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(context: *mut __sk_buff, flow: *mut Flow<$family>) -> i32 {
            // SAFETY: the caller's own, or null.
            let Some($flow) = (unsafe { flow.as_mut() }) else { return TC_ACT_SHOT };
            let $frame = Frame::of(context);
            let verdict: Result<i32, DropReason> = $body;
            verdict.unwrap_or_else(|reason| <$family>::drop_as($frame, $flow, reason as u32 | $besides))
        }
    };
}

macro_rules! functions {
    (
        $family:ty,
        $address:ty,
        $plain:path,
        $parse:path,
        $parse_error:path,
        [
            $read:ident,
            $read_error:ident,
            $leaving:ident,
            $entering:ident,
            $arriving:ident,
            $from_outside:ident,
            $pass_outside:ident,
            $settle:ident,
            $go_on:ident,
            $serve_known:ident,
            $bind_service:ident,
            $turn:ident,
            $try_backend:ident,
            $try_port:ident,
            $refuse_replica:ident,
            $refuse_host:ident,
            $outward:ident,
            $bind_aside:ident,
            $tell_client:ident,
            $leave_by:ident,
            $verdict:ident,
            $strongest:ident,
            $recall:ident,
            $drop:ident,
            $tell:ident,
            $take_over:ident
        ]
    ) => {
        impl Functions for $family {
            #[inline(always)]
            fn plain(frame: Frame) -> Option<Packet<$address>> {
                $plain(&frame)
            }
            #[inline(always)]
            fn read(frame: Frame, flow: &mut Flow<Self>) -> u32 {
                let fault = $read(frame.context(), flow);
                if fault == 0 && flow.is_error() { $read_error(frame.context(), flow) } else { fault }
            }
            #[inline(always)]
            fn take_over(_flow: &Flow<Self>) {
                #[cfg(feature = "next-layout")]
                if crate::maps::does(hivemind_common::telemetry::FEATURE_TAKE_OVER) {
                    crate::change::$take_over(_flow);
                }
            }
            #[inline(always)]
            fn was_live(_key: &Key<$address>) -> bool {
                #[cfg(feature = "next-layout")]
                if crate::maps::does(hivemind_common::telemetry::FEATURE_TAKE_OVER) {
                    return crate::change::is_live::<Self>(_key);
                }
                false
            }
            #[inline(always)]
            fn judge_leaving(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $leaving(frame.context(), flow)
            }
            #[inline(always)]
            fn judge_entering(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $entering(frame.context(), flow)
            }
            #[inline(always)]
            fn judge_arriving(frame: Frame, flow: &mut Flow<Self>, node: u32, identity: u32) -> i32 {
                $arriving(frame.context(), flow, node, identity)
            }
            #[inline(always)]
            fn judge_from_outside(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $from_outside(frame.context(), flow)
            }
            #[inline(always)]
            fn pass_from_outside(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $pass_outside(frame.context(), flow)
            }
            #[inline(always)]
            fn settle(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $settle(frame.context(), flow)
            }
            #[inline(always)]
            fn go_on(frame: Frame, flow: &mut Flow<Self>, interface_zero: u32) -> i32 {
                $go_on(frame.context(), flow, interface_zero)
            }
            #[inline(always)]
            fn serve_known(frame: Frame, flow: &mut Flow<Self>) -> Result<Found, DropReason> {
                match $serve_known(frame.context(), flow) {
                    0 => Ok(Found::Nothing),
                    1 => Ok(Found::Done),
                    2 => Ok(Found::New),
                    _ => Err(DropReason::Rewrite),
                }
            }
            #[inline(always)]
            fn bind_service(flow: &Flow<Self>) -> Result<Served, DropReason> {
                match $bind_service(flow) {
                    0 => Ok(Served::No),
                    1 => Ok(Served::Yes),
                    2 => Ok(Served::Refused),
                    fault => Err(DropReason::translating(fault - FAULT)),
                }
            }
            #[inline(always)]
            fn turn(
                frame: Frame,
                flow: &mut Flow<Self>,
                other: &Translation<$address>,
            ) -> Result<(), DropReason> {
                match $turn(frame.context(), flow, other) {
                    0 => Ok(()),
                    _ => Err(DropReason::Rewrite),
                }
            }
            #[inline(always)]
            fn try_backend(flow: &Flow<Self>, backend: u32, ports: u32) -> u32 {
                $try_backend(flow, backend, ports)
            }
            #[inline(always)]
            fn try_port(flow: &Flow<Self>, interface: u32, attempt: u32) -> u32 {
                $try_port(flow, interface, attempt)
            }
            #[inline(always)]
            fn refuse_replica(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $refuse_replica(frame.context(), flow)
            }
            #[inline(always)]
            fn refuse_host(frame: Frame, flow: &mut Flow<Self>, interface: u32) -> i32 {
                $refuse_host(frame.context(), flow, interface)
            }
            #[inline(always)]
            fn outward(frame: Frame, flow: &mut Flow<Self>, is_noted: u32) -> i32 {
                $outward(frame.context(), flow, is_noted)
            }
            #[inline(always)]
            fn bind_aside(flow: &Flow<Self>) -> Result<Served, DropReason> {
                match $bind_aside(flow) {
                    0 => Ok(Served::Yes),
                    fault => Err(DropReason::translating(fault - FAULT)),
                }
            }
            #[inline(always)]
            fn tell_client(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $tell_client(frame.context(), flow)
            }
            #[inline(always)]
            fn leave_by(frame: Frame, flow: &mut Flow<Self>) -> i32 {
                $leave_by(frame.context(), flow)
            }
            #[inline(always)]
            fn verdict(flow: &Flow<Self>, entry: &mut Entry, about: u32) -> u32 {
                $verdict(flow, entry, about)
            }
            #[inline(always)]
            fn strongest(question: &Question<$address>, side: u32, identity: u32) -> Option<PolicyEntry> {
                let mut found = PolicyEntry::default();
                ($strongest(question, side, identity, &raw mut found) != 0).then_some(found)
            }
            #[inline(always)]
            fn drop_as(frame: Frame, flow: &Flow<Self>, reason: u32) -> i32 {
                $drop(frame.context(), flow, reason)
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
                    *flow = Flow::of(&packet);
                    0
                }
                Err(reason) => reason as u32 + 1,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $read_error(context: *mut __sk_buff, flow: *mut Flow<$family>) -> u32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return DropReason::Internal as u32 + 1 };
            match $parse_error(&Frame::of(context), flow.transport()) {
                Ok(packet) => {
                    *flow = Flow::of(&packet);
                    0
                }
                Err(reason) => reason as u32 + 1,
            }
        }

        verdict!($family, $leaving, |frame, flow| judge_leaving(frame, flow).map(|()| CONTINUE));
        verdict!($family, $entering, |frame, flow| judge_entering(frame, flow).map(|()| CONTINUE));
        verdict!($family, $from_outside, |frame, flow| {
            underlay::judge_from_outside(frame, flow).map(|()| CONTINUE)
        });
        verdict!($family, $refuse_replica, |frame, flow| refuse_replica(frame, flow));
        verdict!($family, $pass_outside, UNJUDGED, |frame, flow| underlay::pass_from_outside(frame, flow));
        verdict!($family, $settle, |frame, flow| judge::settle(frame, flow));
        verdict!($family, $tell_client, UNJUDGED, |frame, flow| {
            translate::tell_client(frame, flow).map(|()| CONTINUE)
        });
        verdict!($family, $leave_by, UNJUDGED, |frame, flow| {
            translate::leave_by(frame, flow).map(|()| TC_ACT_UNSPEC)
        });

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $arriving(
            context: *mut __sk_buff,
            flow: *mut Flow<$family>,
            node: u32,
            identity: u32,
        ) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            underlay::judge_arriving(frame, flow, node, identity)
                .unwrap_or_else(|reason| <$family>::drop(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $refuse_host(context: *mut __sk_buff, flow: *mut Flow<$family>, interface: u32) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            host::refuse_host(frame, flow, interface)
                .unwrap_or_else(|reason| <$family>::drop(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $go_on(context: *mut __sk_buff, flow: *mut Flow<$family>, interface_zero: u32) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            judge::go_on(frame, flow, interface_zero)
                .unwrap_or_else(|reason| <$family>::drop(frame, flow, reason))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $outward(context: *mut __sk_buff, flow: *mut Flow<$family>, is_noted: u32) -> i32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return TC_ACT_SHOT };
            let frame = Frame::of(context);
            translate::outward(frame, flow, is_noted != 0)
                .unwrap_or_else(|reason| <$family>::drop_as(frame, flow, reason as u32 | UNJUDGED))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $bind_aside(flow: *const Flow<$family>) -> u32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_ref() }) else { return FAULT };
            match translate::bind_aside(flow) {
                Ok(_) => 0,
                Err(reason) => FAULT + reason as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $serve_known(context: *mut __sk_buff, flow: *mut Flow<$family>) -> u32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_mut() }) else { return FAULT };
            match translate::serve_known(Frame::of(context), flow) {
                Ok(Found::Nothing) => 0,
                Ok(Found::Done) => 1,
                Ok(Found::New) => 2,
                Err(_) => FAULT,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $bind_service(flow: *const Flow<$family>) -> u32 {
            // SAFETY: as above.
            let Some(flow) = (unsafe { flow.as_ref() }) else { return FAULT };
            match translate::bind_service(flow) {
                Ok(Served::No) => 0,
                Ok(Served::Yes) => 1,
                Ok(Served::Refused) => 2,
                Err(reason) => FAULT + reason as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $turn(
            context: *mut __sk_buff,
            flow: *mut Flow<$family>,
            other: *const Translation<$address>,
        ) -> u32 {
            // SAFETY: as above.
            let (Some(flow), Some(other)) = (unsafe { (flow.as_mut(), other.as_ref()) }) else { return 1 };
            u32::from(rewrite::turn::<$family>(Frame::of(context), flow, other).is_err())
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $try_backend(flow: *const Flow<$family>, backend: u32, ports: u32) -> u32 {
            // SAFETY: as above.
            match unsafe { flow.as_ref() } {
                Some(flow) => translate::try_backend(flow, backend, ports),
                None => translate::TAKEN,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $try_port(flow: *const Flow<$family>, interface: u32, attempt: u32) -> u32 {
            // SAFETY: as above.
            match unsafe { flow.as_ref() } {
                Some(flow) => translate::try_port(flow, interface, attempt),
                None => translate::TAKEN,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $strongest(
            question: *const Question<$address>,
            side: u32,
            identity: u32,
            found: *mut PolicyEntry,
        ) -> u32 {
            // SAFETY: as above.
            let (Some(question), Some(found)) = (unsafe { (question.as_ref(), found.as_mut()) }) else {
                return 0;
            };
            match judge::strongest::<$family>(question, side, identity) {
                None => 0,
                Some(entry) => {
                    *found = entry;
                    1
                }
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $verdict(flow: *const Flow<$family>, entry: *mut Entry, about: u32) -> u32 {
            // SAFETY: as above.
            let (Some(flow), Some(entry)) = (unsafe { (flow.as_ref(), entry.as_mut()) }) else {
                return DropReason::NoPolicy as u32;
            };
            judge::verdict(flow, entry, about)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $recall(flow: *const Flow<$family>, reason: u32) -> u32 {
            // SAFETY: as above.
            if let Some(flow) = unsafe { flow.as_ref() }
                && reason & UNJUDGED != 0
            {
                judge::recall(flow);
            }
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $drop(context: *mut __sk_buff, flow: *const Flow<$family>, reason: u32) -> i32 {
            // SAFETY: as above.
            if let Some(flow) = unsafe { flow.as_ref() } {
                // Decided over there: here the verifier would follow all that comes after it twice.
                $recall(flow, reason);
                tell::note_drop(Frame::of(context), flow, reason & !UNJUDGED);
            }
            TC_ACT_SHOT
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

/// What a function returns that says why it failed is this much more than the reason's number.
const FAULT: u32 = 4;

functions!(
    V4,
    Address4,
    packet::plain_v4,
    packet::parse_v4,
    packet::parse_error_v4,
    [
        read_v4,
        read_error_v4,
        judge_leaving_v4,
        judge_entering_v4,
        judge_arriving_v4,
        judge_outside_v4,
        pass_outside_v4,
        settle_v4,
        go_on_v4,
        serve_known_v4,
        bind_service_v4,
        turn_v4,
        try_backend_v4,
        try_port_v4,
        refuse_replica_v4,
        refuse_host_v4,
        outward_v4,
        bind_aside_v4,
        tell_client_v4,
        leave_by_v4,
        verdict_v4,
        strongest_v4,
        recall_v4,
        drop_v4,
        tell_v4,
        take_over_v4
    ]
);
functions!(
    V6,
    Address6,
    packet::plain_v6,
    packet::parse_v6,
    packet::parse_error_v6,
    [
        read_v6,
        read_error_v6,
        judge_leaving_v6,
        judge_entering_v6,
        judge_arriving_v6,
        judge_outside_v6,
        pass_outside_v6,
        settle_v6,
        go_on_v6,
        serve_known_v6,
        bind_service_v6,
        turn_v6,
        try_backend_v6,
        try_port_v6,
        refuse_replica_v6,
        refuse_host_v6,
        outward_v6,
        bind_aside_v6,
        tell_client_v6,
        leave_by_v6,
        verdict_v6,
        strongest_v6,
        recall_v6,
        drop_v6,
        tell_v6,
        take_over_v6
    ]
);
