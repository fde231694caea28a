//! Never attached: the agent runs it, to ask what one end of a connection has sent.

use ambit_common::{
    passed::{self, Closing},
    splice::{JoinRequest, REQUEST_OFFSET},
};
use aya_ebpf::{
    helpers::generated::{bpf_sk_release, bpf_tcp_sock},
    macros::classifier,
    programs::TcContext,
};

use crate::{
    join,
    socket::{TCP_LISTEN, TCP_TIME_WAIT},
    splice,
};

/// 1 if the second end of the request has a socket for it, and then its first eight bytes become
/// [`passed::delivered`].
#[classifier]
pub fn exists(ctx: TcContext) -> i32 {
    let Ok(request) = ctx.load::<JoinRequest>(REQUEST_OFFSET) else {
        return 0;
    };
    let socket = join::find(&ctx, &request.second, &request.first);
    if socket.is_null() {
        return 0;
    }
    // SAFETY: not null; a socket that the look-up returned, released once. What isn't a full one has
    // no TCP part.
    let (state, sent) = unsafe {
        let state = (*socket).state;
        let tcp = bpf_tcp_sock(socket);
        let sent = if tcp.is_null() {
            None
        } else {
            Some(Closing {
                end: request.id as u32,
                state,
                acknowledged: (*tcp).bytes_acked,
                all_acknowledged: (*tcp).snd_una == (*tcp).snd_nxt,
                past_tcp: splice::sent(socket),
            })
        };
        bpf_sk_release(socket.cast());
        (state, sent)
    };
    if state == TCP_LISTEN || state == TCP_TIME_WAIT {
        return 0;
    }
    match sent.map(|sent| ctx.store(REQUEST_OFFSET, &passed::delivered(&sent), 0)) {
        Some(Ok(())) => 1,
        // A connection that is about to be made.
        _ => 2,
    }
}
