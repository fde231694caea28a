//! SYNs of pods that aren't known yet are dropped; a copy waits for the agent, which sends it on when it knows the
//! pod. Else the connection would wait for the client's next SYN, which comes after a second.

use ambit_common::{
    counter::Counter,
    held::{HeldSyn, LONGEST_SYN, SHORTEST_SYN},
};
use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_clone_redirect, bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::classifier,
    programs::TcContext,
};

use crate::{maps::HELD, verdict};

/// Keeps a copy of a SYN.
#[inline(never)]
pub fn keep(ctx: &TcContext) {
    // SAFETY: the context is the kernel's.
    let (length, interface) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).ifindex) };
    if length < SHORTEST_SYN as u32 || length > LONGEST_SYN as u32 {
        return;
    }
    let Some(mut entry) = HELD.reserve::<HeldSyn>(0) else {
        verdict::count(Counter::EventLost);
        return;
    };
    let held = entry.as_mut_ptr();
    // SAFETY: the entry's memory, each part of it written once. The helper writes as many bytes as it is told,
    // which the frame has room for.
    let code = unsafe {
        (*held).at = bpf_ktime_get_ns();
        (*held).interface = interface;
        (*held).length = length;
        (*held).frame = [0; LONGEST_SYN];
        (*held).padding = [0; 6];
        bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            0,
            (&raw mut (*held).frame).cast(),
            length,
        )
    };
    if code == 0 {
        // The agent looks when it has learned of a pod.
        entry.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        entry.discard(BPF_RB_NO_WAKEUP.into());
    }
}

/// Never attached: the agent runs it with a SYN that was kept, and with the index of the interface that it came
/// by, by which it comes in once more.
#[classifier]
pub fn send_on(ctx: TcContext) -> i32 {
    // SAFETY: the context is the kernel's.
    let interface = unsafe { core::ptr::read_volatile(&raw const (*ctx.skb.skb).cb[0]) };
    // SAFETY: as above.
    let code = unsafe { bpf_clone_redirect(ctx.skb.skb, interface, BPF_F_INGRESS.into()) };
    if code == 0 {
        verdict::count(Counter::HeldSentOn);
    }
    code as i32
}
