//! Who has which address. Pure: no namespace is touched here.
//!
//! The same in every lab, since a lab's addresses exist only in its own namespaces:
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | node *i* (from 1) | 10.78.0.*i*/24 | fd00:78::*i*/64 |
//! | pods of node *i* | 10.77.*i*.0/24 | fd00:77:0:*i*::/64 |
//! | all pods | 10.77.0.0/16 | fd00:77::/48 |
//! | services | 10.96.0.0/16 | fd00:96::/112 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The interface of every node that leads to the other nodes.
pub const NODE_INTERFACE: &str = "wire";

/// The bridge of a node with bridged pods, and of the wire between three nodes or more.
pub(crate) const BRIDGE: &str = "br0";

/// The IPv4 next hop of routed pods.
pub(crate) const ROUTED_GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The IPv6 next hop of routed pods.
pub(crate) const ROUTED_GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Which address families nodes, pods and services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

/// How pods are connected to their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodNetwork {
    /// A veth pair and a host route per pod, as ptp and Calico do.
    #[default]
    Routed,
    /// A bridge per node: pods of one node are switched, not routed.
    Bridged,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Prefix {
    /// Whether an address is in the network.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        fn same(a: u128, b: u128, bits: u32, length: u8) -> bool {
            (a ^ b).checked_shr(bits - u32::from(length)).unwrap_or(0) == 0
        }
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(a.to_bits().into(), b.to_bits().into(), 32, self.length)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, self.length),
            _ => false,
        }
    }
}

impl Family {
    /// The address of node `index` (from 1), with the prefix of the network between nodes.
    pub(crate) fn node(self, index: u8) -> Vec<Prefix> {
        self.of(
            (Ipv4Addr::new(10, 78, 0, index), 24),
            (Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, index.into()), 64),
        )
    }

    /// The `host`th address in the pod network of node `index`; 0 is the network itself.
    pub(crate) fn pod(self, index: u8, host: u8) -> Vec<Prefix> {
        self.of(
            (Ipv4Addr::new(10, 77, index, host), 24),
            (
                Ipv6Addr::new(0xfd00, 0x77, 0, index.into(), 0, 0, 0, host.into()),
                64,
            ),
        )
    }

    /// The networks of all pods of all nodes.
    pub(crate) fn pods(self) -> Vec<Prefix> {
        self.of(
            (Ipv4Addr::new(10, 77, 0, 0), 16),
            (Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0), 48),
        )
    }

    /// The virtual addresses of the `index`th service.
    pub(crate) fn service(self, index: u8) -> Vec<IpAddr> {
        let prefixes = self.of(
            (Ipv4Addr::new(10, 96, 0, index), 16),
            (
                Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, index.into()),
                112,
            ),
        );
        prefixes.into_iter().map(|prefix| prefix.address).collect()
    }

    /// Whether addresses like this one are in use.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
            Family::Dual => true,
        }
    }

    fn of(self, v4: (Ipv4Addr, u8), v6: (Ipv6Addr, u8)) -> Vec<Prefix> {
        let v4 = Prefix {
            address: v4.0.into(),
            length: v4.1,
        };
        let v6 = Prefix {
            address: v6.0.into(),
            length: v6.1,
        };
        [v4, v6]
            .into_iter()
            .filter(|prefix| self.has(prefix.address))
            .collect()
    }
}

/// The length of a prefix that holds this address alone.
pub(crate) fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The hardware address of a pod: a function of its address, as CNI's bridge plugin has it.
///
/// A pod that takes over an address is then found by neighbours that remember the old one.
pub(crate) fn hardware_address(address: IpAddr) -> String {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            // Node and host part of the lab's own plan.
            [octets[6], octets[7], octets[14], octets[15]]
        }
    };
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_yields_its_addresses_only() {
        let table = [
            (Family::V4, vec!["10.77.2.3/24"]),
            (Family::V6, vec!["fd00:77:0:2::3/64"]),
            (Family::Dual, vec!["10.77.2.3/24", "fd00:77:0:2::3/64"]),
        ];
        for (family, expected) in table {
            let prefixes: Vec<_> = family.pod(2, 3).iter().map(Prefix::to_string).collect();
            assert_eq!(prefixes, expected, "{family:?}");
        }
    }

    #[test]
    fn a_network_contains_its_own_addresses_only() {
        let networks = Family::Dual.pod(2, 0);
        let table = [
            ("10.77.2.9", true),
            ("10.77.3.9", false),
            ("fd00:77:0:2::9", true),
            ("fd00:77:0:3::9", false),
        ];
        for (address, expected) in table {
            let address = address.parse().unwrap();
            let contained = networks.iter().any(|network| network.contains(address));
            assert_eq!(contained, expected, "{address}");
        }
    }

    #[test]
    fn hardware_addresses_follow_the_address() {
        let table = [
            ("10.77.1.2", "0a:58:0a:4d:01:02"),
            ("fd00:77:0:1::2", "0a:58:00:01:00:02"),
        ];
        for (address, expected) in table {
            assert_eq!(hardware_address(address.parse().unwrap()), expected);
        }
    }
}
