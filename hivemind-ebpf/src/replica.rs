//! The two programs on the host end of a replica's veth pair.

use crate::{
    end,
    flow::Flow,
    frame::Frame,
    judge,
    maps::{Maps, does},
    tell::{Tell, drop_flow, drop_unread},
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use hivemind_common::{
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    packet::{self, Packet},
    telemetry::FEATURE_TRACKING,
};

/// What leaves a replica: to another replica of this node straight into its namespace, all else to the host's stack.
#[classifier]
pub fn from_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => leave_v4(frame),
        V6::ETHERTYPE => leave_v6(frame),
        _ => drop_unread(frame, DropReason::NotIp as u32),
    }
}

/// What the host's stack sends to a replica.
#[classifier]
pub fn to_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => enter_v4(frame),
        V6::ETHERTYPE => enter_v6(frame),
        _ => drop_unread(frame, DropReason::NotIp as u32),
    }
}

// One function a family and path, not inlined: together they would not fit the stack of 512 bytes.

#[inline(never)]
fn leave_v4(frame: Frame) -> i32 {
    match packet::parse_v4(&frame) {
        Ok(packet) => leave(frame, packet, judge_leaving_v4),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

#[inline(never)]
fn leave_v6(frame: Frame) -> i32 {
    match packet::parse_v6(&frame) {
        Ok(packet) => leave(frame, packet, judge_leaving_v6),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

#[inline(never)]
fn judge_leaving_v4(frame: Frame, flow: &Flow<V4>) -> i32 {
    judge_leaving(frame, flow).unwrap_or_else(|reason| drop_flow(frame, flow, reason))
}

#[inline(never)]
fn judge_leaving_v6(frame: Frame, flow: &Flow<V6>) -> i32 {
    judge_leaving(frame, flow).unwrap_or_else(|reason| drop_flow(frame, flow, reason))
}

#[inline(never)]
fn enter_v4(frame: Frame) -> i32 {
    match packet::parse_v4(&frame) {
        Ok(packet) => enter(frame, packet, judge_entering_v4),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

#[inline(never)]
fn enter_v6(frame: Frame) -> i32 {
    match packet::parse_v6(&frame) {
        Ok(packet) => enter(frame, packet, judge_entering_v6),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

#[inline(never)]
fn judge_entering_v4(frame: Frame, flow: &Flow<V4>) -> i32 {
    judge_entering(frame, flow).unwrap_or_else(|reason| drop_flow(frame, flow, reason))
}

#[inline(never)]
fn judge_entering_v6(frame: Frame, flow: &Flow<V6>) -> i32 {
    judge_entering(frame, flow).unwrap_or_else(|reason| drop_flow(frame, flow, reason))
}

#[inline(always)]
fn leave<F: Maps + Tell>(frame: Frame, packet: Packet<F::Address>, judge: fn(Frame, &Flow<F>) -> i32) -> i32 {
    let flow = Flow::<F>::of(packet);
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        // The entry names the interface at which its sender sits, which is as good as looking the sender up: a
        // spoofed source finds another's interface there, and is judged and refused below.
        if entry.interfaces[from] == frame.interface() && flow.stands(entry) {
            flow.observe(frame, entry);
            frame.mark(entry.identities[from], entry.identities[to]);
            return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
                Ok(verdict) => verdict,
                Err(reason) => drop_unread(frame, reason as u32),
            };
        }
    }
    judge(frame, &flow)
}

#[inline(always)]
fn judge_leaving<F: Maps + Tell>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
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
    frame.mark(entry.identities[from], entry.identities[to]);
    frame.deliver(entry.interfaces[to], &entry.frame_macs[to])
}

#[inline(always)]
fn enter<F: Maps + Tell>(frame: Frame, packet: Packet<F::Address>, judge: fn(Frame, &Flow<F>) -> i32) -> i32 {
    let flow = Flow::<F>::of(packet);
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        let ours = entry.interfaces[to] == frame.interface() && entry.endpoints[from] == OUTSIDE;
        if ours && flow.stands(entry) {
            flow.observe(frame, entry);
            return TC_ACT_OK;
        }
    }
    judge(frame, &flow)
}

#[inline(always)]
fn judge_entering<F: Maps + Tell>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
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
