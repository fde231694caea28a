//! How far a SYN for an enrolled pod has come: layout, and what the pod's answer says of it.
//!
//! A CNI may deliver packets past the host side of a pod's veth (`bpf_redirect_peer`), where the last
//! hook before the pod is. What the pod answers still comes by there. So an answer to a SYN that the
//! hook never let pass gives the CNI away, and never leaves: without it there is no connection.

use core::mem::size_of;

/// SYNs that are remembered, each for the moment until it's answered.
pub const MAX_ARRIVALS: u32 = 8_192;
/// For how long a SYN that came in by the node may be what a pod answers, in nanoseconds: more than
/// a busy node takes, less than it takes the sender to try again.
pub const RECENT: u64 = 900_000_000;

/// It came in by a device of the node.
pub const ARRIVED: u32 = 1;
/// The hook before the pod let it pass.
pub const ADMITTED: u32 = 2;

/// A SYN, by connection as the pod sees it ([`FlowKey`](crate::map::FlowKey)).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival {
    /// When, on the kernel's monotonic clock, in nanoseconds.
    pub at: u64,
    /// Of the pod's interface then: under another it means nothing.
    pub epoch: u32,
    /// [`ARRIVED`] or [`ADMITTED`].
    pub place: u32,
}
const _: () = assert!(size_of::<Arrival>() == 16);

/// What a pod's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is amiss.
    Regular,
    /// The SYN came to the pod past its veth's hook, or before there was one.
    Unseen,
    /// It came in by the node a moment ago, and then past the hook: so does the next.
    PastVeth,
}

/// Judges what an enrolled pod sends at `now` (nanoseconds, monotonic): a SYN-ACK, or with
/// `is_reset` what may refuse a SYN. The agent has no part in the connection.
#[must_use]
#[inline(always)]
pub fn answer(arrival: Option<&Arrival>, epoch: u32, now: u64, is_reset: bool) -> Answer {
    match arrival {
        Some(arrival) if arrival.epoch == epoch && arrival.place == ADMITTED => Answer::Regular,
        Some(arrival)
            if arrival.epoch == epoch
                && arrival.place == ARRIVED
                && now.saturating_sub(arrival.at) < RECENT =>
        {
            Answer::PastVeth
        }
        _ if is_reset => Answer::Regular,
        _ => Answer::Unseen,
    }
}

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "aya asks for an unsafe marker on plain-data map types"
    )]
    use super::Arrival;

    // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for Arrival {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_regular_only_if_the_hook_has_seen_the_syn_of_this_enrolment() {
        use Answer::{PastVeth, Regular, Unseen};
        let then = 5_000_000_000;
        for (seen, now, is_reset, expected) in [
            (Some((ADMITTED, 7)), then, false, Regular),
            (Some((ADMITTED, 7)), then + 60 * RECENT, false, Regular),
            (Some((ADMITTED, 6)), then, false, Unseen),
            (Some((ARRIVED, 7)), then, false, PastVeth),
            // Another processor's clock may be behind.
            (Some((ARRIVED, 7)), then - 1, false, PastVeth),
            (Some((ARRIVED, 7)), then + RECENT, false, Unseen),
            (Some((ARRIVED, 6)), then, false, Unseen),
            (None, then, false, Unseen),
            (Some((ARRIVED, 7)), then, true, PastVeth),
            (Some((ARRIVED, 7)), then + RECENT, true, Regular),
            (Some((ADMITTED, 7)), then, true, Regular),
            (None, then, true, Regular),
        ] {
            let arrival = seen.map(|(place, epoch)| Arrival {
                at: then,
                epoch,
                place,
            });
            assert_eq!(
                answer(arrival.as_ref(), 7, now, is_reset),
                expected,
                "{seen:?} {now} {is_reset}"
            );
        }
    }
}
