//! Other nodes: the overlay's packets are made and taken apart here, without a tunnel device in their way.

use crate::{
    end::{self, IDENTITY_NODE, IDENTITY_WORLD},
    flow::Flow,
    frame::Frame,
    functions::{Functions, drop_unread, send as send_function},
    judge,
    maps::{Maps, NODE_BY_ADDRESS, NODE_STATE, does, node_of},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, TC_ACT_OK, TC_ACT_UNSPEC,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use core::mem::MaybeUninit;
use hivemind_common::{
    conntrack::AS_IS,
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address, Family, V4, V6},
    node::{DIRECT, NodeState, OVERLAY_MAC, OWN},
    overlay::{self, BYTES},
    packet::{self, Bytes, ETHERNET_BYTES},
    telemetry::FEATURE_TRACKING,
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

/// What comes in from other nodes. Everything else goes on as if this were not here.
#[classifier]
pub fn from_underlay(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    if frame.ethertype() != V4::ETHERTYPE {
        return TC_ACT_UNSPEC;
    }
    let Some(own) = NODE_STATE.get(OWN) else { return TC_ACT_UNSPEC };
    // What is for another machine may be seen here too.
    if !frame.is_for_us() {
        return TC_ACT_UNSPEC;
    }
    let Some(outer) = overlay::read(&frame, own.address) else {
        return if own.flags & DIRECT != 0 { arrive_as_is::<V4>(frame) } else { TC_ACT_UNSPEC };
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
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    let fault = F::read(frame, flow);
    if fault != 0 {
        return drop_unread(frame, fault - 1);
    }
    let Some(node) = node_of::<F>(flow.destination()) else { return TC_ACT_OK };
    if node == OWN {
        return TC_ACT_OK;
    }
    match on_behalf_of(frame, flow) {
        Ok(identity) => send_function(frame, node, identity),
        Err(reason) => drop_unread(frame, reason as u32),
    }
}

/// The identity of whoever has the host's stack send a packet.
#[inline(always)]
fn on_behalf_of<F: Maps>(frame: Frame, flow: &Flow<F>) -> Result<u32, DropReason> {
    if let Some(identity) = frame.marked_identity() {
        return Ok(identity);
    }
    if !frame.is_forwarded() || F::node_address().get_ptr(flow.source()).is_some() {
        return Ok(IDENTITY_NODE);
    }
    // A replica's packets are marked: somebody outside pretends to be one.
    match node_of::<F>(flow.source()) {
        Some(_) => Err(DropReason::SpoofedSource),
        None => Ok(IDENTITY_WORLD),
    }
}

#[inline(always)]
fn arrive<F: Functions>(frame: Frame, node: u32, identity: u32) -> i32 {
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    let fault = F::read(frame, flow);
    if fault != 0 {
        return drop_unread(frame, fault - 1);
    }
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry() {
        // The node has said before who this is, and it was judged so.
        let same =
            entry.node(from) == node && entry.identities[from] == identity && entry.endpoints[to] != OUTSIDE;
        if same && flow.stands(entry) {
            flow.observe(frame, entry);
            return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
                Ok(verdict) => verdict,
                Err(reason) => drop_unread(frame, reason as u32),
            };
        }
    }
    F::judge_arriving(frame, flow, node, identity)
}

/// Takes a packet that a replica of another node has sent to one of this node without the overlay, and nothing else.
#[inline(always)]
fn arrive_as_is<F: Functions>(frame: Frame) -> i32 {
    let mut room = MaybeUninit::uninit();
    let flow = Flow::<F>::empty(&mut room);
    if F::read(frame, flow) != 0 {
        return TC_ACT_UNSPEC;
    }
    let (from, to) = (flow.from(), flow.to());
    if let Some(entry) = flow.entry()
        && entry.way(from) & AS_IS != 0
        && entry.endpoints[to] != OUTSIDE
        && flow.stands(entry)
    {
        flow.observe(frame, entry);
        return match frame.deliver(entry.interfaces[to], &entry.frame_macs[to]) {
            Ok(verdict) => verdict,
            Err(reason) => drop_unread(frame, reason as u32),
        };
    }
    let (identity, node) = end::whose::<F>(flow.source());
    if node == OWN || !end::is_here::<F>(flow.destination()) {
        return TC_ACT_UNSPEC;
    }
    F::judge_arriving(frame, flow, node, identity)
}

/// Decides about a packet that another node brings, and delivers it.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn judge_arriving<F: Functions>(
    frame: Frame,
    flow: &Flow<F>,
    node: u32,
    identity: u32,
) -> Result<i32, DropReason> {
    let entry = judge::scratch()?;
    if flow.destination().is_multicast() {
        return Err(DropReason::NotUnicast);
    }
    end::visitor::<F>(flow, entry, node, identity)?;
    if !end::local_receiver::<F>(flow, entry)? {
        return frame.hand_to_host();
    }
    if does(FEATURE_TRACKING) {
        judge::settle::<F>(frame, flow, entry)?;
    }
    let to = flow.to();
    frame.deliver(entry.interfaces[to], &entry.frame_macs[to])
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
    if state.mtu != 0 && frame.is_longer_than(state.mtu, ethertype) {
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

    /// Whether its IP packet, or one of the segments that it is cut into, is longer than so many bytes.
    #[inline(always)]
    fn is_longer_than(self, mtu: u32, ethertype: u16) -> bool {
        // SAFETY: the kernel hands a valid context and rewrites the access.
        let payload = unsafe { (*self.context()).gso_size };
        if payload == 0 {
            return self.ip_bytes() > u64::from(mtu);
        }
        // What is cut has no IPv6 extension headers.
        let (network, protocol) = if ethertype == V4::ETHERTYPE {
            let Some(ip): Option<[u32; 3]> = self.read(ETHERNET_BYTES) else { return true };
            ((ip[0].to_ne_bytes()[0] & 0xf) as u32 * 4, ip[2].to_ne_bytes()[1])
        } else {
            let Some(ip): Option<[u32; 2]> = self.read(ETHERNET_BYTES) else { return true };
            (40, ip[1].to_ne_bytes()[2])
        };
        if protocol != packet::TCP {
            return network + 8 + payload > mtu;
        }
        let Some([tcp]) = self.read(ETHERNET_BYTES + network + 12) else { return true };
        network + (tcp.to_ne_bytes()[0] >> 4) as u32 * 4 + payload > mtu
    }

    /// Hands the frame to the host's stack, as one that has come in by the overlay's own interface.
    #[inline(always)]
    fn hand_to_host(self) -> Result<i32, DropReason> {
        let Some(own) = NODE_STATE.get(OWN) else { return Err(DropReason::Internal) };
        let interface = own.interface;
        let mac = OVERLAY_MAC;
        self.store(0, mac.as_ptr(), 6)?;
        // SAFETY: a helper without pointers.
        Ok(unsafe { bpf_redirect(interface, u64::from(BPF_F_INGRESS)) } as i32)
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
