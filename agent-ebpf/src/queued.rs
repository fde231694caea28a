//! Never attached: the agent runs it, to ask how much an application has to read.

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;

use crate::splice::{OFFSETS, field, limit};

/// Of the socket whose kernel address is the first argument: the bytes that wait unread; or how many
/// may wait, if the second argument is 1.
///
/// Without aya's macro, under which a program of this type always returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub fn queued(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    let (socket, what): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if what == 1 {
        limit(socket)
    } else {
        field(socket, &raw const OFFSETS.queued)
    }
}
