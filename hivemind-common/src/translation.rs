//! Connections that have two faces: a client knows a service, or the node, where an endpoint is.
//!
//! The *inner* tuple is the one that the endpoint of this cluster sees; all else about the connection is kept under it, in
//! [`crate::conntrack`]. The *outer* tuple is what the other side sees: of a service its address, of a connection to the
//! outside the node's address. Each of the two is a key of `translation`, whose value is the other one. So a packet of either
//! direction is translated with one lookup, and back and forth are the same function. A key says which of the two it is: a
//! client may ask for an endpoint itself under the very tuple that is the inner one of its connection with a service.
//!
//! A connection gets its two records with its first packet and loses them after its entry in `conntrack` is gone.

use crate::{
    conntrack::{Key, Side},
    family::Address,
};

/// `face` of a [`Key`]: it is an outer tuple.
pub const OUTER: u8 = 1;

/// `flags` of a [`Translation`]: its key is the inner tuple of a connection with a service: who began it sends under the outer one.
pub const OF_SERVICE: u32 = 1;

/// How long records are kept without a connection: it may still be in the making.
pub const UNUSED_NS: u64 = 5_000_000_000;

/// Value of `translation_v4` and `translation_v6`: the other tuple, end by end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translation<A> {
    /// When it was made, or a connection last began by it, in nanoseconds of the monotonic clock.
    pub used_ns: u64,
    /// What the low and the high end of the key are called on the other face.
    pub addresses: [A; 2],
    /// Their ports there, in network order.
    pub ports: [u16; 2],
    /// The backend that was chosen, in the record of the outer tuple; zero if none was.
    pub backend: u32,
    /// [`OF_SERVICE`], or none.
    pub flags: u32,
    /// Always zero.
    pub padding: u32,
}

impl<A: Address> Translation<A> {
    /// What an end of the key is called on the other face. By calculation and not by cases: the verifier would follow each of
    /// them through all that comes after.
    #[inline(always)]
    pub fn address(&self, side: usize) -> &A {
        // SAFETY: one of two.
        unsafe { &*(&raw const self.addresses).cast::<A>().add(side & 1) }
    }

    /// Its port there, in network order.
    #[inline(always)]
    pub fn port(&self, side: usize) -> u16 {
        // SAFETY: one of two, in a valid reference.
        unsafe { (&raw const self.ports).cast::<u16>().add(side & 1).read_volatile() }
    }

    /// The other tuple as a key of connections, and the side there of the end that is `side` here.
    #[inline(always)]
    pub fn turn(&self, side: Side, protocol: u8) -> (Key<A>, Side) {
        let (addresses, ports) = match side {
            Side::Low => (self.addresses, self.ports),
            Side::High => ([self.addresses[1], self.addresses[0]], [self.ports[1], self.ports[0]]),
        };
        Key::between(addresses, ports, protocol)
    }
}

/// The two records of a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pair<A> {
    /// The key of the outer tuple.
    pub outer: Key<A>,
    /// The key of the inner tuple.
    pub inner: Key<A>,
    /// The value of `outer`.
    pub to_inner: Translation<A>,
    /// The value of `inner`.
    pub to_outer: Translation<A>,
}

/// Which of a connection's two tuples is known, and which end of it is the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// It is the outer one.
    pub is_outer: bool,
    /// The first end's side.
    pub side: Side,
}

/// Copies a key or an address word by word: said plainly the eBPF compiler calls a function that does it byte by byte.
#[inline(always)]
fn copy<T: Copy>(from: &T, to: &mut T) {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() >= 4) };
    let (from, to): (*const u32, *mut u32) =
        (core::ptr::from_ref(from).cast(), core::ptr::from_mut(to).cast());
    for i in 0..size_of::<T>() / 4 {
        // SAFETY: both are so many words; keys and addresses are made of numbers without a hole.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

impl<A: Address> Pair<A> {
    /// Writes both records of a connection of which one tuple is known, and of the other one the two ends with their ports, in
    /// the order of [`Known::side`]. In place: on a small stack there is no room for them.
    #[inline(always)]
    pub fn fill(&mut self, tuple: &Key<A>, known: Known, first: &A, second: &A, ports: [u16; 2]) {
        let (key, to_other, other_key, to_key) = if known.is_outer {
            (&mut self.outer, &mut self.to_inner, &mut self.inner, &mut self.to_outer)
        } else {
            (&mut self.inner, &mut self.to_outer, &mut self.outer, &mut self.to_inner)
        };
        copy(tuple, key);
        let (one, two) = match known.side {
            Side::Low => (0, 1),
            Side::High => (1, 0),
        };
        copy(first, &mut to_other.addresses[one]);
        copy(second, &mut to_other.addresses[two]);
        to_other.ports[one] = ports[0];
        to_other.ports[two] = ports[1];
        let in_order = if *first == *second { ports[0] <= ports[1] } else { first.is_before(*second) };
        let (low, high) = if in_order { (one, two) } else { (two, one) };
        // Of the other key the low end is that end of this one which stands at `low`.
        copy(&to_other.addresses[low], &mut other_key.addresses[0]);
        copy(&to_other.addresses[high], &mut other_key.addresses[1]);
        other_key.ports[0] = to_other.ports[low];
        other_key.ports[1] = to_other.ports[high];
        other_key.protocol = tuple.protocol;
        other_key.padding = 0;
        copy(&tuple.addresses[low], &mut to_key.addresses[0]);
        copy(&tuple.addresses[high], &mut to_key.addresses[1]);
        to_key.ports[0] = tuple.ports[low];
        to_key.ports[1] = tuple.ports[high];
        self.outer.face = OUTER;
        self.inner.face = 0;
        self.to_inner.flags = 0;
        self.to_outer.flags = if known.is_outer { OF_SERVICE } else { 0 };
        self.to_inner.padding = 0;
        self.to_outer.padding = 0;
    }

    /// Notes when both records were made, and for which backend (zero for none).
    #[inline(always)]
    pub fn note(&mut self, now_ns: u64, backend: u32) {
        self.to_inner.used_ns = now_ns;
        self.to_outer.used_ns = now_ns;
        self.to_inner.backend = backend;
        self.to_outer.backend = 0;
    }
}

/// How many ports are tried for a connection that cannot have its own.
pub const PORT_TRIES: u32 = 64;

/// The port (in host order) to be tried as number `attempt` for a connection with this hash, of `count` ports from `first` on.
/// As many attempts as there are ports try all of them. Zero if there are none.
#[inline(always)]
pub fn port(hash: u32, attempt: u32, first: u32, count: u32) -> u16 {
    if count == 0 {
        return 0;
    }
    (first + (hash % count + attempt) % count) as u16
}

/// Value of `uplink` (hash, by interface index): the addresses under which what leaves by it is known. Zeros: there is none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uplink {
    /// The IPv4 address.
    pub ipv4: crate::family::Address4,
    /// The IPv6 address.
    pub ipv6: crate::family::Address6,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::family::{Address4, Address6};
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Of an outer and an inner tuple, the first of each being the end that began it.
    fn check<A: Address + core::fmt::Debug>(
        ends: [[A; 2]; 2],
        ports: [[u16; 2]; 2],
        protocol: u8,
        is_outer: bool,
    ) -> Result<(), TestCaseError> {
        prop_assume!((0..2).all(|i| (ends[i][0], ports[i][0]) != (ends[i][1], ports[i][1])));
        let [outer, inner] = [0, 1].map(|i| Key::between(ends[i], ports[i], protocol));
        let other = usize::from(is_outer);
        let (tuple, side) = if is_outer { outer } else { inner };
        let mut pair = Pair::default();
        pair.fill(&tuple, Known { is_outer, side }, &ends[other][0], &ends[other][1], ports[other]);
        prop_assert_eq!((pair.outer, pair.inner), (Key { face: OUTER, ..outer.0 }, inner.0));
        prop_assert_eq!(pair.to_inner.turn(outer.1, protocol), inner);
        prop_assert_eq!(pair.to_outer.turn(inner.1, protocol), outer);
        // An answer too.
        prop_assert_eq!(pair.to_outer.turn(inner.1.other(), protocol), (outer.0, outer.1.other()));
        prop_assert_eq!(
            (pair.to_inner.flags, pair.to_outer.flags),
            (0, if is_outer { OF_SERVICE } else { 0 })
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_it_began(
            outer: [u32; 2], inner: [u32; 2], ports: [[u16; 2]; 2], protocol: u8, is_outer: bool
        ) {
            let ends = [outer, inner].map(|ends| ends.map(Address4));
            check(ends, ports, protocol, is_outer)?;
        }

        #[test]
        fn ipv6_is_no_different(ends: [[[u32; 4]; 2]; 2], ports: [[u16; 2]; 2], is_outer: bool) {
            check(ends.map(|ends| ends.map(Address6)), ports, 17, is_outer)?;
        }

        #[test]
        fn ports_that_are_tried_lie_in_the_range_and_are_different(hash: u32, first in 1_024u32..60_000, count in 1u32..5_000) {
            let tried: HashSet<u16> = (0..PORT_TRIES).map(|attempt| port(hash, attempt, first, count)).collect();
            prop_assert!(tried.iter().all(|&port| (first..first + count).contains(&u32::from(port))));
            prop_assert_eq!(tried.len() as u32, count.min(PORT_TRIES));
        }
    }

    #[test]
    fn without_ports_there_is_none() {
        assert_eq!(port(7, 3, 61_000, 0), 0);
    }
}
