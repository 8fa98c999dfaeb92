//! The two address families as types, so that programs and maps are written once.

/// An IPv4 address, its four bytes in network order as they lie in a packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Address4(pub u32);

/// An IPv6 address, its sixteen bytes in network order as they lie in a packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Address6(pub [u32; 4]);

/// What the packet logic needs of an address.
///
/// The order is any total order that both ends of a connection agree on; it is not the numeric one.
pub trait Address: Copy + Eq + Default + 'static {
    /// Whether this address comes strictly before `other` in the canonical order.
    fn is_before(self, other: Self) -> bool;
    /// Whether this is a multicast or limited-broadcast address, which no endpoint ever owns.
    fn is_multicast(self) -> bool;
    /// Whether this is a loopback address, or the unspecified one that connects to loopback.
    fn is_loopback(self) -> bool;
    /// The unspecified address, under which published ports are kept.
    fn unspecified() -> Self;
    /// As four words in memory order; what an IPv4 address leaves over is zero.
    fn words(self) -> [u32; 4];
    /// Whether it lies in the block of which this is the mask.
    fn is_in(self, network: Self, mask: Self) -> bool;
}

impl Address for Address4 {
    #[inline(always)]
    fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        // 224.0.0.0/4 and 240.0.0.0/4, which ends in the limited broadcast.
        self.0.to_ne_bytes()[0] >= 224
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0 == 0 || self.0.to_ne_bytes()[0] == 127
    }

    #[inline(always)]
    fn unspecified() -> Self {
        Self(0)
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn is_in(self, network: Self, mask: Self) -> bool {
        self.0 & mask.0 == network.0
    }
}

impl Address for Address6 {
    #[inline(always)]
    fn is_before(self, other: Self) -> bool {
        // Written out: a derived comparison of arrays becomes a call that eBPF does not have.
        let (a, b) = (self.0, other.0);
        if a[0] != b[0] {
            return a[0] < b[0];
        }
        if a[1] != b[1] {
            return a[1] < b[1];
        }
        if a[2] != b[2] {
            return a[2] < b[2];
        }
        a[3] < b[3]
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        let [a, b, c, d] = self.0;
        a == 0 && b == 0 && c == 0 && (d == 0 || d == 1u32.to_be())
    }

    #[inline(always)]
    fn unspecified() -> Self {
        Self([0; 4])
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn is_in(self, network: Self, mask: Self) -> bool {
        let (a, n, m) = (self.0, network.0, mask.0);
        a[0] & m[0] == n[0] && a[1] & m[1] == n[1] && a[2] & m[2] == n[2] && a[3] & m[3] == n[3]
    }
}

impl Address4 {
    /// From the octets in the order in which they are written.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The octets in the order in which they are written.
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Address6 {
    /// From the octets in the order in which they are written.
    #[inline(always)]
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The octets in the order in which they are written.
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// The IPv4 address inside an IPv4-mapped one (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
    #[inline(always)]
    pub fn mapped(self) -> Option<Address4> {
        let [a, b, c, d] = self.0;
        if a == 0 && b == 0 && c == 0xffff_u32.to_be() { Some(Address4(d)) } else { None }
    }

    /// The IPv4-mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn from_mapped(address: Address4) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), address.0])
    }
}

/// One address family.
pub trait Family {
    /// The family's address.
    type Address: Address;
    /// The value of the Ethernet header's type field, in host order.
    const ETHERTYPE: u16;
    /// The version field of its header.
    const VERSION: u8;
}

/// IPv4.
pub enum V4 {}

/// IPv6.
pub enum V6 {}

impl Family for V4 {
    type Address = Address4;
    const ETHERTYPE: u16 = 0x0800;
    const VERSION: u8 = 4;
}

impl Family for V6 {
    type Address = Address6;
    const ETHERTYPE: u16 = 0x86dd;
    const VERSION: u8 = 6;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_gives_back_the_ipv4_address_inside() {
        let inner = Address4::from_octets([10, 1, 2, 3]);
        assert_eq!(Address6::from_mapped(inner).mapped(), Some(inner));
        assert_eq!(Address6::from_octets([0xfd; 16]).mapped(), None);
    }

    #[test]
    fn loopback_and_the_unspecified_address_are_loopback_and_nothing_else_is() {
        for octets in [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0]] {
            assert!(Address4::from_octets(octets).is_loopback());
        }
        assert!(!Address4::from_octets([10, 0, 0, 127]).is_loopback());
        let mut one = [0; 16];
        one[15] = 1;
        assert!(Address6::from_octets(one).is_loopback());
        one[0] = 0xfd;
        assert!(!Address6::from_octets(one).is_loopback());
    }
}
