//! The step that finds out all about a packet: its headers, whatever they are, the service that it asks for, its two ends.
//!
//! The programs at the interfaces know what nearly all packets are, plain ones of connections that stand, and send those on
//! themselves. All others come here, wherever they came in, so that what it takes is verified once and not at each interface.

use crate::{
    end::{check_source, is_here, is_own_address, whose},
    flow::Flow,
    frame::Frame,
    functions::{CONTINUE, Functions, collect_if_due, drop_unread},
    maps::{NODE_STATE, does},
    step::{
        AS_IT_IS, BY_QUEUE, KNOWN, LEAVING_BY, OR_NOWHERE, OR_TO_HOST, TELL_OUT, THEN_SHIFT, TO_REPLICA,
        TO_STACK, TO_WIRE, by_family, origin, to_outward, to_refuse, to_settle,
    },
    translate::{Found, Served, serve},
};
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
    node::{DIRECT, OWN},
    packet,
    telemetry::FEATURE_TRACKING,
};

/// Finds out about a packet, and has it settled.
#[classifier]
pub fn examine(context: TcContext) -> i32 {
    by_family!(examine_as, context)
}

#[inline(always)]
fn examine_as<F: Functions>(frame: Frame, flow: &mut Flow<F>, then: u32, by_node: [u32; 2]) -> i32 {
    let from = then & (KNOWN - 1);
    if then & KNOWN == 0 {
        let fault = F::read(frame, flow);
        if fault != 0 {
            // What comes in from outside is none of ours, as far as is known; nor are the node's own messages.
            let is_others = from == origin::OUTSIDE || from == origin::OWN_ICMP;
            return if is_others { TC_ACT_UNSPEC } else { drop_unread(frame, fault - 1) };
        }
    }
    F::take_over(flow);
    let judged = match from {
        origin::LEAVING => leaving(frame, flow),
        origin::ENTERING => entering(frame, flow),
        origin::ARRIVING => judged(F::judge_arriving(frame, flow, by_node[0], by_node[1]), OR_NOWHERE),
        origin::OUTSIDE => from_outside(frame, flow),
        origin::STACK => from_stack(frame, flow),
        origin::OUT => Err(to_outward(frame, flow, LEAVING_BY)),
        origin::OWN_ICMP if flow.is_error() => Err(to_outward(frame, flow, TELL_OUT)),
        origin::OWN_ICMP => Err(TC_ACT_UNSPEC),
        _ => match turn_aside(frame, flow) {
            Ok(()) => Ok(then >> THEN_SHIFT),
            Err(reason) => Err(drop_unread(frame, reason as u32)),
        },
    };
    match judged {
        Ok(then) => to_settle(frame, flow, then),
        Err(verdict) => verdict,
    }
}

/// What is to follow the decision about a packet; or what became of it before that.
type Judged = Result<u32, i32>;

#[inline(always)]
fn judged(verdict: i32, then: u32) -> Judged {
    if verdict == CONTINUE { Ok(then) } else { Err(verdict) }
}

/// From a replica.
#[inline(always)]
fn leaving<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Judged {
    let is_service = F::is_service(flow.destination());
    if !flow.was_outer() && (is_service || is_own_address::<F>(flow.destination())) {
        match serve_replica(frame, flow) {
            Ok(Served::Yes) => {}
            Ok(Served::No) if !is_service => {}
            Ok(_) => return Err(to_refuse(frame, flow, TO_REPLICA)),
            Err(reason) => return Err(drop_unread(frame, reason as u32)),
        }
    }
    judged(F::judge_leaving(frame, flow), OR_TO_HOST)
}

/// Brings a replica's packet to its inner tuple, if it is for a service.
#[inline(always)]
fn serve_replica<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<Served, DropReason> {
    if does(FEATURE_TRACKING) {
        check_source::<F>(frame)?;
    }
    serve(frame, flow)
}

/// From the host's stack, for a replica.
#[inline(always)]
fn entering<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Judged {
    if frame.is_judged() && flow.known().is_some_and(|entry| flow.stands(entry)) {
        return Err(TC_ACT_OK);
    }
    judged(F::judge_entering(frame, flow), AS_IT_IS)
}

/// From outside: for a published port, or part of a connection of a replica with the outside; or sent by a replica of another
/// node without the overlay.
#[inline(always)]
fn from_outside<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Judged {
    if !flow.was_outer() {
        match serve(frame, flow) {
            Ok(Served::Yes) => {}
            Ok(Served::Refused) if flow.key.protocol == packet::UDP => {
                return Err(to_refuse(frame, flow, TO_WIRE));
            }
            // The socket that holds a published port has nobody listening: the host's stack says so.
            Ok(_) => return as_is(frame, flow),
            Err(reason) => return Err(drop_unread(frame, reason as u32)),
        }
    }
    judged(F::judge_from_outside(frame, flow), OR_NOWHERE)
}

/// Takes a packet that a replica of another node has sent to one of this node without the overlay, and nothing else.
#[inline(always)]
fn as_is<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Judged {
    let is_direct =
        F::VERSION == V4::VERSION && NODE_STATE.get(OWN).is_some_and(|own| own.flags & DIRECT != 0);
    if !is_direct {
        return Err(TC_ACT_UNSPEC);
    }
    let (identity, node) = whose::<F>(flow.source());
    if node == OWN || !is_here::<F>(flow.destination()) {
        return Err(TC_ACT_UNSPEC);
    }
    judged(F::judge_arriving(frame, flow, node, identity), OR_NOWHERE)
}

/// From the host's stack, for a service.
#[inline(always)]
fn from_stack<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Judged {
    if !F::is_service(flow.destination()) {
        return Err(TC_ACT_OK);
    }
    // A replica asks its own program: who seems to be one here is not.
    if F::is_replica(flow.source()) {
        return Err(drop_unread(frame, DropReason::SpoofedSource as u32));
    }
    match serve(frame, flow) {
        Ok(Served::Yes) => {}
        Ok(_) => return Err(to_refuse(frame, flow, TO_STACK)),
        Err(reason) => return Err(drop_unread(frame, reason as u32)),
    }
    judged(F::judge_from_outside(frame, flow), BY_QUEUE)
}

/// Has a client's packets to an endpoint itself come from another port: under their own, they would be taken for those of its
/// connection with a service. As with a service, answers are turned back by [`crate::step::outward`].
#[inline(always)]
fn turn_aside<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<(), DropReason> {
    if F::serve_known(frame, flow)? == Found::Done {
        return Ok(());
    }
    if let Err(reason) = F::bind_aside(flow) {
        if matches!(reason, DropReason::TranslationFull) {
            collect_if_due(flow.now);
        }
        return Err(reason);
    }
    match F::serve_known(frame, flow)? {
        Found::Done => Ok(()),
        _ => Err(DropReason::Internal),
    }
}
