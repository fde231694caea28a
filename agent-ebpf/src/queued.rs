//! Never attached: the agent runs it, to ask how much an application has to read.

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;

use crate::splice::{OFFSETS, field};

/// The bytes that wait unread at the socket whose kernel address is the first argument.
///
/// Without aya's macro, under which a program of this type always returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub fn queued(ctx: *mut c_void) -> u32 {
    let socket: u64 = RawTracePointContext::new(ctx).arg(0);
    field(socket, &raw const OFFSETS.queued)
}
