//! sk_skb of the splice's members: what comes to one of them through TCP.
//!
//! That it is there makes the kernel put what comes through TCP behind what was redirected, in one
//! queue. With two, a read that empties the first returns less than was asked for, and a program with
//! edge-triggered epoll takes that to mean that there is no more: it would wait for a wake-up that
//! never comes.
//!
//! But it hands over whole packets, where TCP's own read looks where in a packet it is: one that was
//! read in part before its socket became a member, or that repeats the end of another one, would be
//! read twice. What isn't new is taken off here.

use ambit_common::{
    counter::SpliceCounter,
    splice::{self, Stream},
};
use aya_ebpf::{
    bindings::sk_action,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_adjust_room, bpf_skc_to_tcp_sock},
    macros::stream_verdict,
    programs::SkBuffContext,
};

use crate::{
    maps::SPLICE_STREAMS,
    splice::{OFFSETS, count, field, is_encrypted},
};

/// How much of a packet's beginning the kernel takes off at once.
const MOST_AT_ONCE: u32 = 0xfff;
/// In so many steps the largest packet that a kernel makes of several: 45 fragments of 32 KiB.
const STEPS: usize = 361;

#[stream_verdict]
pub fn receive(ctx: SkBuffContext) -> u32 {
    // SAFETY: fields of the kernel's context. TCP keeps a packet's place in its stream in the first
    // word that is there for programs.
    let (socket, length, first) = unsafe {
        let packet = ctx.skb.skb;
        (
            (*packet).__bindgen_anon_2.sk,
            (*packet).len,
            (*packet).cb[0],
        )
    };
    if socket.is_null() {
        return sk_action::SK_PASS;
    }
    // SAFETY: not null; the helper returns the same socket or null.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() || is_encrypted(tcp as u64) {
        return sk_action::SK_PASS;
    }
    let unread = field(tcp as u64, &raw const OFFSETS.copied_seq);
    // SAFETY: the context is the kernel's.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    let known = match SPLICE_STREAMS.get_ptr_mut(cookie) {
        Some(stream) => {
            // SAFETY: a value of the map, which this socket's packets alone change, one at a time.
            let stream = unsafe { &mut *stream };
            let known = splice::known(first, length, splice::later(stream.next, unread));
            stream.next = first.wrapping_add(length);
            if stream.broken != 0 {
                return sk_action::SK_DROP;
            }
            known
        }
        None => {
            let stream = Stream {
                next: first.wrapping_add(length),
                broken: 0,
            };
            if SPLICE_STREAMS.insert(cookie, stream, 0).is_err() {
                // Of the next one it's known how far the application has read: nearly as good.
                count(SpliceCounter::StreamNotKept);
            }
            splice::known(first, length, unread)
        }
    };
    hand_over(&ctx, cookie, length, known)
}

#[inline(always)]
fn hand_over(ctx: &SkBuffContext, cookie: u64, length: u32, known: u32) -> u32 {
    if !take_off(ctx, known) {
        // From here on nothing more is handed over: an end is better than bytes twice.
        count(SpliceCounter::TakeOffFailed);
        if let Some(stream) = SPLICE_STREAMS.get_ptr_mut(cookie) {
            // SAFETY: as in `receive`.
            unsafe { (*stream).broken = 1 };
        }
        return sk_action::SK_DROP;
    }
    if known > 0 && known == length {
        // Nothing is left of it, and an empty one would stay in the queue.
        sk_action::SK_DROP
    } else {
        sk_action::SK_PASS
    }
}

#[inline(always)]
fn take_off(ctx: &SkBuffContext, bytes: u32) -> bool {
    let mut left = bytes;
    for _ in 0..STEPS {
        if left == 0 {
            break;
        }
        let now = if left < MOST_AT_ONCE {
            left
        } else {
            MOST_AT_ONCE
        };
        // SAFETY: the context is the kernel's.
        if unsafe { bpf_skb_adjust_room(ctx.skb.skb, -(now as i32), 0, 0) } != 0 {
            break;
        }
        left -= now;
    }
    left == 0
}
