//! One of the two tunnels, of either kind.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::{
    channel::{Channel, HEADER, Inbox, Keys, MAX_CONTENT, Next, TRAILER},
    direct::{FrameError, Kind},
    hbone::stream::{ReceiveHalf, SendHalf, Stall},
    proxy::{TunnelStream, copy::CopyError},
};

pub(super) enum End<'a> {
    Direct(Box<Direct<'a>>),
    Multiplexed(Multiplexed<'a>),
}

/// A tunnel that the connection has to itself.
pub(super) struct Direct<'a> {
    io: &'a TcpStream,
    keys: &'a mut Keys,
    /// Where what is left goes for whoever reads on.
    received: &'a mut Vec<u8>,
    inbox: Inbox,
    /// Sealed records that the tunnel hasn't taken yet: `outgoing[sent..]`.
    outgoing: Vec<u8>,
    sent: usize,
    is_finished: bool,
}

/// A stream beside others.
pub(super) struct Multiplexed<'a> {
    send: &'a mut SendHalf,
    receive: &'a mut ReceiveHalf,
    stall: Option<Stall>,
    is_finished: bool,
}

impl<'a> End<'a> {
    pub(super) fn of(stream: &'a mut TunnelStream) -> Self {
        match stream {
            TunnelStream::Direct(stream) => {
                let Channel { io, keys, received } = &mut *stream.channel;
                Self::Direct(Box::new(Direct {
                    io,
                    keys,
                    inbox: Inbox::new(std::mem::take(received)),
                    received,
                    outgoing: Vec::new(),
                    sent: 0,
                    is_finished: false,
                }))
            }
            TunnelStream::Multiplexed(stream) => {
                let (send, receive) = stream.halves();
                Self::Multiplexed(Multiplexed {
                    send,
                    receive,
                    stall: None,
                    is_finished: false,
                })
            }
        }
    }

    /// The socket that nobody else looks after.
    pub(super) fn socket(&self) -> Option<&'a TcpStream> {
        match self {
            Self::Direct(end) => Some(end.io),
            Self::Multiplexed(_) => None,
        }
    }

    /// The next bytes, never none; `None` at the end.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CopyError>> {
        match self {
            Self::Direct(end) => end.poll_receive(context),
            Self::Multiplexed(end) => {
                end.stall = None;
                end.receive.poll_data(context).map_err(Into::into)
            }
        }
    }

    /// What was received can't be passed on.
    pub(super) fn stall(&mut self) {
        if let Self::Multiplexed(end) = self
            && end.stall.is_none()
        {
            end.stall = Some(end.receive.stall());
        }
    }

    /// So many bytes have been passed on.
    pub(super) fn release(&mut self, bytes: usize) {
        if let Self::Multiplexed(end) = self {
            end.stall = None;
            end.receive.release(bytes);
        }
    }

    /// Ready when all of `data` has been taken.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), CopyError>> {
        match self {
            Self::Direct(end) => end.poll_send(context, data),
            Self::Multiplexed(end) => end.send.poll_send(context, data).map_err(Into::into),
        }
    }

    /// Says that nothing more comes.
    pub(super) fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        match self {
            Self::Direct(end) => end.poll_finish(context),
            Self::Multiplexed(end) if end.is_finished => Poll::Ready(Ok(())),
            Self::Multiplexed(end) => {
                end.is_finished = true;
                Poll::Ready(Ok(end.send.finish()?))
            }
        }
    }

    /// Ready when the other end has reset the stream.
    pub(super) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<CopyError> {
        match self {
            Self::Direct(_) => Poll::Pending,
            Self::Multiplexed(end) => end.send.poll_reset_by_peer(context).map(Into::into),
        }
    }

    /// Leaves what was received beyond the end for the tunnel's next connection.
    pub(super) fn rest(self) {
        if let Self::Direct(end) = self {
            *end.received = end.inbox.into_received();
        }
    }
}

impl Direct<'_> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CopyError>> {
        loop {
            match self.inbox.open(self.keys).map_err(CopyError::Tls)? {
                Next::Data(content) => {
                    let bytes = self.inbox.content(content);
                    match Kind::of(bytes).map_err(CopyError::Protocol)? {
                        Kind::Data if bytes.len() > 1 => {
                            return Poll::Ready(Ok(Some(Bytes::copy_from_slice(&bytes[1..]))));
                        }
                        Kind::Data => {}
                        Kind::End => return Poll::Ready(Ok(None)),
                        Kind::Open | Kind::Accept | Kind::Refuse => {
                            return Poll::Ready(Err(CopyError::Protocol(FrameError::OutOfPlace)));
                        }
                    }
                    continue;
                }
                Next::Closed => return Poll::Ready(Err(CopyError::TunnelCut)),
                Next::Missing => {}
            }
            let Poll::Ready(is_ready) = self.io.poll_read_ready(context) else {
                self.inbox.rest();
                return Poll::Pending;
            };
            is_ready.map_err(CopyError::tunnel)?;
            match self.io.try_read(self.inbox.space()) {
                // Without an END the other side's application hasn't ended: it was cut off.
                Ok(0) => return Poll::Ready(Err(CopyError::TunnelCut)),
                Ok(bytes) => self.inbox.received(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), CopyError>> {
        loop {
            ready!(self.poll_outgoing(context))?;
            if data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let now = data.split_to(data.len().min(MAX_CONTENT - 1));
            self.seal(Kind::Data, &now)?;
        }
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        if !self.is_finished {
            self.is_finished = true;
            self.seal(Kind::End, &[])?;
        }
        self.poll_outgoing(context)
    }

    fn seal(&mut self, kind: Kind, data: &[u8]) -> Result<(), CopyError> {
        if self.keys.is_update_due() {
            let mut update = [0; Keys::UPDATE_RECORD];
            self.keys.update(&mut update).map_err(CopyError::Tls)?;
            self.outgoing.extend(update);
        }
        let start = self.outgoing.len();
        self.outgoing.extend([0; HEADER]);
        self.outgoing.push(kind as u8);
        self.outgoing.extend(data);
        self.outgoing.extend([0; TRAILER]);
        self.keys.seal(&mut self.outgoing[start..]);
        Ok(())
    }

    fn poll_outgoing(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        while self.sent < self.outgoing.len() {
            ready!(self.io.poll_write_ready(context)).map_err(CopyError::tunnel)?;
            match self.io.try_write(&self.outgoing[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
        }
        // An idle connection holds no buffer.
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}
