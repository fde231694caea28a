//! Packet sockets: packet(7).

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use super::{check, length};

/// A socket that gets every frame that passes an interface of the calling thread's namespace, both
/// directions, whole.
///
/// `queue` is how many bytes of them may wait to be read; a read waits for `wait` at most.
pub(crate) fn socket(interface: &str, queue: libc::c_int, wait: Duration) -> io::Result<OwnedFd> {
    let name = CString::new(interface).map_err(io::Error::other)?;
    // SAFETY: the name is a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Of no protocol: it gets nothing before it is bound.
    // SAFETY: socket has no memory preconditions.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor is new and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_queue(&socket, queue)?;
    socket2::SockRef::from(&socket).set_read_timeout(Some(wait))?;
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    address.sll_ifindex = index.cast_signed();
    let length = length::<libc::sockaddr_ll>()?;
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// How many frames it had no room for since it was asked last.
pub(crate) fn lost(socket: &OwnedFd) -> io::Result<u64> {
    /// `struct tpacket_stats` of linux/if_packet.h.
    #[repr(C)]
    #[derive(Default)]
    struct Statistics {
        packets: u32,
        drops: u32,
    }
    let mut statistics = Statistics::default();
    let mut length = length::<Statistics>()?;
    // SAFETY: the kernel writes no more than the length that it is told.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    })?;
    Ok(statistics.drops.into())
}

/// Beyond what `net.core.rmem_max` allows, which root may do.
fn set_queue(socket: &OwnedFd, bytes: libc::c_int) -> io::Result<()> {
    let length = length::<libc::c_int>()?;
    // SAFETY: the value is as long as is said.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            length,
        )
    })
}
