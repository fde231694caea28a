//! sockops of a cgroup: which sockets below it become members of the splice, and until when.

use ambit_common::{
    counter::SpliceCounter,
    map::{Address, FlowKey},
    mark,
    splice::{
        self, Candidate, END_AGENT, END_BLOCKING, END_LISTENER, END_MEMBER, End, EndKey, Mode,
        Owner, PATH_TCP, SpliceSettings,
    },
};
use aya_ebpf::{
    bindings::{
        BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
    },
    helpers::generated::{
        bpf_get_netns_cookie, bpf_map_delete_elem, bpf_skc_to_tcp_sock, bpf_sock_hash_update,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{
    maps::{FLOWS, SPLICE_ADDRESSES, SPLICE_SETTINGS, SPLICE_SOCKETS},
    splice::{OFFSETS, count, end, end_or_new, field, file, is_nonblocking},
};

/// What other programs of the cgroup have answered stays their answer.
const GO_ON: u32 = 1;

const AF_INET: u32 = 2;
const TCP_CLOSE: u32 = 7;

#[sock_ops]
pub fn socket_events(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context is the kernel's.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return GO_ON;
    }
    match ctx.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(socket),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => count(established(&ctx, socket, false)),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => count(established(&ctx, socket, true)),
        BPF_SOCK_OPS_STATE_CB => {
            if let Some(end) = end(socket) {
                if ctx.arg(1) == TCP_CLOSE {
                    forget(end);
                } else {
                    leave_if_blocking(end);
                }
            }
        }
        BPF_SOCK_OPS_RTT_CB => {
            if let Some(end) = end(socket) {
                leave_if_blocking(end);
            }
        }
        _ => {}
    }
    GO_ON
}

/// Remembers a listener in non-blocking mode: what it accepts is taken to be so too, until there
/// is a file to ask.
#[inline(always)]
fn listening(socket: *mut bpf_sock) {
    let address = tcp_socket(socket);
    if address == 0 || !is_nonblocking(file(address)) {
        return;
    }
    if let Some(end) = end_or_new(socket) {
        end.flags = END_LISTENER;
    }
}

/// Decides about a socket that has just been connected.
#[inline(always)]
fn established(ctx: &SockOpsContext, socket: *mut bpf_sock, accepted: bool) -> SpliceCounter {
    let Some(settings) = SPLICE_SETTINGS.get(0) else {
        return SpliceCounter::Off;
    };
    let address = tcp_socket(socket);
    if address == 0 {
        return SpliceCounter::NotCaptured;
    }
    let key = end_key(ctx);
    let owner = match owner(ctx, socket, address, &key, settings, accepted) {
        Ok(owner) => owner,
        Err(counter) => return counter,
    };
    let peer_key = key.peer();
    // SAFETY: the map's values are plain data, written whole.
    let peer = unsafe { SPLICE_ADDRESSES.get(peer_key) }.copied();
    let joined = splice::join(Candidate {
        owner,
        accepted,
        has_peer: peer.is_some(),
    });
    let counter = match joined {
        Ok(counter) => counter,
        Err(counter) => {
            if peer.is_some() {
                // It would pay for a membership that can be of no use.
                dismiss(&peer_key);
            }
            return counter;
        }
    };
    let Some(end) = end_or_new(socket) else {
        return SpliceCounter::JoinFailed;
    };
    end.key = key;
    end.peer_key = peer_key;
    end.socket = address;
    end.peer = peer.unwrap_or(0);
    end.file = 0;
    end.peer_file = 0;
    end.path = PATH_TCP;
    end.flags = END_MEMBER;
    let mut watched = BPF_SOCK_OPS_STATE_CB_FLAG;
    if owner == Owner::Agent {
        end.flags |= END_AGENT;
    } else {
        watched |= BPF_SOCK_OPS_RTT_CB_FLAG;
    }
    match join(ctx, end, watched) {
        Ok(()) => counter,
        Err(()) => {
            end.flags = 0;
            SpliceCounter::JoinFailed
        }
    }
}

/// Makes a socket a member, and has its further events told.
#[inline(always)]
fn join(ctx: &SockOpsContext, end: &mut End, watched: u32) -> Result<(), ()> {
    let flags = ctx.cb_flags() | watched;
    ctx.set_cb_flags(flags as i32).map_err(|_| ())?;
    SPLICE_ADDRESSES
        .insert(end.key, end.socket, 0)
        .map_err(|_| ())?;
    // SAFETY: the context is the kernel's, the map is one of sockets, and the key is of its size.
    let code = unsafe {
        bpf_sock_hash_update(
            ctx.ops,
            (&raw const SPLICE_SOCKETS).cast_mut().cast(),
            (&raw mut end.key).cast(),
            BPF_NOEXIST.into(),
        )
    };
    if code == 0 {
        return Ok(());
    }
    let _ = SPLICE_ADDRESSES.remove(end.key);
    Err(())
}

/// Whose a socket is, by evidence: the agent's by namespace and mark; a connection of the agent's
/// by what the hooks at the pods' interfaces remember.
#[inline(always)]
fn owner(
    ctx: &SockOpsContext,
    socket: *mut bpf_sock,
    address: u64,
    key: &EndKey,
    settings: &SpliceSettings,
    accepted: bool,
) -> Result<Owner, SpliceCounter> {
    // SAFETY: not null.
    let is_marked = mark::is_agent(unsafe { (*socket).mark });
    // SAFETY: the context is the kernel's.
    let in_namespace = unsafe { bpf_get_netns_cookie(ctx.ops.cast()) } == settings.namespace;
    let is_agents = is_marked && in_namespace;
    if in_namespace && settings.test_port != 0 {
        let port = settings.test_port as u16;
        if key.local_port == port || key.remote_port == port {
            return Ok(if is_agents { Owner::Agent } else { Owner::Test });
        }
    }
    if settings.enabled == 0 {
        return Err(SpliceCounter::Off);
    }
    let flow = if is_agents {
        flow_key(key.remote, key.local, key.remote_port, key.local_port)
    } else {
        flow_key(key.local, key.remote, key.local_port, key.remote_port)
    };
    // SAFETY: the map's values are plain data, written whole.
    if unsafe { FLOWS.get(flow) }.is_none() {
        return Err(SpliceCounter::NotCaptured);
    }
    if is_agents {
        return Ok(Owner::Agent);
    }
    let mode = if accepted {
        match end(socket) {
            Some(end) if end.flags & END_LISTENER != 0 => Mode::NonBlocking,
            _ => Mode::BlockingListener,
        }
    } else if is_nonblocking(file(address)) {
        Mode::NonBlocking
    } else {
        Mode::Blocking
    };
    Ok(Owner::Application(mode))
}

#[inline(always)]
fn flow_key(pod: Address, peer: Address, pod_port: u16, peer_port: u16) -> FlowKey {
    FlowKey {
        pod,
        peer,
        pod_port,
        peer_port,
    }
}

/// An application that has put its socket in blocking mode must not stay a member; but bytes that
/// it was redirected and hasn't read would be lost with the membership.
#[inline(always)]
fn leave_if_blocking(end: &mut End) {
    if end.flags & (END_MEMBER | END_AGENT) != END_MEMBER {
        return;
    }
    if end.file == 0 {
        end.file = file(end.socket);
    }
    if end.file == 0 || is_nonblocking(end.file) {
        return;
    }
    end.flags |= END_BLOCKING;
    if field(end.socket, &raw const OFFSETS.queued) == 0 {
        end.flags &= !END_MEMBER;
        dismiss(&end.key);
        count(SpliceCounter::Left);
    }
}

/// Ends a membership. The entry may be gone with its socket, then there is nothing to end.
#[inline(always)]
fn dismiss(key: &EndKey) {
    let _ = SPLICE_ADDRESSES.remove(key);
    // SAFETY: the map is one of sockets, and the key is of its size.
    unsafe {
        bpf_map_delete_elem(
            (&raw const SPLICE_SOCKETS).cast_mut().cast(),
            core::ptr::from_ref(key).cast(),
        )
    };
}

/// A member that is closed. The kernel removes the socket itself from the map, but not before its
/// application has read what it was redirected.
#[inline(always)]
fn forget(end: &mut End) {
    if end.flags & END_MEMBER != 0 {
        let _ = SPLICE_ADDRESSES.remove(end.key);
        end.flags &= !END_MEMBER;
        count(SpliceCounter::Closed);
    }
}

#[inline(always)]
fn tcp_socket(socket: *mut bpf_sock) -> u64 {
    // SAFETY: not null; the helper returns the same socket or null.
    unsafe { bpf_skc_to_tcp_sock(socket.cast()) as u64 }
}

/// The key of a socket in the moment in which it is established: neither end has sent a byte.
#[inline(always)]
fn end_key(ctx: &SockOpsContext) -> EndKey {
    let ops = ctx.ops;
    // SAFETY: the context is the kernel's. Its arrays are read word by word: the verifier refuses
    // arithmetic on a context's address.
    unsafe {
        let (local, remote) = if (*ops).family == AF_INET {
            (mapped((*ops).local_ip4), mapped((*ops).remote_ip4))
        } else {
            (
                [
                    core::ptr::read_volatile(&raw const (*ops).local_ip6[0]),
                    core::ptr::read_volatile(&raw const (*ops).local_ip6[1]),
                    core::ptr::read_volatile(&raw const (*ops).local_ip6[2]),
                    core::ptr::read_volatile(&raw const (*ops).local_ip6[3]),
                ],
                [
                    core::ptr::read_volatile(&raw const (*ops).remote_ip6[0]),
                    core::ptr::read_volatile(&raw const (*ops).remote_ip6[1]),
                    core::ptr::read_volatile(&raw const (*ops).remote_ip6[2]),
                    core::ptr::read_volatile(&raw const (*ops).remote_ip6[3]),
                ],
            )
        };
        EndKey {
            local: bytes(local),
            remote: bytes(remote),
            local_port: (*ops).local_port as u16,
            remote_port: u32::from_be((*ops).remote_port) as u16,
            local_sequence: (*ops).snd_nxt,
            remote_sequence: (*ops).rcv_nxt,
        }
    }
}

/// An IPv4 address in network byte order, mapped to an IPv6 one.
#[inline(always)]
fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> Address {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}
