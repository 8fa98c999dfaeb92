//! What a flow's first packet decides, and a later one when something changed: may it pass, by which rules, and which pair
//! it counts for.

use crate::{
    end::{IDENTITY_HOST, IDENTITY_NODE},
    flow::{Flow, empty},
    frame::Frame,
    functions::{self, ASIDE, CONTINUE, Functions, OUTWARD},
    maps::{ENDPOINT_STATE, Maps, PAIR, PAIR_FREE, POLICY, SCRATCH, does, longest, pair_counters},
    tell::begun_first,
    translate::meets_served,
};
use aya_ebpf::bindings::BPF_NOEXIST;
use hivemind_common::{
    conntrack::{self, BEGUN_BY_HIGH, END_TOLD, Entry, MASQUERADED, REFUSED, REFUSED_NS, Side, TRANSLATED},
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    node::OWN,
    packet::{self, Bytes},
    policy::{
        self, ALLOW, BY_PREFIX, DENY, EGRESS, KEY_BITS, Lookup, PolicyEntry, PolicyKey, PrefixKey, RULE_NONE,
        SET_BITS,
    },
    service::ServiceKey,
    telemetry::{EVENT_NEW, FEATURE_POLICY, FEATURE_TELEMETRY, FEATURE_TRACKING, PAIR_OTHER, PairKey},
};

/// The place where this CPU puts an entry together, emptied.
#[inline(always)]
pub(crate) fn scratch() -> Result<&'static mut Entry, DropReason> {
    let entry = SCRATCH.get_ptr_mut(0).ok_or(DropReason::Internal)?;
    // SAFETY: this CPU's slot, and programs on one CPU do not preempt one another within it; numbers only.
    let entry = unsafe {
        empty(entry);
        &mut *entry
    };
    entry.pair = PAIR_OTHER;
    Ok(entry)
}

/// The scratch entry as it was left.
#[inline(always)]
pub(crate) fn found_out() -> Result<&'static mut Entry, DropReason> {
    let entry = SCRATCH.get_ptr_mut(0).ok_or(DropReason::Internal)?;
    // SAFETY: as above.
    Ok(unsafe { &mut *entry })
}

/// Writes what is remembered of the flow into the scratch entry, for a packet that is dropped without having been judged:
/// what was left there is of another one.
#[inline(always)]
pub(crate) fn recall<F: Maps>(flow: &Flow<F>) {
    let Ok(entry) = scratch() else { return };
    let Some(known) = flow.known() else { return };
    let (to, from) = (core::ptr::from_mut(entry).cast::<u64>(), core::ptr::from_ref(known).cast::<u64>());
    // Word by word: said plainly the compiler would call a function that does it byte by byte.
    for i in 0..size_of::<Entry>() / 8 {
        // SAFETY: both are entries, which are made of numbers, and of as many words.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// Decides about a packet whose two ends are written in the scratch entry, and remembers the decision. Returns [`CONTINUE`], or
/// [`ASIDE`] if the packet needs another tuple first.
///
/// # Errors
/// Why the packet must not pass.
#[inline(always)]
pub(crate) fn settle<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<i32, DropReason> {
    if !does(FEATURE_TRACKING) {
        return Ok(CONTINUE);
    }
    let entry = found_out()?;
    if flow.is_error() {
        return related(frame, flow).map(|()| CONTINUE);
    }
    if meets_served(flow) {
        return Ok(ASIDE);
    }
    let message = message(frame, flow)?;
    let known = flow.known().filter(|known| {
        known.expires_ns > flow.now
            && !conntrack::reopens(known.seen, flow.key.protocol, flow.tcp_flags())
            && message & ALONE == 0
    });
    let side = flow.from();
    let (begun_by, seen) = match &known {
        Some(known) => (known.begun_by(), known.seen),
        None => {
            let (own, other) = flow.ports();
            (conntrack::beginner(flow.side(), flow.key.protocol, flow.tcp_flags(), own, other), [0; 2])
        }
    };
    // Nobody keeps an endpoint from itself.
    let is_itself = entry.endpoints[0] == entry.endpoints[1] && entry.endpoints[0] != OUTSIDE;
    let verdict = if does(FEATURE_POLICY) && !is_itself {
        F::verdict(flow, entry, begun_by.index() as u32 | message)
    } else {
        0
    };
    if verdict != 0 {
        let reason = denial(verdict);
        let mut attempts = 1;
        if let Some(known) = known {
            attempts = u64::from(known.flags & REFUSED == 0);
            known.flags |= REFUSED;
            known.expires_ns = flow.now + REFUSED_NS;
        }
        if does(FEATURE_TELEMETRY) && reason.is_denial() {
            count_attempt(frame, flow, entry, begun_by, DENY, attempts);
            count_verdicts(entry, begun_by, verdict, attempts);
        }
        return Err(reason);
    }
    let is_new = known.is_none();
    entry.seen = conntrack::observe(seen, side, flow.tcp_flags());
    entry.expires_ns = flow.now + conntrack::timeout_ns(flow.key.protocol, entry.seen);
    if matches!(begun_by, Side::High) {
        entry.flags |= BEGUN_BY_HIGH;
    }
    if let Some(translation) = flow.outer() {
        entry.flags |= TRANSLATED;
        translation.used_ns = flow.now;
    }
    entry.began_ns = flow.now;
    if let Some(known) = known {
        entry.began_ns = known.began_ns;
        entry.flags |= known.flags & (END_TOLD | MASQUERADED);
        entry.bytes = known.bytes;
        entry.packets = known.packets;
    }
    if does(FEATURE_TELEMETRY) {
        entry.pair = count_attempt(frame, flow, entry, begun_by, ALLOW, u64::from(is_new));
        let (bytes, packets) = frame.on_wire::<F>(flow.transport(), flow.key.protocol);
        entry.bytes[side] += bytes;
        entry.packets[side] += packets;
    }
    flow.remember(entry)?;
    if does(FEATURE_TELEMETRY) && is_new {
        count_verdicts(entry, begun_by, 0, 1);
        F::tell(&flow.key, entry, begun_first(begun_by, EVENT_NEW, 0), frame.interface(), flow.now);
    }
    Ok(CONTINUE)
}

/// In [`message`]: it asks for no answer and is none, so nothing that was decided before is about it.
const ALONE: u32 = 1 << 17;

/// Of an ICMP message the type, in the form of what it answers, and the code; as the higher and the lower byte of a port, which
/// begins at the second bit. The first is free: see [`verdict`].
///
/// # Errors
/// [`DropReason::Truncated`] if it has no header.
#[inline(always)]
fn message<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<u32, DropReason> {
    let protocol = flow.key.protocol;
    if protocol != packet::ICMP && protocol != packet::ICMPV6 {
        return Ok(0);
    }
    // What comes in pieces is an echo, whose first piece alone has the header.
    let mut header = [if protocol == packet::ICMP { 8 } else { 128 }, 0, 0, 0];
    if !flow.is_later_fragment() {
        let [word] = frame.read(flow.transport()).ok_or(DropReason::Truncated)?;
        header = u32::to_ne_bytes(word);
    }
    let [kind, code, _, _] = header;
    let asked = packet::asked_by(protocol, kind);
    let port = (asked as u32) << 8 | code as u32;
    Ok(port << 1 | if packet::is_dialogue(protocol, kind) { 0 } else { ALONE })
}

/// Lets an ICMP error pass if the connection that it is about stands.
#[inline(always)]
fn related<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<(), DropReason> {
    match flow.known() {
        Some(entry) if flow.stands(entry) => {
            flow.observe(frame, entry);
            Ok(())
        }
        _ => Err(DropReason::UnrelatedError),
    }
}

/// The reason behind what [`verdict`] returned.
#[inline(always)]
fn denial(verdict: u32) -> DropReason {
    if verdict == DropReason::PolicyEgress as u32 {
        DropReason::PolicyEgress
    } else if verdict == DropReason::PolicyIngress as u32 {
        DropReason::PolicyIngress
    } else if verdict == DropReason::Guarded as u32 {
        DropReason::Guarded
    } else {
        DropReason::NoPolicy
    }
}

/// Asks the policies of both ends, as far as they are of this node, and writes their rules. `about` is the index of the side
/// that begins, and [`message`]. Returns zero if both allow the connection, else the number of the reason.
#[inline(always)]
pub(crate) fn verdict<F: Functions>(flow: &Flow<F>, entry: &mut Entry, about: u32) -> u32 {
    let (source, destination) = if about & 1 == 0 { (0, 1) } else { (1, 0) };
    let is_icmp = flow.key.protocol == packet::ICMP || flow.key.protocol == packet::ICMPV6;
    let port = if is_icmp { ((about >> 1) as u16).to_be() } else { flow.key.ports[destination] };
    let egress = ask(flow, entry, source, destination, EGRESS, port);
    if egress != 0 {
        return egress;
    }
    ask(flow, entry, destination, source, 0, port)
}

/// Asks one end's policy about the other end, and the `port` that counts, in network order.
#[inline(always)]
fn ask<F: Functions>(
    flow: &Flow<F>,
    entry: &mut Entry,
    own: usize,
    peer: usize,
    direction: u32,
    port: u16,
) -> u32 {
    let index = entry.endpoints[own];
    if index == OUTSIDE {
        return 0;
    }
    let Some(state) = ENDPOINT_STATE.get(index) else { return DropReason::NoPolicy as u32 };
    let question = Question {
        policy: state.policy,
        protocol: flow.key.protocol as u32,
        port: port as u32,
        address: flow.key.addresses[peer],
    };
    let lookup = Tables::<F> { question: &question };
    match policy::decide(&lookup, direction, entry.identities[peer]) {
        None => DropReason::NoPolicy as u32,
        Some(decision) => {
            entry.rules[own] = decision.rule;
            match (decision.verdict, direction) {
                (ALLOW, EGRESS) if is_guarded(flow, entry, peer) && decision.flags & BY_PREFIX == 0 => {
                    DropReason::Guarded as u32
                }
                (ALLOW, _) => 0,
                (_, EGRESS) => DropReason::PolicyEgress as u32,
                _ => DropReason::PolicyIngress as u32,
            }
        }
    }
}

/// Whether the other end is something that a replica reaches only by a rule which names its address.
#[inline(always)]
fn is_guarded<F: Maps>(flow: &Flow<F>, entry: &Entry, peer: usize) -> bool {
    if entry.endpoints[peer] != OUTSIDE {
        return false;
    }
    let (address, port, protocol) = (flow.key.addresses[peer], flow.key.ports[peer], flow.key.protocol);
    if F::guarded().get_ptr(ServiceKey::every_port(address)).is_some() {
        return true;
    }
    let is_a_node = matches!(entry.identities[peer], IDENTITY_HOST | IDENTITY_NODE);
    is_a_node && F::guarded().get_ptr(ServiceKey::published(port, protocol)).is_some()
}

/// What a policy is asked about one connection. Without padding, all of which functions would have to have written.
#[repr(C)]
pub(crate) struct Question<A> {
    policy: u32,
    protocol: u32,
    port: u32,
    address: A,
}

/// One policy's tables, asked about one connection.
struct Tables<'a, F: Maps> {
    question: &'a Question<F::Address>,
}

impl<F: Functions> Lookup for Tables<'_, F> {
    #[inline(always)]
    fn entry(&self, peer: u32) -> Option<PolicyEntry> {
        let Question { policy, protocol, port, .. } = *self.question;
        longest(&POLICY, KEY_BITS, PolicyKey::of(policy, peer, protocol as u8, port as u16))
    }

    #[inline(always)]
    fn prefix(&self, side: u32) -> Option<u32> {
        let set = policy::prefix_set(self.question.policy, side);
        let bits = SET_BITS + 8 * size_of::<F::Address>() as u32;
        longest(F::policy_prefix(), bits, PrefixKey { set, address: self.question.address })
    }

    #[inline(always)]
    fn strongest(&self, side: u32, identity: u32) -> Option<PolicyEntry> {
        F::strongest(self.question, side, identity)
    }
}

/// See [`policy::strongest`].
#[inline(always)]
pub(crate) fn strongest<F: Functions>(
    question: &Question<F::Address>,
    side: u32,
    identity: u32,
) -> Option<PolicyEntry> {
    policy::strongest(&Tables::<F> { question }, side, identity)
}

/// Counts `connections`, one or none, for the rules that decided. `reason` is what [`verdict`] returned.
#[inline(always)]
fn count_verdicts(entry: &Entry, begun_by: Side, reason: u32, connections: u64) {
    let [egress, ingress] = [begun_by, begun_by.other()].map(|side| entry.rules[side.index()]);
    if connections != 0 && (egress != RULE_NONE || ingress != RULE_NONE) {
        functions::count_verdicts(egress, ingress, reason);
    }
}

/// Counts the packet for its pair, and `connections` besides. Returns the pair's number.
#[inline(always)]
fn count_attempt<F: Maps>(
    frame: Frame,
    flow: &Flow<F>,
    entry: &Entry,
    begun_by: Side,
    verdict: u8,
    connections: u64,
) -> u32 {
    let (source, destination) = (begun_by.index(), begun_by.other().index());
    // An echo's identifier stands where ports are; it would make a pair of every ping.
    let port = if packet::has_ports(flow.key.protocol) { flow.key.ports[destination] } else { 0 };
    let (source, destination) = (entry.identities[source], entry.identities[destination]);
    let protocol_and_verdict = u32::from(flow.key.protocol) | u32::from(verdict) << 8;
    let number = functions::pair_number(source, destination, port.into(), protocol_and_verdict);
    if let Some(counters) = pair_counters(number) {
        let way = conntrack::differ(begun_by.index(), flow.from());
        let (bytes, packets) = frame.on_wire::<F>(flow.transport(), flow.key.protocol);
        // SAFETY: a pointer to this CPU's slot, as above.
        unsafe {
            (*counters).bytes[way] += bytes;
            (*counters).packets[way] += packets;
            (*counters).connections += connections;
        }
    }
    number
}

/// The number of a pair, which gets one if there is one left; else that of all others together.
#[inline(always)]
pub(crate) fn pair_number(source: u32, destination: u32, port: u16, protocol: u8, verdict: u8) -> u32 {
    let key = PairKey { source, destination, port, protocol, verdict };
    if let Some(number) = PAIR.get_ptr(&key) {
        // SAFETY: a value of the map.
        return unsafe { *number };
    }
    let Ok(Some(number)) = PAIR_FREE.pop() else { return PAIR_OTHER };
    if PAIR.insert(&key, &number, BPF_NOEXIST.into()).is_ok() {
        return number;
    }
    // Another CPU was faster.
    let _ = PAIR_FREE.push(&number, 0);
    match PAIR.get_ptr(&key) {
        // SAFETY: as above.
        Some(number) => unsafe { *number },
        None => PAIR_OTHER,
    }
}

/// Sends a packet on about which all is settled, as the scratch entry says. `interface_zero` is what becomes of one whose
/// receiver is reached neither by an interface nor by a node.
///
/// # Errors
/// Why it does not go.
#[inline(always)]
pub(crate) fn go_on<F: Functions>(
    frame: Frame,
    flow: &mut Flow<F>,
    interface_zero: u32,
) -> Result<i32, DropReason> {
    let entry = found_out()?;
    if goes_outward(flow, entry) || is_about_translated(flow) {
        return Ok(OUTWARD);
    }
    let (from, to) = (flow.from(), flow.to());
    let way = entry.way(to);
    if way != OWN {
        return Ok(functions::send(frame, way, entry.identities[from]));
    }
    if entry.interfaces[to] == 0 && interface_zero == NOWHERE {
        return Err(DropReason::NoEndpoint);
    }
    frame.deliver(entry.interfaces[to], &entry.frame_macs[to])
}

/// For [`go_on`]: the host's stack gets it.
pub(crate) const TO_HOST: u32 = 0;
/// For [`go_on`]: it is dropped.
pub(crate) const NOWHERE: u32 = 1;

/// Whether whoever gets the packet knows the connection by another tuple.
#[inline(always)]
pub(crate) fn goes_outward<F: Functions>(flow: &Flow<F>, entry: &Entry) -> bool {
    entry.flags & (TRANSLATED | MASQUERADED) != 0 && !flow.was_outer()
}

/// Whether the packet is an error about a connection that its receiver knows by another tuple. (For an error no entry is made
/// that could say so.)
#[inline(always)]
pub(crate) fn is_about_translated<F: Functions>(flow: &Flow<F>) -> bool {
    flow.is_error()
        && match flow.known() {
            Some(known) => goes_outward(flow, known),
            None => false,
        }
}
