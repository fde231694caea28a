//! What to do with a packet: pure functions over what a hook has looked up.
//!
//! The hooks in agent-ebpf gather facts and carry verdicts out; the decisions are here, so that
//! they run in ordinary tests. Everything is inlined into the programs.

use crate::{
    counter::Counter,
    map::{Configuration, INTERFACE_ENROLLED, INTERFACE_KNOWN, INTERFACE_WAYPOINT, InterfaceValue},
};

/// A listening socket of the agent; the value is half of its place in the map of listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Listener {
    /// Port 15001: connections that pods open.
    Outbound = 0,
    /// Port 15006: plaintext that is on its way to an enrolled pod.
    Plaintext = 1,
    /// Port 15008: HBONE that was sent to a pod's own address.
    Tunnel = 2,
}

impl Listener {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Plaintext, Self::Tunnel];
    /// Places in the map of listeners: one for each role and family.
    pub const SLOTS: u32 = 6;

    /// The place of the role's socket in the map of listeners.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self, is_ipv6: bool) -> u32 {
        self as u32 * 2 + is_ipv6 as u32
    }
}

/// What a hook does with a packet, and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Left alone.
    Pass(Counter),
    /// Dropped.
    Drop(Counter),
    /// Handed to the pod behind the interface with that index, past the node's stack.
    IntoPod(u32),
    /// Handed to the agent: to the socket that owns the connection, or to a listener.
    Capture(Listener, Counter),
}

/// What an interface's state says before the packet is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The pod is enrolled: the packet must be examined.
    Enrolled,
    /// The pod is known not to be enrolled.
    NotEnrolled,
    /// The pod is a waypoint's: as not enrolled, but for what it opens to enrolled pods of this node.
    Waypoint,
    /// The pod isn't known yet: what happens to a SYN.
    Unknown(Verdict),
}

/// Where an interface stands at `now` (nanoseconds, monotonic).
#[must_use]
#[inline(always)]
pub fn standing(interface: &InterfaceValue, configuration: &Configuration, now: u64) -> Standing {
    if interface.flags & INTERFACE_KNOWN == 0 {
        return Standing::Unknown(
            if now.saturating_sub(interface.seen_at) < configuration.hold {
                Verdict::Drop(Counter::DroppedHeld)
            } else if configuration.allow_unknown_pods == 1 {
                Verdict::Pass(Counter::UnknownPodAllowed)
            } else {
                Verdict::Drop(Counter::DroppedUnknownPod)
            },
        );
    }
    if interface.flags & INTERFACE_ENROLLED != 0 {
        Standing::Enrolled
    } else if interface.flags & INTERFACE_WAYPOINT != 0 {
        Standing::Waypoint
    } else {
        Standing::NotEnrolled
    }
}

/// What a socket lookup with the packet's own addresses gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// No socket, or a listener that merely matches the port.
    Nobody,
    /// A socket that isn't the agent's; or one of a closed connection (TIME_WAIT), which takes no SYN.
    Other,
    /// A socket of the agent.
    Agent,
}

/// What is remembered of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The agent accepted or opened it: without a socket of the agent, none of its packets may
    /// pass.
    Captured,
    /// It's older than the enrolment: left alone.
    Older,
    /// Nothing, or nothing of the present enrolment.
    Nothing,
}

impl Memory {
    /// From the epochs that the two maps of connections have for it.
    #[must_use]
    #[inline(always)]
    pub fn new(captured: Option<&u32>, older: Option<&u32>, epoch: u32) -> Self {
        if captured == Some(&epoch) {
            Self::Captured
        } else if older == Some(&epoch) {
            Self::Older
        } else {
            Self::Nothing
        }
    }
}

/// A packet of an established connection that no socket of the agent owns.
///
/// `to_mesh`: the other end is an enrolled workload or a service. `agent_listens`: an agent is
/// there.
///
/// A connection that the agent once had must not go on in plaintext when the agent has died: its
/// listener, once there is one, answers with a reset. A connection nobody remembers is older than
/// the enrolment; but while no agent is there it can't be told from one that was forgotten, so it
/// waits.
#[must_use]
#[inline(always)]
pub fn unowned(
    memory: Memory,
    to_mesh: bool,
    agent_listens: bool,
    configuration: &Configuration,
    listener: Listener,
) -> Verdict {
    match memory {
        Memory::Captured if agent_listens => Verdict::Capture(listener, Counter::CapturedOrphan),
        Memory::Captured => Verdict::Drop(Counter::DroppedWithoutAgent),
        Memory::Older => Verdict::Pass(Counter::OlderConnection),
        Memory::Nothing if !to_mesh => Verdict::Pass(Counter::NotMesh),
        Memory::Nothing if agent_listens || configuration.allow_without_agent == 1 => {
            Verdict::Pass(Counter::OlderConnection)
        }
        Memory::Nothing => Verdict::Drop(Counter::DroppedWithoutAgent),
    }
}

/// A TCP packet from or to an interface whose pod isn't known, or no longer.
///
/// `syn` is what [`standing`] says of a SYN. `was_captured`: the agent had the connection, under
/// whatever enrolment; then the pod was known once, and its packets must not go on without it.
#[must_use]
#[inline(always)]
pub fn unknown(syn: Verdict, opens: bool, was_captured: bool) -> Verdict {
    if opens {
        syn
    } else if was_captured {
        Verdict::Drop(Counter::DroppedHeld)
    } else {
        Verdict::Pass(Counter::OlderConnection)
    }
}

/// A new connection that belongs to the agent, which may not be there.
#[must_use]
#[inline(always)]
pub fn new_connection(
    listener: Listener,
    agent_listens: bool,
    configuration: &Configuration,
) -> Verdict {
    if agent_listens {
        Verdict::Capture(listener, Counter::CapturedNew)
    } else if configuration.allow_without_agent == 1 {
        Verdict::Pass(Counter::WithoutAgentAllowed)
    } else {
        Verdict::Drop(Counter::DroppedWithoutAgent)
    }
}

#[cfg(test)]
mod tests;
