//! A pod that calls itself a router.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::forge::link;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// What the pod claims to route, a network of documentation: RFC 3849.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x5, 0, 0, 0, 0, 0);
/// How long all that is to be believed, in seconds.
const LIFETIME: u16 = 1800;

/// Sends one router advertisement by eth0, with a prefix for addresses of the receivers' own.
pub(crate) fn send() -> io::Result<Value> {
    let index = link::interface_index()?;
    // The kernel fills in the check sum, and the link-local source: RFC 3542, section 3.1.
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // Anything less would come from another link: RFC 4861, section 6.1.2.
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    socket.send_to(&advertisement(), &to.into())?;
    Ok(json!({ "sent": 1 }))
}

/// RFC 4861, sections 4.2 and 4.6.2.
fn advertisement() -> Vec<u8> {
    // Type, code, check sum, hop limit, flags.
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(LIFETIME.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    message.extend([0; 8]);
    // Prefix information, four times eight bytes: a /64, on the link, for autoconfiguration.
    message.extend([3, 4, 64, 0xc0]);
    // Valid and preferred lifetime.
    message.extend([u32::from(LIFETIME).to_be_bytes(); 2].concat());
    message.extend([0; 4]);
    message.extend(PREFIX.octets());
    message
}
