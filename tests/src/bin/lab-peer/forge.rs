//! TCP SYNs and answers to them that lie about where they come from, or about what they are.

pub(crate) mod link;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use link::HardwareAddress;

/// IPPROTO_RAW: the packets come with their IP header, whose source is not checked (raw(7)).
const RAW: i32 = 255;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// What a fragmented SYN carries beside its headers, in bytes. More than the headers before it, so
/// that a node that reassembles the packet has to fragment it again.
const FRAGMENTED_PAYLOAD: usize = 64;

/// What is sent.
#[derive(Args)]
pub(crate) struct Forgery {
    /// The source that the packets claim.
    #[arg(long)]
    source: SocketAddr,
    /// Where they go.
    #[arg(long)]
    destination: SocketAddr,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Sends answers to SYNs (SYN and ACK).
    #[arg(long)]
    answer: bool,
    /// Sends frames by eth0 that have so many VLAN tags, all of VLAN 0.
    #[arg(long, default_value_t = 0, requires_all = ["link_source", "link_destination"])]
    vlan_tags: usize,
    /// Makes the outermost tag one of 802.1ad.
    #[arg(long, requires = "vlan_tags")]
    service_tag: bool,
    /// The hardware address that frames come from.
    #[arg(long)]
    link_source: Option<HardwareAddress>,
    /// The hardware address that frames go to.
    #[arg(long)]
    link_destination: Option<HardwareAddress>,
    /// Sends each SYN in two fragments whose fragment header is followed by this one.
    #[arg(long, value_enum, conflicts_with_all = ["vlan_tags", "answer"])]
    fragment_behind: Option<Extension>,
}

/// An IPv6 extension header.
#[derive(Clone, Copy, ValueEnum)]
enum Extension {
    DestinationOptions,
}

/// Sends the SYNs.
pub(crate) fn send(forgery: &Forgery) -> io::Result<Value> {
    let frames = link::Frames::open(forgery)?;
    let socket = Socket::new(
        Domain::for_address(forgery.destination),
        Type::RAW,
        Some(Protocol::from(RAW)),
    )?;
    // A raw IPv6 socket refuses a port here; IPv4 doesn't look at it.
    let to = SocketAddr::new(forgery.destination.ip(), 0);
    let ends = (forgery.source, forgery.destination);
    let flags = if forgery.answer { SYN | ACK } else { SYN };
    for sequence in 0..forgery.count {
        let packets = match forgery.fragment_behind {
            Some(Extension::DestinationOptions) => fragments(forgery, sequence)?.to_vec(),
            None => vec![packet(ends, flags, sequence)?],
        };
        for packet in packets {
            match &frames {
                Some(frames) => frames.send(&packet)?,
                None => {
                    socket.send_to(&packet, &to.into())?;
                }
            }
        }
    }
    Ok(json!({ "sent": forgery.count }))
}

/// An IP packet with a SYN, or an answer to one. RFC 791, RFC 8200.
fn packet(ends: (SocketAddr, SocketAddr), flags: u8, sequence: u32) -> io::Result<Vec<u8>> {
    let segment = syn(ends, flags, sequence, &[])?;
    let mut packet = ip_header(ends.0, ends.1, TCP, segment.len())?;
    packet.extend(segment);
    Ok(packet)
}

/// A SYN with data in two fragments. The fragment header names the destination options as the next
/// one, and only these name TCP. RFC 8200, sections 4.5 and 4.6.
fn fragments(forgery: &Forgery, sequence: u32) -> io::Result<[Vec<u8>; 2]> {
    let (source, destination) = (forgery.source, forgery.destination);
    // PadN over the four bytes that are left of eight.
    let mut whole = vec![TCP, 0, 1, 4, 0, 0, 0, 0];
    let payload = [0; FRAGMENTED_PAYLOAD];
    whole.extend(syn((source, destination), SYN, sequence, &payload)?);
    // The first must hold all headers, and be a multiple of eight bytes long.
    let (first, second) = whole.split_at(8 + 24);
    let fragment = |offset: usize, more: u8, body: &[u8]| {
        let mut packet = ip_header(source, destination, FRAGMENT, 8 + body.len())?;
        let offset = u8::try_from(offset).map_err(io::Error::other)?;
        // Offset in units of eight bytes, above three bits of flags.
        packet.extend([DESTINATION_OPTIONS, 0, 0, offset | more]);
        packet.extend(sequence.to_be_bytes());
        packet.extend(body);
        Ok::<_, io::Error>(packet)
    };
    Ok([fragment(0, 1, first)?, fragment(first.len(), 0, second)?])
}

/// A TCP SYN with its check sum. RFC 9293.
fn syn(
    (source, destination): (SocketAddr, SocketAddr),
    flags: u8,
    sequence: u32,
    payload: &[u8],
) -> io::Result<Vec<u8>> {
    let mut tcp = Vec::with_capacity(24 + payload.len());
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    // Nothing acknowledged; six words of header; a window of 64240; check sum and urgent 0.
    tcp.extend([0, 0, 0, 0, 6 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    // Maximum segment size 1400.
    tcp.extend([2, 4, 0x05, 0x78]);
    tcp.extend(payload);

    let mut covered = Vec::with_capacity(40 + tcp.len());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            covered.extend([from.octets(), to.octets()].concat());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            covered.extend([from.octets(), to.octets()].concat());
        }
        _ => return Err(different_families()),
    }
    let length = u16::try_from(tcp.len()).map_err(io::Error::other)?;
    covered.extend([0, TCP]);
    covered.extend(length.to_be_bytes());
    covered.extend(&tcp);
    tcp[16..18].copy_from_slice(&check_sum(&covered).to_be_bytes());
    Ok(tcp)
}

/// The IP header before `length` bytes of a protocol.
fn ip_header(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    length: usize,
) -> io::Result<Vec<u8>> {
    let length = u16::try_from(length).map_err(io::Error::other)?;
    let mut header = Vec::with_capacity(40);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x45, 0]);
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend([from.octets(), to.octets()].concat());
            // A raw socket would fill it in; a frame has to bring it.
            let sum = check_sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend([0x60, 0, 0, 0]);
            header.extend(length.to_be_bytes());
            header.extend([protocol, 64]);
            header.extend([from.octets(), to.octets()].concat());
        }
        _ => return Err(different_families()),
    }
    Ok(header)
}

fn different_families() -> io::Error {
    io::Error::other("source and destination are of different families")
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
            let source: SocketAddr = source.parse().unwrap();
            let packet = packet((source, destination.parse().unwrap()), SYN, 7).unwrap();
            let addresses = if source.is_ipv4() { 12..20 } else { 8..40 };
            if source.is_ipv4() {
                assert_eq!(check_sum(&packet[..20]), 0, "the IP header of {source}");
            }
            let mut covered = packet[addresses.clone()].to_vec();
            covered.extend([0, TCP, 0, 24]);
            covered.extend(&packet[addresses.end..]);
            assert_eq!(check_sum(&covered), 0, "{source}");
        }
    }
}
