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
    packet::{from_words, mapped},
};

const AF_INET: u32 = 2;

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
    // One by one and whichever the family is, or the compiler chooses a pointer first and reads
    // then: the verifier allows no arithmetic on a pointer to the context.
    macro_rules! field {
        ($($field:tt)+) => {
            // SAFETY: a field of the kernel's context, which may be read at any time.
            unsafe { core::ptr::read_volatile(&raw const (*lookup).$($field)+) }
        };
    }
    let is_ipv4 = field!(family) == AF_INET;
    let (remote, local) = (field!(remote_ip4), field!(local_ip4));
    let remote_words = [
        field!(remote_ip6[0]),
        field!(remote_ip6[1]),
        field!(remote_ip6[2]),
        field!(remote_ip6[3]),
    ];
    let local_words = [
        field!(local_ip6[0]),
        field!(local_ip6[1]),
        field!(local_ip6[2]),
        field!(local_ip6[3]),
    ];
    let (pod, peer) = if is_ipv4 {
        (mapped(remote.to_ne_bytes()), mapped(local.to_ne_bytes()))
    } else {
        (from_words(remote_words), from_words(local_words))
    };
    FlowKey {
        pod,
        peer,
        pod_port: u16::from_be(field!(remote_port)),
        // In the host's order already.
        peer_port: field!(local_port) as u16,
    }
}
