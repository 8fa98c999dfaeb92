//! The two programs on the host end of a replica's veth pair.

use crate::{
    end,
    flow::Flow,
    frame::Frame,
    functions::{CONTINUE, Functions, drop_unread, send},
    judge::{self, goes_outward},
    maps::does,
    refuse::refuse,
    step::{AS_IT_IS, OR_TO_HOST, TO_REPLICA, to_outward, to_refuse, to_settle},
    translate::{Served, meets_translated, serve},
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use core::mem::MaybeUninit;
use hivemind_common::{
    conntrack::{Entry, MASQUERADED},
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    node::OWN,
    telemetry::FEATURE_TRACKING,
};

/// What leaves a replica: to another replica of this node straight into its namespace, to one of another
/// node straight to that node, to the outside by the node's routes and under its address, all else to the host's stack.
#[classifier]
pub fn from_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => leave::<V4>(frame),
        V6::ETHERTYPE => leave::<V6>(frame),
        _ => drop_unread(frame, DropReason::NotIp as u32),
    }
}

/// What the host's stack sends to a replica.
#[classifier]
pub fn to_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => enter::<V4>(frame),
        V6::ETHERTYPE => enter::<V6>(frame),
        _ => drop_unread(frame, DropReason::NotIp as u32),
    }
}

#[inline(always)]
fn leave<F: Functions>(frame: Frame) -> i32 {
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    let fault = F::read(frame, flow);
    if fault != 0 {
        return drop_unread(frame, fault - 1);
    }
    if F::is_service(flow.destination()) {
        match serve_replica::<F>(frame, flow) {
            Ok(Served::Yes) => {}
            Ok(_) => return to_refuse(frame, flow, TO_REPLICA),
            Err(reason) => return drop_unread(frame, reason as u32),
        }
    }
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        // The entry names the interface at which its sender sits, which is as good as looking the sender up: a
        // spoofed source finds another's interface there, and is judged and refused below.
        if entry.interfaces[from] == frame.interface() && !flow.is_error() && flow.stands(entry) {
            flow.observe(frame, entry);
            if goes_outward(flow, entry) {
                return to_outward(frame, flow);
            }
            let way = entry.way(to);
            if way != OWN {
                return send(frame, way, entry.identities[from]);
            }
            return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
                Ok(verdict) => verdict,
                Err(reason) => drop_unread(frame, reason as u32),
            };
        }
    }
    if end::is_own_address::<F>(flow.destination()) && !flow.was_outer() {
        match serve_replica::<F>(frame, flow) {
            Ok(Served::Yes | Served::No) => {}
            Ok(Served::Refused) => return to_refuse(frame, flow, TO_REPLICA),
            Err(reason) => return drop_unread(frame, reason as u32),
        }
    }
    let verdict = F::judge_leaving(frame, flow);
    if verdict != CONTINUE {
        return verdict;
    }
    to_settle(frame, flow, OR_TO_HOST)
}

/// Brings a replica's packet to its inner tuple, if it is for a service.
#[inline(always)]
fn serve_replica<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<Served, DropReason> {
    if does(FEATURE_TRACKING) {
        end::check_source::<F>(frame)?;
    }
    serve(frame, flow)
}

/// Answers a replica's packet for a service in whose name nobody else does: it is not there, or has no backend.
///
/// # Errors
/// [`DropReason::UnrelatedError`] and [`DropReason::NoBackend`] if there is nothing to be said.
#[inline(always)]
pub(crate) fn refuse_replica<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<i32, DropReason> {
    let entry = judge::scratch()?;
    end::sender::<F>(frame, flow, entry)?;
    if flow.is_error() {
        return Err(DropReason::UnrelatedError);
    }
    let from = flow.from();
    refuse(frame, flow)?;
    F::drop(frame, flow, DropReason::NoBackend);
    frame.deliver(entry.interfaces[from], &entry.frame_macs[from])
}

/// Finds out about the first packet of a flow that leaves a replica.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_leaving<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<(), DropReason> {
    let entry = judge::scratch()?;
    if does(FEATURE_TRACKING) {
        if flow.destination().is_multicast() {
            return Err(DropReason::NotUnicast);
        }
        end::sender::<F>(frame, flow, entry)?;
        if !flow.was_outer() && !flow.is_error() && meets_translated(flow) {
            return Err(DropReason::NoPort);
        }
    }
    end::receiver::<F>(flow, entry)?;
    let to = flow.to();
    if entry.endpoints[to] == OUTSIDE
        && entry.way(to) == OWN
        && !flow.was_outer()
        && is_masqueraded(flow, entry)
    {
        entry.flags |= MASQUERADED;
    }
    Ok(())
}

/// Whether a connection to whoever is neither a replica nor this node leaves under the node's address.
#[inline(always)]
fn is_masqueraded<F: Functions>(flow: &Flow<F>, entry: &Entry) -> bool {
    let destination = flow.destination();
    entry.identities[flow.to()] != end::IDENTITY_HOST
        && !end::is_known::<F>(destination)
        && !crate::route::is_unmasked(flow)
}

#[inline(always)]
fn enter<F: Functions>(frame: Frame) -> i32 {
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    let fault = F::read(frame, flow);
    if fault != 0 {
        return drop_unread(frame, fault - 1);
    }
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        let ours = entry.interfaces[to] == frame.interface()
            && entry.endpoints[from] == OUTSIDE
            && entry.node(from) == OWN;
        if ours && flow.stands(entry) {
            // Or else it was counted before.
            if !frame.is_judged() {
                flow.observe(frame, entry);
            }
            return TC_ACT_OK;
        }
    }
    let verdict = F::judge_entering(frame, flow);
    if verdict != CONTINUE {
        return verdict;
    }
    to_settle(frame, flow, AS_IT_IS)
}

/// Finds out about the first packet of a flow that the host's stack sends to a replica.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_entering<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<(), DropReason> {
    if !does(FEATURE_TRACKING) {
        return Ok(());
    }
    let entry = judge::scratch()?;
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    if !flow.is_error() {
        end::stranger::<F>(flow, entry)?;
    }
    end::behind::<F>(frame, flow, entry)
}
