//! Steps of a packet's way that several programs have in common, each a program of its own: it is verified once, and has a
//! stack of its own. They are for packets about which something is to be found out, or that are translated; what is known of a
//! packet is handed over in a map of each CPU.

use crate::{
    flow::Flow,
    frame::Frame,
    functions::{ASIDE, CONTINUE, Functions, OUTWARD, drop_unread, send},
    judge::{self, NOWHERE, TO_HOST},
    maps::{HANDED, STEPS},
};
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
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
    pub(crate) then: u32,
    /// The node that brought the packet, and the identity of its sender as it says.
    by_node: [u32; 2],
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
/// For [`outward`]: the packet is noted in its connection's entry.
const NOTED: u32 = 4;
/// For [`outward`]: the host's stack sends it out by the interface of the program.
pub(crate) const LEAVING_BY: u32 = 5;
/// For [`outward`]: an error of the host's stack for a replica.
const TELL: u32 = 6;
/// For [`outward`]: an error of the host's stack for the outside.
pub(crate) const TELL_OUT: u32 = 7;
/// For [`refuse`]: a replica asked.
pub(crate) const TO_REPLICA: u32 = 0;
/// For [`refuse`]: the host's stack asked.
pub(crate) const TO_STACK: u32 = 1;

/// For [`refuse`]: somebody outside asked.
pub(crate) const TO_WIRE: u32 = 2;

/// Has another program go on with a packet.
#[inline(always)]
fn hand<F: Functions>(frame: Frame, flow: &Flow<F>, to: u32, then: u32, by_node: [u32; 2]) -> i32 {
    const { assert!(size_of::<Flow<F>>() <= size_of::<Flow<V6>>() && size_of::<Flow<F>>().is_multiple_of(8)) };
    let Some(handed) = HANDED.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this CPU's slot, and programs on one CPU do not preempt one another within it. A flow is made of numbers.
    unsafe {
        let place = (&raw mut (*handed).flow).cast::<u64>();
        let words = core::ptr::from_ref(flow).cast::<u64>();
        for i in 0..size_of::<Flow<F>>() / 8 {
            place.add(i).write_volatile(words.add(i).read_volatile());
        }
    }
    hand_frame::<F>(frame, to, then, by_node)
}

/// As [`hand`], of a packet whose flow lies there already, or is not known.
#[inline(always)]
fn hand_frame<F: Functions>(frame: Frame, to: u32, then: u32, by_node: [u32; 2]) -> i32 {
    let Some(handed) = HANDED.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: as above.
    unsafe {
        (*handed).family = F::VERSION.into();
        (*handed).then = then;
        (*handed).by_node = by_node;
        // Comes back only if there is no such program.
        STEPS.tail_call(&TcContext::new(frame.context()), to);
    }
    drop_unread(frame, DropReason::Internal as u32)
}

/// Nobody: in place of the node that brought a packet, and of what it says.
const NOBODY: [u32; 2] = [OWN, 0];

/// Goes on with [`crate::examine::examine`], which has to read the headers. `origin` says where the packet came in.
#[inline(always)]
pub(crate) fn to_examine<F: Functions>(frame: Frame, origin: u32) -> i32 {
    hand_frame::<F>(frame, step::EXAMINE, origin, NOBODY)
}

/// As [`to_examine`], of a packet that another node brought on behalf of an identity.
#[inline(always)]
pub(crate) fn to_examine_arriving<F: Functions>(frame: Frame, origin: u32, by_node: [u32; 2]) -> i32 {
    hand_frame::<F>(frame, step::EXAMINE, origin, by_node)
}

/// As [`to_examine`], of a packet whose flow is known.
#[inline(always)]
pub(crate) fn to_examine_known<F: Functions>(frame: Frame, flow: &Flow<F>, origin: u32) -> i32 {
    hand(frame, flow, step::EXAMINE, origin | KNOWN, NOBODY)
}

/// Goes on with [`settle`].
#[inline(always)]
pub(crate) fn to_settle<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::SETTLE, then, NOBODY)
}

/// Goes on with [`outward`], which also notes the packet in its connection's entry. `then` is for a packet that is no part of
/// that connection.
#[inline(always)]
pub(crate) fn to_outward<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::OUTWARD, then, NOBODY)
}

/// Goes on with [`crate::examine::examine`] for another tuple, and then with [`settle`].
#[inline(always)]
fn to_aside<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::EXAMINE, origin::ASIDE | KNOWN | then << THEN_SHIFT, NOBODY)
}

/// Goes on with [`refuse`].
#[inline(always)]
pub(crate) fn to_refuse<F: Functions>(frame: Frame, flow: &Flow<F>, then: u32) -> i32 {
    hand(frame, flow, step::REFUSE, then, NOBODY)
}

/// Goes on with [`crate::underlay::outside`]. Returns if there is no such program.
#[inline(always)]
pub(crate) fn to_outside(frame: Frame) {
    // SAFETY: the context is the kernel's.
    unsafe { STEPS.tail_call(&TcContext::new(frame.context()), step::OUTSIDE) };
}

/// Where a packet that is to be examined came in.
pub(crate) mod origin {
    /// From a replica.
    pub(crate) const LEAVING: u32 = 0;
    /// From the host's stack, for a replica.
    pub(crate) const ENTERING: u32 = 1;
    /// From another node, by the overlay.
    pub(crate) const ARRIVING: u32 = 2;
    /// From outside.
    pub(crate) const OUTSIDE: u32 = 3;
    /// From the host's stack, for a service.
    pub(crate) const STACK: u32 = 4;
    /// From the host's stack, for the outside.
    pub(crate) const OUT: u32 = 5;
    /// Its ends are known, but it needs another tuple.
    pub(crate) const ASIDE: u32 = 6;
    /// An ICMP message of the node's own, for the outside.
    pub(crate) const OWN_ICMP: u32 = 7;
}

/// Beside an origin: the flow is known.
pub(crate) const KNOWN: u32 = 1 << 7;
/// Above an origin: what [`settle`] is to do.
pub(crate) const THEN_SHIFT: u32 = 8;

/// Calls the function of the family of what was handed.
macro_rules! by_family {
    ($function:ident, $context:expr) => {{
        let Some(handed) = crate::maps::HANDED.get_ptr_mut(0) else { return aya_ebpf::bindings::TC_ACT_SHOT };
        let frame = crate::frame::Frame::new(&$context);
        // SAFETY: what `hand` has written, on this CPU.
        unsafe {
            let (then, flow) = ((*handed).then, (*handed).flow());
            if (*handed).is_v4() {
                $function::<V4>(frame, &mut *flow.cast::<crate::flow::Flow<V4>>(), then, (*handed).by_node())
            } else {
                $function::<V6>(frame, &mut *flow, then, (*handed).by_node())
            }
        }
    }};
}
pub(crate) use by_family;

impl Handed {
    #[inline(always)]
    pub(crate) fn is_v4(&self) -> bool {
        self.family == u32::from(V4::VERSION)
    }

    #[inline(always)]
    pub(crate) fn flow(&mut self) -> *mut Flow<V6> {
        &raw mut self.flow
    }

    #[inline(always)]
    pub(crate) fn by_node(&self) -> [u32; 2] {
        self.by_node
    }
}

/// Decides about a packet whose ends are in the scratch entry, and sends it on.
#[classifier]
pub fn settle(context: TcContext) -> i32 {
    by_family!(settle_as, context)
}

#[inline(always)]
fn settle_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32, _: [u32; 2]) -> i32 {
    let verdict = F::settle(frame, flow);
    if verdict == ASIDE {
        return to_aside(frame, flow, then);
    }
    if verdict != CONTINUE {
        return verdict;
    }
    let verdict = match then {
        AS_IT_IS if flow.is_error() => return to_outward(frame, flow, TELL),
        AS_IT_IS => TC_ACT_OK,
        BY_QUEUE => match queue(frame, flow) {
            Ok(verdict) => verdict,
            Err(reason) => drop_unread(frame, reason as u32),
        },
        _ => F::go_on(frame, flow, if then == OR_NOWHERE { NOWHERE } else { TO_HOST }),
    };
    // The flow lies where it is handed over already.
    if verdict == OUTWARD { to_outward(frame, flow, NOTED) } else { verdict }
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
fn outward_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32, _: [u32; 2]) -> i32 {
    match then {
        LEAVING_BY => return F::leave_by(frame, flow),
        TELL | TELL_OUT => {
            let verdict = F::tell_client(frame, flow);
            let goes_on = if then == TELL { TC_ACT_OK } else { TC_ACT_UNSPEC };
            return if verdict == CONTINUE { goes_on } else { verdict };
        }
        _ => {}
    }
    let verdict = F::outward(frame, flow, u32::from(then == NOTED));
    if verdict == ASIDE { to_aside(frame, flow, then) } else { verdict }
}

/// Answers a packet for a service that is not there, or has no backend.
#[classifier]
pub fn refuse(context: TcContext) -> i32 {
    by_family!(refuse_as, context)
}

#[inline(always)]
fn refuse_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32, _: [u32; 2]) -> i32 {
    match then {
        TO_REPLICA => F::refuse_replica(frame, flow),
        TO_STACK => F::refuse_host(frame, flow, 0),
        _ => F::refuse_host(frame, flow, frame.interface()),
    }
}
