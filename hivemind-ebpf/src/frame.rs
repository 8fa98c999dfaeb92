//! The frame under a program's hands.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK},
    helpers::generated::{bpf_redirect_peer, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use core::mem::MaybeUninit;
use hivemind_common::{drop_reason::DropReason, packet::Bytes};

/// A frame, from its Ethernet header on.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    skb: *mut __sk_buff,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { skb: context.skb.skb }
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

    /// Hands the frame to an endpoint: into its namespace if `interface` names one, else to the host's stack.
    #[inline(always)]
    pub(crate) fn deliver(self, interface: u32, macs: &[u32; 3]) -> Result<i32, DropReason> {
        if interface == 0 {
            return Ok(TC_ACT_OK);
        }
        // SAFETY: `macs` is twelve readable bytes; the helper checks the packet's side.
        if unsafe { bpf_skb_store_bytes(self.skb, 0, macs.as_ptr().cast(), 12, 0) } != 0 {
            return Err(DropReason::Rewrite);
        }
        // SAFETY: a helper without pointers.
        Ok(unsafe { bpf_redirect_peer(interface, 0) } as i32)
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
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
