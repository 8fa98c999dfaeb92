//! Out of the node: by which interface and to which neighbour, as the kernel's own routes say.

use crate::{
    flow::Flow,
    frame::Frame,
    maps::{Maps, ROUTE, UPLINK},
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Address, Family, V4},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Values that the helper returns (`<linux/bpf.h>`).
const SUCCESS: i64 = 0;
const NOT_FORWARDED: i64 = 4;
const NO_NEIGHBOUR: i64 = 7;

/// `struct bpf_fib_lookup` of <linux/bpf.h>, in words where a family has another meaning for the same place; then, the
/// parameters of the helper that redirects to a neighbour, `struct bpf_redir_neigh`.
#[repr(C)]
pub(crate) struct Lookup {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    length: u16,
    interface: u32,
    traffic_class: u32,
    source: [u32; 4],
    destination: [u32; 4],
    more: [u32; 4],
    neighbour_family: u32,
    neighbour: [u32; 4],
    /// So that it is a whole number of words of eight bytes.
    padding: u32,
}

/// Bytes of the first of the two.
const LOOKUP_BYTES: i32 = 64;
/// Bytes of the second.
const NEIGHBOUR_BYTES: i32 = 20;

/// Where a packet goes.
pub(crate) enum Route {
    /// To one of the node's own addresses.
    Here,
    /// Out.
    Out(Hop),
    /// It is for the host's stack to say: it has no route, the packet is too long or too old.
    HostsMatter,
}

/// The next hop.
#[derive(Clone, Copy)]
pub(crate) struct Hop(&'static Lookup);

/// Looks up the route of a packet from `source` to `destination`, which are not yet in it, perhaps.
#[inline(always)]
pub(crate) fn route<F: Maps>(frame: Frame, source: &F::Address, destination: &F::Address) -> Route {
    let Some(place) = ROUTE.get_ptr_mut(0) else { return Route::HostsMatter };
    if !frame.lives_on::<F>() {
        return Route::HostsMatter;
    }
    let is_v4 = F::VERSION == V4::VERSION;
    let length = frame.longest_piece(F::ETHERTYPE);
    // SAFETY: this CPU's slot, and programs on one CPU do not preempt one another within it. The layout is the kernel's, and
    // it writes no more than this.
    let (found, lookup) = unsafe {
        (*place).family = if is_v4 { AF_INET } else { AF_INET6 };
        (*place).protocol = 0;
        (*place).source_port = 0;
        (*place).destination_port = 0;
        (*place).length = if length > u32::from(u16::MAX) { u16::MAX } else { length as u16 };
        (*place).interface = frame.interface();
        (*place).traffic_class = 0;
        (*place).source = source.words();
        (*place).destination = destination.words();
        (*place).more = [0; 4];
        (bpf_fib_lookup(frame.context().cast(), place.cast(), LOOKUP_BYTES, 0), &*place)
    };
    match found {
        SUCCESS | NO_NEIGHBOUR => {
            // SAFETY: as above.
            unsafe {
                (*place).neighbour_family = lookup.family.into();
                (*place).neighbour = lookup.destination;
            }
            Route::Out(Hop(lookup))
        }
        NOT_FORWARDED => Route::Here,
        _ => Route::HostsMatter,
    }
}

impl Hop {
    /// The interface by which it leaves.
    #[inline(always)]
    pub(crate) fn interface(self) -> u32 {
        self.0.interface
    }

    /// Sends the packet there, a hop older.
    ///
    /// # Errors
    /// [`DropReason::Rewrite`] if the kernel does not let it be changed.
    #[inline(always)]
    pub(crate) fn send<F: Family>(self, frame: Frame) -> Result<i32, DropReason> {
        frame.age::<F>()?;
        let neighbour = (&raw const self.0.neighbour_family).cast_mut().cast();
        // SAFETY: the helper reads as many bytes as it is told. It also writes the Ethernet header.
        Ok(unsafe { bpf_redirect_neigh(self.0.interface, neighbour, NEIGHBOUR_BYTES, 0) } as i32)
    }
}

/// The address under which what leaves by an interface is known.
#[inline(always)]
pub(crate) fn address_at<F: Maps>(interface: u32) -> Option<F::Address> {
    let uplink = UPLINK.get_ptr(interface)?;
    // SAFETY: a copy of a value of the map.
    let address = F::uplink_address(unsafe { &*uplink });
    if address == F::Address::unspecified() { None } else { Some(address) }
}

/// Whether a flow's destination is one to which replicas keep their own addresses.
#[inline(always)]
pub(crate) fn is_unmasked<F: Maps>(flow: &Flow<F>) -> bool {
    let bits = 8 * size_of::<F::Address>() as u32;
    crate::maps::longest(F::unmasked(), bits, flow.destination()).is_some()
}
