//! A tunnelled connection as a byte stream, for those who speak a protocol in it themselves.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{
    TunnelStream,
    copy::{CopyError, records::Records},
};
use crate::{
    direct::DirectStream,
    hbone::{HboneStream, stream::Stall},
};

/// How long a peer that was told the end may take to say its own. What it says meanwhile is thrown away, however much
/// that is: a client that is answered in the middle of its request and then reset may lose the answer (RFC 9112,
/// 9.6).
const LINGER: Duration = Duration::from_secs(5);
/// How much of that is read at once, in bytes.
const LINGER_READ: usize = 16 * 1024;

/// A connection in a tunnel, read and written. Shut down and dropped, it waits a while for the other
/// end, in a task of its own, so that what was sent arrives; dropped otherwise, it is reset.
pub(crate) struct TunnelIo {
    /// `None` only while it is being dropped.
    tunnel: Option<Tunnel>,
    /// Read before, to be read again.
    unread: Bytes,
    /// The other end has ended its direction.
    has_ended: bool,
    /// It has been dropped once.
    is_lingering: bool,
    /// `ended` has said so.
    is_cut: bool,
    /// The tunnel must not be used any longer.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Tunnel {
    Direct(Box<Direct>),
    Multiplexed(Box<Multiplexed>),
}

struct Direct {
    stream: DirectStream,
    records: Records,
}

struct Multiplexed {
    stream: HboneStream,
    /// Received, and not yet read.
    data: Bytes,
    /// While nobody reads.
    stall: Option<Stall>,
    is_finished: bool,
}

impl TunnelIo {
    pub(crate) fn new(stream: TunnelStream) -> Self {
        let (tunnel, ended): (_, Pin<Box<dyn Future<Output = ()> + Send>>) = match stream {
            TunnelStream::Direct(mut stream) => {
                let received = std::mem::take(&mut stream.channel.received);
                let ended = stream.ended();
                let records = Records::new(received);
                let tunnel = Box::new(Direct { stream, records });
                (Tunnel::Direct(tunnel), Box::pin(ended))
            }
            TunnelStream::Multiplexed(stream) => {
                let tunnel = Multiplexed {
                    stream,
                    data: Bytes::new(),
                    stall: None,
                    is_finished: false,
                };
                let ended = std::future::pending();
                (Tunnel::Multiplexed(Box::new(tunnel)), Box::pin(ended))
            }
        };
        Self {
            tunnel: Some(tunnel),
            unread: Bytes::new(),
            has_ended: false,
            is_lingering: false,
            is_cut: false,
            ended,
        }
    }

    /// Whether the other end has said that it says nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Has bytes that were read be read again.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty(), "what was unread is unread again");
        self.unread = bytes;
    }

    /// The connection for those who pass bytes on, and those that were read of it already. Nothing
    /// may have been written, nor the end have been read.
    pub(crate) fn into_stream(mut self) -> Option<(TunnelStream, Bytes)> {
        let mut unread = std::mem::take(&mut self.unread);
        let stream = match self.tunnel.take()? {
            Tunnel::Direct(tunnel) => {
                let Direct {
                    mut stream,
                    mut records,
                } = *tunnel;
                let opened = records.untaken().len();
                unread = join(unread, records.untaken());
                records.take(opened);
                stream.channel.received = records.into_received();
                TunnelStream::Direct(stream)
            }
            Tunnel::Multiplexed(mut tunnel) => {
                tunnel.stall = None;
                // Whoever carries it on counts from here.
                let (_, receive) = tunnel.stream.halves();
                receive.release(tunnel.data.len());
                unread = join(unread, &tunnel.data);
                TunnelStream::Multiplexed(tunnel.stream)
            }
        };
        Some((stream, unread))
    }

    fn poll_tunnel_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), CopyError>> {
        let tunnel = self.tunnel.as_mut().ok_or(CopyError::TunnelCut)?;
        let taken = match tunnel {
            Tunnel::Direct(tunnel) => {
                let Direct { stream, records } = &mut **tunnel;
                let channel = &mut *stream.channel;
                let opened = records.poll_opened(context, &channel.io, &mut channel.keys);
                let taken = ready!(opened)?.map(|data| put(data, buffer));
                records.take(taken.unwrap_or(0));
                taken
            }
            Tunnel::Multiplexed(tunnel) => ready!(tunnel.poll_read(context, buffer))?,
        };
        self.has_ended = taken.is_none();
        Poll::Ready(Ok(()))
    }
}

impl Multiplexed {
    /// How many bytes were read; `None` at the end.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<Option<usize>, CopyError>> {
        let (_, receive) = self.stream.halves();
        if self.data.is_empty() {
            self.stall = None;
            match ready!(receive.poll_data(context))? {
                Some(data) => self.data = data,
                None => return Poll::Ready(Ok(None)),
            }
        }
        let taken = put(&self.data, buffer);
        self.data.advance(taken);
        receive.release(taken);
        // Who doesn't come back for more has stopped, and nothing tells when.
        if self.stall.is_none() {
            self.stall = Some(receive.stall());
        }
        Poll::Ready(Ok(Some(taken)))
    }
}

fn join(unread: Bytes, more: &[u8]) -> Bytes {
    if more.is_empty() {
        return unread;
    }
    [&unread[..], more].concat().into()
}

/// As many bytes as there is room for.
fn put(data: &[u8], buffer: &mut ReadBuf<'_>) -> usize {
    let now = data.len().min(buffer.remaining());
    buffer.put_slice(&data[..now]);
    now
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let taken = put(&self.unread, buffer);
            self.unread.advance(taken);
            return Poll::Ready(Ok(()));
        }
        if self.has_ended {
            return Poll::Ready(Ok(()));
        }
        if self.is_cut || self.ended.as_mut().poll(context).is_ready() {
            self.is_cut = true;
            return Poll::Ready(Err(failed(CopyError::Cancelled)));
        }
        self.poll_tunnel_read(context, buffer).map_err(failed)
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.tunnel {
            None => Poll::Ready(Err(failed(CopyError::TunnelCut))),
            Some(Tunnel::Direct(tunnel)) => {
                let Direct { stream, records } = &mut **tunnel;
                let channel = &mut *stream.channel;
                ready!(records.poll_sent(context, &channel.io)).map_err(failed)?;
                let sealed = records.seal_some(&mut channel.keys, data).map_err(failed)?;
                // What doesn't go now goes with the next write, or when it is flushed.
                if let Poll::Ready(Err(error)) = records.poll_sent(context, &channel.io) {
                    return Poll::Ready(Err(failed(error)));
                }
                Poll::Ready(Ok(sealed))
            }
            Some(Tunnel::Multiplexed(tunnel)) => {
                let (send, _) = tunnel.stream.halves();
                let sent = ready!(send.poll_send_some(context, data));
                Poll::Ready(sent.map_err(|error| failed(error.into())))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tunnel {
            Some(Tunnel::Direct(tunnel)) => {
                let Direct { stream, records } = &mut **tunnel;
                let sent = records.poll_sent(context, &stream.channel.io);
                sent.map_err(failed)
            }
            // h2 sends by itself.
            Some(Tunnel::Multiplexed(_)) | None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tunnel {
            Some(Tunnel::Direct(tunnel)) => {
                let Direct { stream, records } = &mut **tunnel;
                let channel = &mut *stream.channel;
                records
                    .poll_finish(context, &channel.io, &mut channel.keys)
                    .map_err(failed)
            }
            Some(Tunnel::Multiplexed(tunnel)) if !tunnel.is_finished => {
                tunnel.is_finished = true;
                let (send, _) = tunnel.stream.halves();
                Poll::Ready(send.finish().map_err(|error| failed(error.into())))
            }
            Some(Tunnel::Multiplexed(_)) | None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        let is_finished = match &self.tunnel {
            None => return,
            Some(Tunnel::Direct(tunnel)) => tunnel.records.is_finished(),
            Some(Tunnel::Multiplexed(tunnel)) => tunnel.is_finished,
        };
        match self.tunnel.take() {
            Some(Tunnel::Direct(tunnel)) if is_finished && self.has_ended => {
                let Direct {
                    mut stream,
                    records,
                } = *tunnel;
                stream.channel.received = records.into_received();
                stream.finish();
            }
            tunnel if is_finished && !self.has_ended && !self.is_lingering && !self.is_cut => {
                let rest = Self {
                    tunnel,
                    unread: Bytes::new(),
                    has_ended: false,
                    is_lingering: true,
                    is_cut: false,
                    ended: std::mem::replace(&mut self.ended, Box::pin(std::future::pending())),
                };
                // Without a runtime there is nobody to wait, and it is reset.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(timeout(LINGER, linger(rest)));
                }
            }
            // A shared stream that has ended both ways, or one of either kind that hasn't: reset.
            tunnel => drop(tunnel),
        }
    }
}

/// Reads on until the other end has ended too.
async fn linger(mut rest: TunnelIo) {
    let mut buffer = vec![0; LINGER_READ];
    while rest.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
}

fn failed(error: CopyError) -> io::Error {
    let kind = match &error {
        CopyError::TunnelReset(_) | CopyError::TunnelCut => io::ErrorKind::ConnectionReset,
        CopyError::Cancelled => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::direct;

    async fn ends() -> (TunnelIo, TunnelIo) {
        let (near, far) = direct::testing::stream().await;
        let [near, far] = [near, far].map(|stream| TunnelIo::new(TunnelStream::Direct(stream)));
        (near, far)
    }

    #[tokio::test]
    async fn what_is_written_is_read_until_the_end_and_may_be_read_again() {
        let (mut near, mut far) = ends().await;
        near.write_all(b"hello, ").await.unwrap();
        near.write_all(b"world").await.unwrap();
        near.shutdown().await.unwrap();
        let mut first = [0; 5];
        far.read_exact(&mut first).await.unwrap();
        far.unread(Bytes::copy_from_slice(&first));
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "hello, world");
        assert!(far.has_ended());
    }

    #[tokio::test]
    async fn one_that_is_dropped_before_its_end_is_reset() {
        let (near, mut far) = ends().await;
        drop(near);
        let read = far.read(&mut [0; 1]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn bytes_of_a_record_that_was_read_in_part_go_with_the_stream() {
        let (mut near, mut far) = ends().await;
        near.write_all(b"hello, world").await.unwrap();
        let mut first = [0; 5];
        far.read_exact(&mut first).await.unwrap();
        let (_stream, rest) = far.into_stream().unwrap();
        assert_eq!(rest, ", world");
    }
}
