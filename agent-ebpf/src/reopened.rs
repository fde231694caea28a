//! The agent's listener for a connection whose addresses are still in TIME_WAIT.
//!
//! A SYN that meets a TIME_WAIT socket may not be handed to a listener by a hook: the new connection
//! would have the addresses of one that is there, and the kernel drops it without a word. The kernel's own
//! way is to judge by sequence number and timestamp whether the old one may go, and then to ask for a
//! listener on the packet's destination. Here it is told which: [`socket`](crate::socket) has written down
//! for which connections.

use ambit_common::map::FlowKey;
use aya_ebpf::{
    bindings::{bpf_sk_lookup, sk_action::SK_PASS},
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    macros::sk_lookup,
    programs::SkLookupContext,
};

use crate::{
    maps::{LISTENERS, REOPENED},
    packet::addresses,
};

#[sk_lookup]
pub fn reopened(ctx: SkLookupContext) -> u32 {
    let flow = flow(ctx.lookup);
    // SAFETY: the map's values are plain data, written whole.
    if let Some(slot) = unsafe { REOPENED.get(flow) } {
        assign(&ctx, *slot);
        // Once: if the kernel refuses this SYN, the next one is written down again.
        let _ = REOPENED.remove(flow);
    }
    // What isn't ours, and what failed, finds the listener it would have found without us.
    SK_PASS
}

#[inline(always)]
fn assign(ctx: &SkLookupContext, slot: u32) {
    // SAFETY: a map of sockets and a key of its key size.
    let socket = unsafe {
        bpf_map_lookup_elem(
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw const slot).cast(),
        )
    };
    if !socket.is_null() {
        // SAFETY: the context and the socket are valid until the release, which is done once.
        unsafe {
            let _ = bpf_sk_assign(ctx.lookup.cast(), socket, 0);
            bpf_sk_release(socket);
        }
    }
}

/// The connection as whoever opens it sees it.
#[inline(always)]
fn flow(lookup: *const bpf_sk_lookup) -> FlowKey {
    let [peer, pod] = addresses!(lookup);
    // SAFETY: fields of the kernel's context, which may be read at any time.
    let (remote_port, local_port) = unsafe { ((*lookup).remote_port, (*lookup).local_port) };
    FlowKey {
        pod,
        peer,
        pod_port: u16::from_be(remote_port),
        // In the host's order already.
        peer_port: local_port as u16,
    }
}
