//! TC ingress of every device of the node that isn't a pod's veth: uplinks, bridges, tunnels,
//! loopback.
//!
//! A new connection comes in here unmarked and is none of this program's business: routing takes
//! it to the pod, and `to_pod` decides. What `to_pod` turned back, or a bridge port sent up, bears
//! a mark and is handed to the agent, and so is the rest of a connection that was turned back.

use ambit_common::{capture::Verdict, counter::Counter, map::INTERFACE_LOOPBACK, mark};
use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{deliver, maps::INTERFACES, packet, verdict};

#[classifier]
pub fn from_node(ctx: TcContext) -> i32 {
    verdict::carry_out(&ctx, examine(&ctx))
}

#[inline(never)]
fn examine(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is the kernel's.
    let (index, packet_mark) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).mark) };
    // SAFETY: the map's values are plain data.
    let interface = unsafe { INTERFACES.get(index) };
    match (mark::listener(packet_mark), interface) {
        (Some(listener), Some(interface)) => deliver::marked(ctx, interface, listener),
        (Some(_), None) => Verdict::Drop(Counter::DroppedNoHookOnIngress),
        // What the node says to itself is never for a pod.
        (None, Some(interface)) if interface.flags & INTERFACE_LOOPBACK != 0 => {
            Verdict::Pass(Counter::NotDiverted)
        }
        (None, Some(interface)) => {
            let packet = packet::parse(ctx, interface);
            deliver::turned_back_before(ctx, interface, &packet)
                .unwrap_or(Verdict::Pass(Counter::NotDiverted))
        }
        (None, None) => Verdict::Pass(Counter::NotDiverted),
    }
}
