//! One of the two tunnels, of either kind.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use crate::{
    channel::{Channel, Keys},
    hbone::stream::{ReceiveHalf, SendHalf, Stall},
    proxy::{
        TunnelStream,
        copy::{CopyError, records::Records},
    },
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
    records: Records,
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
                    records: Records::new(std::mem::take(received)),
                    received,
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
            Self::Direct(end) => end.records.poll_finish(context, end.io, end.keys),
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
            *end.received = end.records.into_received();
        }
    }
}

impl Direct<'_> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CopyError>> {
        let opened = ready!(self.records.poll_opened(context, self.io, self.keys))?;
        let data = opened.map(Bytes::copy_from_slice);
        self.records.take(data.as_ref().map_or(0, Bytes::len));
        Poll::Ready(Ok(data))
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), CopyError>> {
        loop {
            ready!(self.records.poll_sent(context, self.io))?;
            if data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let sealed = self.records.seal_some(self.keys, data)?;
            data.advance(sealed);
        }
    }
}
