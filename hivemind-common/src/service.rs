//! Services as the maps hold them, and the choice of a cell.

use crate::family::Address;

/// `flags` of a [`Service`]: every port of the address, kept as it is.
pub const SERVICE_EVERY_PORT: u32 = 1;

/// `state` of a [`Backend`]: takes new connections.
pub const BACKEND_ACTIVE: u16 = 1;

/// Key of `service_v4` and `service_v6`.
///
/// With port and protocol zero it stands for every port of the address. With the unspecified address it stands for
/// a port published on the node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServiceKey<A> {
    /// The service's virtual address.
    pub address: A,
    /// The port in network order.
    pub port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Always zero.
    pub padding: u8,
}

/// Value of `service_v4` and `service_v6`: one write switches a service to another table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// The service's stable number, which its cells repeat. Never zero.
    pub id: u32,
    /// [`SERVICE_EVERY_PORT`] or zero.
    pub flags: u32,
    /// Index of the first cell in `service_table`.
    pub table_base: u32,
    /// Number of cells; zero if there is no backend.
    pub table_size: u32,
    /// The port to connect to, in network order; zero keeps the one asked for.
    pub target_port: u16,
    /// Number of backends, for people; programs do not read it.
    pub backends: u16,
    /// How long a client that comes back gets the backend that it had, in seconds; zero: each connection is a new one.
    pub affinity_s: u32,
}

/// One cell of `service_table`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// The backend that connections of this cell go to.
    pub backend: u32,
    /// The service that owns the cell, compared by programs: a cell that was handed on never misleads.
    pub service: u32,
}

/// Value of `backend_v4` and `backend_v6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend<A> {
    /// The endpoint's address.
    pub address: A,
    /// Room for a port of the backend's own, in network order; zero leaves it to the service.
    pub port: u16,
    /// [`BACKEND_ACTIVE`], or zero while it drains.
    pub state: u16,
    /// The weight it was given, so that a new daemon can read it back.
    pub weight: u16,
    /// Always zero.
    pub padding: u16,
    /// The service it belongs to, for the same purpose.
    pub service: u32,
}

/// Key of `reverse_v4` and `reverse_v6`: a socket and the backend that it talks to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ReverseKey<A> {
    /// The kernel's socket cookie, low half first: unique until the next boot. Two halves, so that the key has no
    /// hole in either family.
    pub socket: [u32; 2],
    /// The backend's address.
    pub address: A,
    /// The backend's port in network order.
    pub port: u32,
}

/// Value of `reverse_v4` and `reverse_v6`: what the program that owns the socket believes it talks to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reverse<A> {
    /// The service's address.
    pub address: A,
    /// The service's port in network order.
    pub port: u16,
    /// Always zero.
    pub padding: u16,
}

/// Key of `affinity`: a client of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AffinityKey {
    /// The client: its address, or of a socket the cookie of its network namespace, which is another client than any address.
    pub client: [u32; 4],
    /// The service.
    pub service: u32,
    /// 4 or 6: addresses of two families are two clients.
    pub family: u32,
}

/// Value of `affinity`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity {
    /// When the client came last, in nanoseconds of the monotonic clock.
    pub used_ns: u64,
    /// The backend that it got.
    pub backend: u32,
    /// Always zero.
    pub padding: u32,
}

impl Affinity {
    /// Whether it still counts at `now_ns`, of a service that remembers clients for `affinity_s`.
    #[inline(always)]
    pub fn counts(&self, now_ns: u64, affinity_s: u32) -> bool {
        // Another CPU may have noted a connection that is later than this one.
        now_ns.saturating_sub(self.used_ns) < affinity_s as u64 * 1_000_000_000
    }
}

impl<A: Address> ServiceKey<A> {
    /// The key of one port.
    #[inline(always)]
    pub fn port(address: A, port: u16, protocol: u8) -> Self {
        Self { address, port, protocol, padding: 0 }
    }

    /// The key of every port of an address.
    #[inline(always)]
    pub fn every_port(address: A) -> Self {
        Self { address, port: 0, protocol: 0, padding: 0 }
    }

    /// The key of a port published on the node.
    #[inline(always)]
    pub fn published(port: u16, protocol: u8) -> Self {
        Self { address: A::unspecified(), port, protocol, padding: 0 }
    }
}

/// Maps a uniform 32-bit number to a cell of a table without a division (Lemire, "Fast random integer generation in
/// an interval", 2019). Returns a number below `size`, or 0 if `size` is 0.
#[inline(always)]
pub fn cell_of(uniform: u32, size: u32) -> u32 {
    ((uniform as u64 * size as u64) >> 32) as u32
}

/// A 32-bit hash of a 64-bit number (the finalizer of MurmurHash3). Equal on all machines and versions.
#[inline(always)]
pub fn hash(value: u64) -> u32 {
    let mut h = value;
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^= h >> 33;
    h as u32
}

/// A 32-bit hash of a connection's tuple, the same on all machines: the table of a service sends its packets to one backend
/// wherever they come in.
#[inline(always)]
pub fn hash_of<A: Address>(source: A, source_port: u16, destination_port: u16, protocol: u8) -> u32 {
    let [a, b, c, d] = source.words();
    let ports = (source_port as u64) << 32 | (destination_port as u64) << 16 | protocol as u64;
    let low = hash((a as u64) << 32 | b as u64) as u64;
    let high = hash((c as u64) << 32 | d as u64) as u64;
    hash((low << 32 | high) ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_until_its_time_is_over_and_also_when_another_cpu_was_quicker() {
        let seen = Affinity { used_ns: 5_000_000_000, ..Affinity::default() };
        assert!(seen.counts(5_000_000_000, 1) && seen.counts(5_999_999_999, 1));
        assert!(!seen.counts(6_000_000_000, 1));
        assert!(seen.counts(4_999_999_000, 1));
        assert!(!seen.counts(5_000_000_000, 0));
    }
}
