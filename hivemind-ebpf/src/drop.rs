//! Dropping with a reason.

use crate::maps::DROP_COUNTERS;
use aya_ebpf::bindings::TC_ACT_SHOT;
use hivemind_common::drop_reason::DropReason;

/// Counts the drop and returns the verdict for it.
#[inline(always)]
pub(crate) fn drop(reason: DropReason) -> i32 {
    if let Some(count) = DROP_COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: a pointer to this CPU's slot; programs on one CPU do not preempt one another within it.
        unsafe { *count += 1 };
    }
    TC_ACT_SHOT
}
