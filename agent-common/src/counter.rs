//! Why a packet was passed, captured or dropped. Every exit of every program counts one.

/// Declares counters with the names that metrics and logs show.
macro_rules! counters {
    (
        $(#[doc = $about:literal])+ $enum:ident:
        $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $enum {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $enum {
            /// Every counter, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name that operators see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// A named reason; the value is the index in the map.
    Counter:
    /// Passed: not IP (ARP and the like).
    NotIp = "not_ip",
    /// Passed: not TCP.
    NotTcp = "not_tcp",
    /// Passed: the pod isn't enrolled.
    NotEnrolled = "not_enrolled",
    /// Passed: neither an enrolled workload nor a service.
    NotMesh = "not_mesh",
    /// Passed: the destination port is excluded.
    ExcludedPort = "excluded_port",
    /// Passed: the destination network is excluded.
    ExcludedNetwork = "excluded_network",
    /// Passed: the connection is older than the enrolment, or was left alone when it began.
    OlderConnection = "older_connection",
    /// Passed: the packet was sent by the agent.
    FromAgent = "from_agent",
    /// Passed: the packet has a local socket (kubelet probes and other processes of the node).
    NodeProcess = "node_process",
    /// Passed: a new connection to a pod of this node, of a kind that the agent has allowed.
    PassedNew = "passed_new",
    /// Passed: a packet of such a connection, by way of the node's stack.
    Passed = "passed",
    /// Passed: a packet of such a connection, straight into the other pod's namespace.
    PassedDirectly = "passed_directly",
    /// Passed: `--unknown-pods=allow`, and the hold is over.
    UnknownPodAllowed = "unknown_pod_allowed",
    /// Passed: no agent listens, and `--without-agent=allow`.
    WithoutAgentAllowed = "without_agent_allowed",
    /// Passed: not diverted by us.
    NotDiverted = "not_diverted",
    /// Captured: handed to a socket of the agent that owns the connection.
    CapturedSocket = "captured_socket",
    /// Captured: a new connection, handed to the agent's listener.
    CapturedNew = "captured_new",
    /// Captured: the agent lost this connection; its listener answers with a reset.
    CapturedOrphan = "captured_orphan",
    /// Captured: turned back towards the agent before it reached the pod.
    Diverted = "diverted",
    /// Captured: turned back through loopback, for it bears an address of the node as source.
    DivertedThroughLoopback = "diverted_through_loopback",
    /// Captured: sent up to the bridge device, where a socket can be assigned.
    SentToBridge = "sent_to_bridge",
    /// Dropped: the source address isn't the interface's.
    DroppedForgedSource = "dropped_forged_source",
    /// Dropped: a TCP fragment, whose ports can't be seen.
    DroppedFragment = "dropped_fragment",
    /// Dropped: headers that can't be parsed.
    DroppedMalformed = "dropped_malformed",
    /// Dropped: SYN of a pod that isn't known yet; a copy is sent on when it is.
    DroppedHeld = "dropped_held",
    /// Dropped: `--unknown-pods=deny`, and the hold is over.
    DroppedUnknownPod = "dropped_unknown_pod",
    /// Dropped: no agent listens, and `--without-agent=deny`.
    DroppedWithoutAgent = "dropped_without_agent",
    /// Dropped: plaintext for the pod came in by a device that carries no program.
    DroppedNoHookOnIngress = "dropped_no_hook_on_ingress",
    /// Dropped: an enrolled pod answers a SYN that never passed the hook before it: the CNI delivers
    /// past the host side of the veth.
    DroppedPastVeth = "dropped_past_veth",
    /// Dropped: the kernel refused to assign the agent's socket.
    DroppedAssignFailed = "dropped_assign_failed",
    /// Dropped: rewriting or marking the packet failed.
    DroppedRewriteFailed = "dropped_rewrite_failed",
    /// Not a packet: the table of connections refused an entry.
    FlowTableFailed = "flow_table_failed",
    /// Not a packet: a SYN that was held came in once more, for its pod is known.
    HeldSentOn = "held_sent_on",
    /// Not a packet: an event for the agent was lost, for there was no room for it.
    EventLost = "event_lost",
    /// Not a packet: a pod's socket that is connected with the agent left congestion control that
    /// paces by a timer.
    PacingStopped = "pacing_stopped",
    /// Not a packet: the same, refused by the kernel.
    PacingFailed = "pacing_failed",
    /// Not a packet: a pod connects to an endpoint on its node in place of a service.
    ServiceHere = "service_here",
    /// Not a packet: the endpoint that was drawn for a service isn't for the kernel to connect to.
    ServiceLeft = "service_left",
    /// Not a packet: a table for connections to services refused an entry.
    ServiceTableFailed = "service_table_failed",
}

counters! {
    /// What became of a socket, or of a message of a member, in the splice; the value is the index
    /// in the map.
    SpliceCounter:
    /// Both ends of a connection became members.
    Joined = "joined",
    /// Not joined: the agent's end isn't found, or is no longer established.
    NoAgentSocket = "no_agent_socket",
    /// Not joined: an application's end isn't found in the pod's namespace (the pod made a namespace
    /// of its own below, or its packets pass NAT), or is no longer established.
    NoApplicationSocket = "no_application_socket",
    /// Not joined: an application's socket blocks. As a member, its `recv` could fail with EAGAIN.
    Blocking = "blocking",
    /// Not joined yet: an application has neither sent nor read anything, so it hasn't shown whether its
    /// socket blocks.
    Unused = "unused",
    /// Not joined yet: an application is reading.
    Reading = "reading",
    /// Not joined: the kernel encrypts for an application.
    Encrypted = "encrypted",
    /// Not joined: an application wants to be woken for several bytes only.
    LowWater = "low_water",
    /// Not joined: the kernel refused, or there are too many.
    JoinFailed = "join_failed",
    /// A message went to the peer's queue.
    Redirected = "redirected",
    /// A message went through TCP: nothing is kept with the socket.
    TcpNoPeer = "tcp_no_peer",
    /// A message went through TCP: what went there before is still on its way.
    TcpOnItsWay = "tcp_on_its_way",
    /// A message went through TCP: the peer has too much to read.
    TcpFull = "tcp_full",
    /// A message went through TCP: the application has made its socket block.
    TcpBlocking = "tcp_blocking",
    /// A message went through TCP: one end has ended, or was reset.
    TcpEnded = "tcp_ended",
    /// A message went through TCP: the kernel encrypts for the application.
    TcpEncrypted = "tcp_encrypted",
    /// A message went through TCP: the peer is gone.
    TcpPeerGone = "tcp_peer_gone",
    /// Nothing more comes to a member through TCP: what isn't new of a packet could not be taken off, for
    /// want of memory.
    TakeOffFailed = "take_off_failed",
    /// It can't be remembered how far a member's packets of TCP have come.
    StreamNotKept = "stream_not_kept",
    /// A member isn't woken to send when TCP has sent all: the kernel refused to change that.
    SendAllFailed = "send_all_failed",
    /// From the peer's queue to TCP.
    SwitchedToTcp = "switched_to_tcp",
    /// From TCP to the peer's queue.
    SwitchedToSplice = "switched_to_splice",
}

/// How many counters there are.
#[expect(clippy::cast_possible_truncation, reason = "some dozens")]
pub const COUNT: u32 = Counter::ALL.len() as u32;
/// How many counters of the splice there are.
#[expect(clippy::cast_possible_truncation, reason = "some dozens")]
pub const SPLICE_COUNT: u32 = SpliceCounter::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_dense_and_names_unique() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            let same = Counter::ALL
                .iter()
                .filter(|other| other.name() == counter.name());
            assert_eq!(same.count(), 1, "{}", counter.name());
        }
    }
}
