//! The eBPF programs of Ambit: one file for each hook, decisions in `ambit_common::capture`.
//!
//! Every program ends in [`verdict::carry_out`], which counts the reason. A helper that fails
//! ends in a drop with a reason of its own, never in a packet that slips through.
#![no_std]
#![no_main]

mod connect;
mod connected;
mod deliver;
mod exists;
mod from_node;
mod from_pod;
mod held;
mod join;
mod maps;
mod packet;
mod passed;
mod past_veth;
mod reopened;
mod sk_msg;
mod sk_skb;
mod socket;
mod socket_storage;
mod splice;
mod to_pod;
mod verdict;

/// The helpers that look up and assign sockets are for GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that no program can get here.
    loop {}
}
