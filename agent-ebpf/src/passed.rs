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
        PassedEnd, Path, SERVER, VerdictKey,
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
    /// As the client sees it.
    flow: FlowKey,
    reversed: FlowKey,
    verdict: VerdictKey,
    /// What is learned later than at the SYN stays zero here.
    passed: Passed,
}

impl Scratch {
    /// The connection's key in `PASSED`.
    #[inline(always)]
    fn key(&self) -> &FlowKey {
        if self.passed.is_servers == 1 {
            &self.reversed
        } else {
            &self.flow
        }
    }
}

/// The connection that [`begins`] or [`forget`] is about.
#[inline(always)]
pub fn look_at(flow: FlowKey) {
    if let Some(scratch) = PASS_SCRATCH.get_ptr_mut(0) {
        // SAFETY: this CPU's own, and no other hook runs on it meanwhile.
        let scratch = unsafe { &mut *scratch };
        scratch.flow = flow;
        scratch.reversed = flow.reversed();
        scratch.passed.is_servers = (!flow.is_in_order()).into();
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
        let _ = PASSED.remove(scratch.key());
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
        let _ = PASSED.remove(scratch.key());
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
    let passed = &mut scratch.passed;
    passed.client.socket = sender(ctx);
    passed.client.interface = index;
    passed.client.epoch = source.epoch;
    passed.server.interface = pod;
    passed.server.epoch = destination.epoch;
    let is_remembered = PASSED.insert(scratch.key(), &scratch.passed, 0).is_ok();
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
pub fn goes_on(mut flow: FlowKey, interface: &InterfaceValue) -> bool {
    other_end(&mut flow, interface).is_some()
}

/// What is remembered of the other end of a connection, as the pod of an interface sees it. Puts it in order.
#[inline(always)]
fn other_end(flow: &mut FlowKey, interface: &InterfaceValue) -> Option<&'static PassedEnd> {
    let is_second = flow.put_in_order();
    // SAFETY: the map's values are plain data, and the fields that are read of this one never change.
    let passed = unsafe { PASSED.get(&*flow) }?;
    let (own, other) = if passed.is_clients(is_second) {
        (&passed.client, &passed.server)
    } else {
        (&passed.server, &passed.client)
    };
    (own.epoch == interface.epoch).then_some(other)
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
/// A connection's SYN goes by way of the node's stack, so that whatever watches there has its say. After
/// that its packets go straight into the other pod's namespace, and the hook on its interface isn't
/// asked: what it would have demanded is demanded here.
#[inline(always)]
pub fn bring(ctx: &TcContext, interface: &InterfaceValue, packet: &Packet) -> Option<Verdict> {
    let segment = &packet.segment;
    let mut flow = packet.flow_of_sender(segment);
    let other = other_end(&mut flow, interface)?;
    if segment.synchronizes() {
        answers(ctx, &flow);
    }
    // SAFETY: the map's values are plain data.
    let value = unsafe { INTERFACES.get(other.interface) };
    if let Some(value) = value
        && value.flags & OPEN == OPEN
        && value.flags & IN_MESH != 0
        && value.epoch == other.epoch
    {
        return Some(into_pod(ctx, other.interface));
    }
    mark(ctx);
    Some(Verdict::Pass(Counter::Passed))
}

/// The server's pod accepts the connection: its socket will have the cookie that the answer has. A client may send
/// what looks like one.
#[inline(never)]
fn answers(ctx: &TcContext, key: &FlowKey) {
    let socket = sender(ctx);
    // SAFETY: the context is the kernel's.
    let index = unsafe { (*ctx.skb.skb).ifindex };
    let Some(passed) = PASSED.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: as in `opened`.
    let server = unsafe { &mut (*passed).server };
    if server.interface == index && socket != 0 {
        server.socket = socket;
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
    let mut key = *flow;
    let is_second = key.put_in_order();
    let Some(passed) = PASSED.get_ptr_mut(&key) else {
        return false;
    };
    // SAFETY: the map's values are plain data. Of this one an end's own part is written by its own socket's programs alone,
    // but for a new connection with the same addresses and ports; the agent reads it when it is told of it.
    let passed = unsafe { &mut *passed };
    let is_client = passed.is_clients(is_second);
    let own = if is_client {
        &mut passed.client
    } else {
        &mut passed.server
    };
    if own.socket == 0 {
        own.socket = socket;
    } else if own.socket != socket {
        return false;
    }
    own.flags |= CONNECTED;
    if is_client {
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

/// A socket of that connection is closed. Which end of `closing` it is is filled in here.
///
/// Whichever end is the second tells the agent of both, and has the connection forgotten: no packet of it
/// comes any more, but for answers to a TIME_WAIT, which nobody waits for. Should each take itself for
/// the first, or should there be no room to tell it, the agent finds both by looking.
#[inline(always)]
pub fn closed(flow: &FlowKey, socket: u64, closing: Closing, path: Path) {
    let mut key = *flow;
    let is_second = key.put_in_order();
    let Some(passed) = PASSED.get_ptr_mut(&key) else {
        return;
    };
    // SAFETY: as in `opened`; one socket is closed once.
    let passed = unsafe { &mut *passed };
    let is_client = passed.is_clients(is_second);
    let (end, own, other) = if is_client {
        (CLIENT, &mut passed.client, &passed.server)
    } else {
        (SERVER, &mut passed.server, &passed.client)
    };
    if own.socket != socket {
        return;
    }
    own.done = Done {
        sent: passed::delivered(&Closing { end, ..closing }),
        path,
    };
    own.flags |= CLOSED;
    if other.flags & CLOSED != 0 {
        tell_closed(&key, passed);
    }
}

#[inline(always)]
fn tell_closed(key: &FlowKey, passed: &Passed) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        verdict::count(Counter::EventLost);
        return;
    };
    entry.write(Event {
        since: passed.since,
        // SAFETY: reads the clock.
        at: unsafe { bpf_ktime_get_ns() },
        client: passed.client.done,
        server: passed.server.done,
        flow: passed.as_client_sees(key),
        kind: EVENT_CLOSED,
        service: passed.service,
        padding: 0,
    });
    // If both ends take themselves for the second, one of them removes it.
    if PASSED.remove(key).is_ok() {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
}
