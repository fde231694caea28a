//! TC ingress of the host side of a pod's veth: what the pod sends.
//!
//! Who the pod is follows from the interface, never from the packet.

use ambit_common::{
    capture::{self, Listener, Memory, Standing, Verdict},
    counter::Counter,
    map::{
        Address, DIRECTION_OUTBOUND, FlowKey, INTERFACE_ENROLLED, INTERFACE_NO_LINK_HEADER,
        INTERFACE_WAYPOINT, InterfaceValue, NETWORK_KEY_PREFIX, NetworkKey, PortKey, ServiceKey,
        SourceKey,
    },
    mark,
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns, macros::classifier, maps::lpm_trie::Key, programs::TcContext,
};

use crate::{
    deliver::{self, Brought},
    held,
    maps::{
        self, CONFIGURATION, EXCLUDED_NETWORKS, EXCLUDED_PORTS, INTERFACES, PODS, SERVICES, SOURCES,
    },
    packet::{self, Content, Packet, Segment},
    passed, past_veth, socket,
    to_pod::TUNNEL_PORT,
    verdict,
};

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let verdict = match examine(&ctx) {
        Examined::Decided(verdict) => verdict,
        Examined::Held => {
            held::keep(&ctx);
            Verdict::Drop(Counter::DroppedHeld)
        }
        Examined::Opens { is_taken } => open(&ctx, is_taken),
        Examined::OwnAffair => left_alone(&ctx).unwrap_or(Verdict::Pass(Counter::NotEnrolled)),
    };
    verdict::carry_out(&ctx, verdict)
}

/// What a first look says.
enum Examined {
    Decided(Verdict),
    /// A pod that isn't known yet opens a connection, by an interface that gives whole frames.
    Held,
    /// An enrolled pod, or a waypoint's, opens a connection.
    Opens {
        /// The node has a socket with its addresses: the agent had an earlier one.
        is_taken: bool,
    },
    /// A waypoint's, and none that came to the agent.
    OwnAffair,
}

impl From<Verdict> for Examined {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Decided(verdict)
    }
}

#[inline(never)]
fn examine(ctx: &TcContext) -> Examined {
    // SAFETY: the context is the kernel's.
    let (index, packet_mark) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).mark) };
    // The agent writes an interface's entry before it attaches, and removes it after it detached.
    // SAFETY: the map's values are plain data.
    let Some(interface) = (unsafe { INTERFACES.get(index) }) else {
        return Verdict::Drop(Counter::DroppedUnknownPod).into();
    };
    if let Some(listener) = mark::listener(packet_mark) {
        // Turned back by `to_pod` of another pod of this node.
        return deliver::marked(ctx, interface, listener).into();
    }
    let packet = packet::parse(ctx, interface);
    // Most packets of what passes end here. That it was remembered for this interface says that the source
    // address is the interface's.
    if packet.content == Content::Tcp
        && !packet.segment.opens()
        && passed::has_part(interface)
        && let Some(verdict) = passed::bring(ctx, interface, &packet)
    {
        return verdict.into();
    }
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedUnknownPod).into();
    };
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let standing = capture::standing(interface, configuration, now);
    match packet.content {
        Content::NotIp => return Verdict::Pass(Counter::NotIp).into(),
        Content::Malformed => return Verdict::Drop(Counter::DroppedMalformed).into(),
        Content::Tcp | Content::Fragment | Content::Other => {}
    }
    let decided = match standing {
        Standing::Unknown(Verdict::Drop(Counter::DroppedHeld))
            if packet.content == Content::Tcp
                && packet.segment.opens()
                && interface.flags & INTERFACE_NO_LINK_HEADER == 0 =>
        {
            return Examined::Held;
        }
        Standing::Unknown(syn) => Some(unknown(ctx, interface, &packet, syn)),
        Standing::Enrolled => not_for_the_mesh(index, &packet),
        Standing::Waypoint if packet.content == Content::Tcp && is_own_source(index, &packet) => {
            None
        }
        Standing::NotEnrolled | Standing::Waypoint => {
            Some(not_enrolled(ctx, index, interface, &packet))
        }
    };
    match decided {
        Some(verdict) => verdict.into(),
        None => of_mesh(ctx, interface, &packet),
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
        && let Brought::Decided(verdict) = deliver::to_owner(ctx, interface, packet, segment, &flow)
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

/// What an enrolled pod sends, if it isn't TCP from an address of its own.
#[inline(always)]
fn not_for_the_mesh(index: u32, packet: &Packet) -> Option<Verdict> {
    if !is_own_source(index, packet) && !packet::is_link_scope(&packet.source) {
        return Some(Verdict::Drop(Counter::DroppedForgedSource));
    }
    match packet.content {
        Content::Tcp => None,
        Content::Fragment => Some(Verdict::Drop(Counter::DroppedFragment)),
        _ => Some(Verdict::Pass(Counter::NotTcp)),
    }
}

/// TCP from an enrolled pod, or from a waypoint's.
#[inline(always)]
fn of_mesh(ctx: &TcContext, interface: &InterfaceValue, packet: &Packet) -> Examined {
    let segment = &packet.segment;
    let flow = packet.flow_of_sender(segment);
    let is_taken = match deliver::to_owner(ctx, interface, packet, segment, &flow) {
        Brought::Decided(verdict) => return verdict.into(),
        Brought::Taken => true,
        Brought::Free => false,
    };
    if segment.opens() {
        return Examined::Opens { is_taken };
    }
    if interface.flags & INTERFACE_WAYPOINT != 0
        && deliver::memory(&flow, interface.epoch) != Memory::Captured
    {
        return Examined::OwnAffair;
    }
    match going_on(ctx, interface, packet, segment, &flow) {
        Verdict::Capture(listener, counter) => {
            deliver::to_listener(ctx, interface, packet, listener, counter)
        }
        other => other,
    }
    .into()
}

/// The pod opens a connection.
///
/// In steps that are functions of their own, and that read the packet again: the kernel allows the
/// frames of nested calls 512 bytes together, and the keys of all maps in one would need more.
#[inline(always)]
fn open(ctx: &TcContext, is_taken: bool) -> Verdict {
    if let Some(counter) = leave_alone(ctx) {
        passed::forget();
        return left_alone(ctx).unwrap_or(Verdict::Pass(counter));
    }
    if passed::begins(ctx, is_taken) {
        passed::mark(ctx);
        return Verdict::Pass(Counter::PassedNew);
    }
    capture_new(ctx)
}

/// Whether the connection is none of the mesh's. [`passed`] is told which it is.
#[inline(never)]
fn leave_alone(ctx: &TcContext) -> Option<Counter> {
    let (index, interface) = interface_of(ctx)?;
    let packet = packet::parse(ctx, interface);
    let segment = &packet.segment;
    passed::look_at(packet.flow_of_sender(segment));
    if is_excluded_port(index, segment.destination_port, DIRECTION_OUTBOUND) {
        Some(Counter::ExcludedPort)
    } else if is_excluded_network(index, &packet.destination) {
        Some(Counter::ExcludedNetwork)
    } else if !is_mesh(interface, &packet, segment) {
        Some(Counter::NotMesh)
    } else {
        None
    }
}

/// Whether what a pod opens is the mesh's by its destination.
#[inline(always)]
fn is_mesh(interface: &InterfaceValue, packet: &Packet, segment: &Segment) -> bool {
    if interface.flags & INTERFACE_WAYPOINT != 0 {
        // It speaks HBONE itself.
        segment.destination_port != TUNNEL_PORT && is_enrolled_here(&packet.destination)
    } else {
        maps::is_workload(&packet.destination) || is_service(packet, segment)
    }
}

/// Whether an enrolled pod of this node has an address.
#[inline(always)]
fn is_enrolled_here(address: &Address) -> bool {
    // SAFETY: the maps' values are plain data.
    let pod = unsafe { PODS.get(address) }.and_then(|index| unsafe { INTERFACES.get(index) });
    pod.is_some_and(|pod| pod.flags & INTERFACE_ENROLLED != 0)
}

/// What the pod opens past the mesh may be for another pod of the node.
#[inline(never)]
fn left_alone(ctx: &TcContext) -> Option<Verdict> {
    let (_, interface) = interface_of(ctx)?;
    let packet = packet::parse(ctx, interface);
    deliver::turned_back_before(ctx, interface, &packet)
}

/// Brings the connection to the agent, if there is one.
#[inline(never)]
fn capture_new(ctx: &TcContext) -> Verdict {
    let Some((_, interface)) = interface_of(ctx) else {
        return Verdict::Drop(Counter::DroppedUnknownPod);
    };
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    let packet = packet::parse(ctx, interface);
    let agent_listens = socket::has_listener(Listener::Outbound, packet.is_ipv6);
    match capture::new_connection(Listener::Outbound, agent_listens, configuration) {
        Verdict::Capture(listener, counter) => {
            let flow = packet.flow_of_sender(&packet.segment);
            deliver::remember_captured(&flow, interface.epoch);
            deliver::to_listener(ctx, interface, &packet, listener, counter)
        }
        other => other,
    }
}

#[inline(always)]
fn interface_of(ctx: &TcContext) -> Option<(u32, &'static InterfaceValue)> {
    // SAFETY: the context is the kernel's.
    let index = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: the map's values are plain data.
    let interface = unsafe { INTERFACES.get(index) }?;
    Some((index, interface))
}

/// The pod sends on a connection that no socket of the agent owns.
#[inline(always)]
fn going_on(
    ctx: &TcContext,
    interface: &InterfaceValue,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Verdict {
    let Some(configuration) = CONFIGURATION.get(0) else {
        return Verdict::Drop(Counter::DroppedWithoutAgent);
    };
    let memory = deliver::memory(flow, interface.epoch);
    // That an older connection had the same ports says nothing of a new one.
    if memory != Memory::Captured
        && (segment.synchronizes() || segment.resets())
        && let Some(verdict) = past_veth::answers(ctx, interface, segment, flow)
    {
        return verdict;
    }
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

/// Whether the interface's pod excluded a destination from what it opens.
#[inline(always)]
pub fn is_excluded_network(index: u32, address: &Address) -> bool {
    let key = NetworkKey {
        interface: index.to_be_bytes(),
        address: *address,
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
