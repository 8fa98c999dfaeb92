//! Interfaces towards other nodes and the outside. The overlay's packets are made and taken apart here, without a tunnel device
//! in their way.

use crate::{
    end::{self, IDENTITY_NODE, IDENTITY_WORLD},
    flow::Flow,
    frame::Frame,
    functions::{CONTINUE, Functions, drop_unread, send as send_function},
    judge::{self, goes_outward},
    maps::{Maps, NODE_BY_ADDRESS, NODE_STATE, node_of},
    step::{OR_NOWHERE, origin, to_examine, to_examine_arriving, to_examine_known, to_outside, to_outward},
    translate::{self, Found},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_OK, TC_ACT_UNSPEC,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{bpf_get_hash_recalc, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_store_bytes},
    macros::classifier,
    programs::TcContext,
};
use hivemind_common::{
    conntrack::AS_IS,
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    node::{DIRECT, NodeState, OWN},
    overlay::{self, BYTES},
    packet::ETHERNET_BYTES,
};

/// Makes room for the headers of VXLAN: an outer IPv4 and UDP header, and an inner Ethernet one, whose length stands in the
/// topmost byte. Segments stay as long as they are.
const GROW: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | (ETHERNET_BYTES as u64) << 56;
const SHRINK: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
const AF_INET: u32 = 2;
/// Where the type stands in an Ethernet header.
const ETHERTYPE_OFFSET: u32 = 12;

/// What comes in from other nodes, and from the outside for published ports and in answer to replicas. Everything else goes
/// on as if this were not here.
#[classifier]
pub fn from_underlay(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    // What is for another machine may be seen here too.
    if !frame.is_for_us() {
        return TC_ACT_UNSPEC;
    }
    let Some(own) = NODE_STATE.get(OWN) else { return TC_ACT_UNSPEC };
    let is_v4 = frame.ethertype() == V4::ETHERTYPE;
    let Some(outer) = (if is_v4 { overlay::read(&frame, own.address) } else { None }) else {
        to_outside(frame);
        return TC_ACT_UNSPEC;
    };
    let Some(node) = NODE_BY_ADDRESS.get_ptr(outer.source) else {
        return drop_unread(frame, DropReason::UnknownNode as u32);
    };
    // SAFETY: a value of the map.
    let node = unsafe { *node };
    match outer.ethertype {
        V4::ETHERTYPE => match frame.unwrap(SHRINK, V4::ETHERTYPE) {
            Ok(()) => arrive::<V4>(frame, node, outer.identity),
            Err(reason) => drop_unread(frame, reason as u32),
        },
        V6::ETHERTYPE => {
            match frame.unwrap(SHRINK | u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6), V6::ETHERTYPE) {
                Ok(()) => arrive::<V6>(frame, node, outer.identity),
                Err(reason) => drop_unread(frame, reason as u32),
            }
        }
        _ => drop_unread(frame, DropReason::NotIp as u32),
    }
}

/// What comes in and is no overlay packet.
#[classifier]
pub fn outside(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    let Some(own) = NODE_STATE.get(OWN) else { return TC_ACT_UNSPEC };
    match frame.ethertype() {
        V4::ETHERTYPE => arrive_from_outside::<V4>(frame, own.flags & DIRECT != 0),
        V6::ETHERTYPE => arrive_from_outside::<V6>(frame, false),
        _ => TC_ACT_UNSPEC,
    }
}

/// What leaves the node. A replica's own address does not, but to other nodes and where the node was told that it may.
#[classifier]
pub fn to_underlay(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => go_out::<V4>(frame),
        V6::ETHERTYPE => go_out::<V6>(frame),
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn go_out<F: Functions>(frame: Frame) -> i32 {
    let Some(source) = frame.source::<F>() else { return TC_ACT_UNSPEC };
    if !F::is_replica(source) {
        // It may be about a packet that the node only knows by its inner tuple.
        return if frame.is_icmp::<F>() { to_examine::<F>(frame, origin::OWN_ICMP) } else { TC_ACT_UNSPEC };
    }
    match frame.destination::<F>() {
        // What no other node has is not on its way to one, whatever the routes say.
        Some(destination) if node_of::<F>(destination).is_none_or(|node| node == OWN) => {
            to_examine::<F>(frame, origin::OUT)
        }
        _ => TC_ACT_UNSPEC,
    }
}

/// What the host's stack sends to replicas of other nodes. What else it sends here, the device drops and counts.
#[classifier]
pub fn to_overlay(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    match frame.ethertype() {
        V4::ETHERTYPE => depart::<V4>(frame),
        V6::ETHERTYPE => depart::<V6>(frame),
        _ => TC_ACT_OK,
    }
}

#[inline(always)]
fn depart<F: Functions>(frame: Frame) -> i32 {
    let (Some(source), Some(destination)) = (frame.source::<F>(), frame.destination::<F>()) else {
        return drop_unread(frame, DropReason::Truncated as u32);
    };
    let Some(node) = node_of::<F>(destination) else { return TC_ACT_OK };
    if node == OWN {
        return TC_ACT_OK;
    }
    match on_behalf_of::<F>(frame, source) {
        Ok(identity) => send_function(frame, node, identity),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

/// The identity of whoever has the host's stack send a packet.
#[inline(always)]
fn on_behalf_of<F: Maps>(frame: Frame, source: F::Address) -> Result<u32, DropReason> {
    if let Some(identity) = frame.marked_identity() {
        return Ok(identity);
    }
    if !frame.is_forwarded() || end::is_own_address::<F>(source) {
        return Ok(IDENTITY_NODE);
    }
    // A replica's packets are marked: somebody outside pretends to be one.
    match node_of::<F>(source) {
        Some(_) => Err(DropReason::SpoofedSource),
        None => Ok(IDENTITY_WORLD),
    }
}

#[inline(always)]
fn arrive<F: Functions>(frame: Frame, node: u32, identity: u32) -> i32 {
    if let Some(packet) = F::plain(frame) {
        let flow = Flow::<F>::of(&packet);
        let (from, to) = (flow.from(), flow.to());
        if let Some(entry) = flow.entry() {
            // The node has said before who this is, and it was judged so.
            let same = entry.node(from) == node && entry.identities[from] == identity;
            let is_outward = goes_outward(&flow, entry);
            if same && (is_outward || entry.endpoints[to] != OUTSIDE) && flow.stands(entry) {
                if is_outward {
                    return to_outward(frame, &flow, OR_NOWHERE);
                }
                flow.observe(frame, entry);
                return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
                    Ok(verdict) => verdict,
                    Err(reason) => drop_unread(frame, reason as u32),
                };
            }
        }
    }
    to_examine_arriving::<F>(frame, origin::ARRIVING, [node, identity])
}

/// Takes a packet that is for a published port, or part of a connection of a replica with the outside; and, if `is_direct`,
/// one that a replica of another node has sent to one of this node without the overlay.
#[inline(always)]
fn arrive_from_outside<F: Functions>(frame: Frame, is_direct: bool) -> i32 {
    let Some(packet) = F::plain(frame) else { return to_examine::<F>(frame, origin::OUTSIDE) };
    let mut flow = Flow::<F>::of(&packet);
    match F::serve_known(frame, &mut flow) {
        Ok(Found::Done) => {
            let verdict = F::pass_from_outside(frame, &mut flow);
            return if verdict == CONTINUE {
                to_examine_known(frame, &flow, origin::OUTSIDE)
            } else {
                verdict
            };
        }
        Ok(_) => {}
        Err(reason) => return drop_unread(frame, reason as u32),
    }
    if is_direct && let Some(verdict) = arrive_as_is(frame, &flow) {
        return verdict;
    }
    let (destination, port) = flow.goes_to();
    let is_asked_for = translate::service_of::<F>(destination, port, flow.key.protocol).is_some();
    if is_asked_for || (is_direct && end::is_here::<F>(destination)) {
        return to_examine_known(frame, &flow, origin::OUTSIDE);
    }
    TC_ACT_UNSPEC
}

/// Delivers a packet from outside that is under its inner tuple, if its connection stands.
///
/// # Errors
/// Why it is not delivered.
#[inline(always)]
pub(crate) fn pass_from_outside<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    let (from, to) = (flow.from(), flow.to());
    let Some(entry) = flow.known() else { return Ok(CONTINUE) };
    let is_same = entry.endpoints[from] == OUTSIDE && entry.node(from) == OWN;
    let way = entry.way(to);
    if !is_same || (way == OWN && entry.interfaces[to] == 0) || !flow.stands(entry) {
        return Ok(CONTINUE);
    }
    flow.observe(frame, entry);
    if way != OWN {
        return Ok(send_function(frame, way, entry.identities[from]));
    }
    frame.deliver(entry.interfaces[to], &entry.frame_macs[to])
}

/// Finds out about a packet that came under its outer tuple, from whoever is no replica of this node, and is under its inner one
/// now.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_from_outside<F: Functions>(_: Frame, flow: &Flow<F>) -> Result<(), DropReason> {
    let entry = judge::scratch()?;
    if !flow.is_error() {
        end::stranger::<F>(flow, entry)?;
    }
    end::chosen::<F>(flow, entry)
}

/// Delivers a packet that a replica of another node has sent to one of this node without the overlay, if its connection stands.
#[inline(always)]
fn arrive_as_is<F: Functions>(frame: Frame, flow: &Flow<F>) -> Option<i32> {
    let (from, to) = (flow.from(), flow.to());
    let entry = flow.entry()?;
    if entry.way(from) & AS_IS == 0 || entry.endpoints[to] == OUTSIDE || !flow.stands(entry) {
        return None;
    }
    if goes_outward(flow, entry) {
        return Some(to_outward(frame, flow, OR_NOWHERE));
    }
    flow.observe(frame, entry);
    Some(match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
        Ok(verdict) => verdict,
        Err(reason) => drop_unread(frame, reason as u32),
    })
}

/// Finds out about a packet that another node brings. One that is for the host's stack goes there.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_arriving<F: Functions>(
    frame: Frame,
    flow: &mut Flow<F>,
    node: u32,
    identity: u32,
) -> Result<i32, DropReason> {
    let entry = judge::scratch()?;
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    end::visitor::<F>(flow, entry, node, identity)?;
    if !end::local_receiver::<F>(flow, entry)? {
        let Some(known) = flow.known().filter(|known| goes_outward(flow, known)) else {
            let Some(own) = NODE_STATE.get(OWN) else { return Err(DropReason::Internal) };
            return frame.hand_to_host(own.interface);
        };
        // An answer to somebody outside, or to this node, by a connection that was translated here.
        end::put_known(entry, flow.to(), known);
    }
    Ok(CONTINUE)
}

/// Sends a frame by the way to another node on behalf of `identity`.
///
/// # Errors
/// Why it could not be sent.
#[inline(always)]
pub(crate) fn send(frame: Frame, way: u32, identity: u32) -> Result<i32, DropReason> {
    let node = way & !AS_IS;
    let Some(state) = NODE_STATE.get(node) else { return Err(DropReason::NoNodeRoute) };
    let interface = state.interface;
    if node == OWN || interface == 0 {
        return Err(DropReason::NoNodeRoute);
    }
    let ethertype = frame.ethertype();
    // Without the overlay's headers so much more; said without a condition, of which the verifier would follow both ways.
    const { assert!(AS_IS == 1 << 31) };
    let takes = state.mtu + (way >> 31) * BYTES;
    if state.mtu != 0 && frame.longest_piece(ethertype) > takes {
        // The host's stack cuts it, or tells the sender; it has a route that says how long packets may be.
        frame.mark_sender(identity);
        return Ok(TC_ACT_OK);
    }
    if way & AS_IS == 0 {
        frame.wrap(state, identity, ethertype)?;
    }
    let mut neighbour = bpf_redir_neigh {
        nh_family: AF_INET,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
            // All of it, since the kernel reads all of it.
            ipv6_nh: [state.next_hop.0, 0, 0, 0],
        },
    };
    // SAFETY: the helper reads as many bytes as it is told. It also writes the Ethernet header.
    let verdict =
        unsafe { bpf_redirect_neigh(interface, &raw mut neighbour, size_of::<bpf_redir_neigh>() as i32, 0) };
    Ok(verdict as i32)
}

impl Frame {
    /// Puts the headers of VXLAN before the IP packet.
    #[inline(always)]
    fn wrap(self, state: &NodeState, identity: u32, ethertype: u16) -> Result<(), DropReason> {
        // SAFETY: a helper that takes the context.
        let hash = unsafe { bpf_get_hash_recalc(self.context()) };
        // SAFETY: as above.
        if unsafe { bpf_skb_adjust_room(self.context(), BYTES as i32, BPF_ADJ_ROOM_MAC, GROW) } != 0 {
            return Err(DropReason::Rewrite);
        }
        let headers = overlay::headers(state, self.ip_bytes() as u32, hash, identity, ethertype);
        self.store(ETHERNET_BYTES, headers.as_ptr().cast(), BYTES)
    }

    /// Takes off the outer headers; the outer Ethernet header becomes that of what was inside.
    #[inline(always)]
    fn unwrap(self, flags: u64, ethertype: u16) -> Result<(), DropReason> {
        // SAFETY: a helper that takes the context.
        let result = unsafe { bpf_skb_adjust_room(self.context(), -(BYTES as i32), BPF_ADJ_ROOM_MAC, flags) };
        if result != 0 {
            // What is left would be no IP packet.
            return Err(DropReason::Truncated);
        }
        if ethertype == V4::ETHERTYPE {
            return Ok(());
        }
        let ethertype = ethertype.to_be();
        self.store(ETHERTYPE_OFFSET, (&raw const ethertype).cast(), 2)
    }

    #[inline(always)]
    fn store(self, offset: u32, bytes: *const u8, length: u32) -> Result<(), DropReason> {
        // SAFETY: the callers' `length` bytes at `bytes` are readable; the helper checks the packet's side.
        match unsafe { bpf_skb_store_bytes(self.context(), offset, bytes.cast(), length, 0) } {
            0 => Ok(()),
            _ => Err(DropReason::Rewrite),
        }
    }
}
