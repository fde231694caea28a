//! Bringing a packet to the agent, once it's decided that it goes there.

use ambit_common::{
    capture::{Listener, Memory, Owner, Verdict},
    counter::Counter,
    map::{FlowKey, INTERFACE_BRIDGE_PORT, InterfaceValue},
    mark,
};
use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::generated::{bpf_redirect, bpf_skb_change_type, bpf_skb_store_bytes},
    programs::TcContext,
};

use crate::{
    maps::{self, FLOWS, INTERFACES, OLDER},
    packet::{self, Content, Packet, Segment},
    past_veth,
    socket::{self, Assigned},
    to_pod, verdict,
};

/// `PACKET_HOST` of linux/if_packet.h: for this host.
pub const PACKET_HOST: u32 = 0;
/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

/// What becomes of a packet that a socket of the agent may own.
pub enum Brought {
    Decided(Verdict),
    /// The node has no socket with its addresses.
    Free,
    /// It has one that isn't to have the packet.
    Taken,
}

/// Delivers at ingress to the socket of the agent that owns the connection, if one does.
#[inline(always)]
pub fn to_owner(
    ctx: &TcContext,
    interface: &InterfaceValue,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Brought {
    if is_bridge_port(interface) {
        return match socket::owner(ctx, packet, segment, flow, interface.epoch) {
            Owner::Agent => Brought::Decided(to_bridge(ctx, interface, Listener::Outbound)),
            Owner::Other => Brought::Taken,
            Owner::Nobody => Brought::Free,
        };
    }
    match socket::assign_owner(ctx, packet, segment, flow, interface.epoch) {
        Assigned::Done => {
            Brought::Decided(to_host(ctx, Listener::Outbound, Counter::CapturedSocket))
        }
        Assigned::OtherSocket => Brought::Taken,
        Assigned::NoSocket => Brought::Free,
        Assigned::Failed => Brought::Decided(Verdict::Drop(Counter::DroppedAssignFailed)),
    }
}

/// Delivers at ingress a packet of a connection that `to_pod` has turned back before; `None` if
/// it is of no such connection, or nobody takes it.
///
/// It must not get as far as `to_pod` again: on its way there the stack finds the agent's socket
/// by the packet's addresses (early demux), and drops what has a socket and is to be forwarded.
#[inline(always)]
pub fn turned_back_before(
    ctx: &TcContext,
    interface: &InterfaceValue,
    packet: &Packet,
) -> Option<Verdict> {
    // What is switched doesn't meet early demux before `to_pod`.
    if packet.content != Content::Tcp || is_bridge_port(interface) {
        return None;
    }
    // A pod that has left the mesh answers for itself. Most packets are for no pod of the mesh, and
    // end here.
    if !maps::is_workload(&packet.destination) {
        return None;
    }
    let segment = &packet.segment;
    let flow = packet.flow_of_receiver(segment);
    // SAFETY: the map's values are plain data, written whole.
    let Some(epoch) = (unsafe { FLOWS.get(flow) }).copied() else {
        return if segment.opens() {
            past_veth::arrives(ctx, packet, segment, &flow)
        } else {
            None
        };
    };
    let listener = to_pod::listener_for(segment);
    let (assigned, counter) = if segment.opens() {
        // Early demux finds the TIME_WAIT of an earlier connection with these addresses as well.
        (
            socket::assign_listener(ctx, packet, listener),
            Counter::CapturedNew,
        )
    } else {
        (
            socket::assign_owner(ctx, packet, segment, &flow, epoch),
            Counter::CapturedSocket,
        )
    };
    match assigned {
        Assigned::Done => Some(to_host(ctx, listener, counter)),
        Assigned::NoSocket | Assigned::OtherSocket => None,
        Assigned::Failed => Some(Verdict::Drop(Counter::DroppedAssignFailed)),
    }
}

/// Delivers at ingress to a listener.
#[inline(always)]
pub fn to_listener(
    ctx: &TcContext,
    interface: &InterfaceValue,
    packet: &Packet,
    listener: Listener,
    counter: Counter,
) -> Verdict {
    if is_bridge_port(interface) {
        return to_bridge(ctx, interface, listener);
    }
    assign(ctx, packet, listener, counter)
}

/// Delivers a new connection to a listener, at a device that is no bridge's port.
#[inline(always)]
pub fn to_listener_of_host(ctx: &TcContext, packet: &Packet, listener: Listener) -> Verdict {
    assign(ctx, packet, listener, Counter::CapturedNew)
}

#[inline(always)]
fn assign(ctx: &TcContext, packet: &Packet, listener: Listener, counter: Counter) -> Verdict {
    match socket::assign_listener(ctx, packet, listener) {
        Assigned::Done => to_host(ctx, listener, counter),
        Assigned::NoSocket | Assigned::OtherSocket => Verdict::Drop(Counter::DroppedWithoutAgent),
        Assigned::Failed => Verdict::Drop(Counter::DroppedAssignFailed),
    }
}

/// Delivers a packet that a hook of this node has decided to capture and marked.
#[inline(always)]
pub fn marked(ctx: &TcContext, interface: &InterfaceValue, listener: Listener) -> Verdict {
    if is_bridge_port(interface) {
        return to_bridge(ctx, interface, listener);
    }
    let packet = packet::parse(ctx, interface);
    if packet.content != Content::Tcp {
        return Verdict::Drop(Counter::DroppedMalformed);
    }
    let segment = &packet.segment;
    match socket::assign_marked(ctx, &packet, segment) {
        Assigned::Done => to_host(ctx, listener, Counter::CapturedSocket),
        Assigned::NoSocket | Assigned::OtherSocket => {
            let counter = if segment.opens() {
                Counter::CapturedNew
            } else {
                Counter::CapturedOrphan
            };
            to_listener(ctx, interface, &packet, listener, counter)
        }
        Assigned::Failed => Verdict::Drop(Counter::DroppedAssignFailed),
    }
}

#[inline(always)]
fn is_bridge_port(interface: &InterfaceValue) -> bool {
    interface.flags & INTERFACE_BRIDGE_PORT != 0
}

/// Marks a packet whose socket is assigned, so that routing delivers it on this node.
#[inline(always)]
fn to_host(ctx: &TcContext, listener: Listener, counter: Counter) -> Verdict {
    // SAFETY: the context is the kernel's.
    unsafe {
        // A diverted frame still bears the pod's MAC address: without this the stack would
        // take it for another host's.
        if (*ctx.skb.skb).pkt_type != PACKET_HOST
            && bpf_skb_change_type(ctx.skb.skb.cast(), PACKET_HOST) != 0
        {
            return Verdict::Drop(Counter::DroppedRewriteFailed);
        }
    }
    ctx.skb.set_mark(mark::for_listener(listener));
    Verdict::Capture(listener, counter)
}

/// Sends a frame up to the bridge device by giving it the bridge's own MAC address.
///
/// On a bridge port a socket assigned at once would be lost on the way through the bridge; the
/// mark makes `from_node` on the bridge device assign it.
#[inline(always)]
fn to_bridge(ctx: &TcContext, interface: &InterfaceValue, listener: Listener) -> Verdict {
    let mac = interface.bridge_mac;
    // SAFETY: writes six bytes at the start of the frame from six bytes on the stack.
    let code = unsafe { bpf_skb_store_bytes(ctx.skb.skb.cast(), 0, mac.as_ptr().cast(), 6, 0) };
    if code != 0 {
        return Verdict::Drop(Counter::DroppedRewriteFailed);
    }
    ctx.skb.set_mark(mark::for_listener(listener));
    Verdict::Capture(listener, Counter::SentToBridge)
}

/// Turns a packet back at egress: it comes in once more, marked, by the device it came from, and
/// the program there delivers it. That device must carry a program of ours, or the packet would
/// meet whatever listens on the node.
///
/// What bears an IPv4 address of the node as source (a masquerade made it so) would be refused at
/// any device but loopback: no such packet may come from outside.
#[inline(always)]
pub fn at_egress(ctx: &TcContext, listener: Listener, counter: Counter) -> i32 {
    let ingress = match counter {
        Counter::DivertedThroughLoopback => LOOPBACK,
        // SAFETY: the context is the kernel's.
        _ => unsafe { (*ctx.skb.skb).ingress_ifindex },
    };
    // SAFETY: the map's values are plain data.
    if unsafe { INTERFACES.get(ingress) }.is_none() {
        return verdict::carry_out(ctx, Verdict::Drop(Counter::DroppedNoHookOnIngress));
    }
    ctx.skb.set_mark(mark::for_listener(listener));
    verdict::count(counter);
    // SAFETY: no pointers; the action it returns is the program's own.
    unsafe { bpf_redirect(ingress, BPF_F_INGRESS.into()) as i32 }
}

/// Remembers that the agent owns the connection.
#[inline(always)]
pub fn remember_captured(flow: &FlowKey, epoch: u32) {
    if FLOWS.insert(flow, epoch, 0).is_err() {
        verdict::count(Counter::FlowTableFailed);
    }
}

/// Remembers that the connection is older than the enrolment.
#[inline(always)]
pub fn remember_older(flow: &FlowKey, epoch: u32) {
    if OLDER.insert(flow, epoch, 0).is_err() {
        verdict::count(Counter::FlowTableFailed);
    }
}

/// What the maps of connections say.
#[inline(always)]
pub fn memory(flow: &FlowKey, epoch: u32) -> Memory {
    // SAFETY: the maps' values are plain data, written whole.
    unsafe { Memory::new(FLOWS.get(flow), OLDER.get(flow), epoch) }
}

/// Whether the agent had the connection, under whatever enrolment.
#[inline(always)]
pub fn was_captured(flow: &FlowKey) -> bool {
    // SAFETY: the map's values are plain data, written whole.
    unsafe { FLOWS.get(flow) }.is_some()
}
