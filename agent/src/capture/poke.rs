//! A segment that a pod's kernel answers with an acknowledgement.
//!
//! Of a connection that may not go on, the answer comes to the agent, whose listener resets it, and the
//! pod's socket hears of the end even where it had nothing to send.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use ambit_common::mark;
use socket2::{Domain, Protocol, Socket, Type};

use super::checksum::{TCP, of_segment};

/// `IPPROTO_RAW` of linux/in.h: what is sent has its IP header.
const RAW: i32 = 255;
const ACK: u8 = 0x10;
const TCP_HEADER: usize = 20;

/// Sends to a pod of this node, in the name of the connection's other end, what no connection expects.
///
/// # Errors
/// Without `CAP_NET_RAW`, or without a route.
pub(super) fn poke(pod: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(pod),
        Type::RAW,
        Some(Protocol::from(RAW)),
    )?;
    socket.set_mark(mark::AGENT)?;
    let packet = packet(pod, peer)?;
    // Ports mean nothing to a raw socket, and IPv6 refuses them.
    let to: SocketAddr = match pod.ip() {
        IpAddr::V4(address) => SocketAddrV4::new(address, 0).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, 0).into(),
    };
    socket.send_to(&packet, &to.into()).map(drop)
}

fn packet(pod: SocketAddr, peer: SocketAddr) -> io::Result<Vec<u8>> {
    let mut tcp = [0; TCP_HEADER];
    tcp[0..2].copy_from_slice(&peer.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&pod.port().to_be_bytes());
    // Its window won't have this sequence number, but for one time in a thousand.
    tcp[4..8].copy_from_slice(&rand::random::<u32>().to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = ACK;
    let (mut packet, addresses) = match (peer.ip(), pod.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[8] = 64;
            header[9] = TCP;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            // The kernel fills in length, identification and the header's checksum.
            (header, [&from.octets()[..], &to.octets()[..]].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[5] = 20;
            header[6] = TCP;
            header[7] = 64;
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            (header, [&from.octets()[..], &to.octets()[..]].concat())
        }
        _ => return Err(io::Error::other("ends of different families")),
    };
    let checksum = of_segment(&addresses, &tcp);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(tcp);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::checksum::checksum;

    #[test]
    fn what_is_sent_has_checksums_that_hold() {
        for (pod, peer, header) in [
            ("10.0.0.1:80", "10.0.0.2:40000", 20),
            ("[fd00::1]:80", "[fd00::2]:40000", 40),
        ] {
            let (pod, peer): (SocketAddr, SocketAddr) =
                (pod.parse().unwrap(), peer.parse().unwrap());
            let packet = packet(pod, peer).unwrap();
            assert_eq!(packet.len(), header + TCP_HEADER);
            let addresses = match header {
                20 => &packet[12..20],
                _ => &packet[8..40],
            };
            let pseudo_header: &[u8] = &[0, TCP, 0, 20];
            // With its own checksum in it, the sum is that of nothing.
            assert_eq!(checksum(&[addresses, pseudo_header, &packet[header..]]), 0);
        }
        let mixed = (
            "10.0.0.1:80".parse().unwrap(),
            "[fd00::2]:1".parse().unwrap(),
        );
        assert!(packet(mixed.0, mixed.1).is_err());
    }
}
