//! What a bridge says about who is behind its ports.
//!
//! Only what the node itself has set is evidence. A bridge learns addresses from frames, and the
//! node learns hardware addresses from answers, so any pod on a bridge can make either say whatever
//! it likes. Not even a static entry is safe by itself: the kernel moves it to the port from which
//! a frame with that address comes, unless the entry is sticky or that port doesn't learn.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
    },
};

use super::{
    bind::{Claim, Evidence},
    devices::Device,
};

type Mac = [u8; 6];

/// An entry of a bridge's forwarding table, of a hardware address behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// The port's interface index.
    pub(super) port: u32,
    /// The address.
    pub(super) mac: Mac,
    /// Whether it's there by the node's doing, rather than learned.
    pub(super) is_static: bool,
    /// Whether a frame from another port doesn't move it.
    pub(super) is_sticky: bool,
}

/// The hardware address that the node has for an address, reached by a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// The bridge's interface index.
    pub(super) bridge: u32,
    /// The address.
    pub(super) address: IpAddr,
    /// Its hardware address.
    pub(super) mac: Mac,
    /// Whether it's there by the node's doing, rather than learned.
    pub(super) is_permanent: bool,
}

/// Where bridges have addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What the node itself has set.
    pub(super) claims: Vec<Claim>,
    /// What was learned, which is no evidence: the port of an address.
    pub(super) learned: BTreeMap<IpAddr, u32>,
}

/// Asks the kernel for all entries, and joins them.
///
/// # Errors
/// The kernel's refusal of a dump.
pub(super) async fn find(
    handle: &Handle,
    devices: &BTreeMap<u32, Device>,
) -> Result<Found, rtnetlink::Error> {
    let mut forwarding = Vec::new();
    let mut neighbours = Vec::new();
    for family in [
        AddressFamily::Bridge,
        AddressFamily::Inet,
        AddressFamily::Inet6,
    ] {
        let request = handle.neighbours().get().set_address_family(family);
        let messages: Vec<NeighbourMessage> = request.execute().try_collect().await?;
        if family == AddressFamily::Bridge {
            forwarding.extend(messages.iter().filter_map(entry));
        } else {
            neighbours.extend(messages.iter().filter_map(neighbour));
        }
    }
    Ok(join(devices, &forwarding, &neighbours))
}

/// The port of each neighbour.
pub(super) fn join(
    devices: &BTreeMap<u32, Device>,
    forwarding: &[Forwarding],
    neighbours: &[Neighbour],
) -> Found {
    let mut ports: HashMap<(u32, Mac), Vec<&Forwarding>> = HashMap::new();
    for entry in forwarding {
        if let Some(bridge) = devices.get(&entry.port).and_then(|device| device.bridge) {
            ports.entry((bridge, entry.mac)).or_default().push(entry);
        }
    }
    let mut found = Found::default();
    for neighbour in neighbours {
        let entries = ports.get(&(neighbour.bridge, neighbour.mac));
        let mut claimed = HashSet::new();
        // One for each VLAN.
        for entry in entries.into_iter().flatten() {
            let learns = devices.get(&entry.port).is_none_or(|port| port.learns);
            let is_nodes =
                neighbour.is_permanent && entry.is_static && (entry.is_sticky || !learns);
            if !is_nodes {
                found.learned.insert(neighbour.address, entry.port);
            } else if claimed.insert(entry.port) {
                found.claims.push(Claim {
                    interface: entry.port,
                    address: neighbour.address,
                    evidence: Evidence::Forwarding,
                });
            }
        }
    }
    found
}

fn entry(message: &NeighbourMessage) -> Option<Forwarding> {
    // A permanent one is the bridge's own.
    let is_static = match message.header.state {
        NeighbourState::Permanent => return None,
        state => state == NeighbourState::Noarp,
    };
    let is_bridges = |attribute: &NeighbourAttribute| {
        // Without it, it's an entry of the device's own.
        matches!(attribute, NeighbourAttribute::Controller(_))
    };
    message.attributes.iter().find(|a| is_bridges(a))?;
    Some(Forwarding {
        port: message.header.ifindex,
        mac: mac(message)?,
        is_static,
        is_sticky: message.header.flags.contains(NeighbourFlags::Sticky),
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| {
        Some(match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => (*address).into(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => (*address).into(),
            _ => return None,
        })
    })?;
    Some(Neighbour {
        bridge: message.header.ifindex,
        address,
        mac: mac(message)?,
        is_permanent: message.header.state == NeighbourState::Permanent,
    })
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    let found = message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(address) = attribute {
            address.as_slice().try_into().ok()
        } else {
            None
        }
    });
    // None is known yet.
    found.filter(|mac| *mac != [0; 6])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: u32 = 2;
    /// A port that learns, and one that doesn't.
    const LEARNING: u32 = 3;
    const FIXED: u32 = 4;
    const MAC: Mac = [10, 88, 0, 0, 0, 1];

    fn devices() -> BTreeMap<u32, Device> {
        let device = |index, bridge, learns| Device {
            index,
            name: format!("d{index}"),
            peer: None,
            bridge,
            is_bridge: bridge.is_none(),
            learns,
            mac: None,
            has_link_header: true,
            is_loopback: false,
        };
        [
            device(BRIDGE, None, true),
            device(LEARNING, Some(BRIDGE), true),
            device(FIXED, Some(BRIDGE), false),
            device(5, None, true),
        ]
        .into_iter()
        .map(|device| (device.index, device))
        .collect()
    }

    #[test]
    fn only_what_the_node_has_set_and_no_frame_can_move_is_evidence() {
        for (port, is_static, is_sticky, bridge, is_permanent, expected) in [
            (LEARNING, true, true, BRIDGE, true, "claimed"),
            (FIXED, true, false, BRIDGE, true, "claimed"),
            // A frame may have brought it there.
            (LEARNING, true, false, BRIDGE, true, "learned"),
            (LEARNING, false, false, BRIDGE, true, "learned"),
            (FIXED, false, false, BRIDGE, true, "learned"),
            // An answer may have said so.
            (LEARNING, true, true, BRIDGE, false, "learned"),
            (FIXED, true, true, BRIDGE, false, "learned"),
            // By another bridge, or by none.
            (LEARNING, true, true, 5, true, "nothing"),
            (5, true, true, BRIDGE, true, "nothing"),
        ] {
            let case = format!("{port} {is_static} {is_sticky} {bridge} {is_permanent}");
            let entry = Forwarding {
                port,
                mac: MAC,
                is_static,
                is_sticky,
            };
            let neighbour = Neighbour {
                bridge,
                address: "10.0.0.1".parse().unwrap(),
                mac: MAC,
                is_permanent,
            };
            let found = join(&devices(), &[entry, entry], &[neighbour]);
            let claim = Claim {
                interface: port,
                address: neighbour.address,
                evidence: Evidence::Forwarding,
            };
            let learned = BTreeMap::from([(neighbour.address, port)]);
            let told = match (found.claims.as_slice(), &found.learned) {
                ([only], none) if *only == claim && none.is_empty() => "claimed",
                ([], there) if *there == learned => "learned",
                ([], none) if none.is_empty() => "nothing",
                _ => "something else",
            };
            assert_eq!(told, expected, "{case}: {found:?}");
        }
    }
}
