//! Waiting until every program that runs now has ended: what was taken out of reach before can then be removed.

use std::{thread, time::Duration};

/// `MEMBARRIER_CMD_GLOBAL` of <linux/membarrier.h>.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Far longer than any program runs.
const LONG: Duration = Duration::from_secs(1);

/// Waits for an RCU grace period, under which programs run: some milliseconds. membarrier(2) with the global command is
/// one; a kernel with full dynticks does not offer it, and there it is a second by the clock.
pub(crate) fn wait() {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        thread::sleep(LONG);
    }
}
