//! How the daemon's memory is allocated.

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

/// Gives the kernel back what is free between blocks that are in use: what the start took and freed. Takes about a
/// millisecond, in which others wait that allocate.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer, may be called by any thread, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
