//! Parsing: from a packet to the few facts that decide about it.

use ambit_common::map::{Address, FlowKey, INTERFACE_NO_LINK_HEADER, InterfaceValue};
use aya_ebpf::programs::TcContext;

/// The address family of IPv4.
pub const AF_INET: u32 = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// VLAN tags, inner and outer. The kernel takes one tag off before a hook sees the frame; with a
/// second one of VLAN 0 it would deliver, behind our back, what the frame carries.
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERNET_HEADER: usize = 14;

const PROTOCOL_TCP: u8 = 6;
const IPV6_HEADER: usize = 40;
/// Longest chain of IPv6 extension headers that is followed; RFC 8200 names fewer kinds than
/// this, each of which should come at most once (destination options twice).
const MAX_EXTENSION_HEADERS: usize = 6;

const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;

/// What could be read of a packet.
///
/// Every field has a value whatever the content is, so that the verifier never meets one that
/// wasn't written.
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    pub is_ipv6: bool,
    pub content: Content,
    /// The TCP facts if the content is [`Content::Tcp`], else zeros.
    pub segment: Segment,
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Tcp,
    /// A fragment of TCP, or of what may be TCP: its ports are elsewhere.
    Fragment,
    /// Another IP packet.
    Other,
    /// ARP and the like.
    NotIp,
    /// Headers that can't be read.
    Malformed,
}

/// The TCP facts.
#[derive(Clone, Copy)]
pub struct Segment {
    pub source_port: u16,
    pub destination_port: u16,
    flags: u8,
}

impl Segment {
    /// The first packet of a connection: SYN without ACK.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
    }

    /// The first packet of either end.
    #[inline(always)]
    pub fn synchronizes(&self) -> bool {
        self.flags & FLAG_SYN != 0
    }

    /// The last packet, or the refusal of a first.
    #[inline(always)]
    pub fn resets(&self) -> bool {
        self.flags & FLAG_RST != 0
    }
}

impl Packet {
    /// The connection as the sending pod sees it.
    #[inline(always)]
    pub fn flow_of_sender(&self, segment: &Segment) -> FlowKey {
        FlowKey {
            pod: self.source,
            peer: self.destination,
            pod_port: segment.source_port,
            peer_port: segment.destination_port,
        }
    }

    /// The connection as the receiving pod sees it.
    #[inline(always)]
    pub fn flow_of_receiver(&self, segment: &Segment) -> FlowKey {
        FlowKey {
            pod: self.destination,
            peer: self.source,
            pod_port: segment.destination_port,
            peer_port: segment.source_port,
        }
    }
}

/// Reads a packet.
#[inline(always)]
pub fn parse(ctx: &TcContext, interface: &InterfaceValue) -> Packet {
    let network = if interface.flags & INTERFACE_NO_LINK_HEADER != 0 {
        0
    } else {
        ETHERNET_HEADER
    };
    let mut packet = Packet {
        source: [0; 16],
        destination: [0; 16],
        is_ipv6: false,
        content: Content::NotIp,
        segment: Segment {
            source_port: 0,
            destination_port: 0,
            flags: 0,
        },
    };
    // SAFETY: the context pointer is the kernel's and valid for the program's run.
    let protocol = unsafe { (*ctx.skb.skb).protocol } as u16;
    packet.content = match u16::from_be(protocol) {
        ETHERTYPE_IPV4 => parse_ipv4(ctx, network, &mut packet),
        ETHERTYPE_IPV6 => parse_ipv6(ctx, network, &mut packet),
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => Content::Malformed,
        _ => Content::NotIp,
    };
    packet
}

#[inline(always)]
fn parse_ipv4(ctx: &TcContext, network: usize, packet: &mut Packet) -> Content {
    let Ok(header) = ctx.load::<[u8; 20]>(network) else {
        return Content::Malformed;
    };
    packet.source = mapped([header[12], header[13], header[14], header[15]]);
    packet.destination = mapped([header[16], header[17], header[18], header[19]]);
    if header[9] != PROTOCOL_TCP {
        return Content::Other;
    }
    // More fragments, or an offset: RFC 791.
    if header[6] & 0x3f != 0 || header[7] != 0 {
        return Content::Fragment;
    }
    let length = ((header[0] & 0x0f) as usize) * 4;
    parse_tcp(ctx, network + length, packet)
}

#[inline(always)]
fn parse_ipv6(ctx: &TcContext, network: usize, packet: &mut Packet) -> Content {
    let Ok(header) = ctx.load::<[u8; IPV6_HEADER]>(network) else {
        return Content::Malformed;
    };
    packet.is_ipv6 = true;
    packet.source.copy_from_slice(&header[8..24]);
    packet.destination.copy_from_slice(&header[24..40]);

    let mut next = header[6];
    let mut offset = network + IPV6_HEADER;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            PROTOCOL_TCP => return parse_tcp(ctx, offset, packet),
            // Hop-by-hop, routing, destination options, authentication, fragment.
            0 | 43 | 60 | 51 | 44 => {}
            _ => return Content::Other,
        }
        let Ok(extension) = ctx.load::<[u8; 8]>(offset) else {
            return Content::Malformed;
        };
        let is_part = next == 44 && (extension[2] != 0 || extension[3] & 0xf9 != 0);
        if is_part {
            // Behind further extension headers TCP may follow, in this fragment or another.
            return match extension[0] {
                PROTOCOL_TCP | 0 | 43 | 44 | 51 | 60 => Content::Fragment,
                _ => Content::Other,
            };
        }
        offset += match next {
            44 => 8,
            51 => (extension[1] as usize + 2) * 4,
            _ => (extension[1] as usize + 1) * 8,
        };
        next = extension[0];
    }
    Content::Malformed
}

#[inline(always)]
fn parse_tcp(ctx: &TcContext, offset: usize, packet: &mut Packet) -> Content {
    let Ok(header) = ctx.load::<[u8; 14]>(offset) else {
        return Content::Malformed;
    };
    packet.segment = Segment {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags: header[13],
    };
    Content::Tcp
}

/// An IPv4 address as an IPv4-mapped IPv6 one.
#[inline(always)]
pub fn mapped(a: [u8; 4]) -> Address {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3],
    ]
}

/// An address from the words that the kernel gives, whose bytes are in the network's order.
#[inline(always)]
pub fn from_words(words: [u32; 4]) -> Address {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}

/// An address as the kernel takes it.
#[inline(always)]
pub fn to_words(address: &Address) -> [u32; 4] {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<Address, [u32; 4]>(*address) }
}

/// Local and remote address, of the context of a program that is told of sockets.
///
/// Read one by one and whichever the family is, or the compiler chooses a pointer first and reads then: the
/// verifier allows no arithmetic on a pointer to the context.
macro_rules! addresses {
    ($context:expr) => {{
        macro_rules! field {
            ($field:ident) => {
                // SAFETY: a field of the kernel's context, which may be read at any time.
                unsafe { core::ptr::read_volatile(&raw const (*$context).$field) }
            };
            ($field:ident[$index:literal]) => {
                // SAFETY: as above.
                unsafe { core::ptr::read_volatile(&raw const (*$context).$field[$index]) }
            };
        }
        let is_ipv4 = field!(family) == $crate::packet::AF_INET;
        let (local, remote) = (field!(local_ip4), field!(remote_ip4));
        let local_words = [
            field!(local_ip6[0]),
            field!(local_ip6[1]),
            field!(local_ip6[2]),
            field!(local_ip6[3]),
        ];
        let remote_words = [
            field!(remote_ip6[0]),
            field!(remote_ip6[1]),
            field!(remote_ip6[2]),
            field!(remote_ip6[3]),
        ];
        if is_ipv4 {
            [local, remote].map(|address| $crate::packet::mapped(address.to_ne_bytes()))
        } else {
            // A dual-stack socket has IPv4 addresses in their mapped form: just what is wanted.
            [local_words, remote_words].map($crate::packet::from_words)
        }
    }};
}
pub(crate) use addresses;

/// The IPv4 address within a mapped one, as the four bytes on the wire.
#[inline(always)]
pub fn ipv4(address: &Address) -> u32 {
    u32::from_ne_bytes([address[12], address[13], address[14], address[15]])
}

/// Addresses that a host may use before or beside its own: unspecified, and IPv6 link-local
/// (neighbour discovery). They reach no further than the link.
#[inline(always)]
pub fn is_link_scope(address: &Address) -> bool {
    let link_local = address[0] == 0xfe && address[1] & 0xc0 == 0x80;
    let mut rest = 0;
    let mut index = 0;
    while index < 10 {
        rest |= address[index];
        index += 1;
    }
    let unspecified_ipv6 = rest == 0 && address[10] == 0 && ipv4(address) == 0;
    let unspecified_ipv4 = rest == 0 && address[10] == 0xff && ipv4(address) == 0;
    link_local || unspecified_ipv6 || unspecified_ipv4
}
