//! A byte that says what it is about, and descriptors beside it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{io::Interest, net::UnixStream};

/// Most descriptors of a message: the lock, six sockets for what is captured, two for tunnels, three for
/// the agent's own endpoints, and three or four for each waypoint. The kernel takes 253 (`SCM_MAX_FD`).
pub(super) const MAX_DESCRIPTORS: usize = 250;
const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Sends a byte and descriptors in one message.
///
/// # Errors
/// The socket's; more than [`MAX_DESCRIPTORS`].
pub(super) async fn send(
    stream: &UnixStream,
    byte: u8,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many sockets to hand over"));
        }
        // One byte is sent, or nothing.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(stream, &[IoSlice::new(&[byte])], &mut ancillary, flags)?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Receives one byte, which must be `expected`, and the descriptors that came with it.
///
/// # Errors
/// The socket's; another byte; the other end's end.
pub(super) async fn receive(stream: &UnixStream, expected: u8) -> io::Result<Vec<OwnedFd>> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            flags,
        )?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        match (received.bytes, byte[0]) {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, byte) if byte == expected => Ok(descriptors),
            (_, other) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it says {other}, not {expected}: another version?"),
            )),
        }
    };
    stream.async_io(Interest::READABLE, receive).await
}
