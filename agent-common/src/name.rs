//! Names of programs and maps: said once, used by the object and by its loader.
//!
//! The statics in agent-ebpf carry the same names, since the object's symbols are made from
//! them; a test in the loader asserts that every name here is found in the object.

/// TC ingress of the host side of a pod's veth: what the pod sends.
pub const FROM_POD: &str = "from_pod";
/// TC egress of the host side of a pod's veth: what the pod is about to receive.
pub const TO_POD: &str = "to_pod";
/// TC ingress of every other device of the node: packets that were diverted to the agent.
pub const FROM_NODE: &str = "from_node";

/// Socket look-up in the node's namespace: connections whose addresses are in TIME_WAIT.
pub const REOPENED_PROGRAM: &str = "reopened";

/// sockops: a socket of this node has established a connection.
pub const CONNECTED: &str = "connected";

/// A socket of a cgroup connects to an IPv4 address.
pub const CONNECT4: &str = "connect4";
/// To an IPv6 address, or an IPv4 one in that form.
pub const CONNECT6: &str = "connect6";
/// An application asks to what its IPv4 socket is connected.
pub const GETPEERNAME4: &str = "getpeername4";
/// The same of an IPv6 one.
pub const GETPEERNAME6: &str = "getpeername6";
/// What has pods connect to a service's endpoint, in the order in which they are attached: no socket is
/// connected to an endpoint before its application is told otherwise.
pub const BALANCERS: [&str; 4] = [GETPEERNAME4, GETPEERNAME6, CONNECT4, CONNECT6];

/// Run by the agent: whether a pod still has a connection.
pub const EXISTS: &str = "exists";

/// Run by the agent: a SYN that was held comes in once more.
pub const SEND_ON: &str = "send_on";

/// Every program that is attached to devices.
pub const PROGRAMS: [&str; 3] = [FROM_POD, TO_POD, FROM_NODE];

/// Run by the agent: makes both ends of a connection members of the splice.
pub const JOIN: &str = "join";
/// sk_msg of [`SPLICE_SOCKETS`]: what a member sends.
pub const SEND: &str = "send";
/// sk_skb of [`SPLICE_SOCKETS`]: what comes to a member through TCP.
pub const RECEIVE: &str = "receive";

/// [`InterfaceValue`](crate::map::InterfaceValue) by interface index.
pub const INTERFACES: &str = "INTERFACES";
/// Which addresses an interface may send from: the set of [`SourceKey`](crate::map::SourceKey).
pub const SOURCES: &str = "SOURCES";
/// The enrolled workloads of all nodes, by address.
pub const WORKLOADS: &str = "WORKLOADS";
/// The TCP ports of services: [`ServiceValue`](crate::balance::ServiceValue) by
/// [`ServiceKey`](crate::map::ServiceKey).
pub const SERVICES: &str = "SERVICES";
/// Excluded ports: the set of [`PortKey`](crate::map::PortKey).
pub const EXCLUDED_PORTS: &str = "EXCLUDED_PORTS";
/// Excluded networks of what pods open: prefixes of [`NetworkKey`](crate::map::NetworkKey).
pub const EXCLUDED_NETWORKS: &str = "EXCLUDED_NETWORKS";
/// The agent's listening sockets, by [`Listener`](crate::capture::Listener) and family.
pub const LISTENERS: &str = "LISTENERS";
/// Connections that the agent accepted or opened, by [`FlowKey`](crate::map::FlowKey).
pub const FLOWS: &str = "FLOWS";
/// Connections that are older than the enrolment, by [`FlowKey`](crate::map::FlowKey).
pub const OLDER: &str = "OLDER";
/// Connections for which [`REOPENED_PROGRAM`] gives the listener in a slot of [`LISTENERS`], by
/// [`FlowKey`](crate::map::FlowKey) as whoever opens them sees them.
pub const REOPENED: &str = "REOPENED";
/// [`Arrival`](crate::arrival::Arrival) by [`FlowKey`](crate::map::FlowKey) as the pod sees it.
pub const ARRIVALS: &str = "ARRIVALS";
/// Interfaces of pods that packets come to past the host side of their veth; the value is the
/// interface's epoch then.
pub const PAST_VETH: &str = "PAST_VETH";
/// The set of the node's own addresses.
pub const NODE_ADDRESSES: &str = "NODE_ADDRESSES";
/// Packets by [`Counter`](crate::counter::Counter).
pub const COUNTERS: &str = "COUNTERS";
/// The one [`Configuration`](crate::map::Configuration).
pub const CONFIGURATION: &str = "CONFIGURATION";
/// The interface of each address of this node's pods.
pub const PODS: &str = "PODS";
/// Generations by [`VerdictKey`](crate::passed::VerdictKey).
pub const VERDICTS: &str = "VERDICTS";
/// [`Passed`](crate::passed::Passed) by [`FlowKey`](crate::map::FlowKey).
pub const PASSED: &str = "PASSED";
/// The one [`Passing`](crate::passed::Passing).
pub const PASSING: &str = "PASSING";
/// [`Event`](crate::passed::Event)s for the agent.
pub const EVENTS: &str = "EVENTS";
/// [`HeldSyn`](crate::held::HeldSyn)s of pods that aren't known yet.
pub const HELD: &str = "HELD";
/// [`EndpointValue`](crate::balance::EndpointValue) by [`EndpointKey`](crate::balance::EndpointKey).
pub const LOCAL_ENDPOINTS: &str = "LOCAL_ENDPOINTS";
/// The interface of a pod by its network namespace's cookie. A pod can have others' put there; what
/// rests on it is only where its own sockets connect to.
pub const NAMESPACES: &str = "NAMESPACES";
/// [`Choice`](crate::balance::Choice) by socket.
pub const CHOICES: &str = "CHOICES";
/// Carried connections of which there was a draw: the set of [`FlowKey`](crate::map::FlowKey).
pub const DRAWN: &str = "DRAWN";
/// The members of the splice: sockets by the number that the agent gave their connection.
pub const SPLICE_SOCKETS: &str = "SPLICE_SOCKETS";
/// [`End`](crate::splice::End) by socket.
pub const SPLICE_ENDS: &str = "SPLICE_ENDS";
/// [`Stream`](crate::splice::Stream) by socket cookie.
pub const SPLICE_STREAMS: &str = "SPLICE_STREAMS";
/// By [`SpliceCounter`](crate::counter::SpliceCounter).
pub const SPLICE_COUNTERS: &str = "SPLICE_COUNTERS";
/// The one [`SpliceSettings`](crate::splice::SpliceSettings).
pub const SPLICE_SETTINGS: &str = "SPLICE_SETTINGS";
/// The read-only [`Offsets`](crate::splice::Offsets), a global of the object.
pub const OFFSETS: &str = "OFFSETS";

/// Every map that is pinned, so that captures outlive the agent.
pub const PINNED_MAPS: [&str; 30] = [
    INTERFACES,
    SOURCES,
    WORKLOADS,
    SERVICES,
    EXCLUDED_PORTS,
    EXCLUDED_NETWORKS,
    LISTENERS,
    FLOWS,
    OLDER,
    REOPENED,
    ARRIVALS,
    PAST_VETH,
    NODE_ADDRESSES,
    COUNTERS,
    CONFIGURATION,
    PODS,
    VERDICTS,
    PASSED,
    PASSING,
    EVENTS,
    HELD,
    LOCAL_ENDPOINTS,
    NAMESPACES,
    CHOICES,
    DRAWN,
    SPLICE_SOCKETS,
    SPLICE_ENDS,
    SPLICE_STREAMS,
    SPLICE_COUNTERS,
    SPLICE_SETTINGS,
];
