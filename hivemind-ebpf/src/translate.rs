//! Translation packet by packet, for what the socket hooks do not see: services and published ports asked for by packets from
//! outside, raw sockets and other namespaces; and connections of replicas that leave under the node's address.
//!
//! [`serve`] brings what comes under an outer tuple to the inner one, before anything else is looked at; [`outward`] sends what
//! goes to whoever knows the connection by its outer tuple. What lies between knows inner tuples only.

use crate::{
    end::{self, is_own_address},
    flow::Flow,
    frame::Frame,
    functions::{ASIDE, Functions, collect_if_due, send},
    judge,
    maps::{
        BINDING, ENDPOINT_BY_INTERFACE, MASQ_PORT_COUNT, MASQ_PORT_FIRST, Maps, NODE_STATE, SERVICE_INTERFACE,
    },
    rewrite::word,
    route::{Route, address_at, is_unmasked, route},
    service::{self, target_port},
};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, TC_ACT_OK};
use hivemind_common::{
    conntrack::{Entry, Key, MASQUERADED, Phase, Side, TRANSLATED, is_opening, phase},
    drop_reason::DropReason,
    family::{Address, Address6},
    node::OWN,
    packet,
    service::{AffinityKey, Service, hash_of},
    translation::{Known, OF_SERVICE, OUTER, PORT_TRIES, Pair, Translation, port},
};

/// What became of a packet for a service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It is for none.
    No,
    /// It is under the inner tuple now.
    Yes,
    /// The service has no backend.
    Refused,
}

/// Brings a packet to its inner tuple if it is for a service, or part of a connection that was translated before. `flow` is
/// that of the inner tuple then.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn serve<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<Served, DropReason> {
    match F::serve_known(frame, flow)? {
        Found::New => {}
        Found::Done => return Ok(Served::Yes),
        Found::Nothing => return Ok(Served::No),
    }
    match F::bind_service(flow) {
        Ok(Served::Yes) => {}
        Err(DropReason::TranslationFull) => {
            collect_if_due(flow.now);
            return Err(DropReason::TranslationFull);
        }
        other => return other,
    }
    match F::serve_known(frame, flow)? {
        Found::Done => Ok(Served::Yes),
        _ => Err(DropReason::Internal),
    }
}

/// What [`serve_known`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A packet that may begin something.
    New,
    /// Its translation; it is under the inner tuple now.
    Done,
    /// A packet that cannot be for a service.
    Nothing,
}

/// As [`serve`], of what was translated before.
#[inline(always)]
pub(crate) fn serve_known<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<Found, DropReason> {
    if let Some(found) = flow.inner_tuple() {
        if !has_moved::<F>(flow, found) {
            F::turn(frame, flow, found)?;
            flow.set_was_outer();
            return Ok(Found::Done);
        }
        unbind(flow, found);
    }
    Ok(if flow.is_error() { Found::Nothing } else { Found::New })
}

/// Finds the service that a packet asks for, and binds the connection to one of its backends: [`Served::Yes`].
///
/// # Errors
/// That there is no port or no room.
#[inline(always)]
pub(crate) fn bind_service<F: Functions>(flow: &Flow<F>) -> Result<Served, DropReason> {
    let (source_port, destination_port) = flow.ports();
    let Some(service) = service_of::<F>(flow.destination(), destination_port, flow.key.protocol) else {
        return Ok(Served::No);
    };
    if service.table_size == 0 {
        return Ok(Served::Refused);
    }
    let uniform = hash_of(flow.source(), source_port, destination_port, flow.key.protocol);
    let client =
        AffinityKey { client: flow.source().words(), service: service.id, family: F::VERSION.into() };
    let Some(backend) = service::choose::<F>(&service, uniform, client, flow.now) else {
        return Ok(Served::Refused);
    };
    try_ports(flow, backend.number, target_port(&service, destination_port), uniform)?;
    Ok(Served::Yes)
}

/// Binds a client's connection with an endpoint itself as if that were a service, under another port of the client's.
///
/// # Errors
/// That there is no port or no room.
#[inline(always)]
pub(crate) fn bind_aside<F: Functions>(flow: &Flow<F>) -> Result<Served, DropReason> {
    let (source_port, destination_port) = flow.ports();
    let uniform = hash_of(flow.source(), source_port, destination_port, flow.key.protocol);
    try_ports(flow, ITSELF, destination_port, uniform)?;
    Ok(Served::Yes)
}

/// Whether a packet that may begin something new finds its backend gone.
#[inline(always)]
fn has_moved<F: Maps>(flow: &Flow<F>, known: &Translation<F::Address>) -> bool {
    let may_begin = flow.key.protocol != packet::TCP || is_opening(flow.tcp_flags());
    may_begin && known.backend != 0 && !flow.is_error() && service::active::<F>(known.backend).is_none()
}

/// The service that a packet asks for.
#[inline(always)]
pub(crate) fn service_of<F: Maps>(destination: F::Address, port: u16, protocol: u8) -> Option<Service> {
    if F::is_service(destination) {
        return service::at::<F>(destination, port, protocol);
    }
    if is_own_address::<F>(destination) { service::published::<F>(port, protocol) } else { None }
}

/// Whether the protocol's ports, or what stands for them, can be changed.
#[inline(always)]
fn can_change_port(protocol: u8) -> bool {
    protocol == packet::TCP || protocol == packet::UDP || is_icmp(protocol)
}

#[inline(always)]
fn is_icmp(protocol: u8) -> bool {
    protocol == packet::ICMP || protocol == packet::ICMPV6
}

/// How many ports a client may be given if it has a connection of its own between the same ends.
const CLIENT_PORT_TRIES: u32 = 8;
const CLIENT_PORT_FIRST: u32 = 61_440;
const CLIENT_PORT_COUNT: u32 = 4_096;

/// In place of a backend's number: the endpoint that the packet is addressed to.
const ITSELF: u32 = 0;

/// Binds a client's connection to a backend, at this port in network order: under the client's own port, unless the
/// client has a connection with the backend [`ITSELF`] under it.
///
/// # Errors
/// That there is no port or no room.
#[inline(always)]
fn try_ports<F: Functions>(
    flow: &Flow<F>,
    backend: u32,
    target_port: u16,
    hash: u32,
) -> Result<(), DropReason> {
    let protocol = flow.key.protocol;
    let mut ports = word(flow.ports().0, target_port);
    // Of others' only the first is far away: they are tried one after the other.
    let mut other = port(hash, 0, CLIENT_PORT_FIRST, CLIENT_PORT_COUNT);
    for _ in 0..CLIENT_PORT_TRIES {
        match F::try_backend(flow, backend, ports) {
            BOUND => return Ok(()),
            FULL => return Err(DropReason::TranslationFull),
            _ if !can_change_port(protocol) => break,
            _ => {}
        }
        // Within the block, which is above the ports that Linux gives to connections by default.
        other |= CLIENT_PORT_FIRST as u16;
        ports = word(other.to_be(), if is_icmp(protocol) { other.to_be() } else { target_port });
        other = other.wrapping_add(1);
    }
    Err(DropReason::NoPort)
}

/// Binds a client's connection with a service to a backend, with these ports of both, if nobody has them.
#[inline(always)]
pub(crate) fn try_backend<F: Maps>(flow: &Flow<F>, backend: u32, ports: u32) -> u32 {
    let Some(pair) = in_the_making::<F>() else { return FULL };
    let address = if backend == ITSELF {
        flow.destination()
    } else {
        let Some(found) = F::backend().get_ptr(backend) else { return OUT_OF_PORTS };
        // SAFETY: a value of the map.
        unsafe { (*found).address }
    };
    let source = flow.source();
    let known = Known { is_outer: true, side: flow.side() };
    // Who meets itself must not be its own neighbour.
    let client = if source == address { F::hairpin() } else { source };
    let [a, b, c, d] = ports.to_ne_bytes();
    let ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    pair.fill(&flow.key, known, &client, &address, ports);
    pair.note(flow.now, backend);
    if is_taken::<F>(flow, &pair.inner) { TAKEN } else { bind::<F>(pair, false) }
}

/// The place where this CPU puts a connection's two records together: they would not fit the stack.
#[inline(always)]
fn in_the_making<F: Maps>() -> Option<&'static mut Pair<F::Address>> {
    const { assert!(size_of::<Pair<F::Address>>() <= size_of::<Pair<Address6>>()) };
    let place = BINDING.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot, and programs on one CPU do not preempt one another within it; numbers only, and no larger.
    Some(unsafe { &mut *place.cast() })
}

/// Whether the two ends have a connection of their own under this tuple, which is not over.
#[inline(always)]
fn is_taken<F: Maps>(flow: &Flow<F>, inner: &Key<F::Address>) -> bool {
    match F::conntrack().get_ptr(inner) {
        // SAFETY: a value of the map.
        Some(entry) => unsafe {
            let is_over = matches!(phase((*entry).seen), Phase::Closing);
            (*entry).expires_ns > flow.now && (*entry).flags & TRANSLATED == 0 && !is_over
        },
        None => false,
    }
}

/// Binds a replica's connection to the address of the interface by which it leaves, and to a port there.
///
/// # Errors
/// [`DropReason::InternalAddress`] if the interface has no address of the family; that there is no port or no room.
#[inline(always)]
fn masquerade<F: Functions>(flow: &Flow<F>, interface: u32) -> Result<(), DropReason> {
    for attempt in 0..PORT_TRIES {
        match F::try_port(flow, interface, attempt) {
            BOUND => return Ok(()),
            TAKEN => {}
            FULL => {
                collect_if_due(flow.now);
                return Err(DropReason::TranslationFull);
            }
            NO_ADDRESS => return Err(DropReason::InternalAddress),
            _ => break,
        }
    }
    Err(DropReason::NoPort)
}

/// Binds a replica's connection to the address of an interface and the port of this attempt, if nobody has it.
#[inline(always)]
pub(crate) fn try_port<F: Maps>(flow: &Flow<F>, interface: u32, attempt: u32) -> u32 {
    let Some(address) = address_at::<F>(interface) else { return NO_ADDRESS };
    let Some(pair) = in_the_making::<F>() else { return FULL };
    let protocol = flow.key.protocol;
    let (source_port, destination_port) = flow.ports();
    // Of ICMP only an echo can be told from others; of the rest there is one to each destination.
    let can_change = can_change_port(protocol) && !(is_icmp(protocol) && source_port == 0);
    let mut ports = [source_port, destination_port];
    if can_change {
        let hash = hash_of(flow.source(), source_port, destination_port, protocol);
        ports[0] = port(hash, attempt, MASQ_PORT_FIRST.load(), MASQ_PORT_COUNT.load()).to_be();
        if is_icmp(protocol) {
            ports[1] = ports[0];
        }
    } else if attempt != 0 {
        return OUT_OF_PORTS;
    }
    let known = Known { is_outer: false, side: flow.side() };
    let destination = flow.address(flow.to());
    pair.fill(&flow.key, known, &address, destination, ports);
    pair.note(flow.now, 0);
    bind::<F>(pair, true)
}

/// What [`try_backend`] and [`try_port`] return: both records are there.
pub(crate) const BOUND: u32 = 0;
/// What [`try_backend`] and [`try_port`] return: another connection has one of the tuples.
pub(crate) const TAKEN: u32 = 1;
/// What [`try_backend`] and [`try_port`] return: there is no room.
pub(crate) const FULL: u32 = 2;

/// What [`try_port`] returns: the interface has no address.
const NO_ADDRESS: u32 = 3;

/// What they return: there is no other port to be tried.
const OUT_OF_PORTS: u32 = 4;

/// The kernel's answer to a key that is there already.
const EEXIST: i32 = -17;

/// Writes both records of a connection. First the one that others may want: the inner one for a service, whose clients have
/// different outer ones; the outer one of what leaves. Whoever writes it first has it; a second packet of the same
/// connection, on another CPU, wants the same two records and finds them.
#[inline(always)]
fn bind<F: Maps>(pair: &Pair<F::Address>, outer_first: bool) -> u32 {
    let (first, first_value, second, second_value) = if outer_first {
        (&pair.outer, &pair.to_inner, &pair.inner, &pair.to_outer)
    } else {
        (&pair.inner, &pair.to_outer, &pair.outer, &pair.to_inner)
    };
    let records = F::translation();
    if let Err(error) = records.insert(first, first_value, BPF_NOEXIST.into()) {
        if error != EEXIST {
            return FULL;
        }
        let is_same = match records.get_ptr(first) {
            // SAFETY: a value of the map.
            Some(known) => unsafe {
                same(&(*known).addresses, &first_value.addresses) && (*known).ports == first_value.ports
            },
            None => false,
        };
        if !is_same {
            return TAKEN;
        }
    }
    if records.insert(second, second_value, BPF_ANY.into()).is_err() {
        let _ = records.remove(first);
        return FULL;
    }
    BOUND
}

#[inline(always)]
fn same<A: Address>(a: &[A; 2], b: &[A; 2]) -> bool {
    a[0] == b[0] && a[1] == b[1]
}

/// Whether a packet under the inner tuple of a connection is one of whoever began that connection with a service, and so
/// sends under the outer tuple: this one is of another connection, with the endpoint itself.
#[inline(always)]
pub(crate) fn is_aside<F: Maps>(flow: &Flow<F>, entry: &Entry) -> bool {
    entry.flags & (TRANSLATED | MASQUERADED) == TRANSLATED
        && entry.way_from(flow.from()) == 0
        && !flow.was_outer()
        && !flow.is_error()
}

/// As [`is_aside`], of a packet about whose connection is to be decided: it stays aside until it is over. If it is the
/// connection with the service that is over, that one makes room.
#[inline(always)]
pub(crate) fn meets_served<F: Maps>(flow: &Flow<F>) -> bool {
    if flow.was_outer() || flow.is_error() {
        return false;
    }
    if flow.inner_tuple().is_some() {
        return true;
    }
    let Some(found) = flow.outer() else { return false };
    if found.flags & OF_SERVICE == 0 {
        return false;
    }
    let may_begin = flow.key.protocol != packet::TCP || is_opening(flow.tcp_flags());
    match flow.known() {
        Some(known) if known.expires_ns > flow.now && !matches!(phase(known.seen), Phase::Closing) => {
            known.way_from(flow.from()) == 0
        }
        _ => {
            if may_begin {
                let (outer, _) = found.turn(Side::Low, flow.key.protocol);
                let (outer, key) = (Key { face: OUTER, ..outer }, flow.key);
                let _ = F::translation().remove(&outer);
                let _ = F::translation().remove(&key);
            }
            false
        }
    }
}

/// Forgets a connection with a backend that is gone.
#[inline(always)]
fn unbind<F: Maps>(flow: &Flow<F>, known: &Translation<F::Address>) {
    let (inner, _) = known.turn(Side::Low, flow.key.protocol);
    let key = Key { face: OUTER, ..flow.key };
    let _ = F::translation().remove(&key);
    let _ = F::translation().remove(&inner);
    let _ = F::conntrack().remove(&inner);
}

/// Sends a packet of a connection that stands, and came under its inner tuple, to whoever knows it by the outer one.
///
/// # Errors
/// Why it must not pass.
#[inline(always)]
pub(crate) fn outward<F: Functions>(
    frame: Frame,
    flow: &mut Flow<F>,
    is_noted: bool,
) -> Result<i32, DropReason> {
    let Some(entry) = flow.known() else { return Err(DropReason::Internal) };
    if is_aside(flow, entry) {
        end::put_both(judge::scratch()?, entry);
        return Ok(ASIDE);
    }
    if !is_noted {
        flow.observe(frame, entry);
    }
    if entry.flags & MASQUERADED != 0 {
        return leave_masqueraded(frame, flow);
    }
    // Gone with its backend: what an endpoint that left still sends belongs to nobody.
    let other = flow.outer().ok_or(DropReason::UnrelatedError)?;
    let (from, to) = (flow.from(), flow.to());
    if entry.interfaces[to] != 0 {
        F::turn(frame, flow, other)?;
        return frame.deliver(entry.interfaces[to], &entry.frame_macs[to]);
    }
    let way = entry.way(to);
    if way != OWN {
        F::turn(frame, flow, other)?;
        return Ok(send(frame, way, entry.identities[from]));
    }
    let (source, destination) = (other.address(from), other.address(to));
    match route::<F>(frame, source, destination) {
        Route::Out(hop) => {
            F::turn(frame, flow, other)?;
            hop.send::<F>(frame)
        }
        Route::Here => {
            F::turn(frame, flow, other)?;
            frame.hand_to_host(SERVICE_INTERFACE.load())
        }
        Route::HostsMatter => leave_to_host(frame),
    }
}

/// Sends a packet of a replica out under the node's address.
#[inline(always)]
fn leave_masqueraded<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<i32, DropReason> {
    let (source, destination) = (flow.address(flow.from()), flow.address(flow.to()));
    let Route::Out(hop) = route::<F>(frame, source, destination) else {
        return leave_to_host(frame);
    };
    turn_to_outside(frame, flow, hop.interface())?;
    hop.send::<F>(frame)
}

/// Gives a replica's packet the address of the interface by which it leaves.
#[inline(always)]
fn turn_to_outside<F: Functions>(frame: Frame, flow: &mut Flow<F>, interface: u32) -> Result<(), DropReason> {
    if let Some(other) = flow.outer() {
        return F::turn(frame, flow, other);
    }
    if flow.is_error() {
        return Err(DropReason::UnrelatedError);
    }
    masquerade(flow, interface)?;
    F::turn(frame, flow, flow.outer().ok_or(DropReason::Internal)?)
}

/// Leaves a packet to the host's stack under its inner tuple; [`leave_by`] translates it if it leaves.
#[inline(always)]
fn leave_to_host(frame: Frame) -> Result<i32, DropReason> {
    if ENDPOINT_BY_INTERFACE.get_ptr(frame.interface()).is_some() {
        return Ok(TC_ACT_OK);
    }
    // Another node brought it: the way back to its sender is by the overlay.
    let Some(own) = NODE_STATE.get(OWN) else { return Err(DropReason::Internal) };
    frame.hand_to_host(own.interface)
}

/// Gives an error of the host's stack about a packet that was left to it under its inner tuple, which was too long say, the tuple
/// under which the packet's sender knows the connection. Nothing else is touched.
///
/// # Errors
/// [`DropReason::Rewrite`] if the kernel does not let it be changed.
#[inline(always)]
pub(crate) fn tell_client<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<(), DropReason> {
    if !flow.is_error() || flow.was_outer() {
        return Ok(());
    }
    let Some(other) = flow.outer() else { return Ok(()) };
    let is_to_client = match flow.known() {
        Some(known) => known.way_from(flow.from()) != 0,
        None => false,
    };
    if other.flags & OF_SERVICE == 0 || !is_to_client {
        return Ok(());
    }
    F::turn(frame, flow, other)
}

/// Whether a packet answers somebody who asked for the replica's own address, and expects the answer from it.
#[inline(always)]
fn is_answer<F: Functions>(flow: &Flow<F>) -> bool {
    match flow.known() {
        Some(known) => {
            known.expires_ns > flow.now && known.flags & MASQUERADED == 0 && known.way_from(flow.from()) != 0
        }
        None => false,
    }
}

/// Translates a packet that the host's stack sends out for a replica. `flow` is the packet's.
///
/// # Errors
/// Why it must not leave.
#[inline(always)]
pub(crate) fn leave_by<F: Functions>(frame: Frame, flow: &mut Flow<F>) -> Result<(), DropReason> {
    if flow.outer().is_none() && (is_unmasked(flow) || is_answer(flow)) {
        return Ok(());
    }
    turn_to_outside(frame, flow, frame.interface())
}
