//! The two ends of a flow: who sits at an address or an interface, written into the entry in the making.

use crate::{
    flow::Flow,
    frame::Frame,
    maps::{ENDPOINT_BY_INTERFACE, ENDPOINT_STATE, GENERATION, Maps, NODE_STATE, node_of},
};
use hivemind_common::{
    conntrack::{AS_IS, Entry},
    drop_reason::DropReason,
    endpoint::{EndpointState, NO_GENERATION, OUTSIDE},
    family::{Family, V4},
    node::{DIRECT, OWN},
};

/// The identity of the node's own processes.
pub(crate) const IDENTITY_HOST: u32 = 1;
/// The identity of whatever is neither a replica nor a node.
pub(crate) const IDENTITY_WORLD: u32 = 2;
/// The identity of another node's processes.
pub(crate) const IDENTITY_NODE: u32 = 4;
/// The identity of a replica of another node that nobody has told of yet.
const IDENTITY_UNKNOWN: u32 = 0;

#[inline(always)]
pub(crate) fn generation(index: u32) -> u64 {
    match GENERATION.get_ptr(index) {
        // SAFETY: an aligned u64 in an array, which the kernel and the daemon write whole.
        Some(slot) => unsafe { slot.read_volatile() },
        None => NO_GENERATION,
    }
}

/// The endpoint behind an interface, with its state.
#[inline(always)]
fn endpoint_at(interface: u32) -> Result<(u32, u64, &'static EndpointState), DropReason> {
    let index = ENDPOINT_BY_INTERFACE.get_ptr(interface).ok_or(DropReason::NoEndpoint)?;
    // SAFETY: a value of the map; it may change under us, but not go away before the program ends.
    endpoint(unsafe { *index })
}

/// An endpoint that has a generation. The generation is read before the state: if the state changes in between, the
/// flow is remembered under the old generation and judged again with its next packet.
#[inline(always)]
fn endpoint(index: u32) -> Result<(u32, u64, &'static EndpointState), DropReason> {
    let generation = generation(index);
    if index == OUTSIDE || generation == NO_GENERATION {
        return Err(DropReason::NoEndpoint);
    }
    let state = ENDPOINT_STATE.get(index).ok_or(DropReason::NoEndpoint)?;
    Ok((index, generation, state))
}

/// Writes an endpoint of this node as one end.
#[inline(always)]
fn put(entry: &mut Entry, i: usize, index: u32, generation: u64, interface: u32, state: &EndpointState) {
    entry.endpoints[i] = index;
    entry.generations[i] = generation;
    entry.interfaces[i] = interface;
    entry.identities[i] = state.identity;
    entry.frame_macs[i] = state.frame_macs;
}

/// Writes the endpoint that has the destination address, as a table says, as the end that a packet goes to.
#[inline(always)]
fn put_here<F: Maps>(flow: &Flow<F>, entry: &mut Entry, index: u32) -> Result<(), DropReason> {
    let (index, generation, state) = endpoint(index)?;
    // The index may have gone to another endpoint between the two lookups.
    if F::address_of(state) != flow.destination() {
        return Err(DropReason::NoEndpoint);
    }
    put(entry, flow.to(), index, generation, state.interface, state);
    Ok(())
}

/// Writes what is reached through the host's stack as one end, of which everything else stays empty.
#[inline(always)]
fn put_outside(entry: &mut Entry, i: usize, identity: u32) {
    entry.endpoints[i] = OUTSIDE;
    entry.generations[i] = generation(OUTSIDE);
    entry.identities[i] = identity;
}

/// Writes what is reached by another node as one end.
#[inline(always)]
fn put_remote(entry: &mut Entry, i: usize, identity: u32, way: u32) {
    put_outside(entry, i, identity);
    entry.frame_macs[i][0] = way;
}

/// Writes one end as it was when the connection was judged last.
#[inline(always)]
pub(crate) fn put_known(entry: &mut Entry, i: usize, known: &Entry) {
    let i = i & 1;
    put_outside(entry, i, known.identities[i]);
    entry.interfaces[i] = known.interfaces[i];
    entry.frame_macs[i] = known.frame_macs[i];
}

/// Writes one end as the same as the other one.
#[inline(always)]
pub(crate) fn put_same(entry: &mut Entry, i: usize, other: usize) {
    let (i, other) = (i & 1, other & 1);
    entry.endpoints[i] = entry.endpoints[other];
    entry.generations[i] = entry.generations[other];
    entry.interfaces[i] = entry.interfaces[other];
    entry.identities[i] = entry.identities[other];
    entry.frame_macs[i] = entry.frame_macs[other];
}

/// Writes both ends as an entry that stands has them.
#[inline(always)]
pub(crate) fn put_both(entry: &mut Entry, standing: &Entry) {
    for i in 0..2 {
        entry.endpoints[i] = standing.endpoints[i];
        entry.generations[i] = standing.generations[i];
        entry.interfaces[i] = standing.interfaces[i];
        entry.identities[i] = standing.identities[i];
        entry.frame_macs[i] = standing.frame_macs[i];
    }
}

/// The way to a replica of another node. The network between nodes carries IPv4: IPv6 always needs the overlay.
#[inline(always)]
fn way_to<F: Family>(node: u32) -> u32 {
    match NODE_STATE.get(node) {
        Some(state) if F::VERSION == V4::VERSION && state.flags & DIRECT != 0 => node | AS_IS,
        _ => node,
    }
}

/// The endpoint that a frame came from, once it is sure that it is who it says.
#[inline(always)]
pub(crate) fn sender<F: Maps>(frame: Frame, flow: &Flow<F>, entry: &mut Entry) -> Result<(), DropReason> {
    let interface = frame.interface();
    let (index, generation, state) = endpoint_at(interface)?;
    put(entry, flow.from(), index, generation, interface, state);
    // Who meets itself was given another name, after this was looked at once.
    let meets_itself = flow.was_outer() && flow.source() == F::hairpin();
    if !meets_itself && F::address_of(state) != flow.source() {
        return Err(DropReason::SpoofedSource);
    }
    // An ICMP error says whose it is besides.
    if flow.is_error() && !flow.was_outer() && frame.source::<F>() != Some(flow.source()) {
        return Err(DropReason::SpoofedSource);
    }
    let (first, last) = frame.source_mac()?;
    if !state.is_replica_mac(first, last) {
        return Err(DropReason::SpoofedMac);
    }
    Ok(())
}

/// Whether a frame is from the endpoint at whose interface it came in, as its source address says.
///
/// # Errors
/// [`DropReason::SpoofedSource`] if not.
#[inline(always)]
pub(crate) fn check_source<F: Maps>(frame: Frame) -> Result<(), DropReason> {
    let (_, _, state) = endpoint_at(frame.interface())?;
    if frame.source::<F>() == Some(F::address_of(state)) { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

/// The endpoint behind the interface by which a frame leaves, if the frame is addressed to it.
#[inline(always)]
pub(crate) fn behind<F: Maps>(frame: Frame, flow: &Flow<F>, entry: &mut Entry) -> Result<(), DropReason> {
    let interface = frame.interface();
    let (index, generation, state) = endpoint_at(interface)?;
    put(entry, flow.to(), index, generation, interface, state);
    if F::address_of(state) != flow.destination() {
        return Err(DropReason::WrongEndpoint);
    }
    Ok(())
}

/// Whoever has the destination address.
#[inline(always)]
pub(crate) fn receiver<F: Maps>(flow: &Flow<F>, entry: &mut Entry) -> Result<(), DropReason> {
    let side = flow.to();
    let Some(found) = F::address_exact().get_ptr(flow.destination()) else {
        match node_of::<F>(flow.destination()) {
            Some(node) if node != OWN => put_remote(entry, side, IDENTITY_UNKNOWN, way_to::<F>(node)),
            _ => match node_that_brought(flow) {
                OWN => put_outside(entry, side, identity_outside::<F>(flow.destination())),
                node => put_remote(entry, side, known_identity(flow), node),
            },
        }
        return Ok(());
    };
    // SAFETY: a value of the map, as above.
    let (identity, index, node) = unsafe { ((*found).identity, (*found).endpoint, (*found).node) };
    if index == OUTSIDE {
        if node == OWN {
            put_outside(entry, side, identity);
        } else {
            put_remote(entry, side, identity, way_to::<F>(node));
        }
        return Ok(());
    }
    put_here(flow, entry, index)
}

/// The endpoint that a service has chosen, on whatever node. By the overlay, if it is on another one: answers are to come back
/// by it, to be translated.
///
/// # Errors
/// [`DropReason::NoEndpoint`] if it is gone.
#[inline(always)]
pub(crate) fn chosen<F: Maps>(flow: &Flow<F>, entry: &mut Entry) -> Result<(), DropReason> {
    let side = flow.to();
    let (identity, index, node) = match F::address_exact().get_ptr(flow.destination()) {
        // SAFETY: a value of the map, as above.
        Some(found) => unsafe { ((*found).identity, (*found).endpoint, (*found).node) },
        None => (IDENTITY_UNKNOWN, OUTSIDE, node_of::<F>(flow.destination()).unwrap_or(OWN)),
    };
    if index == OUTSIDE {
        if node == OWN {
            return Err(DropReason::NoEndpoint);
        }
        put_remote(entry, side, identity, node);
        return Ok(());
    }
    put_here(flow, entry, index)
}

/// The node by which whoever the packet goes to has begun the connection: the answers go back by it, whatever the address,
/// since it may have translated. [`OWN`] if it was none.
#[inline(always)]
fn node_that_brought<F: Maps>(flow: &Flow<F>) -> u32 {
    match flow.known() {
        Some(known) if known.expires_ns > flow.now && known.way_from(flow.from()) != 0 => {
            known.node(flow.to())
        }
        _ => OWN,
    }
}

/// The identity that whoever the packet goes to had when it was judged last.
#[inline(always)]
fn known_identity<F: Maps>(flow: &Flow<F>) -> u32 {
    match flow.known() {
        Some(known) => known.identities[flow.to()],
        None => IDENTITY_UNKNOWN,
    }
}

/// Whether an endpoint of this node has the address.
#[inline(always)]
pub(crate) fn is_here<F: Maps>(address: F::Address) -> bool {
    match F::address_exact().get_ptr(address) {
        // SAFETY: a value of the map, as above.
        Some(found) => unsafe { (*found).endpoint != OUTSIDE },
        None => false,
    }
}

/// The endpoint that has the destination address. Returns whether there is one on this node.
#[inline(always)]
pub(crate) fn local_receiver<F: Maps>(flow: &Flow<F>, entry: &mut Entry) -> Result<bool, DropReason> {
    let Some(found) = F::address_exact().get_ptr(flow.destination()) else { return Ok(false) };
    // SAFETY: a value of the map, as above.
    let index = unsafe { (*found).endpoint };
    if index == OUTSIDE {
        return Ok(false);
    }
    put_here(flow, entry, index).map(|()| true)
}

/// Whoever another node brings a packet from: one of its replicas, or anybody that is no replica. `identity` is what that
/// node says.
#[inline(always)]
pub(crate) fn visitor<F: Maps>(
    flow: &Flow<F>,
    entry: &mut Entry,
    node: u32,
    identity: u32,
) -> Result<(), DropReason> {
    // What is this node's own to its processes is another node's to ours.
    let identity = if identity == IDENTITY_HOST { IDENTITY_NODE } else { identity };
    put_remote(entry, flow.from(), identity, node);
    match node_of::<F>(flow.source()) {
        None => Ok(()),
        Some(owner) if owner == node => {
            entry.frame_macs[flow.from()][0] = way_to::<F>(node);
            Ok(())
        }
        Some(_) => Err(DropReason::SpoofedSource),
    }
}

/// Whoever the host's stack brings a frame from.
#[inline(always)]
pub(crate) fn stranger<F: Maps>(flow: &Flow<F>, entry: &mut Entry) -> Result<(), DropReason> {
    let Some(found) = F::address_exact().get_ptr(flow.source()) else {
        put_outside(entry, flow.from(), identity_outside::<F>(flow.source()));
        return match node_of::<F>(flow.source()) {
            Some(node) if node != OWN => Err(DropReason::SpoofedSource),
            _ => Ok(()),
        };
    };
    // SAFETY: a value of the map, as above.
    let (identity, index, node) = unsafe { ((*found).identity, (*found).endpoint, (*found).node) };
    put_outside(entry, flow.from(), identity);
    // A replica never comes this way under its own address: somebody outside pretends to be one.
    if index == OUTSIDE && node == OWN { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

/// Whether the address is one of the node's own.
#[inline(always)]
pub(crate) fn is_own_address<F: Maps>(address: F::Address) -> bool {
    F::node_address().get_ptr(address).is_some()
}

/// Whether the address is in the table of those whose identity is known.
#[inline(always)]
pub(crate) fn is_known<F: Maps>(address: F::Address) -> bool {
    F::address_exact().get_ptr(address).is_some()
}

/// The identity of an address that is in no table: one of the node's own, another node's, or anybody's.
#[inline(always)]
pub(crate) fn identity_outside<F: Maps>(address: F::Address) -> u32 {
    if is_own_address::<F>(address) {
        IDENTITY_HOST
    } else if F::node_at(address).is_some() {
        IDENTITY_NODE
    } else {
        IDENTITY_WORLD
    }
}

/// The identity of any address, and the number of the other node that it is on.
#[inline(always)]
pub(crate) fn whose<F: Maps>(address: F::Address) -> (u32, u32) {
    match F::address_exact().get_ptr(address) {
        // SAFETY: a value of the map.
        Some(found) => unsafe { ((*found).identity, (*found).node) },
        None => match node_of::<F>(address) {
            Some(node) if node != OWN => (IDENTITY_UNKNOWN, node),
            _ => (identity_outside::<F>(address), OWN),
        },
    }
}
