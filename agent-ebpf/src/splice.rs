//! What the programs of the splice share: what is kept with a socket, and the kernel's own fields.

use ambit_common::{
    counter::SpliceCounter,
    splice::{self, End, Offsets},
};
use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_probe_read_kernel, macros::btf_map};

use crate::{
    maps::{SPLICE_COUNTERS, SPLICE_SETTINGS},
    socket_storage::{self, SocketStorage},
};

/// Set by the loader to what the running kernel's BTF says, before the programs are loaded.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    queued: 0,
    rcvbuf: 0,
    sk_socket: 0,
    file: 0,
    file_flags: 0,
    copied_seq: 0,
    write_seq: 0,
    low_water: 0,
    receive_queue: 0,
    packet_first: 0,
    in_call: 0,
    rcv_nxt: 0,
    user_data: 0,
    held_up: 0,
    state: 0,
    cookie: 0,
    upper_protocol: 0,
};

/// `O_NONBLOCK`.
const O_NONBLOCK: u32 = 0o4000;

#[btf_map]
pub static SPLICE_ENDS: SocketStorage<End> = SocketStorage::new();

/// What is kept with a socket, if anything is.
#[inline(always)]
pub fn end(socket: *mut bpf_sock) -> Option<&'static mut End> {
    socket_storage::get(&raw const SPLICE_ENDS, socket)
}

/// How many bytes a socket has sent past TCP.
#[inline(always)]
pub fn sent(socket: *mut bpf_sock) -> u64 {
    end(socket).map_or(0, |end| end.sent)
}

/// What is kept with a socket, all zero if it is new; `None` if there is no memory.
#[inline(always)]
pub fn end_or_new(socket: *mut bpf_sock) -> Option<&'static mut End> {
    socket_storage::get_or_new(&raw const SPLICE_ENDS, socket)
}

/// A field of one of the kernel's structs, by its place in [`OFFSETS`]; 0 if it can't be read.
#[inline(always)]
pub fn field(address: u64, offset: *const u32) -> u32 {
    let mut value = 0_u32;
    // SAFETY: writes four bytes to the stack; the helper checks the source.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 4, place(address, offset)) };
    value
}

/// The same of a field that is a pointer.
#[inline(always)]
pub fn pointer(address: u64, offset: *const u32) -> u64 {
    let mut value = 0_u64;
    // SAFETY: writes eight bytes to the stack; the helper checks the source.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, place(address, offset)) };
    value
}

#[inline(always)]
fn place(address: u64, place: *const u32) -> *const core::ffi::c_void {
    (address + u64::from(offset(place))) as *const _
}

/// The verifier knows it as a constant.
#[inline(always)]
fn offset(offset: *const u32) -> u32 {
    // SAFETY: a field of a static; volatile, since the loader changes it behind the compiler's back.
    unsafe { core::ptr::read_volatile(offset) }
}

/// The first packet that waits at a socket in TCP's own queue.
#[inline(always)]
pub fn waiting(socket: u64) -> Option<u64> {
    let first = pointer(socket, &raw const OFFSETS.receive_queue);
    // An empty queue's first is the queue.
    let queue = socket + u64::from(offset(&raw const OFFSETS.receive_queue));
    (first != queue).then_some(first)
}

/// The state of a socket.
#[inline(always)]
pub fn state(socket: u64) -> u32 {
    field(socket, &raw const OFFSETS.state) & 0xff
}

/// Whether the kernel encrypts what an application sends, or decrypts what it reads.
#[inline(always)]
pub fn is_encrypted(socket: u64) -> bool {
    pointer(socket, &raw const OFFSETS.upper_protocol) != 0
}

/// Whether the programs may read the kernel's structs: only then are there members.
#[inline(always)]
pub fn is_on() -> bool {
    offset(&raw const OFFSETS.write_seq) != 0
}

/// How many bytes may wait unread at a socket.
#[inline(always)]
pub fn limit(address: u64) -> u32 {
    let wanted = SPLICE_SETTINGS.get(0).map_or(0, |settings| settings.limit);
    splice::limit(wanted, field(address, &raw const OFFSETS.rcvbuf))
}

/// The open file of a socket; 0 before it is accepted.
#[inline(always)]
pub fn file(socket: u64) -> u64 {
    match pointer(socket, &raw const OFFSETS.sk_socket) {
        0 => 0,
        inode => pointer(inode, &raw const OFFSETS.file),
    }
}

/// Whether an open file is in non-blocking mode; the agent's own are.
#[inline(always)]
pub fn is_nonblocking(file: u64) -> bool {
    file == 0 || field(file, &raw const OFFSETS.file_flags) & O_NONBLOCK != 0
}

/// Counts one event.
#[inline(always)]
pub fn count(counter: SpliceCounter) {
    if let Some(value) = SPLICE_COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own slot. These programs may interrupt each other on their CPU, and
        // one's count be lost then: the target has no atomic addition in Rust.
        unsafe { *value += 1 };
    }
}
