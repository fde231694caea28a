//! From a verdict to the kernel's action, counted.

use ambit_common::{capture::Verdict, counter::Counter};
use aya_ebpf::{helpers::generated::bpf_redirect_peer, programs::TcContext};
use aya_log_ebpf::debug;

use crate::maps::COUNTERS;

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` of a classifier: other programs on the hook have their say.
const NEXT: i32 = -1;
/// `TCX_PASS`, and `TC_ACT_OK`: on to the stack, past other programs on the hook.
const PASS: i32 = 0;
/// `TCX_DROP`, and `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// Counts the verdict and returns the action.
#[inline(always)]
pub fn carry_out(ctx: &TcContext, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass(counter) => {
            count(counter);
            NEXT
        }
        Verdict::Drop(counter) => {
            count(counter);
            log_drop(ctx, counter);
            DROP
        }
        Verdict::Capture(_, counter) => {
            count(counter);
            PASS
        }
        Verdict::IntoPod(interface) => {
            count(Counter::PassedDirectly);
            // SAFETY: no pointers; the action it returns is the program's own.
            unsafe { bpf_redirect_peer(interface, 0) as i32 }
        }
    }
}

/// Says what was dropped, if the agent was started to log that; otherwise the check is a constant.
///
/// Not inlined, and neither are the hooks' `examine`: the kernel allows the frames of nested calls
/// 512 bytes together, and these two would need more in one.
#[inline(never)]
fn log_drop(ctx: &TcContext, counter: Counter) {
    // SAFETY: the context is the kernel's.
    let index = unsafe { (*ctx.skb.skb).ifindex };
    debug!(ctx, "interface {}: {}", index, counter.name());
}

/// Counts one reason.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own slot, and a program isn't interrupted by itself.
        unsafe { *value += 1 };
    }
}
