//! The node's devices as the kernel tells them: which are pods', and which addresses claim them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{
            InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkInfo, LinkLayerType,
            LinkMessage,
        },
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    },
};

use super::{
    bind::{Claim, Evidence},
    forwarding,
};

/// A device of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Interface index.
    pub(super) index: u32,
    /// Name.
    pub(super) name: String,
    /// A veth whose other end is in another namespace: that namespace's id here, and the other
    /// end's index there.
    pub(super) peer: Option<(i32, u32)>,
    /// The bridge that the device is a port of.
    pub(super) bridge: Option<u32>,
    /// Whether it's a bridge itself.
    pub(super) is_bridge: bool,
    /// Whether the bridge, if it's a port of one, learns from its frames who is behind it.
    pub(super) learns: bool,
    /// The device's own MAC address, if it has one of six bytes.
    pub(super) mac: Option<[u8; 6]>,
    /// Whether packets bear an Ethernet header.
    pub(super) has_link_header: bool,
    /// Whether it's the loopback device.
    pub(super) is_loopback: bool,
}

/// All that was observed at once.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// Every device, by index.
    pub(super) devices: BTreeMap<u32, Device>,
    /// The devices that are pods'.
    pub(super) pods: BTreeSet<u32>,
    /// What says which address is behind which of them.
    pub(super) claims: Vec<Claim>,
    /// Behind which of them bridges have learned an address to be. No evidence: pods can have them
    /// learn anything.
    pub(super) learned: BTreeMap<IpAddr, u32>,
    /// The devices that aren't pods' to which the node routes an address of its own.
    pub(super) elsewhere: BTreeMap<IpAddr, u32>,
    /// The node's own addresses.
    pub(super) node_addresses: BTreeSet<IpAddr>,
}

/// Looks at everything once: some dumps over netlink.
///
/// Pods' namespaces are asked only for interfaces that `is_bound` says no to: the others' claims
/// would count for nothing. `is_pods` says which are pods' whatever routes lead through them.
///
/// # Errors
/// The kernel's refusal of a dump.
pub(super) async fn observe(
    handle: &Handle,
    is_bound: impl Fn(u32) -> bool,
    is_pods: impl Fn(u32) -> bool,
) -> Result<Observation, rtnetlink::Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut devices: BTreeMap<u32, Device> = links
        .iter()
        .map(|link| (link.header.index, device(link)))
        .collect();
    let bridges: BTreeSet<u32> = devices
        .values()
        .filter(|device| device.is_bridge)
        .map(|device| device.index)
        .collect();
    for device in devices.values_mut() {
        // Other masters (a VRF, a bond) switch nothing.
        device.bridge = device.bridge.filter(|master| bridges.contains(master));
    }
    let mut routes = Vec::new();
    for request in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let family: Vec<RouteMessage> = handle.route().get(request).execute().try_collect().await?;
        routes.extend(family.iter().filter_map(route));
    }
    let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;

    let own: BTreeSet<u32> = routes
        .iter()
        .filter(|route| route.has_gateway)
        .map(|route| route.device)
        .chain(
            addresses
                .iter()
                .filter(|address| is_network(address))
                .map(|a| a.header.index),
        )
        .collect();
    let pods: BTreeSet<u32> = devices
        .values()
        .filter(|device| device.peer.is_some())
        // What is known for a pod's stays one, whatever routes come to lead through it.
        .filter(|device| is_pods(device.index) || !own.contains(&device.index))
        .map(|device| device.index)
        .collect();
    let node_addresses = addresses.iter().filter_map(local_address).collect();

    let mut claims: Vec<Claim> = routes
        .iter()
        .filter(|route| pods.contains(&route.device))
        .filter_map(|route| {
            let address = route.host?;
            Some(Claim {
                interface: route.device,
                address,
                evidence: Evidence::HostRoute,
            })
        })
        .collect();
    let others = routes.iter().filter(|route| !pods.contains(&route.device));
    let elsewhere = others
        .filter_map(|route| Some((route.host?, route.device)))
        .collect();
    let unbound: Vec<&Device> = devices
        .values()
        .filter(|device| pods.contains(&device.index) && !is_bound(device.index))
        .collect();
    let mut learned = BTreeMap::new();
    if unbound.iter().any(|device| device.bridge.is_some()) {
        let found = forwarding::find(handle, &devices).await?;
        let of_pods = |claim: &Claim| pods.contains(&claim.interface);
        claims.extend(found.claims.into_iter().filter(of_pods));
        learned = found.learned;
    }
    for device in unbound {
        if let Some((namespace, peer)) = device.peer {
            let is_only = devices
                .values()
                .all(|d| d.index == device.index || d.peer.is_none_or(|(id, _)| id != namespace));
            let addresses = addresses_in(handle, namespace, peer, is_only).await;
            claims.extend(addresses.into_iter().map(|address| Claim {
                interface: device.index,
                address,
                evidence: Evidence::PodNamespace,
            }));
        }
    }
    Ok(Observation {
        devices,
        pods,
        claims,
        learned,
        elsewhere,
        node_addresses,
    })
}

/// Addresses of an interface in another namespace, asked by the id that the namespace has here:
/// nothing enters the pod. A namespace that has just gone has none.
///
/// If it has none and `is_only` this node's into the namespace, it leads to whatever addresses are
/// there: a virtual machine's or an inner bridge's device may bear them.
async fn addresses_in(handle: &Handle, namespace: i32, index: u32, is_only: bool) -> Vec<IpAddr> {
    let mut request = handle.address().get();
    request
        .message_mut()
        .attributes
        .push(AddressAttribute::TargetNetNsId(namespace));
    let found: Result<Vec<AddressMessage>, _> = request.execute().try_collect().await;
    let found = found.unwrap_or_default();
    let of = |is_wanted: &dyn Fn(&AddressMessage) -> bool| -> Vec<IpAddr> {
        let wanted = found.iter().filter(|address| is_wanted(address));
        wanted
            .filter_map(local_address)
            .filter(|address| !is_link_local(*address) && !address.is_loopback())
            .collect()
    };
    let own = of(&|address| address.header.index == index);
    if own.is_empty() && is_only {
        of(&|_| true)
    } else {
        own
    }
}

fn device(link: &LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        peer: None,
        bridge: None,
        is_bridge: false,
        learns: true,
        mac: None,
        has_link_header: matches!(
            link.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        is_loopback: link.header.link_layer_type == LinkLayerType::Loopback,
    };
    let (mut is_veth, mut namespace, mut peer) = (false, None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(mac) => device.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Controller(index) => device.bridge = Some(*index),
            LinkAttribute::Link(index) => peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                device.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                device.learns = !infos.iter().any(is_port_that_learns_nothing);
                is_veth = infos
                    .iter()
                    .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit)));
            }
            _ => {}
        }
    }
    if is_veth {
        device.peer = namespace.zip(peer);
    }
    device
}

fn is_port_that_learns_nothing(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info else {
        return false;
    };
    port.contains(&InfoBridgePort::Learning(false))
}

/// What matters of a route.
struct Route {
    device: u32,
    /// The one address it leads to.
    host: Option<IpAddr>,
    has_gateway: bool,
}

fn route(message: &RouteMessage) -> Option<Route> {
    // A router advertisement may be the pod's own: it says nothing about the node.
    if message.header.kind != RouteType::Unicast || message.header.protocol == RouteProtocol::Ra {
        return None;
    }
    let (mut device, mut destination, mut has_gateway) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    let host = destination.filter(|address| length == host_length(*address));
    Some(Route {
        device: device?,
        host: host.filter(|a| !is_link_local(*a)),
        has_gateway,
    })
}

/// An address that stands for a network of its own, as uplinks and bridges have: pods' veths
/// have none, or a single one that serves as gateway. An IPv6 address that isn't permanent may come
/// from a pod's router advertisement.
fn is_network(message: &AddressMessage) -> bool {
    let is_advertised = message.header.family == AddressFamily::Inet6
        && !message.header.flags.contains(AddressHeaderFlags::Permanent);
    if is_advertised {
        return false;
    }
    local_address(message).is_some_and(|address| {
        message.header.prefix_len < host_length(address) && !is_link_local(address)
    })
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |local| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    of(true).or_else(|| of(false))
}

fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    }
}
