//! The two programs on the host end of a replica's veth pair.

use crate::{
    drop::drop,
    flow::{End, Flow},
    frame::Frame,
    maps::Maps,
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use hivemind_common::{
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    packet::{self, Packet},
};

/// What leaves a replica: to another replica of this node straight into its namespace, all else to the host's stack.
#[classifier]
pub fn from_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => leave_v4(frame),
        V6::ETHERTYPE => leave_v6(frame),
        _ => drop(DropReason::NotIp),
    }
}

/// What the host's stack sends to a replica.
#[classifier]
pub fn to_replica(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => enter_v4(frame),
        V6::ETHERTYPE => enter_v6(frame),
        _ => drop(DropReason::NotIp),
    }
}

// One function a family and path, not inlined: together they would not fit the stack of 512 bytes.

#[inline(never)]
fn leave_v4(frame: Frame) -> i32 {
    packet::parse_v4(&frame).and_then(|packet| leave(frame, packet, judge_leaving_v4)).unwrap_or_else(drop)
}

#[inline(never)]
fn leave_v6(frame: Frame) -> i32 {
    packet::parse_v6(&frame).and_then(|packet| leave(frame, packet, judge_leaving_v6)).unwrap_or_else(drop)
}

#[inline(never)]
fn judge_leaving_v4(frame: Frame, flow: &Flow<V4>) -> i32 {
    judge_leaving(frame, flow).unwrap_or_else(drop)
}

#[inline(never)]
fn judge_leaving_v6(frame: Frame, flow: &Flow<V6>) -> i32 {
    judge_leaving(frame, flow).unwrap_or_else(drop)
}

#[inline(never)]
fn enter_v4(frame: Frame) -> i32 {
    packet::parse_v4(&frame).and_then(|packet| enter(frame, packet, judge_entering_v4)).unwrap_or_else(drop)
}

#[inline(never)]
fn enter_v6(frame: Frame) -> i32 {
    packet::parse_v6(&frame).and_then(|packet| enter(frame, packet, judge_entering_v6)).unwrap_or_else(drop)
}

#[inline(never)]
fn judge_entering_v4(frame: Frame, flow: &Flow<V4>) -> i32 {
    judge_entering(frame, flow).unwrap_or_else(drop)
}

#[inline(never)]
fn judge_entering_v6(frame: Frame, flow: &Flow<V6>) -> i32 {
    judge_entering(frame, flow).unwrap_or_else(drop)
}

#[inline(always)]
fn leave<F: Maps>(
    frame: Frame,
    packet: Packet<F::Address>,
    judge: fn(Frame, &Flow<F>) -> i32,
) -> Result<i32, DropReason> {
    let mut flow = Flow::<F>::of(packet);
    let (from, to) = (flow.side.index(), flow.side.other().index());
    if let Some(entry) = flow.entry() {
        // The entry names the interface at which its sender sits, which is as good as looking the sender up: a
        // spoofed source finds another's interface there, and is judged and refused below.
        if entry.interfaces[from] == frame.interface() && flow.stands(entry) {
            flow.observe(entry);
            return frame.deliver(entry.interfaces[to], &entry.frame_macs[to]);
        }
        flow.seen = entry.seen;
    }
    Ok(judge(frame, &flow))
}

#[inline(always)]
fn judge_leaving<F: Maps>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    let sender = End::sender::<F>(frame, flow)?;
    let receiver = End::receiver::<F>(flow)?;
    flow.remember(&sender, &receiver)?;
    receiver.take(frame)
}

#[inline(always)]
fn enter<F: Maps>(
    frame: Frame,
    packet: Packet<F::Address>,
    judge: fn(Frame, &Flow<F>) -> i32,
) -> Result<i32, DropReason> {
    let mut flow = Flow::<F>::of(packet);
    let (from, to) = (flow.side.index(), flow.side.other().index());
    if let Some(entry) = flow.entry() {
        let ours = entry.interfaces[to] == frame.interface() && entry.endpoints[from] == OUTSIDE;
        if ours && flow.stands(entry) {
            flow.observe(entry);
            return Ok(TC_ACT_OK);
        }
        flow.seen = entry.seen;
    }
    Ok(judge(frame, &flow))
}

#[inline(always)]
fn judge_entering<F: Maps>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    let receiver = End::behind::<F>(frame, flow)?;
    flow.remember(&End::outside(), &receiver)?;
    Ok(TC_ACT_OK)
}
