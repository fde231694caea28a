//! The allocator's memory.
#![expect(
    unsafe_code,
    reason = "malloc_trim and mallopt have no safe binding; both are safe to call at any time"
)]

/// Gives back to the system what was needed only to start: reading manifests, loading programs.
/// The allocator would keep it for later, more than a megabyte on an idle node.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and locks each arena by itself.
    unsafe {
        // Returns whether anything was released, which changes nothing here.
        let _ = libc::malloc_trim(0);
    }
}

/// Makes the allocator return free memory at the top of its heap sooner than by its own rule,
/// which grows with the largest block that was ever freed.
pub(super) fn keep_little() {
    /// Bytes that may stay: as many as a busy connection's two buffers.
    const KEPT: i32 = 512 * 1024;
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers.
    unsafe {
        // A refusal leaves the allocator's own rule in force.
        let _ = libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
