//! sk_msg of the splice's members: what one of them sends goes to its peer's queue, or through TCP.
//!
//! It never drops: the kernel keeps that verdict for all that the socket sends later.

use ambit_common::{
    counter::SpliceCounter,
    splice::{self, End, Message, PATH_SPLICED, PATH_TCP, Way},
};
use aya_ebpf::{
    bindings::{BPF_F_INGRESS, sk_action},
    helpers::generated::bpf_msg_redirect_hash,
    macros::sk_msg,
    programs::SkMsgContext,
};

use crate::{
    maps::{SPLICE_SOCKETS, SPLICE_STREAMS},
    splice::{
        OFFSETS, count, end, field, is_encrypted, is_nonblocking, limit, pointer, state, waiting,
    },
};

/// `SK_USER_DATA_PTRMASK` of net/sock.h, the other way round.
const FLAGS_OF_POINTER: u64 = 7;

#[sk_msg]
pub fn send(ctx: SkMsgContext) -> u32 {
    // SAFETY: the context is the kernel's.
    let socket = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    let Some(end) = end(socket) else {
        count(SpliceCounter::TcpNoPeer);
        return sk_action::SK_PASS;
    };
    // SAFETY: not null, or nothing would be kept with it.
    let own_state = unsafe { (*socket).state };
    match decide(end, own_state, ctx.size()) {
        Way::Redirect => redirect(&ctx, end),
        Way::Tcp(counter) => {
            if end.path == PATH_SPLICED {
                end.path = PATH_TCP;
                count(SpliceCounter::SwitchedToTcp);
            }
            count(counter);
            sk_action::SK_PASS
        }
    }
}

#[inline(always)]
fn decide(end: &mut End, own_state: u32, size: u32) -> Way {
    // TCP refuses what is sent after an end or a reset; the kernel would redirect it.
    if !splice::sends(own_state) || !splice::receives(state(end.peer)) {
        return Way::Tcp(SpliceCounter::TcpEnded);
    }
    if is_encrypted(end.socket) || is_encrypted(end.peer) {
        return Way::Tcp(SpliceCounter::TcpEncrypted);
    }
    if !is_nonblocking(end.file) || !is_nonblocking(end.peer_file) {
        return Way::Tcp(SpliceCounter::TcpBlocking);
    }
    let has_arrived = end.path == PATH_SPLICED || has_arrived(end);
    splice::way(Message {
        path: end.path,
        size,
        queued: field(end.peer, &raw const OFFSETS.queued),
        limit: limit(end.peer),
        has_arrived,
    })
}

/// Whether all that went through TCP is in the peer's queue, where what is redirected comes behind it:
/// all is received, and nothing of it waits elsewhere. That can't change before it is redirected, for that
/// is done under the lock under which TCP receives.
#[inline(always)]
fn has_arrived(end: &End) -> bool {
    let queue = pointer(end.peer, &raw const OFFSETS.user_data) & !FLAGS_OF_POINTER;
    field(end.peer, &raw const OFFSETS.rcv_nxt) == field(end.socket, &raw const OFFSETS.write_seq)
        && waiting(end.peer).is_none()
        && field(queue, &raw const OFFSETS.held_up) == 0
        && !is_broken(end.peer)
}

/// Whether something that came to a socket through TCP was not handed over.
#[inline(always)]
fn is_broken(socket: u64) -> bool {
    let cookie = pointer(socket, &raw const OFFSETS.cookie);
    // SAFETY: the map's values are plain data.
    unsafe { SPLICE_STREAMS.get(cookie) }.is_some_and(|stream| stream.broken != 0)
}

#[inline(always)]
fn redirect(ctx: &SkMsgContext, end: &mut End) -> u32 {
    // SAFETY: the context is the kernel's, the map is one of sockets, and the key is of its size.
    let code = unsafe {
        bpf_msg_redirect_hash(
            ctx.msg,
            (&raw const SPLICE_SOCKETS).cast_mut().cast(),
            (&raw mut end.peer_key).cast(),
            BPF_F_INGRESS.into(),
        )
    };
    if code != i64::from(sk_action::SK_PASS) {
        end.path = PATH_TCP;
        count(SpliceCounter::TcpPeerGone);
        return sk_action::SK_PASS;
    }
    if end.path != PATH_SPLICED {
        end.path = PATH_SPLICED;
        count(SpliceCounter::SwitchedToSplice);
    }
    end.sent += u64::from(ctx.size());
    count(SpliceCounter::Redirected);
    sk_action::SK_PASS
}
