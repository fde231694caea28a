//! Sockets of the agent: found by a packet's addresses or in the map of listeners.
//!
//! The verifier demands that every socket found is released on every path; so each function
//! here looks up, uses and releases in one go, and no socket leaves this module but by
//! [`find`].

use ambit_common::{
    capture::{Listener, Owner},
    map::{Address, FlowKey},
    mark,
};
use aya_ebpf::{
    bindings::{
        bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{
        bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_fullsock, bpf_sk_release, bpf_skc_lookup_tcp,
    },
    programs::TcContext,
};

use crate::{
    maps::{FLOWS, LISTENERS, REOPENED, SOCKET_TUPLE},
    packet::{self, Packet, Segment},
};

/// `BPF_F_CURRENT_NETNS`: the namespace of the device that the hook is on.
const CURRENT_NETNS: u64 = u32::MAX as u64;
/// Bytes of the IPv4 and IPv6 halves of `bpf_sock_tuple`: they tell the helper the family.
const TUPLE_IPV4: u32 = 12;
const TUPLE_IPV6: u32 = 36;

/// A connection that both ends have.
pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_TIME_WAIT: u32 = 6;
pub const TCP_LISTEN: u32 = 10;

/// How handing a packet to a socket went.
pub enum Assigned {
    Done,
    NoSocket,
    /// There is one, but it isn't to have the packet: [`Owner::Other`].
    OtherSocket,
    Failed,
}

/// Whether the packet belongs to a socket of the agent.
#[inline(always)]
pub fn owner(
    ctx: &TcContext,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
    epoch: u32,
) -> Owner {
    let socket = look_up(ctx, packet, segment);
    if socket.is_null() {
        return Owner::Nobody;
    }
    let owner = owner_of(socket, segment, flow, epoch);
    // SAFETY: a socket that the look-up returned, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    owner
}

/// Hands the packet to the socket of the agent that owns it, if one does.
#[inline(always)]
pub fn assign_owner(
    ctx: &TcContext,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
    epoch: u32,
) -> Assigned {
    assign_if(ctx, packet, segment, |socket| {
        owner_of(socket, segment, flow, epoch)
    })
}

/// Hands a packet that bears a capture mark to its socket: the hook that set the mark has
/// already made sure that the connection is the agent's.
#[inline(always)]
pub fn assign_marked(ctx: &TcContext, packet: &Packet, segment: &Segment) -> Assigned {
    assign_if(ctx, packet, segment, |socket| {
        unable(socket, segment).unwrap_or(Owner::Agent)
    })
}

#[inline(always)]
fn assign_if(
    ctx: &TcContext,
    packet: &Packet,
    segment: &Segment,
    owner: impl Fn(*mut bpf_sock) -> Owner,
) -> Assigned {
    let socket = look_up(ctx, packet, segment);
    if socket.is_null() {
        return Assigned::NoSocket;
    }
    let assigned = match owner(socket) {
        Owner::Nobody => Assigned::NoSocket,
        Owner::Other => Assigned::OtherSocket,
        // SAFETY: the context and the socket are both valid until the release below.
        Owner::Agent => match unsafe { bpf_sk_assign(ctx.skb.skb.cast(), socket.cast(), 0) } {
            0 => Assigned::Done,
            _ => Assigned::Failed,
        },
    };
    // SAFETY: a socket that the look-up returned, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    assigned
}

/// Hands the packet to the agent's listener of that role, or has the kernel do so if a connection with
/// the same addresses is in TIME_WAIT.
#[inline(always)]
pub fn assign_listener(ctx: &TcContext, packet: &Packet, listener: Listener) -> Assigned {
    let is_in_time_wait = packet.segment.opens() && is_in_time_wait(ctx, packet);
    let socket = listener_socket(listener, packet.is_ipv6);
    if socket.is_null() {
        return Assigned::NoSocket;
    }
    if is_in_time_wait {
        // SAFETY: a socket that the map returned, released once.
        unsafe { bpf_sk_release(socket.cast()) };
        let flow = packet.flow_of_sender(&packet.segment);
        return match REOPENED.insert(flow, listener.slot(packet.is_ipv6), 0) {
            Ok(()) => Assigned::Done,
            Err(_) => Assigned::Failed,
        };
    }
    // SAFETY: the context and the socket are both valid until the release below.
    let code = unsafe { bpf_sk_assign(ctx.skb.skb.cast(), socket.cast(), 0) };
    // SAFETY: a socket that the map returned, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if code == 0 {
        Assigned::Done
    } else {
        Assigned::Failed
    }
}

#[inline(always)]
fn is_in_time_wait(ctx: &TcContext, packet: &Packet) -> bool {
    let socket = look_up(ctx, packet, &packet.segment);
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null; a socket that the look-up returned, released once.
    unsafe {
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state == TCP_TIME_WAIT
    }
}

/// Whether an agent listens in that role.
#[inline(always)]
pub fn has_listener(listener: Listener, is_ipv6: bool) -> bool {
    let socket = listener_socket(listener, is_ipv6);
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket that the map returned, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

#[inline(always)]
fn listener_socket(listener: Listener, is_ipv6: bool) -> *mut bpf_sock {
    let slot = listener.slot(is_ipv6);
    // SAFETY: a map of sockets and a key of its key size.
    unsafe {
        bpf_map_lookup_elem(
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw const slot).cast(),
        )
        .cast()
    }
}

/// A socket of another process of the node owns nothing here. What isn't a full socket has no
/// mark to tell it by: there the flow's memory does.
#[inline(always)]
fn owner_of(socket: *mut bpf_sock, segment: &Segment, flow: &FlowKey, epoch: u32) -> Owner {
    if let Some(owner) = unable(socket, segment) {
        return owner;
    }
    // SAFETY: not null, checked by every caller; the helper returns the same socket or null.
    let full = unsafe { bpf_sk_fullsock(socket) };
    let is_agents = if full.is_null() {
        // SAFETY: the map's values are plain data, written whole.
        let captured = unsafe { FLOWS.get(flow) };
        captured == Some(&epoch)
    } else {
        // SAFETY: not null.
        mark::is_agent(unsafe { (*full).mark })
    };
    if is_agents {
        Owner::Agent
    } else {
        Owner::Other
    }
}

/// What a socket is that takes no such packet. A listener that matches only by its port takes nothing. A SYN
/// that meets a closed connection's TIME_WAIT begins a new connection, which needs a listener too.
#[inline(always)]
fn unable(socket: *mut bpf_sock, segment: &Segment) -> Option<Owner> {
    // SAFETY: not null, checked by every caller.
    match unsafe { (*socket).state } {
        TCP_LISTEN => Some(Owner::Nobody),
        TCP_TIME_WAIT if segment.opens() => Some(Owner::Other),
        _ => None,
    }
}

#[inline(always)]
fn look_up(ctx: &TcContext, packet: &Packet, segment: &Segment) -> *mut bpf_sock {
    // Not on the stack, of which a hook has 512 bytes.
    let Some(scratch) = SOCKET_TUPLE.get_ptr_mut(0) else {
        return core::ptr::null_mut();
    };
    let addresses = Tuple {
        source: &packet.source,
        destination: &packet.destination,
        source_port: segment.source_port,
        destination_port: segment.destination_port,
    };
    // SAFETY: this CPU's own, and no other hook runs on it meanwhile.
    let tuple = unsafe { &mut *scratch };
    let size = fill(tuple, &addresses, packet.is_ipv6);
    // SAFETY: the context is the kernel's, the tuple is at least `size` bytes.
    unsafe { bpf_skc_lookup_tcp(ctx.skb.skb.cast(), tuple, size, CURRENT_NETNS, 0).cast() }
}

/// Whether the node has a socket for what that end of a connection sends, be it one in TIME_WAIT. A listener
/// that merely matches the port isn't one.
#[inline(always)]
pub fn is_nodes(ctx: &TcContext, sender: &FlowKey) -> bool {
    let tuple = Tuple {
        source: &sender.pod,
        destination: &sender.peer,
        source_port: sender.pod_port,
        destination_port: sender.peer_port,
    };
    let socket = find(ctx, &tuple, !is_mapped(&sender.pod), CURRENT_NETNS);
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null; a socket that the look-up returned, released once.
    unsafe {
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != TCP_LISTEN
    }
}

/// Whether an address is an IPv4 one.
#[inline(always)]
pub fn is_mapped(address: &Address) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// Addresses and ports of a packet, as its receiver gets it.
pub struct Tuple<'a> {
    pub source: &'a Address,
    pub destination: &'a Address,
    pub source_port: u16,
    pub destination_port: u16,
}

/// The socket that a packet would belong to in a namespace, given by its id in that of the program's
/// device. The caller releases it.
#[inline(always)]
pub fn find(ctx: &TcContext, packet: &Tuple<'_>, is_ipv6: bool, namespace: u64) -> *mut bpf_sock {
    // SAFETY: all-zero is a valid value of this plain union.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = fill(&mut tuple, packet, is_ipv6);
    // SAFETY: the context is the kernel's, the tuple is at least `size` bytes.
    unsafe { bpf_skc_lookup_tcp(ctx.skb.skb.cast(), &raw mut tuple, size, namespace, 0).cast() }
}

/// Returns how many bytes of it tell the helper the family.
#[inline(always)]
fn fill(tuple: &mut bpf_sock_tuple, packet: &Tuple<'_>, is_ipv6: bool) -> u32 {
    let (sport, dport) = (packet.source_port.to_be(), packet.destination_port.to_be());
    if is_ipv6 {
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: words(packet.source),
            daddr: words(packet.destination),
            sport,
            dport,
        };
        TUPLE_IPV6
    } else {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: packet::ipv4(packet.source),
            daddr: packet::ipv4(packet.destination),
            sport,
            dport,
        };
        TUPLE_IPV4
    }
}

/// An address as the helper's struct has it: the same bytes, in words.
#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    // SAFETY: both are sixteen plain bytes, and an array of words may be read from any of them.
    unsafe { core::mem::transmute::<Address, [u32; 4]>(*address) }
}
