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
    maps::SPLICE_SOCKETS,
    splice::{OFFSETS, count, end, field, is_nonblocking, limit},
};

#[sk_msg]
pub fn send(ctx: SkMsgContext) -> u32 {
    // SAFETY: the context is the kernel's.
    let socket = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    let Some(end) = end(socket) else {
        count(SpliceCounter::TcpNoPeer);
        return sk_action::SK_PASS;
    };
    match decide(end, ctx.size()) {
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
fn decide(end: &mut End, size: u32) -> Way {
    if !is_nonblocking(end.file) {
        return Way::Tcp(SpliceCounter::TcpBlocking);
    }
    let caught_up = end.path == PATH_SPLICED
        || field(end.peer, &raw const OFFSETS.copied_seq)
            == field(end.socket, &raw const OFFSETS.write_seq);
    splice::way(Message {
        path: end.path,
        size,
        queued: field(end.peer, &raw const OFFSETS.queued),
        limit: limit(end.peer),
        caught_up,
    })
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
    count(SpliceCounter::Redirected);
    sk_action::SK_PASS
}
