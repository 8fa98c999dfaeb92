//! The two programs on the host end of a replica's veth pair.

use crate::{
    end,
    flow::Flow,
    frame::Frame,
    functions::{Functions, drop_unread, send},
    judge::{self, goes_outward},
    maps::does,
    refuse::refuse,
    step::{AS_IT_IS, OR_TO_HOST, origin, to_examine, to_examine_known, to_outward},
    translate::{Found, is_aside},
};
use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};
use hivemind_common::{
    conntrack::{Entry, MASQUERADED, TRANSLATED},
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
    let Some(packet) = F::plain(frame) else { return to_examine::<F>(frame, origin::LEAVING) };
    let mut flow = Flow::<F>::of(&packet);
    if F::is_service(packet.destination) {
        if does(FEATURE_TRACKING)
            && let Err(reason) = end::check_source::<F>(frame)
        {
            return drop_unread(frame, reason as u32);
        }
        match F::serve_known(frame, &mut flow) {
            Ok(Found::Done) => {}
            Ok(_) => return to_examine_known(frame, &flow, origin::LEAVING),
            Err(reason) => return drop_unread(frame, reason as u32),
        }
    }
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        // The entry names the interface at which its sender sits, which is as good as looking the sender up: a
        // spoofed source finds another's interface there, and is judged and refused below.
        if entry.interfaces[from] == frame.interface() && flow.stands(entry) {
            if goes_outward(&flow, entry) {
                return to_outward(frame, &flow, OR_TO_HOST);
            }
            flow.observe(frame, entry);
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
    to_examine_known(frame, &flow, origin::LEAVING)
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
    }
    let (from, to) = (flow.from(), flow.to());
    let answered = flow
        .known()
        .map(|known| &*known)
        .filter(|known| known.expires_ns > flow.now && known.way_from(flow.from()) != 0);
    if let Some(known) = answered
        && known.flags & TRANSLATED != 0
        && known.endpoints[to] != OUTSIDE
        && known.endpoints[to] == entry.endpoints[from]
    {
        // It has met itself under another name, and nobody has that.
        end::put_same(entry, to, from);
        return Ok(());
    }
    end::receiver::<F>(flow, entry)?;
    if entry.endpoints[to] == OUTSIDE
        && entry.way(to) == OWN
        && !flow.was_outer()
        && answered.is_none_or(|known| known.flags & MASQUERADED != 0)
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
    let Some(packet) = F::plain(frame) else { return to_examine::<F>(frame, origin::ENTERING) };
    let flow = Flow::<F>::of(&packet);
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        let ours = entry.interfaces[to] == frame.interface()
            && entry.endpoints[from] == OUTSIDE
            && entry.node(from) == OWN;
        if ours && flow.stands(entry) {
            // Or else it was counted before.
            if !frame.is_judged() {
                if is_aside(&flow, entry) {
                    return to_outward(frame, &flow, AS_IT_IS);
                }
                flow.observe(frame, entry);
            }
            return TC_ACT_OK;
        }
    }
    to_examine_known(frame, &flow, origin::ENTERING)
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
