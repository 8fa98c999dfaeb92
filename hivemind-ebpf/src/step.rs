//! Steps of a packet's way that several programs have in common, each a program of its own: it is verified once, and has a
//! stack of its own. They are for packets about which something is to be found out, or that are translated; what is known of a
//! packet is handed over in a map of each CPU.

use crate::{
    flow::Flow,
    frame::Frame,
    functions::{CONTINUE, Functions, OUTWARD, drop_unread, send},
    judge::{self, NOWHERE, TO_HOST},
    maps::{HANDED, STEPS},
};
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
    name::step,
    node::OWN,
};

/// What is handed from one program to the next. IPv4's flow is smaller than IPv6's, and lies in its place.
#[repr(C)]
pub(crate) struct Handed {
    /// The version of the flow's family.
    family: u32,
    /// What is to follow, for the step to know.
    then: u32,
    flow: Flow<V6>,
}

/// After [`settle`]: the host's stack gets what is reached neither by an interface nor by a node.
pub(crate) const OR_TO_HOST: u32 = 0;
/// After [`settle`]: nobody gets it.
pub(crate) const OR_NOWHERE: u32 = 1;
/// After [`settle`]: it goes on as it is.
pub(crate) const AS_IT_IS: u32 = 2;
/// After [`settle`]: it goes before the program at its receiver's interface.
pub(crate) const BY_QUEUE: u32 = 3;
/// For [`refuse`]: a replica asked.
pub(crate) const TO_REPLICA: u32 = 0;
/// For [`refuse`]: the host's stack asked.
pub(crate) const TO_STACK: u32 = 1;

/// For [`refuse`]: somebody outside asked.
pub(crate) const TO_WIRE: u32 = 2;

/// Has another program go on with a packet.
#[inline(always)]
fn hand<F: Functions>(frame: Frame, flow: &Flow<F>, to: u32, then: u32) -> i32 {
    const { assert!(size_of::<Flow<F>>() <= size_of::<Flow<V6>>() && size_of::<Flow<F>>().is_multiple_of(8)) };
    let Some(handed) = HANDED.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this CPU's slot, and programs on one CPU do not preempt one another within it. A flow is made of numbers.
    unsafe {
        (*handed).family = F::VERSION.into();
        (*handed).then = then;
        let place = (&raw mut (*handed).flow).cast::<u64>();
        let words = core::ptr::from_ref(flow).cast::<u64>();
        for i in 0..size_of::<Flow<F>>() / 8 {
            place.add(i).write_volatile(words.add(i).read_volatile());
        }
        // Comes back only if there is no such program.
        STEPS.tail_call(&TcContext::new(frame.context()), to);
    }
    drop_unread(frame, DropReason::Internal as u32)
}

/// Goes on with [`settle`].
#[inline(always)]
pub(crate) fn to_settle<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::SETTLE, then)
}

/// Goes on with [`outward`].
#[inline(always)]
pub(crate) fn to_outward<F: Functions>(frame: Frame, flow: &Flow<F>) -> i32 {
    hand(frame, flow, step::OUTWARD, 0)
}

/// Goes on with [`refuse`].
#[inline(always)]
pub(crate) fn to_refuse<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::REFUSE, then)
}

/// Goes on with [`crate::underlay::outside`]. Returns if there is no such program.
#[inline(always)]
pub(crate) fn to_outside(frame: Frame) {
    // SAFETY: the context is the kernel's.
    unsafe { STEPS.tail_call(&TcContext::new(frame.context()), step::OUTSIDE) };
}

/// Calls the function of the family of what was handed.
macro_rules! by_family {
    ($function:ident, $context:expr) => {{
        let Some(handed) = HANDED.get_ptr_mut(0) else { return TC_ACT_SHOT };
        let frame = Frame::new(&$context);
        // SAFETY: what `hand` has written, on this CPU.
        unsafe {
            let (then, flow) = ((*handed).then, &raw mut (*handed).flow);
            if (*handed).family == u32::from(V4::VERSION) {
                $function::<V4>(frame, &mut *flow.cast::<Flow<V4>>(), then)
            } else {
                $function::<V6>(frame, &mut *flow, then)
            }
        }
    }};
}

/// Decides about a packet whose ends are in the scratch entry, and sends it on.
#[classifier]
pub fn settle(context: TcContext) -> i32 {
    by_family!(settle_as, context)
}

#[inline(always)]
fn settle_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32) -> i32 {
    let verdict = F::settle(frame, flow);
    if verdict != CONTINUE {
        return verdict;
    }
    let verdict = match then {
        AS_IT_IS => TC_ACT_OK,
        BY_QUEUE => match queue(frame, flow) {
            Ok(verdict) => verdict,
            Err(reason) => drop_unread(frame, reason as u32),
        },
        _ => F::go_on(frame, flow, if then == OR_NOWHERE { NOWHERE } else { TO_HOST }),
    };
    // The flow lies where it is handed over already.
    if verdict == OUTWARD { to_outward(frame, flow) } else { verdict }
}

/// Sends a packet of the host's stack to a service's backend.
#[inline(always)]
fn queue<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    let entry = judge::found_out()?;
    let (from, to) = (flow.from(), flow.to());
    let way = entry.way(to);
    if way != OWN {
        return Ok(send(frame, way, entry.identities[from]));
    }
    if entry.interfaces[to] == 0 {
        return Err(DropReason::NoEndpoint);
    }
    frame.mark_judged();
    frame.queue(entry.interfaces[to], &entry.frame_macs[to])
}

/// Sends a packet to whoever knows its connection by the outer tuple.
#[classifier]
pub fn outward(context: TcContext) -> i32 {
    by_family!(outward_as, context)
}

#[inline(always)]
fn outward_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, _: u32) -> i32 {
    F::outward(frame, flow)
}

/// Answers a packet for a service that is not there, or has no backend.
#[classifier]
pub fn refuse(context: TcContext) -> i32 {
    by_family!(refuse_as, context)
}

#[inline(always)]
fn refuse_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32) -> i32 {
    match then {
        TO_REPLICA => F::refuse_replica(frame, flow),
        TO_STACK => F::refuse_host(frame, flow, 0),
        _ => F::refuse_host(frame, flow, frame.interface()),
    }
}
