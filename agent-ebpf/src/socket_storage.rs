//! Maps that keep a value with each socket, for as long as the socket lives.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
};

/// Described by types, as BTF maps are. aya's own type can't be used in all programs that need one.
#[repr(C)]
pub struct SocketStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
    /// `LIBBPF_PIN_BY_NAME`.
    pinning: *const [i32; 1],
}

// SAFETY: a description for the loader; nothing is ever read from it.
unsafe impl<T> Sync for SocketStorage<T> {}

impl<T> SocketStorage<T> {
    pub const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
            pinning: core::ptr::null(),
        }
    }
}

/// What a map keeps with a socket, if anything; nothing is kept with null.
#[inline(always)]
pub fn get<T>(map: *const SocketStorage<T>, socket: *mut bpf_sock) -> Option<&'static mut T> {
    if socket.is_null() {
        return None;
    }
    look_up(map, socket, 0)
}

/// The same, all zero if it is new; `None` if there is no memory.
#[inline(always)]
pub fn get_or_new<T>(
    map: *const SocketStorage<T>,
    socket: *mut bpf_sock,
) -> Option<&'static mut T> {
    look_up(map, socket, BPF_SK_STORAGE_GET_F_CREATE.into())
}

#[inline(always)]
fn look_up<T>(
    map: *const SocketStorage<T>,
    socket: *mut bpf_sock,
    flags: u64,
) -> Option<&'static mut T> {
    // SAFETY: the map is one of this type, and the socket is held by the caller. A value is written by
    // the programs that its socket runs, one at a time, and where it joins the splice.
    unsafe {
        bpf_sk_storage_get(
            map.cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            flags,
        )
        .cast::<T>()
        .as_mut()
    }
}
