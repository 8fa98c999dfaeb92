//! Endpoints and addresses as the maps hold them.

use crate::family::{Address4, Address6};

/// The index that stands for "not an endpoint of this node". Its slot in `generation` holds the
/// address epoch, so that a program reads two generations whatever the ends are.
pub const OUTSIDE: u32 = 0;

/// A generation that no endpoint ever has: a slot with it forwards nothing.
pub const NO_GENERATION: u64 = 0;

/// Value of `endpoint_state` (array, by endpoint index).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointState {
    /// The endpoint's IPv4 address.
    pub ipv4: Address4,
    /// The endpoint's IPv6 address.
    pub ipv6: Address6,
    /// Interface index of the host end of the veth pair.
    pub interface: u32,
    /// The workload identity (24 bits).
    pub identity: u32,
    /// Room for default-deny and audit.
    pub flags: u32,
    /// The MAC address of the replica's `eth0`.
    pub mac: [u8; 6],
    /// The MAC address of the host end, which the replica knows as its gateway's.
    pub gateway_mac: [u8; 6],
}

impl EndpointState {
    /// The first twelve bytes of a frame to this endpoint: its own MAC, then its gateway's.
    #[inline(always)]
    pub fn frame_macs(&self) -> [u8; 12] {
        let (to, from) = (self.mac, self.gateway_mac);
        [
            to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4], from[5],
        ]
    }
}

/// Value of `address_exact_v4` and `address_exact_v6` (hash, by address).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressEntry {
    /// The workload identity behind the address.
    pub identity: u32,
    /// The endpoint's index if it is local, else [`OUTSIDE`].
    pub endpoint: u32,
    /// Room for the number of the node that has the address; zero is this node.
    pub node: u32,
}

/// Value of the map `collector` after the in-kernel timer that its first bytes hold, and of nothing
/// else: what the last collection of expired connections found.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CollectorState {
    /// The kernel's `struct bpf_timer`: opaque, zero when read.
    pub timer: [u64; 2],
    /// When the last collection began, in nanoseconds of the monotonic clock.
    pub started_ns: u64,
    /// How many collections there were.
    pub runs: u64,
    /// Live connections after the last one: IPv4, IPv6.
    pub live: [u64; 2],
    /// Expired connections removed by all of them together: IPv4, IPv6.
    pub removed: [u64; 2],
}
