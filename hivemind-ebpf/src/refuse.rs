//! Turning a packet that is refused into the answer to it.

use crate::{flow::Flow, frame::Frame, functions::Functions, maps::Maps};
use aya_ebpf::helpers::generated::{bpf_skb_change_tail, bpf_skb_store_bytes};
use hivemind_common::{
    drop_reason::DropReason,
    family::{Address4, Address6, V4, V6},
    packet::{self, Bytes, ETHERNET_BYTES},
    refusal::{Asked, QUOTE_V4, QUOTE_V6, error_v4, error_v6, reset_v4, reset_v6},
};

/// What of it depends on the family.
pub(crate) trait Refuse: Maps {
    /// Makes the frame the answer to itself: a reset, if it is TCP, else an ICMP error.
    ///
    /// # Errors
    /// [`DropReason::NoBackend`] if it is to have none.
    fn answer(frame: Frame, transport: u32, is_tcp: bool) -> Result<(), DropReason>;
}

/// Turns a packet that nobody takes into the answer to it, as a host would give it that has the address.
///
/// # Errors
/// [`DropReason::NoBackend`] if it is to have none.
#[inline(always)]
pub(crate) fn refuse<F: Functions>(frame: Frame, flow: &Flow<F>) -> Result<(), DropReason> {
    if flow.is_later_fragment() || flow.is_error() {
        return Err(DropReason::NoBackend);
    }
    F::answer(frame, flow.transport(), flow.key.protocol == packet::TCP)
}

impl Refuse for V4 {
    #[inline(always)]
    fn answer(frame: Frame, transport: u32, is_tcp: bool) -> Result<(), DropReason> {
        let ip: [u32; 5] = frame.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
        if !is_tcp {
            // With options there would be no room for them.
            if transport != ETHERNET_BYTES + 20 {
                return Err(DropReason::NoBackend);
            }
            let quote: [u32; QUOTE_V4] = frame.read(ETHERNET_BYTES).ok_or(DropReason::NoBackend)?;
            return frame.replace(&error_v4(quote));
        }
        let tcp: [u32; 4] = frame.read(transport).ok_or(DropReason::Truncated)?;
        let [_, _, high, low] = ip[0].to_ne_bytes();
        let total = u32::from(u16::from_be_bytes([high, low]));
        let asked = asked(tcp, (total + ETHERNET_BYTES).saturating_sub(transport));
        let reset = reset_v4(Address4(ip[3]), Address4(ip[4]), &asked).ok_or(DropReason::NoBackend)?;
        frame.replace(&reset)
    }
}

impl Refuse for V6 {
    #[inline(always)]
    fn answer(frame: Frame, transport: u32, is_tcp: bool) -> Result<(), DropReason> {
        if !is_tcp {
            if transport != ETHERNET_BYTES + 40 {
                return Err(DropReason::NoBackend);
            }
            let quote: [u32; QUOTE_V6] = frame.read(ETHERNET_BYTES).ok_or(DropReason::NoBackend)?;
            return frame.replace(&error_v6(quote));
        }
        let ip: [u32; 10] = frame.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
        let tcp: [u32; 4] = frame.read(transport).ok_or(DropReason::Truncated)?;
        let [high, low, _, _] = ip[1].to_ne_bytes();
        let end = ETHERNET_BYTES + 40 + u32::from(u16::from_be_bytes([high, low]));
        let asked = asked(tcp, end.saturating_sub(transport));
        let source = Address6([ip[2], ip[3], ip[4], ip[5]]);
        let destination = Address6([ip[6], ip[7], ip[8], ip[9]]);
        let reset = reset_v6(source, destination, &asked).ok_or(DropReason::NoBackend)?;
        frame.replace(&reset)
    }
}

#[inline(always)]
fn asked(tcp: [u32; 4], bytes: u32) -> Asked {
    let header = u32::from(tcp[3].to_ne_bytes()[0] >> 4) * 4;
    Asked { tcp, data_bytes: bytes.saturating_sub(header) }
}

impl Frame {
    /// Puts these words in the place of all that is behind the Ethernet header.
    #[inline(always)]
    fn replace<const N: usize>(self, words: &[u32; N]) -> Result<(), DropReason> {
        let bytes = 4 * N as u32;
        // SAFETY: helpers that take the context; the second reads so many bytes.
        let result = unsafe {
            match bpf_skb_change_tail(self.context(), ETHERNET_BYTES + bytes, 0) {
                0 => bpf_skb_store_bytes(self.context(), ETHERNET_BYTES, words.as_ptr().cast(), bytes, 0),
                failed => failed,
            }
        };
        if result == 0 { Ok(()) } else { Err(DropReason::Rewrite) }
    }
}
