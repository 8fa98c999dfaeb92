//! The services' own interface, by which the host's stack sends what is for a service: of raw sockets, of processes that the
//! socket hooks do not see, of other network namespaces.

use crate::{
    flow::Flow,
    frame::Frame,
    functions::{CONTINUE, Functions, drop_unread},
    judge,
    maps::SERVICE_INTERFACE,
    refuse::refuse,
    step::{BY_QUEUE, TO_STACK, to_refuse, to_settle},
    translate::{Served, serve},
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use core::mem::MaybeUninit;
use hivemind_common::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
};

/// What the host's stack sends to services. What else it sends here, the device drops and counts.
#[classifier]
pub fn to_service(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => request::<V4>(frame),
        V6::ETHERTYPE => request::<V6>(frame),
        _ => TC_ACT_OK,
    }
}

#[inline(always)]
fn request<F: Functions>(frame: Frame) -> i32 {
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    let fault = F::read(frame, flow);
    if fault != 0 {
        return drop_unread(frame, fault - 1);
    }
    if !F::is_service(flow.destination()) {
        return TC_ACT_OK;
    }
    // A replica asks its own program: who seems to be one here is not.
    if F::is_replica(flow.source()) {
        return drop_unread(frame, DropReason::SpoofedSource as u32);
    }
    match serve(frame, flow) {
        Ok(Served::Yes) => {}
        Ok(_) => return to_refuse(frame, flow, TO_STACK),
        Err(reason) => return drop_unread(frame, reason as u32),
    }
    let verdict = F::judge_from_outside(frame, flow);
    if verdict != CONTINUE {
        return verdict;
    }
    to_settle(frame, flow, BY_QUEUE)
}

/// Answers a packet for a service that is not there, or has no backend: to the host's stack, or by the interface by which it
/// came in, if one is given.
///
/// # Errors
/// [`DropReason::UnrelatedError`] and [`DropReason::NoBackend`] if there is nothing to be said.
#[inline(always)]
pub(crate) fn refuse_host<F: Functions>(
    frame: Frame,
    flow: &mut Flow<F>,
    interface: u32,
) -> Result<i32, DropReason> {
    judge::scratch()?;
    if flow.is_error() {
        return Err(DropReason::UnrelatedError);
    }
    refuse(frame, flow)?;
    F::drop(frame, flow, DropReason::NoBackend);
    if interface != 0 {
        return frame.send_back(interface);
    }
    frame.hand_to_host(SERVICE_INTERFACE.load())
}
