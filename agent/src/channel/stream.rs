//! A channel as a stream of bytes, for protocols that frame by themselves.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Channel,
    buffer::{Buffer, RECORD, RECORDS},
    inbox::{Content, Inbox, Next},
    records::{HEADER, Keys, MAX_CONTENT, TRAILER},
};

/// Reads and writes a channel's plaintext.
#[derive(Debug)]
pub struct ChannelStream<Io> {
    io: Io,
    keys: Keys,
    inbox: Inbox,
    /// What is left of the record that was opened last.
    opened: Option<Content>,
    /// Sealed records on their way out, and which of their bytes are still to go.
    outgoing: Option<Outgoing>,
    /// The peer has said that nothing more comes.
    is_ended: bool,
    /// We have.
    is_closed: bool,
}

#[derive(Debug)]
struct Outgoing {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl<Io> ChannelStream<Io> {
    /// Over a channel.
    #[must_use]
    pub fn new(channel: Channel<Io>) -> Self {
        Self {
            io: channel.io,
            keys: channel.keys,
            inbox: Inbox::new(channel.received),
            opened: None,
            outgoing: None,
            is_ended: false,
            is_closed: false,
        }
    }

    #[cfg(test)]
    pub(super) fn keys_changed(&self) -> u64 {
        self.keys.changes()
    }

    /// Seals as much as fits into one buffer; there is none on its way out.
    fn seal(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut buffer = Buffer::take();
        let mut end = 0;
        if self.keys.is_update_due() {
            let update = buffer
                .first_chunk_mut()
                .expect("a buffer is longer than one record");
            self.keys.update(update).map_err(io::Error::other)?;
            end = Keys::UPDATE_RECORD;
        }
        let mut taken = 0;
        let mut slices = data
            .iter()
            .map(|slice| &**slice)
            .filter(|slice| !slice.is_empty());
        let mut slice = slices.next();
        // One record less than there is room for, because the first may not begin at 0.
        for _ in 0..RECORDS - 1 {
            let mut filled = 0;
            let content = &mut buffer[end + HEADER..][..MAX_CONTENT];
            while let Some(bytes) = slice.filter(|_| filled < MAX_CONTENT) {
                let (now, later) = bytes.split_at(bytes.len().min(MAX_CONTENT - filled));
                content[filled..][..now.len()].copy_from_slice(now);
                filled += now.len();
                slice = if later.is_empty() {
                    slices.next()
                } else {
                    Some(later)
                };
            }
            if filled == 0 {
                break;
            }
            taken += filled;
            let length = HEADER + filled + TRAILER;
            self.keys.seal(&mut buffer[end..][..length]);
            end += length;
        }
        debug_assert!(end <= RECORD * RECORDS, "{end} bytes in a buffer");
        self.outgoing = Some(Outgoing {
            buffer,
            start: 0,
            end,
        });
        Ok(taken)
    }
}

impl<Io: AsyncWrite + Unpin> ChannelStream<Io> {
    fn poll_outgoing(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(outgoing) = &mut self.outgoing {
            let bytes = &outgoing.buffer[outgoing.start..outgoing.end];
            match ready!(Pin::new(&mut self.io).poll_write(context, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outgoing.start += written,
            }
            if outgoing.start == outgoing.end {
                self.outgoing = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for ChannelStream<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = into.filled().len();
        loop {
            if let Some(content) = &mut this.opened {
                let bytes = this.inbox.content(*content);
                let taken = bytes.len().min(into.remaining());
                into.put_slice(&bytes[..taken]);
                content.start += taken;
                if content.start < content.end {
                    return Poll::Ready(Ok(()));
                }
                this.opened = None;
            }
            let got_some = into.filled().len() > before;
            match this.inbox.open(&mut this.keys).map_err(invalid)? {
                Next::Data(content) => this.opened = Some(content),
                Next::Closed => this.is_ended = true,
                Next::Missing if this.is_ended => return Poll::Ready(Ok(())),
                Next::Missing if got_some => return Poll::Ready(Ok(())),
                Next::Missing => {
                    let mut space = ReadBuf::new(this.inbox.space());
                    match Pin::new(&mut this.io).poll_read(context, &mut space) {
                        Poll::Pending => {
                            this.inbox.rest();
                            return Poll::Pending;
                        }
                        Poll::Ready(result) => result?,
                    }
                    match space.filled().len() {
                        // Without `close_notify` somebody may have cut the rest off.
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        bytes => this.inbox.received(bytes),
                    }
                }
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for ChannelStream<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(context))?;
        if data.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let taken = self.seal(data)?;
        // What doesn't go now is flushed later; it was taken either way.
        if let Poll::Ready(Err(error)) = self.poll_outgoing(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(context))?;
        if !self.is_closed {
            self.is_closed = true;
            let record = self.keys.close();
            let mut buffer = Buffer::take();
            buffer[..record.len()].copy_from_slice(&record);
            self.outgoing = Some(Outgoing {
                buffer,
                start: 0,
                end: record.len(),
            });
            ready!(self.poll_outgoing(context))?;
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

fn invalid(error: super::RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
