//! TCP SYNs that lie about where they come from.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// IPPROTO_RAW: the packets come with their IP header, whose source is not checked (raw(7)).
const RAW: i32 = 255;
const TCP: u8 = 6;

/// Sends `count` SYNs.
pub(crate) fn send(source: SocketAddr, destination: SocketAddr, count: u32) -> io::Result<Value> {
    let domain = Domain::for_address(destination);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    // A raw IPv6 socket refuses a port here; IPv4 doesn't look at it.
    let to = SocketAddr::new(destination.ip(), 0);
    for sequence in 0..count {
        socket.send_to(&packet(source, destination, sequence)?, &to.into())?;
    }
    Ok(json!({ "sent": count }))
}

/// An IP packet with a SYN. RFC 791, RFC 8200, RFC 9293.
fn packet(source: SocketAddr, destination: SocketAddr, sequence: u32) -> io::Result<Vec<u8>> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    // No acknowledgement; five words of header; SYN; a window of 64240; check sum and urgent 0.
    tcp.extend([0, 0, 0, 0, 5 << 4, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);

    let mut packet = Vec::with_capacity(60);
    let mut pseudo = Vec::with_capacity(40);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in identification and check sum.
            packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
            for part in [&mut packet, &mut pseudo] {
                part.extend(from.octets());
                part.extend(to.octets());
            }
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0, 0, 20, TCP, 64]);
            for part in [&mut packet, &mut pseudo] {
                part.extend(from.octets());
                part.extend(to.octets());
            }
        }
        _ => {
            return Err(io::Error::other(
                "source and destination are of different families",
            ));
        }
    }
    pseudo.extend([0, TCP, 0, 20]);
    pseudo.extend(&tcp);
    tcp[16..18].copy_from_slice(&check_sum(&pseudo).to_be_bytes());
    packet.extend(tcp);
    Ok(packet)
}

/// The Internet check sum of an even number of bytes. RFC 1071.
fn check_sum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks_exact(2).fold(0_u32, |sum, pair| {
        let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        (sum & 0xffff) + (sum >> 16)
    });
    !u16::try_from(sum & 0xffff).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_check_sum_sums_to_zero() {
        for (source, destination) in [
            ("10.0.0.1:1000", "10.0.0.2:80"),
            ("[fd00::1]:1000", "[fd00::2]:80"),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let packet = packet(source, destination, 7).unwrap();
            let addresses = if source.is_ipv4() { 12..20 } else { 8..40 };
            let mut covered = packet[addresses.clone()].to_vec();
            covered.extend([0, TCP, 0, 20]);
            covered.extend(&packet[addresses.end..]);
            assert_eq!(check_sum(&covered), 0, "{source}");
        }
    }
}
