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
    /// Number of the policy that its connections are judged by: see [`crate::policy`].
    pub policy: u32,
    /// The first twelve bytes of a frame to this endpoint, as words in memory order: the MAC address of the replica's
    /// `eth0`, then that of the host end, which the replica knows as its gateway's. Words, because eBPF copies them
    /// in three instructions.
    pub frame_macs: [u32; 3],
}

impl EndpointState {
    /// Puts two MAC addresses into the form of `frame_macs`.
    pub const fn macs(replica: [u8; 6], gateway: [u8; 6]) -> [u32; 3] {
        let (r, g) = (replica, gateway);
        [
            u32::from_ne_bytes([r[0], r[1], r[2], r[3]]),
            u32::from_ne_bytes([r[4], r[5], g[0], g[1]]),
            u32::from_ne_bytes([g[2], g[3], g[4], g[5]]),
        ]
    }

    /// Whether a MAC address, given as its first two bytes and its last four in memory order, is the replica's.
    #[inline(always)]
    pub fn is_replica_mac(&self, first: u16, last: u32) -> bool {
        let [a, b, c, d] = self.frame_macs[0].to_ne_bytes();
        let [e, f, _, _] = self.frame_macs[1].to_ne_bytes();
        u16::from_ne_bytes([a, b]) == first && u32::from_ne_bytes([c, d, e, f]) == last
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
    /// The number of the node that has the address; zero is this node.
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
    /// Records of translations after the last one, two a connection: IPv4, IPv6.
    pub translations: [u64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_replicas_own_mac_is_recognised() {
        let state = EndpointState {
            frame_macs: EndpointState::macs([2, 1, 2, 3, 4, 5], [6, 1, 2, 3, 4, 5]),
            ..EndpointState::default()
        };
        let parts = |mac: [u8; 6]| {
            (u16::from_ne_bytes([mac[0], mac[1]]), u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]))
        };
        let (first, last) = parts([2, 1, 2, 3, 4, 5]);
        assert!(state.is_replica_mac(first, last));
        for byte in 0..6 {
            let mut other = [2, 1, 2, 3, 4, 5];
            other[byte] ^= 1;
            let (first, last) = parts(other);
            assert!(!state.is_replica_mac(first, last), "byte {byte}");
        }
    }
}
