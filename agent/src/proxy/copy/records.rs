//! What a connection that has a tunnel to itself says in it: records, sealed and opened one by one,
//! for whoever polls.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;

use super::CopyError;
use crate::{
    channel::{Content, Inbox, Keys, MAX_CONTENT, Next},
    direct::{FrameError, Kind},
};

/// Both directions. Holds no buffer while nothing is on its way.
#[derive(Debug)]
pub(crate) struct Records {
    inbox: Inbox,
    /// What of the last record nobody has taken yet.
    opened: Content,
    /// Sealed records that the tunnel hasn't taken yet: `outgoing[sent..]`.
    outgoing: Vec<u8>,
    sent: usize,
    is_finished: bool,
}

impl Records {
    /// With bytes that were received before.
    pub(crate) fn new(received: Vec<u8>) -> Self {
        Self {
            inbox: Inbox::new(received),
            opened: Content { start: 0, end: 0 },
            outgoing: Vec::new(),
            sent: 0,
            is_finished: false,
        }
    }

    /// The next bytes, never none; `None` at the end. They stay until they are [taken](Self::take).
    pub(crate) fn poll_opened(
        &mut self,
        context: &mut Context<'_>,
        io: &TcpStream,
        keys: &mut Keys,
    ) -> Poll<Result<Option<&[u8]>, CopyError>> {
        while self.opened.start == self.opened.end {
            match self.inbox.open(keys).map_err(CopyError::Tls)? {
                Next::Data(content) => {
                    let bytes = self.inbox.content(content);
                    match Kind::of(bytes).map_err(CopyError::Protocol)? {
                        Kind::Data => {
                            self.opened = Content {
                                start: content.start + 1,
                                ..content
                            };
                        }
                        Kind::End => return Poll::Ready(Ok(None)),
                        Kind::Open | Kind::Accept | Kind::Refuse | Kind::Closing => {
                            return Poll::Ready(Err(CopyError::Protocol(FrameError::OutOfPlace)));
                        }
                    }
                    continue;
                }
                Next::Closed => return Poll::Ready(Err(CopyError::TunnelCut)),
                Next::Missing => {}
            }
            let Poll::Ready(is_ready) = io.poll_read_ready(context) else {
                self.inbox.rest();
                return Poll::Pending;
            };
            is_ready.map_err(CopyError::tunnel)?;
            match io.try_read(self.inbox.space()) {
                // Without an END the other side's application hasn't ended: it was cut off.
                Ok(0) => return Poll::Ready(Err(CopyError::TunnelCut)),
                Ok(bytes) => self.inbox.received(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
        }
        Poll::Ready(Ok(Some(self.inbox.content(self.opened))))
    }

    /// So many of the opened bytes are somebody else's now.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.opened.start += bytes;
    }

    /// Seals as much of `data` as a record holds, and says how much that was. Call it when
    /// [nothing is on its way](Self::poll_sent).
    pub(crate) fn seal_some(&mut self, keys: &mut Keys, data: &[u8]) -> Result<usize, CopyError> {
        let now = data.len().min(MAX_CONTENT - 1);
        self.seal(keys, Kind::Data, &data[..now])?;
        Ok(now)
    }

    /// Says that nothing more comes. Ready when that has gone.
    pub(crate) fn poll_finish(
        &mut self,
        context: &mut Context<'_>,
        io: &TcpStream,
        keys: &mut Keys,
    ) -> Poll<Result<(), CopyError>> {
        if !self.is_finished {
            self.is_finished = true;
            self.seal(keys, Kind::End, &[])?;
        }
        self.poll_sent(context, io)
    }

    /// Ready when all that was sealed has gone.
    pub(crate) fn poll_sent(
        &mut self,
        context: &mut Context<'_>,
        io: &TcpStream,
    ) -> Poll<Result<(), CopyError>> {
        while self.sent < self.outgoing.len() {
            match io.try_write(&self.outgoing[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(io.poll_write_ready(context)).map_err(CopyError::tunnel)?;
                }
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
        }
        // An idle connection holds no buffer.
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Whether the end of what is sent has been said.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Bytes that were received and not opened, for whoever reads on. All that was opened is taken.
    pub(crate) fn into_received(self) -> Vec<u8> {
        debug_assert!(self.untaken().is_empty(), "bytes were opened and lost");
        self.inbox.into_received()
    }

    /// What was opened and nobody has taken.
    pub(crate) fn untaken(&self) -> &[u8] {
        self.inbox.content(self.opened)
    }

    fn seal(&mut self, keys: &mut Keys, kind: Kind, data: &[u8]) -> Result<(), CopyError> {
        if keys.is_update_due() {
            let mut update = [0; Keys::UPDATE_RECORD];
            keys.update(&mut update).map_err(CopyError::Tls)?;
            self.outgoing.extend(update);
        }
        keys.seal_behind(&mut self.outgoing, &[&[kind as u8], data]);
        Ok(())
    }
}
