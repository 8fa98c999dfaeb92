//! The frame under a program's hands.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_OK},
    helpers::generated::{bpf_redirect, bpf_redirect_peer, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use core::mem::MaybeUninit;
use hivemind_common::{
    drop_reason::DropReason,
    family::{Address4, Address6, Family, V4},
    node::OVERLAY_MAC,
    packet::{self, Bytes, ETHERNET_BYTES, FragmentKey, Fragments},
};

use crate::maps::Maps;

/// The first byte of the mark that says: the rest is the identity of the replica that sent the packet, which the host's stack
/// is to send on to another node.
const MARK: u32 = 0x48 << 24;
/// The mark of a packet about which all was decided before the host's end of a replica's pair.
const JUDGED: u32 = 0x49 << 24;
/// Bits of an identity.
const IDENTITY_MASK: u32 = (1 << 24) - 1;

/// `PACKET_HOST` of <linux/if_packet.h>.
const PACKET_HOST: u32 = 0;

/// The longest packet in a frame of Ethernet that may have been filled up: to 60 bytes. Of IPv6 there are none that short.
const FILLED_BYTES_MAX: u64 = 46;

/// A frame, from its Ethernet header on.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    skb: *mut __sk_buff,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self::of(context.skb.skb)
    }

    /// The frame of a context that was taken from one.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// The context, as the kernel knows it.
    #[inline(always)]
    pub(crate) fn context(self) -> *mut __sk_buff {
        self.skb
    }

    /// The interface at which the program sits.
    #[inline(always)]
    pub(crate) fn interface(self) -> u32 {
        // SAFETY: the kernel hands a valid context and rewrites the access.
        unsafe { (*self.skb).ifindex }
    }

    /// The Ethernet type in host order.
    #[inline(always)]
    pub(crate) fn ethertype(self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.skb).protocol } as u16)
    }

    /// The sender's MAC address: its first two bytes and its last four, in memory order.
    #[inline(always)]
    pub(crate) fn source_mac(self) -> Result<(u16, u32), DropReason> {
        let [first, last] = self.read(4).ok_or(DropReason::Truncated)?;
        let [_, _, a, b] = first.to_ne_bytes();
        Ok((u16::from_ne_bytes([a, b]), last))
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn ip_bytes(self) -> u64 {
        // SAFETY: as above.
        u64::from(unsafe { (*self.skb).len }).saturating_sub(u64::from(ETHERNET_BYTES))
    }

    /// What this is on a wire: bytes of IP packets, and how many packets. One that the kernel cuts later is its segments, each of
    /// which has the headers; what fills up a frame that is too short for a wire is nobody's. The transport header begins at
    /// `transport`.
    #[inline(always)]
    pub(crate) fn on_wire<F: Family>(self, transport: u32, protocol: u8) -> (u64, u64) {
        let bytes = self.ip_bytes();
        // SAFETY: as above.
        if unsafe { (*self.skb).gso_size } == 0 {
            if F::VERSION == V4::VERSION
                && bytes <= FILLED_BYTES_MAX
                && let Some([word]) = self.glance(ETHERNET_BYTES)
            {
                let [_, _, high, low] = word.to_ne_bytes();
                return (u64::from(u16::from_be_bytes([high, low])), 1);
            }
            return (bytes, 1);
        }
        let cut = crate::functions::segments(self.skb, transport, protocol.into());
        let (headers, segments) = (cut >> 32, cut & u64::from(u32::MAX));
        (bytes + segments.saturating_sub(1) * headers, segments)
    }

    /// Of a frame that the kernel cuts later: in the higher half the bytes of the headers that each segment has, from the IP
    /// header on, and in the lower half how many segments there are.
    #[inline(always)]
    pub(crate) fn segments(self, transport: u32, protocol: u8) -> u64 {
        // SAFETY: as above.
        let (size, known) = unsafe { ((*self.skb).gso_size, (*self.skb).gso_segs) };
        let network = transport.saturating_sub(ETHERNET_BYTES);
        let headers = network + self.transport_bytes(transport, protocol);
        // The kernel has yet to count them where something else than its own protocols made the frame, or changed its headers.
        let segments = match known {
            0 if size != 0 => (self.ip_bytes() as u32).saturating_sub(headers).div_ceil(size),
            known => known,
        };
        u64::from(headers) << 32 | u64::from(if segments == 0 { 1 } else { segments })
    }

    /// Bytes of the transport header at an offset.
    #[inline(always)]
    fn transport_bytes(self, offset: u32, protocol: u8) -> u32 {
        if protocol == packet::SCTP {
            return 12;
        }
        if protocol != packet::TCP {
            return 8;
        }
        match self.read(offset + 12) {
            Some([word]) => u32::from(u32::to_ne_bytes(word)[0] >> 4) * 4,
            None => 20,
        }
    }

    /// Notes who sends, on a frame that the host's stack is to send to another node.
    #[inline(always)]
    pub(crate) fn mark_sender(self, sender: u32) {
        // SAFETY: as above.
        unsafe { (*self.skb).mark = MARK | (sender & IDENTITY_MASK) };
    }

    /// Whether the frame is addressed to the interface that it came in by.
    #[inline(always)]
    pub(crate) fn is_for_us(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).pkt_type == PACKET_HOST }
    }

    /// Whether the host's stack brought the frame from another interface.
    #[inline(always)]
    pub(crate) fn is_forwarded(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).ingress_ifindex != 0 }
    }

    /// Whether the program sits where the frame came into the node, rather than where it leaves.
    #[inline(always)]
    pub(crate) fn is_arriving(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).ingress_ifindex == (*self.skb).ifindex }
    }

    /// The identity that [`Frame::mark`] noted.
    #[inline(always)]
    pub(crate) fn marked_identity(self) -> Option<u32> {
        // SAFETY: as above.
        let mark = unsafe { (*self.skb).mark };
        if mark & !IDENTITY_MASK == MARK { Some(mark & IDENTITY_MASK) } else { None }
    }

    /// Notes that all was decided about the frame.
    #[inline(always)]
    pub(crate) fn mark_judged(self) {
        // SAFETY: as above.
        unsafe { (*self.skb).mark = JUDGED };
    }

    /// Whether [`Frame::mark_judged`] was called.
    #[inline(always)]
    pub(crate) fn is_judged(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).mark == JUDGED }
    }

    /// The length of its IP packet, or of the longest of the segments that it is cut into; the greatest number if it cannot be
    /// read.
    #[inline(always)]
    pub(crate) fn longest_piece(self, ethertype: u16) -> u32 {
        // SAFETY: as above.
        let payload = unsafe { (*self.skb).gso_size };
        if payload == 0 {
            return self.ip_bytes() as u32;
        }
        // What is cut has no IPv6 extension headers.
        let (network, protocol) = if ethertype == V4::ETHERTYPE {
            let Some(ip): Option<[u32; 3]> = self.read(ETHERNET_BYTES) else { return u32::MAX };
            ((ip[0].to_ne_bytes()[0] & 0xf) as u32 * 4, ip[2].to_ne_bytes()[1])
        } else {
            let Some(ip): Option<[u32; 2]> = self.read(ETHERNET_BYTES) else { return u32::MAX };
            (40, ip[1].to_ne_bytes()[2])
        };
        if protocol != packet::TCP {
            return network + 8 + payload;
        }
        let Some([tcp]) = self.read(ETHERNET_BYTES + network + 12) else { return u32::MAX };
        network + (tcp.to_ne_bytes()[0] >> 4) as u32 * 4 + payload
    }

    /// Hands the frame to the host's stack, as one that has come in by an interface of ours.
    #[inline(always)]
    pub(crate) fn hand_to_host(self, interface: u32) -> Result<i32, DropReason> {
        let mac = OVERLAY_MAC;
        // SAFETY: six readable bytes; the helper checks the packet's side.
        if unsafe { bpf_skb_store_bytes(self.skb, 0, mac.as_ptr().cast(), 6, 0) } != 0 {
            return Err(DropReason::Rewrite);
        }
        // SAFETY: a helper without pointers.
        Ok(unsafe { bpf_redirect(interface, u64::from(BPF_F_INGRESS)) } as i32)
    }

    /// Sends the frame back to the neighbour from whom it came.
    #[inline(always)]
    pub(crate) fn send_back(self, interface: u32) -> Result<i32, DropReason> {
        let [a, b, c]: [u32; 3] = self.read(0).ok_or(DropReason::Truncated)?;
        let ([_, _, e, f], [g, h, i, j]) = (b.to_ne_bytes(), c.to_ne_bytes());
        let [k, l, m, n] = a.to_ne_bytes();
        let [o, p, _, _] = b.to_ne_bytes();
        let macs = [
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ];
        self.queue(interface, &macs)
    }

    /// Puts the frame before the program at the host end of an endpoint's pair, addressed to the endpoint.
    #[inline(always)]
    pub(crate) fn queue(self, interface: u32, macs: &[u32; 3]) -> Result<i32, DropReason> {
        // SAFETY: `macs` is twelve readable bytes; the helper checks the packet's side.
        if unsafe { bpf_skb_store_bytes(self.skb, 0, macs.as_ptr().cast(), 12, 0) } != 0 {
            return Err(DropReason::Rewrite);
        }
        // SAFETY: a helper without pointers.
        Ok(unsafe { bpf_redirect(interface, 0) } as i32)
    }

    /// Writes both MAC addresses. Where they lie: the helper that does it elsewhere too takes a fifth of the whole program's time.
    /// (The kernel makes the frame this socket buffer's own before the program begins.)
    #[inline(always)]
    fn address(self, macs: &[u32; 3]) -> Result<(), DropReason> {
        // SAFETY: as above.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if start + 12 > end {
            return Err(DropReason::Truncated);
        }
        for (i, word) in macs.iter().enumerate() {
            // SAFETY: within the frame, as the line before says and the verifier checks.
            unsafe { ((start + 4 * i) as *mut u32).write_volatile(*word) };
        }
        Ok(())
    }

    /// Hands the frame to an endpoint: into its namespace if `interface` names one, else to the host's stack.
    #[inline(always)]
    pub(crate) fn deliver(self, interface: u32, macs: &[u32; 3]) -> Result<i32, DropReason> {
        if interface == 0 {
            return Ok(TC_ACT_OK);
        }
        self.address(macs)?;
        // SAFETY: a helper without pointers.
        Ok(unsafe { bpf_redirect_peer(interface, 0) } as i32)
    }
}

/// How far into a frame bytes are read where they lie. Headers end before.
const NEAR: u32 = 255;

impl Bytes for Frame {
    #[inline(always)]
    fn extension(&self, kind: u8, offset: u32) -> u64 {
        crate::functions::extension(self.skb, kind.into(), offset)
    }

    #[inline(always)]
    fn glance<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        if offset > NEAR {
            return None;
        }
        // SAFETY: as above.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        let at = start + offset as usize;
        if at + 4 * N > end {
            return None;
        }
        // SAFETY: within the frame, as the line before says and the verifier checks. It also refuses the program on a processor
        // that wants words aligned.
        Some(core::array::from_fn(|i| unsafe { ((at + 4 * i) as *const u32).read_volatile() }))
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        // Nearly always the headers lie in one piece with the socket buffer: no call of a helper then.
        if let Some(words) = self.glance(offset) {
            return Some(words);
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes exactly 4 × N bytes, or zeroes them and fails.
        unsafe {
            match bpf_skb_load_bytes(self.skb.cast(), offset, words.as_mut_ptr().cast(), 4 * N as u32) {
                0 => Some(words.assume_init()),
                _ => None,
            }
        }
    }
}

macro_rules! fragments {
    ($address:ty, $family:ty) => {
        impl Fragments<$address> for Frame {
            #[inline(always)]
            fn remember(&self, key: &FragmentKey<$address>, ports: u32) {
                // The least recently used give way: at worst the rest of a packet is lost.
                let _ = <$family>::fragment().insert(key, &ports, 0);
            }

            #[inline(always)]
            fn recall(&self, key: &FragmentKey<$address>) -> Option<u32> {
                // SAFETY: a value of the map.
                <$family>::fragment().get_ptr(key).map(|ports| unsafe { *ports })
            }
        }
    };
}

fragments!(Address4, V4);
fragments!(Address6, hivemind_common::family::V6);
