//! TC egress of the host side of a pod's veth: what the pod is about to receive.
//!
//! Whatever way a packet took through the node (routed, switched, through kube-proxy's NAT), it
//! ends here. Plaintext for an enrolled pod is turned back to the agent, which decides.

use ambit_common::{
    capture::{self, Listener, Memory, Owner, Standing, Verdict},
    counter::Counter,
    map::{DIRECTION_INBOUND, FlowKey, InterfaceValue},
    mark,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::classifier, programs::TcContext};

use crate::{
    deliver,
    from_pod::is_excluded_port,
    maps::{CONFIGURATION, FLOWS, INTERFACES, NODE_ADDRESSES, WORKLOADS},
    packet::{self, Content, Packet, Segment},
    passed, past_veth, socket, verdict,
};

/// Port of HBONE, fixed by Istio ambient.
pub const TUNNEL_PORT: u16 = 15008;

#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    match examine(&ctx) {
        Verdict::Capture(listener, counter) => deliver::at_egress(&ctx, listener, counter),
        verdict => verdict::carry_out(&ctx, verdict),
    }
}

#[inline(never)]
fn examine(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is the kernel's.
    let index = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: the map's values are plain data.
    let Some(interface) = (unsafe { INTERFACES.get(index) }) else {
        return Verdict::Drop(Counter::DroppedUnknownPod);
    };
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedUnknownPod);
    };
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let standing = capture::standing(interface, configuration, now);
    if let Standing::NotEnrolled | Standing::Waypoint = standing {
        return Verdict::Pass(Counter::NotEnrolled);
    }
    let packet = packet::parse(ctx, interface);
    match packet.content {
        Content::Tcp => {}
        Content::Fragment => return Verdict::Drop(Counter::DroppedFragment),
        Content::Other => return Verdict::Pass(Counter::NotTcp),
        Content::NotIp => return Verdict::Pass(Counter::NotIp),
        Content::Malformed => return Verdict::Drop(Counter::DroppedMalformed),
    }
    let segment = &packet.segment;
    let flow = packet.flow_of_receiver(segment);
    if is_passed(ctx) && standing == Standing::Enrolled && passed::goes_on(flow, interface) {
        return Verdict::Pass(Counter::Passed);
    }
    if let Some(counter) = sent_by_node(ctx) {
        if segment.opens() && standing == Standing::Enrolled {
            if counter == Counter::FromAgent {
                deliver::remember_captured(&flow, interface.epoch);
            } else {
                past_veth::admit(&flow, interface.epoch);
            }
        }
        return Verdict::Pass(counter);
    }
    match standing {
        Standing::Unknown(syn) => {
            capture::unknown(syn, segment.opens(), deliver::was_captured(&flow))
        }
        Standing::NotEnrolled | Standing::Waypoint => Verdict::Pass(Counter::NotEnrolled),
        Standing::Enrolled => match plaintext(ctx, index, interface, &packet, segment, &flow) {
            Verdict::Capture(listener, _) => Verdict::Capture(listener, way_back(&packet)),
            verdict => verdict,
        },
    }
}

/// Whether the hook of another pod of this node has let the packet pass.
#[inline(always)]
fn is_passed(ctx: &TcContext) -> bool {
    // SAFETY: the context is the kernel's.
    mark::is_passed(unsafe { (*ctx.skb.skb).mark })
}

/// How a packet gets back to the agent, and what is counted.
#[inline(always)]
fn way_back(packet: &Packet) -> Counter {
    // SAFETY: the map's values are plain data.
    let is_nodes = unsafe { NODE_ADDRESSES.get(packet.source) }.is_some();
    if is_nodes && !packet.is_ipv6 {
        Counter::DivertedThroughLoopback
    } else {
        Counter::Diverted
    }
}

/// Kernel evidence that the packet comes from a process of this node, not through it: the agent
/// by the mark of its sockets, the kubelet and other processes by the socket that the packet
/// still has. A packet that came in by any device (it has an ingress interface) proves nothing by
/// a socket: a frame that is switched keeps the sending pod's, across namespaces.
#[inline(always)]
fn sent_by_node(ctx: &TcContext) -> Option<Counter> {
    // SAFETY: the context is the kernel's; the socket is only compared with null.
    let (packet_mark, socket, ingress) = unsafe {
        let skb = ctx.skb.skb;
        (
            (*skb).mark,
            (*skb).__bindgen_anon_2.sk,
            (*skb).ingress_ifindex,
        )
    };
    if mark::is_agent(packet_mark) {
        Some(Counter::FromAgent)
    } else if ingress == 0 && !socket.is_null() {
        Some(Counter::NodeProcess)
    } else {
        None
    }
}

/// Who takes what is turned back on its way to a pod.
#[inline(always)]
pub fn listener_for(segment: &Segment) -> Listener {
    if segment.destination_port == TUNNEL_PORT {
        Listener::Tunnel
    } else {
        Listener::Plaintext
    }
}

/// A packet for an enrolled pod that came from outside the agent.
#[inline(always)]
fn plaintext(
    ctx: &TcContext,
    index: u32,
    interface: &InterfaceValue,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Verdict {
    if let Owner::Agent = socket::owner(ctx, packet, segment, flow, interface.epoch) {
        return Verdict::Capture(Listener::Plaintext, Counter::Diverted);
    }
    if segment.opens() {
        return opening(index, interface.epoch, packet, segment, flow);
    }
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    let listener = listener_for(segment);
    let agent_listens = socket::has_listener(listener, packet.is_ipv6);
    // SAFETY: the map's values are plain data.
    let from_mesh =
        unsafe { WORKLOADS.get(packet.source) }.is_some() || configuration.capture_all == 1;
    let memory = deliver::memory(flow, interface.epoch);
    let verdict = capture::unowned(memory, from_mesh, agent_listens, configuration, listener);
    if verdict == Verdict::Pass(Counter::OlderConnection) && memory == Memory::Nothing {
        deliver::remember_older(flow, interface.epoch);
    }
    verdict
}

/// A SYN for an enrolled pod that came from outside the agent.
#[inline(always)]
pub fn opening(
    index: u32,
    epoch: u32,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Verdict {
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    if is_excluded_port(index, segment.destination_port, DIRECTION_INBOUND) {
        // As in `from_pod`: what the same ports were before doesn't matter any more.
        let _ = FLOWS.remove(flow);
        past_veth::admit(flow, epoch);
        return Verdict::Pass(Counter::ExcludedPort);
    }
    let listener = listener_for(segment);
    let agent_listens = socket::has_listener(listener, packet.is_ipv6);
    let verdict = capture::new_connection(listener, agent_listens, configuration);
    match verdict {
        Verdict::Capture(..) => deliver::remember_captured(flow, epoch),
        Verdict::Pass(_) => past_veth::admit(flow, epoch),
        _ => {}
    }
    verdict
}
