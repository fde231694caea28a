//! Never attached: the agent runs it, to make both ends of a connection members of the splice: one of its
//! own with an application, or one between two applications.
//!
//! Why not as soon as they are connected, by sockops: a program that connects with a deadline has its
//! socket in non-blocking mode only until it is connected. By the time the application has sent
//! something it shows which mode it uses. And a classifier may look a socket up in a pod's
//! namespace, which is the evidence that the two belong together.

use ambit_common::{
    counter::SpliceCounter,
    mark,
    splice::{End, JoinRequest, OWN_NAMESPACE, PATH_TCP, Place, REQUEST_OFFSET, peer_key},
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_sock},
    helpers::generated::{
        bpf_map_update_elem, bpf_sk_fullsock, bpf_sk_release, bpf_skc_to_tcp_sock, bpf_tcp_sock,
    },
    macros::classifier,
    programs::TcContext,
};

use crate::{
    maps::SPLICE_SOCKETS,
    socket::{self, TCP_ESTABLISHED, Tuple},
    splice::{OFFSETS, count, end_or_new, field, file, is_encrypted, is_nonblocking, waiting},
};

/// How often sockets that are being read from are looked at: for some ten microseconds in all.
const LOOKS: u32 = 100;

#[classifier]
pub fn join(ctx: TcContext) -> i32 {
    let counter = examine(&ctx);
    count(counter);
    counter as i32
}

#[inline(always)]
fn examine(ctx: &TcContext) -> SpliceCounter {
    let Ok(request) = ctx.load::<JoinRequest>(REQUEST_OFFSET) else {
        return SpliceCounter::JoinFailed;
    };
    let first = find(ctx, &request.first, &request.second);
    if first.is_null() {
        return missing(&request.first);
    }
    let second = find(ctx, &request.second, &request.first);
    let counter = if second.is_null() {
        SpliceCounter::NoApplicationSocket
    } else {
        let counter = join_both(ctx, first, second, &request);
        // SAFETY: a socket that the look-up returned, released once.
        unsafe { bpf_sk_release(second.cast()) };
        counter
    };
    // SAFETY: as above.
    unsafe { bpf_sk_release(first.cast()) };
    counter
}

/// The socket of one end. The caller releases it.
#[inline(always)]
pub fn find(ctx: &TcContext, end: &Place, other: &Place) -> *mut bpf_sock {
    let tuple = Tuple {
        source: &other.address,
        destination: &end.address,
        source_port: other.port,
        destination_port: end.port,
    };
    let is_ipv6 = !socket::is_mapped(&end.address);
    socket::find(ctx, &tuple, is_ipv6, namespace_id(end.namespace))
}

#[inline(always)]
fn missing(first: &Place) -> SpliceCounter {
    if first.namespace == OWN_NAMESPACE {
        SpliceCounter::NoAgentSocket
    } else {
        SpliceCounter::NoApplicationSocket
    }
}

/// Both ends are held by the caller.
#[inline(always)]
fn join_both(
    ctx: &TcContext,
    first: *mut bpf_sock,
    second: *mut bpf_sock,
    request: &JoinRequest,
) -> SpliceCounter {
    // SAFETY: not null; the helpers return the same socket or null.
    let (first_tcp, second_tcp) = unsafe {
        (
            bpf_skc_to_tcp_sock(first.cast()) as u64,
            bpf_skc_to_tcp_sock(second.cast()) as u64,
        )
    };
    let is_with_agent = request.first.namespace == OWN_NAMESPACE;
    // SAFETY: not null.
    let (first_state, second_state) = unsafe { ((*first).state, (*second).state) };
    if first_tcp == 0 || first_state != TCP_ESTABLISHED || is_with_agent && !is_agents(first) {
        return missing(&request.first);
    }
    if second_tcp == 0 || second_state != TCP_ESTABLISHED {
        return SpliceCounter::NoApplicationSocket;
    }
    if !is_used(second, second_tcp) {
        return SpliceCounter::Unused;
    }
    let mut first_file = 0;
    if !is_with_agent {
        if !is_used(first, first_tcp) {
            return SpliceCounter::Unused;
        }
        first_file = file(first_tcp);
        if let Some(counter) = refusal(first_file, first_tcp) {
            return counter;
        }
    }
    let second_file = file(second_tcp);
    if let Some(counter) = refusal(second_file, second_tcp) {
        return counter;
    }
    if !await_rest(first_tcp, second_tcp) {
        return SpliceCounter::Reading;
    }
    let (Some(of_first), Some(of_second)) = (end_or_new(first), end_or_new(second)) else {
        return SpliceCounter::JoinFailed;
    };
    // An earlier agent's doing.
    if of_first.peer == second_tcp && of_second.peer == first_tcp {
        return keyed(ctx, of_second.peer_key);
    }
    let key = request.id & !1;
    *of_first = End {
        peer_key: peer_key(key),
        socket: first_tcp,
        peer: second_tcp,
        file: first_file,
        peer_file: second_file,
        sent: 0,
        path: PATH_TCP,
        padding: 0,
    };
    *of_second = End {
        peer_key: key,
        socket: second_tcp,
        peer: first_tcp,
        file: second_file,
        peer_file: first_file,
        ..*of_first
    };
    // One alone stays a member until it closes, and sends through TCP: taken out, it would lose what it
    // has to read.
    if enter(peer_key(key), second) && enter(key, first) {
        keyed(ctx, key)
    } else {
        SpliceCounter::JoinFailed
    }
}

/// They are members, and the agent is told under which key: the first eight bytes of the request.
#[inline(always)]
fn keyed(ctx: &TcContext, key: u64) -> SpliceCounter {
    match ctx.store(REQUEST_OFFSET, &key, 0) {
        Ok(()) => SpliceCounter::Joined,
        Err(_) => SpliceCounter::JoinFailed,
    }
}

/// Whether an application has sent or read something.
#[inline(always)]
fn is_used(socket: *mut bpf_sock, address: u64) -> bool {
    // SAFETY: not null; the helper returns the same socket or null.
    let tcp = unsafe { bpf_tcp_sock(socket) };
    if tcp.is_null() {
        return false;
    }
    // SAFETY: not null.
    let (sent, received, next) =
        unsafe { ((*tcp).data_segs_out, (*tcp).bytes_received, (*tcp).rcv_nxt) };
    let unread = next.wrapping_sub(field(address, &raw const OFFSETS.copied_seq));
    sent > 0 || u64::from(unread) < received
}

/// Waits for a moment in which neither end has read a part of a packet: under load they come between one
/// read and the next.
#[inline(always)]
fn await_rest(first: u64, second: u64) -> bool {
    for _ in 0..LOOKS {
        if is_at_rest(first) && is_at_rest(second) {
            return true;
        }
    }
    false
}

/// Whether the packet to be read next is whole, and nobody is reading it. Should that change before the
/// socket is a member, `sk_skb` mends it; but a large packet costs it as much memory at once.
#[inline(always)]
fn is_at_rest(socket: u64) -> bool {
    let Some(next) = waiting(socket) else {
        return true;
    };
    let unread = field(socket, &raw const OFFSETS.copied_seq);
    field(socket, &raw const OFFSETS.in_call) == 0
        && field(next, &raw const OFFSETS.packet_first) == unread
}

/// Why an application's socket can't be a member, if it can't.
#[inline(always)]
fn refusal(file: u64, socket: u64) -> Option<SpliceCounter> {
    if file == 0 || !is_nonblocking(file) {
        Some(SpliceCounter::Blocking)
    } else if field(socket, &raw const OFFSETS.low_water) > 1 {
        Some(SpliceCounter::LowWater)
    } else if is_encrypted(socket) {
        Some(SpliceCounter::Encrypted)
    } else {
        None
    }
}

/// The mark alone wouldn't say so, but the look-up was in the agent's own namespace.
#[inline(always)]
fn is_agents(socket: *mut bpf_sock) -> bool {
    // SAFETY: not null; the helper returns the same socket or null.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        return false;
    }
    // SAFETY: not null.
    mark::is_agent(unsafe { (*full).mark })
}

#[inline(always)]
fn enter(key: u64, socket: *mut bpf_sock) -> bool {
    // SAFETY: a map of sockets, a key of its size, and a socket that the caller holds.
    let code = unsafe {
        bpf_map_update_elem(
            (&raw const SPLICE_SOCKETS).cast_mut().cast(),
            (&raw const key).cast(),
            socket.cast(),
            BPF_NOEXIST.into(),
        )
    };
    code == 0
}

/// As the look-up takes it: -1 in 32 bits is the namespace of the program's device.
#[inline(always)]
fn namespace_id(id: i32) -> u64 {
    u64::from(id as u32)
}
