//! TC ingress of every device of the node that isn't a pod's veth: uplinks, bridges, tunnels.
//!
//! What comes in here unmarked is none of this program's business: routing takes it to the pod,
//! and `to_pod` decides. What `to_pod` turned back, or a bridge port sent up, bears a mark and is
//! handed to the agent.

use ambit_common::{capture::Verdict, counter::Counter, mark};
use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{deliver, maps::INTERFACES, verdict};

#[classifier]
pub fn from_node(ctx: TcContext) -> i32 {
    verdict::carry_out(&ctx, examine(&ctx))
}

#[inline(always)]
fn examine(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is the kernel's.
    let (index, packet_mark) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).mark) };
    let Some(listener) = mark::listener(packet_mark) else {
        return Verdict::Pass(Counter::NotDiverted);
    };
    // SAFETY: the map's values are plain data.
    let Some(interface) = (unsafe { INTERFACES.get(index) }) else {
        return Verdict::Drop(Counter::DroppedNoHookOnIngress);
    };
    deliver::marked(ctx, interface, listener)
}
