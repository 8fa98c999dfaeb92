//! The two programs on the host end of a replica's veth pair.

use crate::{
    end,
    flow::Flow,
    frame::Frame,
    functions::{Functions, drop_unread, send},
    judge,
    maps::does,
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use core::mem::MaybeUninit;
use hivemind_common::{
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    node::OWN,
    telemetry::FEATURE_TRACKING,
};

/// What leaves a replica: to another replica of this node straight into its namespace, to one of another
/// node straight to that node, all else to the host's stack.
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
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        // The entry names the interface at which its sender sits, which is as good as looking the sender up: a
        // spoofed source finds another's interface there, and is judged and refused below.
        if entry.interfaces[from] == frame.interface() && flow.stands(entry) {
            flow.observe(frame, entry);
            let way = entry.way(to);
            if way != OWN {
                return send(frame, way, entry.identities[from]);
            }
            frame.mark(entry.identities[from], entry.identities[to]);
            return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
                Ok(verdict) => verdict,
                Err(reason) => drop_unread(frame, reason as u32),
            };
        }
    }
    F::judge_leaving(frame, flow)
}

/// Decides about the first packet of a flow that leaves a replica, and delivers it.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_leaving<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    let entry = judge::scratch()?;
    if does(FEATURE_TRACKING) {
        if flow.destination().is_multicast() {
            return Err(DropReason::NotUnicast);
        }
        end::sender::<F>(frame, flow, entry)?;
    }
    end::receiver::<F>(flow, entry)?;
    if does(FEATURE_TRACKING) {
        judge::settle::<F>(frame, flow, entry)?;
    }
    let (from, to) = (flow.from(), flow.to());
    let way = entry.way(to);
    if way != OWN {
        return Ok(send(frame, way, entry.identities[from]));
    }
    frame.mark(entry.identities[from], entry.identities[to]);
    frame.deliver(entry.interfaces[to], &entry.frame_macs[to])
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
            flow.observe(frame, entry);
            return TC_ACT_OK;
        }
    }
    F::judge_entering(frame, flow)
}

/// Decides about the first packet of a flow that the host's stack sends to a replica.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_entering<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    if !does(FEATURE_TRACKING) {
        return Ok(TC_ACT_OK);
    }
    let entry = judge::scratch()?;
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    end::stranger::<F>(frame, flow, entry)?;
    end::behind::<F>(frame, flow, entry)?;
    judge::settle::<F>(frame, flow, entry)?;
    Ok(TC_ACT_OK)
}
