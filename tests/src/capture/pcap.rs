//! Reads pcap files: the packets' IP and TCP headers, and their payload.
//!
//! The format of the file is draft-ietf-opsawg-pcap; that of the link layers is listed at
//! <https://www.tcpdump.org/linktypes.html>.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{Error, Result};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A captured IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// The bytes behind the headers that are known.
    pub payload: Vec<u8>,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
        /// The flags byte: FIN is 1, SYN 2, RST 4, ACK 16.
        flags: u8,
    },
    /// A UDP datagram.
    Udp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// Another protocol by its number, or a fragment but the first.
    Other(u8),
}

/// How the packets of a file begin.
#[derive(Clone, Copy)]
enum LinkType {
    Ethernet,
    /// Linux's cooked header, of the interface `any`.
    Cooked,
    /// The second version of that.
    Cooked2,
}

impl Packet {
    /// Whether it is TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. })
    }

    /// Whether it is a TCP SYN without ACK.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags, .. } if flags & 0x12 == 0x02)
    }

    /// Whether it is a TCP segment with RST.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags, .. } if flags & 0x04 != 0)
    }

    /// Whether a TCP or UDP port of it, either end's, is `port`.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports()
            .is_some_and(|(source, destination)| source == port || destination == port)
    }

    /// Whether an address of it, either end's, is `address`.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.source == address || self.destination == address
    }

    /// Whether the payload contains `marker`. One that two packets share isn't found.
    #[must_use]
    pub fn contains(&self, marker: impl AsRef<[u8]>) -> bool {
        let marker = marker.as_ref();
        !marker.is_empty()
            && self
                .payload
                .windows(marker.len())
                .any(|window| window == marker)
    }

    fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Udp {
                source,
                destination,
            } => Some((source, destination)),
            Transport::Other(_) => None,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = self.ports().unwrap_or_default();
        let source = SocketAddr::new(self.source, source);
        let destination = SocketAddr::new(self.destination, destination);
        write!(
            f,
            "{source} -> {destination} {:?}, {} bytes",
            self.transport,
            self.payload.len()
        )
    }
}

/// Reads the IP packets of a pcap file; others, such as ARP, are left out.
///
/// # Errors
/// If the file isn't pcap, ends in the middle of a packet, or has another link layer.
pub fn parse_pcap(file: &[u8]) -> Result<Vec<Packet>> {
    parse(file).map_err(|cause| Error::malformed("the pcap file", cause))
}

fn parse(file: &[u8]) -> std::result::Result<Vec<Packet>, &'static str> {
    let mut rest = file;
    let header: &[u8; 24] = take(&mut rest).ok_or("it is shorter than its header")?;
    let (big_endian, nanoseconds) = match header[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
        [0xa1, 0xb2, 0xc3, 0xd4] => (true, false),
        [0x4d, 0x3c, 0xb2, 0xa1] => (false, true),
        [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
        _ => return Err("it doesn't begin as pcap files do"),
    };
    let number = |bytes: &[u8], at: usize| {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    // The upper bits say whether frames end with a check sum.
    let link = match number(header, 20) & 0xffff {
        1 => LinkType::Ethernet,
        113 => LinkType::Cooked,
        276 => LinkType::Cooked2,
        _ => return Err("its link layer is neither Ethernet nor Linux cooked"),
    };
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let record: &[u8; 16] = take(&mut rest).ok_or("it ends in a record's header")?;
        let fraction = u64::from(number(record, 4)) * if nanoseconds { 1 } else { 1000 };
        let time = Duration::from_secs(number(record, 0).into()) + Duration::from_nanos(fraction);
        let length = usize::try_from(number(record, 8)).map_err(|_| "a record is too long")?;
        let (frame, behind) = rest.split_at_checked(length).ok_or("it ends in a packet")?;
        rest = behind;
        packets.extend(packet(time, link, frame));
    }
    Ok(packets)
}

/// The IP packet in an Ethernet frame that was seen just now, if there is a whole one.
pub(crate) fn parse_frame(frame: &[u8]) -> Option<Packet> {
    packet(Duration::ZERO, LinkType::Ethernet, frame)
}

/// The IP packet in a frame, if there is a whole one.
fn packet(time: Duration, link: LinkType, frame: &[u8]) -> Option<Packet> {
    let (mut header, mut protocol_at) = match link {
        LinkType::Ethernet => (14, 12),
        LinkType::Cooked => (16, 14),
        LinkType::Cooked2 => (20, 0),
    };
    // VLAN tags: what they hide is still to be found.
    while matches!(be16(frame, protocol_at)?, 0x8100 | 0x88a8) {
        (header, protocol_at) = (header + 4, header + 2);
    }
    let ip = frame.get(header..)?;
    let (source, destination, protocol, body) = match be16(frame, protocol_at)? {
        0x0800 => ipv4(ip)?,
        0x86dd => ipv6(ip)?,
        _ => return None,
    };
    let (transport, payload) = transport(protocol, body);
    Some(Packet {
        time,
        source,
        destination,
        transport,
        payload: payload.to_vec(),
    })
}

/// Addresses, protocol and body. RFC 791. Segmentation offload leaves a total length of 0 in
/// packets too large for the field: then the frame's length counts.
fn ipv4(ip: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let total = match usize::from(be16(ip, 2)?) {
        0 => ip.len(),
        total => total,
    };
    let body = ip.get(header.max(20)..total.min(ip.len()))?;
    let address = |at: usize| {
        let octets = <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let (source, destination) = (address(12)?, address(16)?);
    // A later fragment has no ports; its bytes are still to be searched.
    let is_later_fragment = be16(ip, 6)? & 0x1fff != 0;
    let protocol = if is_later_fragment { 0 } else { *ip.get(9)? };
    Some((source, destination, protocol, body))
}

/// Addresses, protocol and body. RFC 8200. Extension headers count as another protocol.
fn ipv6(ip: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let total = match usize::from(be16(ip, 4)?) {
        0 => ip.len(),
        length => length + 40,
    };
    let body = ip.get(40..total.min(ip.len()))?;
    let address = |at: usize| {
        let octets = <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    Some((address(8)?, address(24)?, *ip.get(6)?, body))
}

fn transport(protocol: u8, body: &[u8]) -> (Transport, &[u8]) {
    let known = match protocol {
        TCP => tcp(body),
        UDP => udp(body),
        _ => None,
    };
    known.unwrap_or((Transport::Other(protocol), body))
}

fn tcp(body: &[u8]) -> Option<(Transport, &[u8])> {
    let (source, destination) = (be16(body, 0)?, be16(body, 2)?);
    let header = usize::from(body.get(12)? >> 4) * 4;
    let flags = *body.get(13)?;
    Some((
        Transport::Tcp {
            source,
            destination,
            flags,
        },
        body.get(header.max(20)..)?,
    ))
}

fn udp(body: &[u8]) -> Option<(Transport, &[u8])> {
    let (source, destination) = (be16(body, 0)?, be16(body, 2)?);
    Some((
        Transport::Udp {
            source,
            destination,
        },
        body.get(8..)?,
    ))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(first)
}

#[cfg(test)]
mod tests;
