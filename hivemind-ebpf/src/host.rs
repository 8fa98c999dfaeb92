//! The services' own interface, by which the host's stack sends what is for a service: of raw sockets, of processes that the
//! socket hooks do not see, of other network namespaces.

use crate::{
    flow::Flow,
    frame::Frame,
    functions::Functions,
    judge,
    maps::SERVICE_INTERFACE,
    refuse::refuse,
    step::{origin, to_examine},
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
};

/// What the host's stack sends to services. What else it sends here, the device drops and counts.
#[classifier]
pub fn to_service(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => to_examine::<V4>(frame, origin::STACK),
        V6::ETHERTYPE => to_examine::<V6>(frame, origin::STACK),
        _ => TC_ACT_OK,
    }
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
