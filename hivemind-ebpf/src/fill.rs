//! Putting the numbers of pairs on their stack, where one call does it: from user space each would take a call of its own.

use crate::maps::{PAIR_FREE, PAIRS};
use aya_ebpf::{bindings::TC_ACT_OK, helpers::generated::bpf_loop, macros::classifier, programs::TcContext};
use core::ffi::c_void;

/// Fills the stack, which is empty; what has no room on it is left out. Run by the daemon.
#[classifier]
pub fn fill_pairs(_: TcContext) -> i32 {
    let mut last = PAIRS.load().saturating_sub(1);
    // SAFETY: the helper calls back with what it is given here, which outlives the call.
    let done = unsafe { bpf_loop(last, push as *mut c_void, (&raw mut last).cast(), 0) };
    if done < 0 { -1 } else { TC_ACT_OK }
}

/// The lowest comes off first.
extern "C" fn push(index: u32, last: *mut u32) -> i64 {
    // SAFETY: the kernel hands what `fill_pairs` gave it.
    let number = unsafe { *last }.wrapping_sub(index);
    let _ = PAIR_FREE.push(&number, 0);
    0
}
