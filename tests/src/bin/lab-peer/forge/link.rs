//! Ethernet frames that a pod makes itself. The unsafe code of `lab-peer` is here.
#![expect(
    unsafe_code,
    reason = "if_nametoindex and addresses of packet sockets have no safe form"
)]

use std::{io, mem::size_of, str::FromStr};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Forgery;

/// The pod's interface.
const INTERFACE: &std::ffi::CStr = c"eth0";
const CUSTOMER_TAG: [u8; 2] = [0x81, 0x00];
const SERVICE_TAG: [u8; 2] = [0x88, 0xa8];

/// A MAC address.
#[derive(Clone, Copy)]
pub(crate) struct HardwareAddress([u8; 6]);

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let octets: Option<Vec<u8>> = text
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).ok())
            .collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets
            .map(HardwareAddress)
            .ok_or_else(|| format!("{text:?} isn't six octets divided by colons"))
    }
}

/// A packet socket, and what its frames begin with.
pub(super) struct Frames {
    socket: Socket,
    to: SockAddr,
    header: Vec<u8>,
}

impl Frames {
    /// None if the packets are to be sent by the pod's own IP layer.
    pub(super) fn open(forgery: &Forgery) -> io::Result<Option<Self>> {
        let (Some(source), Some(destination)) = (forgery.link_source, forgery.link_destination)
        else {
            return Ok(None);
        };
        let mut header = [destination.0, source.0].concat();
        for tag in 0..forgery.vlan_tags {
            let outer = tag == 0 && forgery.service_tag;
            header.extend(if outer { SERVICE_TAG } else { CUSTOMER_TAG });
            // Priority 0, VLAN 0.
            header.extend([0, 0]);
        }
        header.extend(if forgery.destination.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        Ok(Some(Self {
            socket: Socket::new(Domain::PACKET, Type::RAW, None)?,
            to: interface()?,
            header,
        }))
    }

    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let frame = [&self.header, packet].concat();
        self.socket.send_to(&frame, &self.to).map(drop)
    }
}

/// The number of the pod's interface.
pub(crate) fn interface_index() -> io::Result<u32> {
    // SAFETY: the name is a valid C string.
    match unsafe { libc::if_nametoindex(INTERFACE.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The interface as an address of a packet socket: packet(7).
fn interface() -> io::Result<SockAddr> {
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let index = i32::try_from(interface_index()?).map_err(io::Error::other)?;
    let length =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage is large and aligned enough for any address, zero where nothing is
    // written, and the length is that of a sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, filled| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = family;
            (*address).sll_ifindex = index;
            *filled = length;
            Ok(())
        })?
    };
    Ok(address)
}
