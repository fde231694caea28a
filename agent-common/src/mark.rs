//! Packet marks. They exist only between a hook of ours and the node's own stack: the kernel
//! clears a mark when a packet crosses to another network namespace, so no pod can forge one.

use crate::capture::Listener;

/// First of the capture marks; one per [`Listener`], all matched by one `ip rule`.
pub const CAPTURE: u32 = 0x1538;
/// The bits that tell a capture mark from any other mark. The upper half belongs to others: CNIs
/// set bits there on packets of all kinds.
pub const CAPTURE_MASK: u32 = 0xfffc;
/// The bits that tell the agent's own marks.
pub const AGENT_MASK: u32 = 0xffff;
/// A socket of the agent whose packets stay out of conntrack, and so out of kube-proxy's NAT:
/// it speaks for an address that NAT would rewrite.
pub const AGENT: u32 = 0x1540;
/// A socket of the agent whose packets conntrack must see, because the far side may have come
/// through NAT (a NodePort, a masquerade).
pub const AGENT_TRACKED: u32 = 0x1541;
/// A packet of a connection that passes from pod to pod, by way of the node's stack; set as it leaves
/// its pod.
pub const PASSED: u32 = 0x1542;

/// The mark that sends a packet to the agent's listener of that role.
#[must_use]
#[inline(always)]
pub const fn for_listener(listener: Listener) -> u32 {
    CAPTURE | listener as u32
}

/// The listener that a capture mark stands for; `None` for every other mark.
#[must_use]
#[inline(always)]
pub const fn listener(mark: u32) -> Option<Listener> {
    if mark & CAPTURE_MASK != CAPTURE {
        return None;
    }
    match mark & AGENT_MASK & !CAPTURE_MASK {
        0 => Some(Listener::Outbound),
        1 => Some(Listener::Plaintext),
        2 => Some(Listener::Tunnel),
        _ => None,
    }
}

/// Whether the hook that saw a packet leave its pod lets it pass to another.
#[must_use]
#[inline(always)]
pub const fn is_passed(mark: u32) -> bool {
    mark & AGENT_MASK == PASSED
}

/// Whether a packet was sent by a socket of the agent, or a socket is one of the agent's.
#[must_use]
#[inline(always)]
pub const fn is_agent(mark: u32) -> bool {
    mark & AGENT_MASK == AGENT || mark & AGENT_MASK == AGENT_TRACKED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_a_mark_of_its_own_and_no_other_mark_is_one() {
        for role in [Listener::Outbound, Listener::Plaintext, Listener::Tunnel] {
            assert_eq!(listener(for_listener(role)), Some(role));
            assert_eq!(
                listener(for_listener(role) | 0x4_0000),
                Some(role),
                "a CNI's bit"
            );
            assert!(!is_agent(for_listener(role)) && for_listener(role) != PASSED);
        }
        assert!(is_passed(PASSED | 0x4_0000) && !is_agent(PASSED));
        for mark in [
            0,
            AGENT,
            AGENT_TRACKED,
            PASSED,
            0x4000,
            0x8000,
            0x539,
            CAPTURE | 3,
            0xffff_0000,
        ] {
            assert_eq!(listener(mark), None, "{mark:#x}");
        }
    }
}
