//! Keys and values of the maps. Plain data: no bool, enum or option, no padding that isn't named.
//!
//! Ports and everything else are in host byte order unless a field says otherwise.

use core::mem::size_of;

use crate::passed::Fingerprint;

/// Raised with every change of a layout below: an agent refuses maps of another layout.
pub const LAYOUT_VERSION: u32 = 7;

/// The node has at most this many devices that carry a program.
pub const MAX_INTERFACES: u32 = 8_192;
/// Addresses of this node's pods: two for each interface.
pub const MAX_SOURCES: u32 = 16_384;
/// Addresses of enrolled workloads in the whole mesh.
pub const MAX_WORKLOADS: u32 = 262_144;
/// VIPs times ports in the whole cluster.
pub const MAX_SERVICES: u32 = 131_072;
/// Excluded ports times this node's interfaces.
pub const MAX_EXCLUDED_PORTS: u32 = 32_768;
/// Excluded networks times this node's interfaces.
pub const MAX_EXCLUDED_NETWORKS: u32 = 32_768;
/// Connections of the agent that are remembered on one node; see [`FlowKey`].
pub const MAX_FLOWS: u32 = 131_072;
/// Connections older than their pod's enrolment that are remembered. They have a map of their
/// own, so that a pod that makes up packets of such can't push the agent's own out.
pub const MAX_OLDER: u32 = 65_536;
/// New connections whose addresses were in TIME_WAIT, for the moment between a hook and the socket.
pub const MAX_REOPENED: u32 = 4_096;
/// Addresses of the node itself.
pub const MAX_NODE_ADDRESSES: u32 = 1_024;

/// An IPv6 address, or an IPv4 address mapped to one (`::ffff:a.b.c.d`), in network byte order.
pub type Address = [u8; 16];

/// Interface of a pod, as opposed to another device of the node.
pub const INTERFACE_POD: u32 = 1;
/// The agent knows which pod the interface belongs to.
pub const INTERFACE_KNOWN: u32 = 1 << 1;
/// The pod is enrolled. Never without [`INTERFACE_KNOWN`].
pub const INTERFACE_ENROLLED: u32 = 1 << 2;
/// The interface is a port of a bridge: frames are switched, not routed.
pub const INTERFACE_BRIDGE_PORT: u32 = 1 << 3;
/// Packets carry no link header (tunnels, WireGuard).
pub const INTERFACE_NO_LINK_HEADER: u32 = 1 << 4;
/// The loopback device.
pub const INTERFACE_LOOPBACK: u32 = 1 << 5;

/// The interface is one end of a pair, and the other is in the pod's network namespace.
pub const INTERFACE_HAS_PEER: u32 = 1 << 6;
/// The pod is a waypoint's: what it opens to enrolled pods of this node is the mesh's, and nothing else. Never with
/// [`INTERFACE_ENROLLED`].
pub const INTERFACE_WAYPOINT: u32 = 1 << 7;

/// What the node's agent says of an interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterfaceValue {
    /// `INTERFACE_*`.
    pub flags: u32,
    /// Counts the enrolments of the interface: a flow of an earlier one means nothing now.
    pub epoch: u32,
    /// When the interface was first seen, on the kernel's monotonic clock, in nanoseconds.
    pub seen_at: u64,
    /// The bridge's own MAC address, if the interface is a port of one.
    pub bridge_mac: [u8; 6],
    /// Zero.
    pub padding: [u8; 2],
    /// Of the pod's identity, if it is enrolled or a waypoint's.
    pub identity: Fingerprint,
    /// Of the pod itself, if it is enrolled or a waypoint's.
    pub workload: Fingerprint,
}
const _: () = assert!(size_of::<InterfaceValue>() == 56);

/// An address that an interface may send from.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// Interface index.
    pub interface: u32,
    /// The pod's address.
    pub address: Address,
}
const _: () = assert!(size_of::<SourceKey>() == 20);

/// A TCP port of a service.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    /// The service port.
    pub port: u32,
}
const _: () = assert!(size_of::<ServiceKey>() == 20);

/// The pod opens the connection.
pub const DIRECTION_OUTBOUND: u16 = 0;
/// The pod receives the connection.
pub const DIRECTION_INBOUND: u16 = 1;

/// A port that an interface's pod excluded.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Interface index.
    pub interface: u32,
    /// The destination port of the connection.
    pub port: u16,
    /// `DIRECTION_*`.
    pub direction: u16,
}
const _: () = assert!(size_of::<PortKey>() == 8);

/// A destination network that an interface's pod excluded; matched by longest prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkKey {
    /// Interface index, in network byte order, since a trie compares bit by bit.
    pub interface: [u8; 4],
    /// The network's address.
    pub address: Address,
}
const _: () = assert!(size_of::<NetworkKey>() == 20);
/// Bits of a [`NetworkKey`] before its address.
pub const NETWORK_KEY_PREFIX: u32 = 32;

/// A connection as the pod on this node sees it. The value of its maps is the interface's epoch
/// when it was written: under another epoch it means nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey {
    /// The pod's address.
    pub pod: Address,
    /// The other end's.
    pub peer: Address,
    /// The pod's port.
    pub pod_port: u16,
    /// The other end's.
    pub peer_port: u16,
}
const _: () = assert!(size_of::<FlowKey>() == 36);

impl FlowKey {
    /// As the other end sees it, if that is a pod of this node too.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            pod: self.peer,
            peer: self.pod,
            pod_port: self.peer_port,
            peer_port: self.pod_port,
        }
    }

    /// Makes it the same for both ends: as the one sees it that has the lower port, or else the lower address.
    /// Whether that isn't the one that saw it before.
    #[inline(always)]
    pub fn put_in_order(&mut self) -> bool {
        let is_second = !self.is_in_order();
        if is_second {
            *self = self.reversed();
        }
        is_second
    }

    /// Whether [`Self::put_in_order`] would leave it as it is.
    #[must_use]
    #[inline(always)]
    pub fn is_in_order(&self) -> bool {
        if self.pod_port == self.peer_port {
            !is_above(&self.pod, &self.peer)
        } else {
            self.pod_port < self.peer_port
        }
    }
}

/// Byte by byte: the target has no comparison of arrays.
#[inline(always)]
fn is_above(one: &Address, other: &Address) -> bool {
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return one[index] > other[index];
        }
        index += 1;
    }
    false
}

/// Settings of the programs. Written by each agent that starts, and when a map is full.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Configuration {
    /// [`LAYOUT_VERSION`] of the agent that wrote it; 0 before any has.
    pub layout: u32,
    /// 1: SYNs of pods still unknown after the hold pass. 0: they are dropped.
    pub allow_unknown_pods: u32,
    /// 1: mesh traffic passes unprotected while no agent listens. 0: it waits.
    pub allow_without_agent: u32,
    /// 1: some map of the mesh is full, so every address and port counts as the mesh's.
    pub capture_all: u32,
    /// For how long SYNs of an unknown interface are held, in nanoseconds.
    pub hold: u64,
}
const _: () = assert!(size_of::<Configuration>() == 24);

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "aya asks for an unsafe marker on plain-data map types"
    )]
    use super::{
        Configuration, FlowKey, InterfaceValue, NetworkKey, PortKey, ServiceKey, SourceKey,
    };

    macro_rules! plain_data {
        ($($name:ty),* $(,)?) => {
            $(
                // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
                unsafe impl aya::Pod for $name {}
            )*
        };
    }
    plain_data!(
        Configuration,
        FlowKey,
        InterfaceValue,
        NetworkKey,
        PortKey,
        ServiceKey,
        SourceKey,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_put_their_connection_in_the_same_order() {
        let address = |last: u8| {
            let mut address = [7; 16];
            address[15] = last;
            address
        };
        for (pod, pod_port, peer, peer_port) in [
            (1, 40_000, 2, 80),
            (1, 80, 2, 40_000),
            (2, 80, 1, 80),
            (1, 80, 2, 80),
        ] {
            let flow = FlowKey {
                pod: address(pod),
                peer: address(peer),
                pod_port,
                peer_port,
            };
            let (mut one, mut other) = (flow, flow.reversed());
            assert_ne!(one.put_in_order(), other.put_in_order(), "{flow:?}");
            assert_eq!(one, other);
            assert!(one == flow || one == flow.reversed());
            assert!(!one.put_in_order(), "it is in order");
        }
    }
}
