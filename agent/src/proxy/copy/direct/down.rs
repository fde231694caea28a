//! From the tunnel to the application.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::read_some;
use crate::{
    channel::{Content, Inbox, Keys, Next, RECORDS},
    direct::{FrameError, Kind},
    proxy::copy::{CopyError, ResetOnDrop, TcpSide, shut_down},
    splice::Leg,
    telemetry::Transfer,
};

/// Records that are passed on at once. Small ones may be many more than a buffer has full ones.
const BATCH: usize = 2 * RECORDS;

/// What the tunnel says.
pub(super) struct Down<'a> {
    tcp: &'a TcpStream,
    leg: &'a Leg,
    tunnel: &'a TcpStream,
    side: TcpSide,
    transfer: &'a Transfer,
    inbox: Inbox,
    /// Data that the application hasn't taken yet: `ready[passed_on..]`.
    ready: Vec<Content>,
    passed_on: usize,
    has_ended: bool,
    /// The application has been told.
    is_shut_down: bool,
}

impl<'a> Down<'a> {
    pub(super) fn new(
        tcp: &'a ResetOnDrop,
        tunnel: &'a TcpStream,
        side: TcpSide,
        transfer: &'a Transfer,
        received: Vec<u8>,
    ) -> Self {
        Self {
            tcp: &tcp.stream,
            leg: &tcp.leg,
            tunnel,
            side,
            transfer,
            inbox: Inbox::new(received),
            ready: Vec::new(),
            passed_on: 0,
            has_ended: false,
            is_shut_down: false,
        }
    }

    /// Whether it waits for the application, and so doesn't read from the tunnel.
    pub(super) fn is_blocked(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What was received beyond the end of this connection.
    pub(super) fn into_received(self) -> Vec<u8> {
        self.inbox.into_received()
    }

    /// Goes on until the other end has ended and the application has taken everything.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        keys: &mut Keys,
    ) -> Poll<Result<(), CopyError>> {
        loop {
            ready!(self.poll_ready(context))?;
            if self.has_ended {
                if !self.is_shut_down {
                    shut_down(self.tcp).map_err(|error| self.side.error(error))?;
                    self.is_shut_down = true;
                    // The other direction may go on for long.
                    self.inbox.rest();
                }
                return Poll::Ready(Ok(()));
            }
            self.open(keys)?;
            if !self.ready.is_empty() || self.has_ended {
                continue;
            }
            let Poll::Ready(is_ready) = self.tunnel.poll_read_ready(context) else {
                self.inbox.rest();
                return Poll::Pending;
            };
            is_ready.map_err(CopyError::tunnel)?;
            let space = self.inbox.space();
            match read_some(self.tunnel, space.len(), || {
                Ok(rustix::io::read(self.tunnel, space)?)
            }) {
                // Without an END the other side's application hasn't ended: it was cut off.
                Ok(0) => return Poll::Ready(Err(CopyError::TunnelCut)),
                Ok(bytes) => self.inbox.received(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
        }
    }

    /// Opens what is there, up to a batch or the end.
    fn open(&mut self, keys: &mut Keys) -> Result<(), CopyError> {
        while self.ready.len() < BATCH && !self.has_ended {
            let content = match self.inbox.open(keys).map_err(CopyError::Tls)? {
                Next::Data(content) => content,
                Next::Closed => return Err(CopyError::TunnelCut),
                Next::Missing => return Ok(()),
            };
            let bytes = self.inbox.content(content);
            match Kind::of(bytes).map_err(CopyError::Protocol)? {
                Kind::Data if bytes.len() > 1 => {
                    self.ready.push(Content {
                        start: content.start + 1,
                        ..content
                    });
                }
                Kind::Data => {}
                Kind::End => self.has_ended = true,
                Kind::Open | Kind::Accept | Kind::Refuse | Kind::Closing => {
                    return Err(CopyError::Protocol(FrameError::OutOfPlace));
                }
            }
        }
        Ok(())
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        while !self.ready.is_empty() {
            let waiting = &self.ready[self.passed_on..];
            let mut slices = [IoSlice::new(&[]); BATCH];
            for (slice, content) in slices.iter_mut().zip(waiting) {
                *slice = IoSlice::new(self.inbox.content(*content));
            }
            // What comes last goes in one segment with the end, if the application takes it whole.
            let flags = libc::MSG_NOSIGNAL | if self.has_ended { libc::MSG_MORE } else { 0 };
            let send = || {
                SockRef::from(self.tcp).send_vectored_with_flags(&slices[..waiting.len()], flags)
            };
            // A socket that was just connected takes it before the runtime has heard that it would.
            let sent = match send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(context))
                        .map_err(|error| self.side.error(error))?;
                    self.tcp.try_io(Interest::WRITABLE, send)
                }
                sent => sent,
            };
            match sent {
                Ok(written) => {
                    self.leg.has_written(self.tcp, written);
                    self.pass_on(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.side.error(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn pass_on(&mut self, mut written: usize) {
        self.side.count_down(self.transfer, written);
        while let Some(content) = self.ready.get_mut(self.passed_on) {
            let now = written.min(content.end - content.start);
            content.start += now;
            written -= now;
            if content.start < content.end {
                return;
            }
            self.passed_on += 1;
        }
        self.ready.clear();
        self.passed_on = 0;
    }
}
