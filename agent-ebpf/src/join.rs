//! Never attached: the agent runs it, to make both ends of one of its connections members of the
//! splice.
//!
//! Why not as soon as they are connected, by sockops: a program that connects with a deadline has its
//! socket in non-blocking mode only until it is connected. By the time the application has sent
//! something it shows which mode it uses. And a classifier may look a socket up in a pod's
//! namespace, which is the evidence that the two belong together.

use ambit_common::{
    counter::SpliceCounter,
    mark,
    splice::{End, JoinRequest, OWN_NAMESPACE, PATH_TCP, REQUEST_OFFSET, peer_key},
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_sock},
    helpers::generated::{
        bpf_map_delete_elem, bpf_map_update_elem, bpf_sk_fullsock, bpf_sk_release,
        bpf_skc_to_tcp_sock,
    },
    macros::classifier,
    programs::TcContext,
};

use crate::{
    maps::SPLICE_SOCKETS,
    socket::{self, TCP_ESTABLISHED, Tuple},
    splice::{count, end_or_new, file, is_nonblocking},
};

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
    let is_ipv6 = !socket::is_mapped(&request.agent);
    let to_agent = Tuple {
        source: &request.application,
        destination: &request.agent,
        source_port: request.application_port,
        destination_port: request.agent_port,
    };
    let agent = socket::find(ctx, &to_agent, is_ipv6, namespace_id(OWN_NAMESPACE));
    if agent.is_null() {
        return SpliceCounter::NoAgentSocket;
    }
    let to_application = Tuple {
        source: &request.agent,
        destination: &request.application,
        source_port: request.agent_port,
        destination_port: request.application_port,
    };
    let namespace = namespace_id(request.namespace);
    let application = socket::find(ctx, &to_application, is_ipv6, namespace);
    let counter = if application.is_null() {
        SpliceCounter::NoApplicationSocket
    } else {
        let counter = join_both(agent, application, request.id & !1);
        // SAFETY: a socket that the look-up returned, released once.
        unsafe { bpf_sk_release(application.cast()) };
        counter
    };
    // SAFETY: as above.
    unsafe { bpf_sk_release(agent.cast()) };
    counter
}

/// Both ends are held by the caller. The agent's key is `key`.
#[inline(always)]
fn join_both(agent: *mut bpf_sock, application: *mut bpf_sock, key: u64) -> SpliceCounter {
    // SAFETY: not null; the helpers return the same socket or null.
    let (agent_tcp, application_tcp) = unsafe {
        (
            bpf_skc_to_tcp_sock(agent.cast()) as u64,
            bpf_skc_to_tcp_sock(application.cast()) as u64,
        )
    };
    if agent_tcp == 0 || !is_agents(agent) {
        return SpliceCounter::NoAgentSocket;
    }
    // SAFETY: not null.
    if application_tcp == 0 || unsafe { (*application).state } != TCP_ESTABLISHED {
        return SpliceCounter::NoApplicationSocket;
    }
    let file = file(application_tcp);
    if file == 0 || !is_nonblocking(file) {
        return SpliceCounter::Blocking;
    }
    let (Some(of_agent), Some(of_application)) = (end_or_new(agent), end_or_new(application))
    else {
        return SpliceCounter::JoinFailed;
    };
    *of_agent = End {
        peer_key: peer_key(key),
        socket: agent_tcp,
        peer: application_tcp,
        file,
        path: PATH_TCP,
        padding: 0,
    };
    *of_application = End {
        peer_key: key,
        socket: application_tcp,
        peer: agent_tcp,
        ..*of_agent
    };
    if !enter(peer_key(key), application) {
        return SpliceCounter::JoinFailed;
    }
    if !enter(key, agent) {
        // Nothing has been redirected to it yet, so it loses nothing.
        leave(peer_key(key));
        return SpliceCounter::JoinFailed;
    }
    SpliceCounter::Joined
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
    let (state, mark) = unsafe { ((*full).state, (*full).mark) };
    state == TCP_ESTABLISHED && mark::is_agent(mark)
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

#[inline(always)]
fn leave(key: u64) {
    // SAFETY: a map of sockets, and a key of its size.
    unsafe {
        bpf_map_delete_elem(
            (&raw const SPLICE_SOCKETS).cast_mut().cast(),
            (&raw const key).cast(),
        )
    };
}

/// As the look-up takes it: -1 in 32 bits is the namespace of the program's device.
#[inline(always)]
pub fn namespace_id(id: i32) -> u64 {
    u64::from(id as u32)
}
