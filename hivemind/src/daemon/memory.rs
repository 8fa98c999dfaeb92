//! How the daemon's memory is allocated.

/// Lets all threads allocate from one arena; to be called while there is one thread.
///
/// By default glibc gives each of the first threads, eight to a processor, an arena of its own, which keeps what it once
/// held: 2.5 of the 7 MB that an idle daemon allocates. Threads that allocate all day would wait for one another; ours wait for
/// the kernel, and each has a small cache before the arena besides (mallopt(3), M_ARENA_MAX).
pub(crate) fn use_one_arena() {
    // Other C libraries have no arenas.
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers; there is no other thread yet that could be allocating.
    unsafe {
        // It refuses only settings that it does not know; then everything is as before.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
