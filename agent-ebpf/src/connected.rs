//! sockops: a socket of this node has established a connection, or closed one.
//!
//! Of connections that pass from pod to pod without the agent, it is told here. If the agent is at
//! the other end, the connection doesn't leave the node, and nothing needs to be paced on it: BBR sends by a timer's leave, some thousand times a second at full speed; on a virtual machine
//! each is an exit and an interrupt. Congestion control without a timer does as well where no link
//! is. The agent does the same with its own end, in `proxy/pacing.rs`.

use ambit_common::{
    counter::{Counter, SpliceCounter},
    map::FlowKey,
    pacing::{self, NAME_LENGTH, WITHOUT_TIMER},
    passed::{Closing, Path},
};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_getsockopt, bpf_setsockopt},
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{connect, maps::FLOWS, packet::addresses, passed, splice, verdict};

/// `IPPROTO_TCP`, as the level of a socket option.
const LEVEL_TCP: i32 = 6;
/// `TCP_CONGESTION` of linux/tcp.h.
const TCP_CONGESTION: i32 = 13;
/// `TCP_NOTSENT_LOWAT` of linux/tcp.h.
const TCP_NOTSENT_LOWAT: i32 = 25;
/// As many bytes as an application may leave unsent in TCP and still be let send: more than the segment that
/// it may hold back (TCP_CORK, Nagle) on the largest links.
const UNSENT: u32 = 32 * 1024;
/// What a sockops program returns if it has nothing to say.
const NO_REPLY: u32 = 1;

#[sock_ops]
pub fn connected(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            let flow = flow(ctx.ops);
            let service = if ctx.op() == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
                connect::connected(socket(ctx.ops), &flow)
            } else {
                None
            };
            // The hook that saw its SYN has written it down, in one place or the other.
            if passed::opened(&flow, cookie(ctx.ops), service) {
                if tell_of(&ctx, BPF_SOCK_OPS_STATE_CB_FLAG | of_members()).is_err() {
                    // Its end is found by the agent, which looks for what is no longer there.
                    verdict::count(Counter::EventLost);
                }
            // SAFETY: the map's values are plain data, written whole.
            } else if unsafe { FLOWS.get(flow) }.is_some() {
                stop_pacing(ctx.ops);
                if tell_of(&ctx, of_members()).is_err() {
                    splice::count(SpliceCounter::SendAllFailed);
                }
            }
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => {
            let ops = ctx.ops;
            // SAFETY: fields of the kernel's context, which may be read at any time.
            let (acknowledged, all_acknowledged, path) = unsafe {
                let path = Path {
                    // The kernel keeps it in eighths.
                    round_trip: (*ops).srtt_us / 8,
                    retransmitted: (*ops).total_retrans,
                };
                ((*ops).bytes_acked, (*ops).snd_una == (*ops).snd_nxt, path)
            };
            let closing = Closing {
                end: 0,
                state: ctx.arg(0),
                acknowledged,
                all_acknowledged,
                past_tcp: splice::sent(socket(ops)),
            };
            passed::closed(&flow(ops), cookie(ops), closing, path);
        }
        BPF_SOCK_OPS_RTT_CB if splice::end(socket(ctx.ops)).is_some() => send_all(&ctx),
        _ => {}
    }
    NO_REPLY
}

/// Has the program be told of more on this socket.
#[inline(always)]
fn tell_of(ctx: &SockOpsContext, flags: u32) -> Result<(), i32> {
    ctx.set_cb_flags((ctx.cb_flags() | flags) as i32)
}

/// Only what may become a member is asked about each round trip.
#[inline(always)]
fn of_members() -> u32 {
    if splice::is_on() {
        BPF_SOCK_OPS_RTT_CB_FLAG
    } else {
        0
    }
}

/// From now on a member's application is woken to send only when TCP has sent nearly all that it was given. So
/// it comes to pass that nothing is on its way through TCP, and what follows can be redirected.
#[inline(always)]
fn send_all(ctx: &SockOpsContext) {
    let mut lowest = UNSENT;
    // SAFETY: reads as many bytes as are said from the stack.
    let code = unsafe {
        bpf_setsockopt(
            ctx.ops.cast(),
            LEVEL_TCP,
            TCP_NOTSENT_LOWAT,
            (&raw mut lowest).cast(),
            size_of::<u32>() as i32,
        )
    };
    // Once is enough.
    let flags = ctx.cb_flags() & !BPF_SOCK_OPS_RTT_CB_FLAG;
    if code != 0 || ctx.set_cb_flags(flags as i32).is_err() {
        splice::count(SpliceCounter::SendAllFailed);
    }
}

#[inline(always)]
fn stop_pacing(socket: *mut bpf_sock_ops) {
    let mut name = [0_u8; NAME_LENGTH];
    // SAFETY: writes at most as many bytes as are said to the stack.
    let code = unsafe {
        bpf_getsockopt(
            socket.cast(),
            LEVEL_TCP,
            TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            NAME_LENGTH as i32,
        )
    };
    if code != 0 {
        verdict::count(Counter::PacingFailed);
        return;
    }
    if !pacing::has_timer(&name) {
        return;
    }
    let mut wanted = WITHOUT_TIMER;
    // SAFETY: reads as many bytes as are said from the stack.
    let code = unsafe {
        bpf_setsockopt(
            socket.cast(),
            LEVEL_TCP,
            TCP_CONGESTION,
            wanted.as_mut_ptr().cast(),
            WITHOUT_TIMER.len() as i32,
        )
    };
    verdict::count(if code == 0 {
        Counter::PacingStopped
    } else {
        Counter::PacingFailed
    });
}

/// Tells the socket from any other of the machine.
#[inline(always)]
fn cookie(context: *mut bpf_sock_ops) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_socket_cookie(context.cast()) }
}

#[inline(always)]
fn socket(context: *const bpf_sock_ops) -> *mut bpf_sock {
    // SAFETY: a field of the kernel's context, which may be read at any time.
    unsafe { (*context).__bindgen_anon_2.sk }
}

/// The connection as the socket's owner sees it, if that is a pod.
#[inline(always)]
fn flow(socket: *const bpf_sock_ops) -> FlowKey {
    let [pod, peer] = addresses!(socket);
    // SAFETY: fields of the kernel's context, which may be read at any time.
    let (local_port, remote_port) = unsafe { ((*socket).local_port, (*socket).remote_port) };
    FlowKey {
        pod,
        peer,
        // In the host's order already.
        pod_port: local_port as u16,
        // The kernel gives the port's two bytes first.
        peer_port: u32::from_be(remote_port) as u16,
    }
}
