//! Connections between pods of this node that pass without the agent.
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what isn't borrowed is copied to the stack, of which there is little"
)]

use ambit_common::{
    capture::Verdict,
    counter::Counter,
    map::{
        Address, FlowKey, INTERFACE_ENROLLED, INTERFACE_HAS_PEER, INTERFACE_KNOWN,
        INTERFACE_WAYPOINT, InterfaceValue, ServiceKey,
    },
    mark,
    passed::{
        self, CLIENT, CLOSED, CONNECTED, Closing, Done, EVENT_CLOSED, EVENT_OPENED, Event, Passed,
        Path, SERVER, VerdictKey,
    },
};
use aya_ebpf::{
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_socket_cookie, bpf_skb_change_type},
    },
    programs::TcContext,
};

use crate::{
    deliver::PACKET_HOST,
    maps::{EVENTS, FLOWS, INTERFACES, PASS_SCRATCH, PASSED, PASSING, PODS, VERDICTS},
    packet::Packet,
    socket, verdict,
};

/// What the decision works with. Not on the stack, of which a hook has 512 bytes together with all
/// that it calls.
#[repr(C)]
pub struct Scratch {
    flow: FlowKey,
    reversed: FlowKey,
    verdict: VerdictKey,
    /// What is learned later than at the SYN stays zero here.
    passed: Passed,
}

/// The connection that [`begins`] or [`forget`] is about.
#[inline(always)]
pub fn look_at(flow: FlowKey) {
    if let Some(scratch) = PASS_SCRATCH.get_ptr_mut(0) {
        // SAFETY: this CPU's own, and no other hook runs on it meanwhile.
        let scratch = unsafe { &mut *scratch };
        scratch.flow = flow;
        scratch.reversed = flow.reversed();
    }
}

/// Whether a connection that a pod opens may pass, by the interface that its SYN came by; then it is
/// remembered at both ends.
///
/// `is_taken`: the agent has accepted an earlier one with the same addresses and ports. The stack would give
/// that socket the packets, and drop them; as it would with a socket by which the agent dialled for it.
#[inline(never)]
pub fn begins(ctx: &TcContext, is_taken: bool) -> bool {
    // SAFETY: the context is the kernel's.
    let index = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: the map's values are plain data.
    let source = unsafe { INTERFACES.get(index) };
    let (Some(scratch), Some(source)) = (PASS_SCRATCH.get_ptr_mut(0), source) else {
        return false;
    };
    // SAFETY: as in `look_at`.
    let scratch = unsafe { &mut *scratch };
    let destination = allowed(scratch, index, source);
    // SAFETY: the map's values are plain data.
    let was_dialled = destination.is_some() && unsafe { FLOWS.get(&scratch.reversed) }.is_some();
    let passes = match destination {
        Some(_) if is_taken || was_dialled && socket::is_nodes(ctx, &scratch.reversed) => false,
        Some(destination) => remember(ctx, scratch, index, source, destination),
        None => false,
    };
    // The same addresses and ports may have been another connection's before. An entry that isn't
    // there can't be removed, and needn't be.
    if passes {
        let _ = FLOWS.remove(&scratch.flow);
        if was_dialled {
            let _ = FLOWS.remove(&scratch.reversed);
        }
    } else {
        let _ = PASSED.remove(&scratch.flow);
        let _ = PASSED.remove(&scratch.reversed);
    }
    passes
}

/// The connection is none of the mesh's, but the same addresses and ports may have been one of it before.
#[inline(never)]
pub fn forget() {
    if let Some(scratch) = PASS_SCRATCH.get_ptr_mut(0) {
        // SAFETY: as in `look_at`.
        let scratch = unsafe { &*scratch };
        // An entry that isn't there can't be removed, and needn't be.
        let _ = FLOWS.remove(&scratch.flow);
        let _ = PASSED.remove(&scratch.flow);
        let _ = PASSED.remove(&scratch.reversed);
    }
}

/// The server's interface, if the agent has allowed connections of the kind.
#[inline(always)]
fn allowed(
    scratch: &mut Scratch,
    index: u32,
    source: &InterfaceValue,
) -> Option<(u32, &'static InterfaceValue)> {
    scratch.verdict.source = source.identity;
    scratch.verdict.port = scratch.flow.peer_port;
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    scratch.passed.since = now;
    server(&mut scratch.verdict, index, &scratch.flow.peer, now)
}

/// The interface of the pod that has an address, if a connection from the pod of interface `index` may
/// pass to it. Of `kind`, source and port are given.
#[inline(always)]
pub fn server(
    kind: &mut VerdictKey,
    index: u32,
    address: &Address,
    now: u64,
) -> Option<(u32, &'static InterfaceValue)> {
    // SAFETY: the maps' values are plain data.
    let pod = *unsafe { PODS.get(address) }?;
    // What a pod sends to itself through a VIP would have its own address as source.
    if pod == index {
        return None;
    }
    // SAFETY: as above.
    let destination = unsafe { INTERFACES.get(pod) }?;
    kind.destination = destination.workload;
    kind.padding = 0;
    // SAFETY: as above.
    let verdict = unsafe { VERDICTS.get(&*kind) };
    let may_pass = destination.flags & INTERFACE_ENROLLED != 0
        && passed::may_pass(PASSING.get(0)?, verdict, now);
    may_pass.then_some((pod, destination))
}

#[inline(always)]
fn remember(
    ctx: &TcContext,
    scratch: &mut Scratch,
    index: u32,
    source: &InterfaceValue,
    (pod, destination): (u32, &InterfaceValue),
) -> bool {
    scratch.passed.socket = 0;
    scratch.passed.epoch = destination.epoch;
    scratch.passed.flags = SERVER;
    scratch.passed.other = index;
    scratch.passed.other_epoch = source.epoch;
    let server = PASSED.insert(&scratch.reversed, &scratch.passed, 0);
    scratch.passed.socket = sender(ctx);
    scratch.passed.epoch = source.epoch;
    scratch.passed.flags = CLIENT;
    scratch.passed.other = pod;
    scratch.passed.other_epoch = destination.epoch;
    let is_remembered = server.is_ok() && PASSED.insert(&scratch.flow, &scratch.passed, 0).is_ok();
    if !is_remembered {
        verdict::count(Counter::FlowTableFailed);
    }
    is_remembered
}

/// Cookie of the socket that a packet still has from its pod; 0 if it has none.
#[inline(always)]
fn sender(ctx: &TcContext) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }
}

/// Whether a connection that has begun passes, as seen by the pod of an interface.
#[inline(always)]
pub fn goes_on(flow: &FlowKey, interface: &InterfaceValue) -> bool {
    remembered(flow, interface).is_some()
}

#[inline(always)]
fn remembered(flow: &FlowKey, interface: &InterfaceValue) -> Option<&'static Passed> {
    // SAFETY: the map's values are plain data, and the fields that are read of this one never change.
    let passed = unsafe { PASSED.get(flow) }?;
    (passed.epoch == interface.epoch).then_some(passed)
}

/// What an interface must be for packets to be put behind it: `to_pod` there would ask the same.
const OPEN: u32 = INTERFACE_KNOWN | INTERFACE_HAS_PEER;
/// And one of these: its pod has a part in what passes.
const IN_MESH: u32 = INTERFACE_ENROLLED | INTERFACE_WAYPOINT;

/// Whether connections of the interface's pod may pass: not if it's known to be outside the mesh.
#[inline(always)]
pub fn has_part(interface: &InterfaceValue) -> bool {
    interface.flags & IN_MESH != 0 || interface.flags & INTERFACE_KNOWN == 0
}

/// Brings a packet of a connection that passes to the other pod; `None` if it doesn't pass.
///
/// A connection is made by way of the node's stack, so that whatever watches there has its say. After
/// that its packets go straight into the other pod's namespace, and the hook on its interface isn't
/// asked: what it would have demanded is demanded here. That the other end has an entry needn't be asked:
/// both are written and removed together.
#[inline(always)]
pub fn bring(ctx: &TcContext, interface: &InterfaceValue, packet: &Packet) -> Option<Verdict> {
    let segment = &packet.segment;
    let flow = packet.flow_of_sender(segment);
    let passed = remembered(&flow, interface)?;
    let other = passed.other;
    // SAFETY: the map's values are plain data.
    let value = unsafe { INTERFACES.get(other) };
    if let Some(value) = value
        && !segment.synchronizes()
        && value.flags & OPEN == OPEN
        && value.flags & IN_MESH != 0
        && value.epoch == passed.other_epoch
    {
        return Some(into_pod(ctx, other));
    }
    if segment.synchronizes() {
        answers(ctx, &flow);
    }
    mark(ctx);
    Some(Verdict::Pass(Counter::Passed))
}

/// The server's pod accepts the connection: its socket will have the cookie that the answer has.
#[inline(never)]
fn answers(ctx: &TcContext, flow: &FlowKey) {
    let socket = sender(ctx);
    if let Some(passed) = PASSED.get_ptr_mut(flow)
        && socket != 0
    {
        // SAFETY: as in `opened`.
        unsafe { (*passed).socket = socket };
    }
}

#[inline(always)]
fn into_pod(ctx: &TcContext, interface: u32) -> Verdict {
    // SAFETY: the context is the kernel's.
    unsafe {
        // A frame that would have been switched is for another host's address.
        if (*ctx.skb.skb).pkt_type != PACKET_HOST
            && bpf_skb_change_type(ctx.skb.skb.cast(), PACKET_HOST) != 0
        {
            return Verdict::Drop(Counter::DroppedRewriteFailed);
        }
    }
    Verdict::IntoPod(interface)
}

/// The hook of the other pod wants to see it.
#[inline(always)]
pub fn mark(ctx: &TcContext) {
    ctx.skb.set_mark(mark::PASSED);
}

/// A socket of that connection is connected. Whether it passes: then its end is to be told as well.
#[inline(always)]
pub fn opened(flow: &FlowKey, socket: u64, service: Option<ServiceKey>) -> bool {
    let Some(passed) = PASSED.get_ptr_mut(flow) else {
        return false;
    };
    // SAFETY: the map's values are plain data. Nobody else writes to this one, but for a new connection with
    // the same addresses and ports; the agent reads it when it is told of it.
    let passed = unsafe { &mut *passed };
    if passed.socket == 0 {
        passed.socket = socket;
    } else if passed.socket != socket {
        return false;
    }
    passed.flags |= CONNECTED;
    if passed.flags & CLIENT != 0 {
        passed.service = service.unwrap_or_default();
        tell_opened(flow, passed);
    }
    true
}

/// Without room for it, the agent finds out by looking.
#[inline(always)]
fn tell_opened(flow: &FlowKey, passed: &Passed) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        verdict::count(Counter::EventLost);
        return;
    };
    entry.write(Event {
        since: passed.since,
        at: passed.since,
        client: Done::default(),
        server: Done::default(),
        flow: *flow,
        kind: EVENT_OPENED,
        service: passed.service,
        padding: 0,
    });
    entry.submit(0);
}

/// A socket of that connection is closed. The flags of `closing` are filled in here.
///
/// Whichever end is the second tells the agent of both, and has the connection forgotten: no packet of it
/// comes any more, but for answers to a TIME_WAIT, which nobody waits for. Should each take itself for
/// the first, or should there be no room to tell it, the agent finds both by looking.
#[inline(always)]
pub fn closed(flow: &FlowKey, socket: u64, closing: Closing, path: Path) {
    let Some(own) = PASSED.get_ptr_mut(flow) else {
        return;
    };
    // SAFETY: as in `opened`; one socket is closed once.
    let own = unsafe { &mut *own };
    if own.socket != socket {
        return;
    }
    let flags = own.flags;
    own.done = Done {
        sent: passed::delivered(&Closing { flags, ..closing }),
        path,
    };
    own.flags = flags | CLOSED;
    let reversed = flow.reversed();
    // SAFETY: the map's values are plain data.
    let Some(other) = (unsafe { PASSED.get(&reversed) }) else {
        return;
    };
    if other.flags & CLOSED == 0 || other.since != own.since {
        return;
    }
    if flags & CLIENT != 0 {
        tell_closed(flow, &reversed, own, other);
    } else {
        tell_closed(&reversed, flow, other, own);
    }
}

#[inline(always)]
fn tell_closed(flow: &FlowKey, reversed: &FlowKey, client: &Passed, server: &Passed) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        verdict::count(Counter::EventLost);
        return;
    };
    entry.write(Event {
        since: client.since,
        // SAFETY: reads the clock.
        at: unsafe { bpf_ktime_get_ns() },
        client: client.done,
        server: server.done,
        flow: *flow,
        kind: EVENT_CLOSED,
        service: client.service,
        padding: 0,
    });
    // If both ends take themselves for the second, one of them removes it.
    if PASSED.remove(flow).is_ok() {
        entry.submit(0);
        let _ = PASSED.remove(reversed);
    } else {
        entry.discard(0);
    }
}
