//! How the daemon's memory is allocated.

#[cfg(target_env = "gnu")]
use std::time::Duration;

/// Free memory at the top of the heap beyond this goes back to the kernel at once, in bytes.
#[cfg(target_env = "gnu")]
const FREE_AT_TOP_MAX: libc::c_int = 256 << 10;

/// Lets all threads allocate from one arena, and free memory go back to the kernel; to be called while there is one thread.
///
/// By default glibc gives each of the first threads, eight to a processor, an arena of its own, which keeps what it once
/// held: 2.5 of the 7 MB that an idle daemon allocates. Threads that allocate all day would wait for one another; ours wait for
/// the kernel, and each has a small cache before the arena besides (mallopt(3), M_ARENA_MAX).
///
/// By default too, glibc keeps twice as much free memory at the top as the largest block had that was freed so far, for the
/// next such block; what is that large here (an image, a list of connections) comes seldom (M_TRIM_THRESHOLD).
pub(crate) fn set_up() {
    // Other C libraries have no arenas.
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers; there is no other thread yet that could be allocating.
    unsafe {
        // It refuses only settings that it does not know; then everything is as before.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_TOP_MAX);
    }
}

/// How often [`keep_small`] looks.
#[cfg(target_env = "gnu")]
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Free memory between blocks that stays resident without being given back, in bytes.
#[cfg(target_env = "gnu")]
const FREE_RESIDENT_MAX: usize = 2 << 20;

/// Gives memory back whenever much of what is resident is free: an image that came in, ten replicas that started. Does not end.
pub(crate) async fn keep_small() {
    #[cfg(target_env = "gnu")]
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if free_resident_bytes() > FREE_RESIDENT_MAX {
            give_back();
        }
    }
    #[cfg(not(target_env = "gnu"))]
    std::future::pending::<()>().await
}

/// How much memory of the process's own is resident beyond the blocks in use; zero if that cannot be read.
#[cfg(target_env = "gnu")]
fn free_resident_bytes() -> usize {
    // Pages: all of the address space, those that are resident, and those of them that belong to files (proc_pid_statm(5)).
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).map_while(|number| number.parse::<usize>().ok());
    let (Some(resident), Some(of_files)) = (pages.next(), pages.next()) else { return 0 };
    // SAFETY: both take no pointer; mallinfo2 may be called by any thread (mallinfo(3)).
    let (page, blocks) = unsafe { (libc::sysconf(libc::_SC_PAGESIZE), libc::mallinfo2()) };
    let own = resident.saturating_sub(of_files).saturating_mul(usize::try_from(page).unwrap_or(0));
    own.saturating_sub(blocks.uordblks + blocks.hblkhd)
}

/// Gives the kernel back what is free between blocks that are in use: what the start took and freed. Takes about a
/// millisecond, in which others wait that allocate.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer, may be called by any thread, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
