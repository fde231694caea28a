//! The cookie of a network namespace: unlike its inode's number, no other namespace ever has it.

use std::{io, mem::size_of_val, net::UdpSocket, os::fd::AsRawFd};

/// The cookie of this process's network namespace.
///
/// # Errors
/// Before Linux 5.14.
#[expect(
    unsafe_code,
    reason = "no crate in use has a wrapper of this socket option"
)]
pub(super) fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to the cookie, and the length.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if code == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
