//! jemalloc: a request's hundred small blocks come from a cache of the thread's own, where glibc's keeps seven of
//! a size and goes to the heap's lock for the rest.
//!
//! C's `malloc` stays as it is, which cryptography uses for handshakes: what is loaded before a program (`LD_PRELOAD`)
//! may need it while an allocator begins, and jemalloc in its place asks for the time then.
#![expect(
    unsafe_code,
    reason = "jemalloc's options are a symbol of C's; it says why it is sound"
)]

use std::ffi::c_char;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read before `main`. What operators set in `_RJEM_MALLOC_CONF` is read after it, and wins.
///
/// Few arenas: jemalloc makes four for each core, and each keeps pages of its own for every size; threads'
/// caches keep them from waiting for one another here. A second until unused pages go back, where
/// it waits ten.
const OPTIONS: &[u8] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// jemalloc's name for a pointer to its options.
// SAFETY: the symbol has no other definition than jemalloc's weak one, which is of this type: a pointer to
// text that ends with a zero byte, or none.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: Option<&'static c_char> = Some({
    // SAFETY: points to the first of the constant's bytes, which live for ever.
    unsafe { &*OPTIONS.as_ptr().cast() }
});

#[cfg(test)]
mod tests {
    use std::ptr;

    #[test]
    fn the_allocator_has_read_its_options() {
        let mut decay: isize = 0;
        let mut size = size_of_val(&decay);
        // SAFETY: the name ends with a zero byte, and the value is a `ssize_t`, as large as the size says.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                c"opt.dirty_decay_ms".as_ptr(),
                (&raw mut decay).cast(),
                &raw mut size,
                ptr::null_mut(),
                0,
            )
        };
        assert_eq!((code, decay), (0, 1000));
    }
}
