//! CNIs that deliver past the host side of a pod's veth, straight into the pod: what its hook,
//! `to_pod`, would have decided is decided where the packet comes in, or the pod's answer is dropped.
//! `ambit_common::arrival` says how that shows.

use ambit_common::{
    arrival::{self, ADMITTED, ARRIVED, Answer, Arrival},
    capture::Verdict,
    counter::Counter,
    map::{FlowKey, INTERFACE_ENROLLED, InterfaceValue},
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};

use crate::{
    deliver,
    maps::{ARRIVALS, INTERFACES, PAST_VETH, PODS},
    packet::{Packet, Segment},
    to_pod, verdict,
};

/// A SYN comes in by a device of the node. `None`: it goes its way.
///
/// If it's for an enrolled pod of this node, that is noted. If packets for that pod are known to come
/// past its hook, the hook's decision is carried out here.
#[inline(always)]
pub fn arrives(
    ctx: &TcContext,
    packet: &Packet,
    segment: &Segment,
    flow: &FlowKey,
) -> Option<Verdict> {
    // SAFETY: the maps' values are plain data.
    let index = *unsafe { PODS.get(packet.destination) }?;
    // SAFETY: as above.
    let pod = unsafe { INTERFACES.get(index) }?;
    if pod.flags & INTERFACE_ENROLLED == 0 {
        return None;
    }
    // SAFETY: as above.
    if unsafe { PAST_VETH.get(index) } != Some(&pod.epoch) {
        note(flow, pod.epoch, ARRIVED);
        return None;
    }
    match to_pod::opening(index, pod.epoch, packet, segment, flow) {
        Verdict::Capture(listener, _) => Some(deliver::to_listener_of_host(ctx, packet, listener)),
        Verdict::Drop(counter) => Some(Verdict::Drop(counter)),
        // The CNI may deliver it.
        _ => None,
    }
}

/// `to_pod` lets a SYN pass that isn't the agent's.
#[inline(always)]
pub fn admit(flow: &FlowKey, epoch: u32) {
    note(flow, epoch, ADMITTED);
}

/// An enrolled pod sends a SYN-ACK, or a reset, on a connection in which the agent has no part.
/// `None`: it may.
#[inline(always)]
pub fn answers(
    ctx: &TcContext,
    interface: &InterfaceValue,
    segment: &Segment,
    flow: &FlowKey,
) -> Option<Verdict> {
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the map's values are plain data, written whole.
    let arrival = unsafe { ARRIVALS.get(flow) };
    match arrival::answer(arrival, interface.epoch, now, segment.resets()) {
        Answer::Regular => return None,
        Answer::Unseen => {}
        Answer::PastVeth => {
            // SAFETY: the context is the kernel's.
            let index = unsafe { (*ctx.skb.skb).ifindex };
            if PAST_VETH.insert(index, interface.epoch, 0).is_err() {
                verdict::count(Counter::FlowTableFailed);
            }
        }
    }
    Some(Verdict::Drop(Counter::DroppedPastVeth))
}

#[inline(always)]
fn note(flow: &FlowKey, epoch: u32, place: u32) {
    let arrival = Arrival {
        // SAFETY: reads the clock.
        at: unsafe { bpf_ktime_get_ns() },
        epoch,
        place,
    };
    if ARRIVALS.insert(flow, arrival, 0).is_err() {
        verdict::count(Counter::FlowTableFailed);
    }
}
