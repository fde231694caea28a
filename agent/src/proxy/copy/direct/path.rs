//! What TCP measures of a tunnel while it carries one connection.

use std::{io, mem, os::fd::AsRawFd};

use ambit_common::passed::Path;
use tokio::net::TcpStream;

use crate::telemetry::Transfer;

/// Tells at its end. A tunnel carries one connection after the other, so what was sent again before
/// isn't this one's.
pub(super) struct Measure {
    before: Option<Path>,
}

impl Measure {
    pub(super) fn begin(tunnel: &TcpStream) -> Self {
        Self {
            before: path(tunnel).ok(),
        }
    }

    pub(super) fn end(self, tunnel: &TcpStream, transfer: &Transfer) {
        if let (Some(before), Ok(now)) = (self.before, path(tunnel)) {
            transfer.measured(Path {
                retransmitted: now.retransmitted.wrapping_sub(before.retransmitted),
                ..now
            });
        }
    }
}

fn path(stream: &TcpStream) -> io::Result<Path> {
    let room = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    #[expect(unsafe_code, reason = "no library asks for TCP_INFO")]
    // SAFETY: plain data of which every bit pattern is valid; the kernel writes at most `length` bytes of it.
    let info = unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
        let mut length = room;
        let code = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    Ok(Path {
        round_trip: info.tcpi_rtt,
        retransmitted: info.tcpi_total_retrans,
    })
}
