//! Round-trip times and retransmissions, read off the kernel's own TCP where both are known without a packet more.

use crate::{
    end::{is_here, whose},
    maps::{Maps, RTT, does},
};
use aya_ebpf::{bindings::bpf_sock_ops, macros::sock_ops, programs::SockOpsContext};
use hivemind_common::{
    family::{Address4, Address6, V4, V6},
    telemetry::{FEATURE_TELEMETRY, RttHistogram, RttKey, rtt_bucket},
};

/// Values of `<linux/bpf.h>`.
const ACTIVE_ESTABLISHED_CB: u32 = 4;
const PASSIVE_ESTABLISHED_CB: u32 = 5;
const RETRANS_CB: u32 = 9;
const RTT_CB: u32 = 12;
const RETRANS_CB_FLAG: i32 = 2;
const RTT_CB_FLAG: i32 = 8;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Round trips are looked at when the number of segments that the socket has received has none of these bits, besides the
/// first of each connection: a busy connection measures one with every answer, and one in eight tells as much. Counted and
/// not drawn, since drawing costs more than looking.
const SAMPLE_MASK: u32 = 7;

/// The hook always lets the kernel go on as it would.
const GO_ON: u32 = 1;

#[sock_ops]
pub fn sock_ops(context: SockOpsContext) -> u32 {
    if !does(FEATURE_TELEMETRY) {
        return GO_ON;
    }
    let socket = Socket(context.ops);
    match context.op() {
        // Between two replicas of this node, the end that began measures for both: the kernel calls this for every answer, which is
        // to be noticed in how many a connection gets.
        PASSIVE_ESTABLISHED_CB if socket.peer_is_here() => {
            let _ = context.set_cb_flags(RETRANS_CB_FLAG);
        }
        ACTIVE_ESTABLISHED_CB | PASSIVE_ESTABLISHED_CB => {
            let _ = context.set_cb_flags(RTT_CB_FLAG | RETRANS_CB_FLAG);
            note(socket, socket.smoothed_us(), 0);
        }
        RTT_CB if socket.segments_in() & SAMPLE_MASK == 0 => {
            // Kernels before 6.10 do not say what they measured, only what they make of it.
            let measured_us = socket.argument(0);
            note(socket, if measured_us == 0 { socket.smoothed_us() } else { measured_us }, 0);
        }
        RETRANS_CB => note(socket, 0, socket.argument(1)),
        _ => {}
    }
    GO_ON
}

/// The context of the hook. Every access is of one field, whole: the kernel rewrites them one by one.
#[derive(Clone, Copy)]
struct Socket(*mut bpf_sock_ops);

impl Socket {
    /// The smoothed round trip in microseconds; the kernel keeps it eightfold.
    #[inline(always)]
    fn smoothed_us(self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (&raw const (*self.0).srtt_us).read_volatile() >> 3 }
    }

    /// Segments that the socket has received.
    #[inline(always)]
    fn segments_in(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).segs_in).read_volatile() }
    }

    #[inline(always)]
    fn argument(self, index: usize) -> u32 {
        // SAFETY: as above; there are four arguments.
        unsafe { (&raw const (*self.0).__bindgen_anon_1.args).cast::<u32>().add(index).read_volatile() }
    }

    #[inline(always)]
    fn ends(self) -> Option<Ends> {
        // SAFETY: as above.
        let family = unsafe { (&raw const (*self.0).family).read_volatile() };
        if family == AF_INET {
            // SAFETY: as above.
            let (local, peer) = unsafe {
                (
                    (&raw const (*self.0).local_ip4).read_volatile(),
                    (&raw const (*self.0).remote_ip4).read_volatile(),
                )
            };
            return Some(Ends::V4(Address4(local), Address4(peer)));
        }
        if family != AF_INET6 {
            return None;
        }
        // SAFETY: as above.
        let (local, peer) = unsafe {
            (words((&raw const (*self.0).local_ip6).cast()), words((&raw const (*self.0).remote_ip6).cast()))
        };
        match (local.mapped(), peer.mapped()) {
            (Some(local), Some(peer)) => Some(Ends::V4(local, peer)),
            _ => Some(Ends::V6(local, peer)),
        }
    }

    /// Whether a replica of this node is at the other end.
    #[inline(always)]
    fn peer_is_here(self) -> bool {
        match self.ends() {
            Some(Ends::V4(_, peer)) => is_here::<V4>(peer),
            Some(Ends::V6(_, peer)) => is_here::<V6>(peer),
            None => false,
        }
    }

    #[inline(always)]
    fn key(self) -> Option<RttKey> {
        match self.ends()? {
            // From a replica to itself nothing goes over any network; probes come that way.
            Ends::V4(local, peer) if local.0 == peer.0 => None,
            Ends::V6(local, peer) if local.0 == peer.0 => None,
            Ends::V4(local, peer) => Some(key::<V4>(local, peer)),
            Ends::V6(local, peer) => Some(key::<V6>(local, peer)),
        }
    }
}

/// A socket's own address and its peer's.
enum Ends {
    V4(Address4, Address4),
    V6(Address6, Address6),
}

/// # Safety
/// The four words of an address in the hook's context.
#[inline(always)]
unsafe fn words(first: *const u32) -> Address6 {
    // SAFETY: the caller's promise.
    unsafe {
        Address6([
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ])
    }
}

#[inline(always)]
fn key<F: Maps>(local: F::Address, peer: F::Address) -> RttKey {
    let ((local, _), (peer, node)) = (whose::<F>(local), whose::<F>(peer));
    RttKey { local, peer, node }
}

/// Adds a round trip (unless it is zero) and retransmissions to the figures of the socket's pair.
#[inline(always)]
fn note(socket: Socket, rtt_us: u32, retransmits: u32) {
    let Some(key) = socket.key() else { return };
    if RTT.get_ptr_mut(&key).is_none() {
        // Fails if there are too many pairs: they go unmeasured, and the map's fill says so.
        let _ = RTT.insert(&key, &EMPTY, 0);
    }
    let Some(histogram) = RTT.get_ptr_mut(&key) else { return };
    // SAFETY: a pointer to this CPU's value.
    unsafe {
        if rtt_us != 0 {
            let bucket = rtt_bucket(rtt_us);
            if let Some(count) = (*histogram).buckets.get_mut(bucket) {
                *count += 1;
            }
            (*histogram).sum_us += u64::from(rtt_us);
        }
        (*histogram).retransmits += u64::from(retransmits);
    }
}

/// In the object's read-only data: it would take a third of the stack.
static EMPTY: RttHistogram = RttHistogram { buckets: [0; 20], sum_us: 0, retransmits: 0 };
