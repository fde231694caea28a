//! Connections between pods of one node that go straight from pod to pod: layouts, and when they may.
//!
//! The agent decides the first connection of a kind (source identity, destination workload, port)
//! and writes down that it allowed it. Later ones needn't ask, until something changes that the
//! decision rested on: then the generation does. What goes by way of the node's stack is marked by
//! the hook that saw it leave its pod, and the other pod's hook demands mark and entry. The rest the
//! first hook delivers itself, after it has asked what is remembered of both ends.

use core::mem::size_of;

use crate::map::{FlowKey, ServiceKey};

/// Kinds of connections that are remembered as allowed; of more, the least recently used are
/// asked for again.
pub const MAX_VERDICTS: u32 = 65_536;
/// Connections that pass; above that the agent carries them.
pub const MAX_PASSED: u32 = 65_536;
/// Bytes of events that wait for the agent: of some four thousand connections, two for each. What doesn't fit
/// is found by looking.
pub const EVENT_BYTES: u32 = 1 << 20;

/// Stands for an identity or a workload: the first half of its name's SHA-256. All zero: nobody.
pub type Fingerprint = [u8; 16];

/// A kind of connection. Its map's value is the generation that it was allowed in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VerdictKey {
    /// The client's identity.
    pub source: Fingerprint,
    /// The server's workload.
    pub destination: Fingerprint,
    /// The server's port.
    pub port: u16,
    /// Zero.
    pub padding: u16,
}
const _: () = assert!(size_of::<VerdictKey>() == 36);

/// Settings of the programs. Written by the agent, again and again while it lives.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passing {
    /// Verdicts of another generation count for nothing.
    pub generation: u64,
    /// When the agent last said that it lives, on the kernel's monotonic clock, in nanoseconds.
    pub heartbeat: u64,
    /// For how long after that new connections may pass, in nanoseconds. 0: none ever.
    pub pass_for: u64,
}
const _: () = assert!(size_of::<Passing>() == 24);

/// Whether a new connection whose verdict is of that generation may pass at `now` (nanoseconds,
/// monotonic).
#[must_use]
#[inline(always)]
pub fn may_pass(passing: &Passing, verdict: Option<&u64>, now: u64) -> bool {
    // A clock that seems to go backwards is another processor's.
    now.saturating_sub(passing.heartbeat) < passing.pass_for && verdict == Some(&passing.generation)
}

/// The end of a connection that opened it.
pub const CLIENT: u32 = 1;
/// The end that accepts it.
pub const SERVER: u32 = 2;

/// The end's socket is connected.
pub const CONNECTED: u32 = 1;
/// The end's socket is closed, and what it has sent and measured is written down.
pub const CLOSED: u32 = 2;

/// A connection that passes. Its map's key is its [`FlowKey`], [in order](FlowKey::put_in_order).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// When its SYN passed, on the kernel's monotonic clock, in nanoseconds: tells it from another
    /// with the same addresses and ports.
    pub since: u64,
    /// The end that opened it.
    pub client: PassedEnd,
    /// The end that accepts it.
    pub server: PassedEnd,
    /// What the client's application connected to, if that is a service; else zero.
    pub service: ServiceKey,
    /// 1: the key is the connection as the server sees it. 0: as the client does.
    pub is_servers: u32,
}
const _: () = assert!(size_of::<Passed>() == 112);

/// What is remembered of one end. Once it's made, nobody writes to it but the programs of its own socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassedEnd {
    /// Cookie of the socket that sent SYN or SYN-ACK; 0 before that, or if the packet didn't say (SYN cookies):
    /// then the first that is connected. A pod can have others with the same addresses and ports, in namespaces
    /// of its own.
    pub socket: u64,
    /// What is known of the end when it is closed.
    pub done: Done,
    /// Index of its pod's interface.
    pub interface: u32,
    /// Of that interface then: under another it means nothing.
    pub epoch: u32,
    /// [`CONNECTED`], [`CLOSED`].
    pub flags: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<PassedEnd>() == 40);

impl Passed {
    /// Whether the end is the client that sees the connection as its key has it, or, if `is_second`, the other
    /// way round.
    #[must_use]
    #[inline(always)]
    pub fn is_clients(&self, is_second: bool) -> bool {
        (self.is_servers == 1) == is_second
    }

    /// The connection as the client sees it, by its key.
    #[must_use]
    #[inline(always)]
    pub fn as_client_sees(&self, key: &FlowKey) -> FlowKey {
        if self.is_servers == 1 {
            key.reversed()
        } else {
            *key
        }
    }
}

/// The client's socket is connected.
pub const EVENT_OPENED: u32 = 1;
/// Both sockets are closed.
pub const EVENT_CLOSED: u32 = 2;

/// What TCP has measured at one end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Path {
    /// Smoothed round trip time, in microseconds. 0: not known.
    pub round_trip: u32,
    /// Segments that the end sent again.
    pub retransmitted: u32,
}

/// What one end has done until it was closed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Bytes that it sent and the other's kernel has: [`delivered`].
    pub sent: u64,
    /// What it has measured.
    pub path: Path,
}
const _: () = assert!(size_of::<Done>() == 16);

/// What the agent is told of a connection.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event {
    /// [`Passed::since`].
    pub since: u64,
    /// When the second end was closed, on the same clock; of one that opened, the same as `since`.
    pub at: u64,
    /// Of a closed connection, what the client has done.
    pub client: Done,
    /// The same of the server.
    pub server: Done,
    /// The connection as the client sees it.
    pub flow: FlowKey,
    /// `EVENT_*`.
    pub kind: u32,
    /// [`Passed::service`].
    pub service: ServiceKey,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<Event>() == 112);

/// A socket that closes, as the kernel tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Closing {
    /// [`CLIENT`] or [`SERVER`].
    pub end: u32,
    /// The state that it was in (`TCP_*` of net/tcp_states.h).
    pub state: u32,
    /// `tcp_sock.bytes_acked`: sequence numbers that the other end has acknowledged.
    pub acknowledged: u64,
    /// Whether those are all that it sent.
    pub all_acknowledged: bool,
    /// Bytes that it sent past TCP.
    pub past_tcp: u64,
}

/// How many bytes of an application the other end's kernel has. SYN and FIN have a sequence number each;
/// the kernel doesn't count the SYN of an accepting socket.
#[must_use]
#[inline(always)]
pub fn delivered(closing: &Closing) -> u64 {
    const FIN_WAIT1: u32 = 4;
    const FIN_WAIT2: u32 = 5;
    const LAST_ACK: u32 = 9;
    const CLOSING: u32 = 11;
    let fin_acknowledged = match closing.state {
        FIN_WAIT2 => true,
        FIN_WAIT1 | LAST_ACK | CLOSING => closing.all_acknowledged,
        _ => false,
    };
    let syn_counted = closing.end == CLIENT;
    let through_tcp = closing
        .acknowledged
        .saturating_sub(fin_acknowledged as u64 + syn_counted as u64);
    through_tcp + closing.past_tcp
}

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "aya asks for an unsafe marker on plain-data map types"
    )]
    use super::{Event, Passed, Passing, VerdictKey};

    // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for VerdictKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Passing {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Passed {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verdict_of_now_lets_pass_and_only_while_the_agent_is_heard() {
        let passing = Passing {
            generation: 7,
            heartbeat: 1000,
            pass_for: 100,
        };
        for (verdict, now, expected) in [
            (Some(7), 1000, true),
            (Some(7), 1099, true),
            (Some(7), 1100, false),
            (Some(7), 900, true),
            (Some(6), 1000, false),
            (Some(8), 1000, false),
            (None, 1000, false),
        ] {
            assert_eq!(
                may_pass(&passing, verdict.as_ref(), now),
                expected,
                "{verdict:?} {now}"
            );
        }
        let never = Passing {
            pass_for: 0,
            ..passing
        };
        assert!(!may_pass(&never, Some(&7), 1000));
        assert!(!may_pass(&Passing::default(), Some(&0), 0));
    }

    #[test]
    fn what_was_delivered_is_without_syn_and_fin() {
        const ESTABLISHED: u32 = 1;
        const CLOSE_WAIT: u32 = 8;
        for (end, state, all_acknowledged, expected) in [
            (CLIENT, ESTABLISHED, true, 99),
            (CLIENT, CLOSE_WAIT, true, 99),
            (CLIENT, 4, false, 99),
            (CLIENT, 5, true, 98),
            (CLIENT, 9, true, 98),
            (CLIENT, 9, false, 99),
            (SERVER, ESTABLISHED, true, 100),
            (SERVER, 5, true, 99),
            (SERVER, 11, true, 99),
            (SERVER, 11, false, 100),
        ] {
            let mut closing = Closing {
                end,
                state,
                acknowledged: 100,
                all_acknowledged,
                past_tcp: 0,
            };
            assert_eq!(delivered(&closing), expected, "{closing:?}");
            closing.past_tcp = 1000;
            assert_eq!(delivered(&closing), expected + 1000, "{closing:?}");
        }
    }
}
