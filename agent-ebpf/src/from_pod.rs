//! TC ingress of the host side of a pod's veth: what the pod sends.
//!
//! Who the pod is follows from the interface, never from the packet.

use ambit_common::{
    capture::{self, Listener, Memory, Standing, Verdict},
    counter::Counter,
    map::{
        DIRECTION_OUTBOUND, FlowKey, InterfaceValue, NETWORK_KEY_PREFIX, NetworkKey, PortKey,
        ServiceKey, SourceKey,
    },
    mark,
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns, macros::classifier, maps::lpm_trie::Key, programs::TcContext,
};

use crate::{
    deliver,
    maps::{
        self, CONFIGURATION, EXCLUDED_NETWORKS, EXCLUDED_PORTS, FLOWS, INTERFACES, SERVICES,
        SOURCES,
    },
    packet::{self, Content, Packet, Segment},
    socket, verdict,
};

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    verdict::carry_out(&ctx, examine(&ctx))
}

#[inline(never)]
fn examine(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is the kernel's.
    let (index, packet_mark) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).mark) };
    // The agent writes an interface's entry before it attaches, and removes it after it detached.
    // SAFETY: the map's values are plain data.
    let Some(interface) = (unsafe { INTERFACES.get(index) }) else {
        return Verdict::Drop(Counter::DroppedUnknownPod);
    };
    if let Some(listener) = mark::listener(packet_mark) {
        // Turned back by `to_pod` of another pod of this node.
        return deliver::marked(ctx, interface, listener);
    }
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedUnknownPod);
    };
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let standing = capture::standing(interface, configuration, now);
    let packet = packet::parse(ctx, interface);
    match packet.content {
        Content::NotIp => return Verdict::Pass(Counter::NotIp),
        Content::Malformed => return Verdict::Drop(Counter::DroppedMalformed),
        Content::Tcp | Content::Fragment | Content::Other => {}
    }
    match standing {
        Standing::Unknown(syn) => unknown(ctx, interface, &packet, syn),
        Standing::NotEnrolled => not_enrolled(ctx, index, interface, &packet),
        Standing::Enrolled => enrolled(ctx, index, interface, &packet),
    }
}

/// A pod that isn't known yet, or no longer. What it has open with the agent goes on there.
#[inline(always)]
fn unknown(ctx: &TcContext, interface: &InterfaceValue, packet: &Packet, syn: Verdict) -> Verdict {
    if packet.content != Content::Tcp {
        return Verdict::Pass(Counter::NotTcp);
    }
    let segment = &packet.segment;
    let flow = packet.flow_of_sender(segment);
    if !segment.opens()
        && let Some(verdict) = deliver::to_owner(ctx, interface, packet, segment, &flow)
    {
        return verdict;
    }
    capture::unknown(syn, segment.opens(), deliver::was_captured(&flow))
}

/// A pod outside the mesh may send what it likes, but not in the name of a pod inside.
#[inline(always)]
fn not_enrolled(
    ctx: &TcContext,
    index: u32,
    interface: &InterfaceValue,
    packet: &Packet,
) -> Verdict {
    if maps::is_workload(&packet.source) && !is_own_source(index, packet) {
        return Verdict::Drop(Counter::DroppedForgedSource);
    }
    deliver::turned_back_before(ctx, interface, packet)
        .unwrap_or(Verdict::Pass(Counter::NotEnrolled))
}

#[inline(always)]
fn is_own_source(index: u32, packet: &Packet) -> bool {
    let key = SourceKey {
        interface: index,
        address: packet.source,
    };
    // SAFETY: the map's values are plain data.
    unsafe { SOURCES.get(key) }.is_some()
}

#[inline(always)]
fn enrolled(ctx: &TcContext, index: u32, interface: &InterfaceValue, packet: &Packet) -> Verdict {
    if !is_own_source(index, packet) && !packet::is_link_scope(&packet.source) {
        return Verdict::Drop(Counter::DroppedForgedSource);
    }
    match packet.content {
        Content::Tcp => {}
        Content::Fragment => return Verdict::Drop(Counter::DroppedFragment),
        _ => return Verdict::Pass(Counter::NotTcp),
    }
    let segment = &packet.segment;
    let flow = packet.flow_of_sender(segment);
    if let Some(verdict) = deliver::to_owner(ctx, interface, packet, segment, &flow) {
        return verdict;
    }
    let verdict = if segment.opens() {
        opening(index, interface, packet, segment, &flow)
    } else {
        going_on(interface, packet, segment, &flow)
    };
    match verdict {
        Verdict::Capture(listener, counter) => {
            deliver::to_listener(ctx, interface, packet, listener, counter)
        }
        other => other,
    }
}

/// The pod opens a connection.
#[inline(always)]
fn opening(
    index: u32,
    interface: &InterfaceValue,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Verdict {
    let left_alone = if is_excluded_port(index, segment.destination_port, DIRECTION_OUTBOUND) {
        Some(Counter::ExcludedPort)
    } else if is_excluded_network(index, packet) {
        Some(Counter::ExcludedNetwork)
    } else if !maps::is_workload(&packet.destination) && !is_service(packet, segment) {
        Some(Counter::NotMesh)
    } else {
        None
    };
    if let Some(counter) = left_alone {
        // The same ports may have been a captured connection's before. An entry that isn't
        // there can't be removed, and needn't be.
        let _ = FLOWS.remove(flow);
        return Verdict::Pass(counter);
    }
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    let agent_listens = socket::has_listener(Listener::Outbound, packet.is_ipv6);
    let verdict = capture::new_connection(Listener::Outbound, agent_listens, configuration);
    if let Verdict::Capture(..) = verdict {
        deliver::remember_captured(flow, interface.epoch);
    }
    verdict
}

/// The pod sends on a connection that no socket of the agent owns.
#[inline(always)]
fn going_on(
    interface: &InterfaceValue,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Verdict {
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    let memory = deliver::memory(flow, interface.epoch);
    let verdict = capture::unowned(
        memory,
        maps::is_workload(&packet.destination) || is_service(packet, segment),
        socket::has_listener(Listener::Outbound, packet.is_ipv6),
        configuration,
        Listener::Outbound,
    );
    if verdict == Verdict::Pass(Counter::OlderConnection) && memory == Memory::Nothing {
        deliver::remember_older(flow, interface.epoch);
    }
    verdict
}

#[inline(always)]
fn is_service(packet: &Packet, segment: &Segment) -> bool {
    let key = ServiceKey {
        address: packet.destination,
        port: segment.destination_port.into(),
    };
    // SAFETY: the map's values are plain data.
    unsafe { SERVICES.get(key) }.is_some()
}

#[inline(always)]
fn is_excluded_network(index: u32, packet: &Packet) -> bool {
    let key = NetworkKey {
        interface: index.to_be_bytes(),
        address: packet.destination,
    };
    EXCLUDED_NETWORKS
        .get(Key::new(NETWORK_KEY_PREFIX + 128, key))
        .is_some()
}

/// Whether the interface's pod excluded a port in that direction.
#[inline(always)]
pub fn is_excluded_port(index: u32, port: u16, direction: u16) -> bool {
    let key = PortKey {
        interface: index,
        port,
        direction,
    };
    // SAFETY: the map's values are plain data.
    unsafe { EXCLUDED_PORTS.get(key) }.is_some()
}
