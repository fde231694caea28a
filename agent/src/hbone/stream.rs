//! One application connection inside a tunnel.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

pub use super::windows::Stall;
use super::{Baggage, client::Slot, windows::Windows};

/// Both directions of a stream. Dropped before both have ended, it is reset (`RST_STREAM CANCEL`).
#[derive(Debug)]
pub struct HboneStream {
    send: SendHalf,
    receive: ReceiveHalf,
    peer: Box<Baggage>,
    /// The client's side: the stream counts towards its tunnel's limit for as long as it lives.
    _slot: Option<Slot>,
}

impl HboneStream {
    pub(super) fn new(
        send: SendStream<Bytes>,
        receive: RecvStream,
        windows: Arc<Windows>,
        peer: Baggage,
        slot: Option<Slot>,
    ) -> Self {
        Self {
            send: SendHalf { stream: send },
            receive: ReceiveHalf {
                stream: receive,
                windows,
            },
            peer: Box::new(peer),
            _slot: slot,
        }
    }

    /// What the workload at the other end calls itself. Not evidence.
    #[must_use]
    pub fn peer(&self) -> &Baggage {
        &self.peer
    }

    /// Both halves, to be used at the same time in one task.
    pub fn halves(&mut self) -> (&mut SendHalf, &mut ReceiveHalf) {
        (&mut self.send, &mut self.receive)
    }

    /// Ends both directions at once, as a TCP RST does.
    pub fn reset(mut self) {
        self.send.stream.send_reset(Reason::CANCEL);
    }
}

/// Why a stream ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The other end reset this stream, as TCP does with RST.
    #[error("the other end reset the stream ({0})")]
    Reset(Reason),
    /// The tunnel is gone, and every stream with it.
    #[error("the tunnel closed under the stream: {0}")]
    TunnelClosed(Arc<h2::Error>),
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::TunnelClosed(Arc::new(error)),
        }
    }
}

/// The direction away from here.
#[derive(Debug)]
pub struct SendHalf {
    stream: SendStream<Bytes>,
}

impl SendHalf {
    /// Sends all of `data`, waiting for windows and for room in the tunnel's buffer.
    ///
    /// Capacity is asked for only with data in hand, and never beyond it: capacity that a stream
    /// holds without use is taken from all the others (hyperium/hyper#4003).
    ///
    /// Only one of this and [`Self::reset_by_peer`] may be waited for at a time: h2 wakes one.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel is gone.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        poll_fn(|context| self.poll_send(context, &mut data)).await
    }

    /// As [`Self::send`], for who waits for other things too: takes what goes now off `data`, and is
    /// ready when nothing is left.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel is gone.
    pub fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        while !data.is_empty() {
            let capacity = ready!(self.poll_capacity(context, data.len()))?;
            let chunk = data.split_to(capacity.min(data.len()));
            self.send_data(chunk, false)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as much of `data` as goes now, and says how much that was.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel is gone.
    pub fn poll_send_some(
        &mut self,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let capacity = ready!(self.poll_capacity(context, data.len()))?;
        let now = capacity.min(data.len());
        self.send_data(Bytes::copy_from_slice(&data[..now]), false)?;
        Poll::Ready(Ok(now))
    }

    /// How much may be sent now, if that much is there to be sent.
    fn poll_capacity(
        &mut self,
        context: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, StreamError>> {
        self.stream.reserve_capacity(wanted);
        match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(context)) {
                Some(capacity) => Poll::Ready(Ok(capacity?)),
                None => self.poll_reset_by_peer(context).map(Err),
            },
            capacity => Poll::Ready(Ok(capacity)),
        }
    }

    /// Half-close: nothing more comes, as TCP says with FIN.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel is gone.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send_data(Bytes::new(), true)
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        let Err(error) = self.stream.send_data(data, end) else {
            return Ok(());
        };
        // h2 only says "inactive stream" here; what the peer did is the reason.
        let mut context = Context::from_waker(Waker::noop());
        Err(match self.stream.poll_reset(&mut context) {
            Poll::Ready(Ok(reason)) => StreamError::Reset(reason),
            Poll::Ready(Err(cause)) => cause.into(),
            Poll::Pending => error.into(),
        })
    }

    /// Waits until the other end resets the stream or the tunnel is gone; forever on a stream that
    /// ends well.
    pub async fn reset_by_peer(&mut self) -> StreamError {
        poll_fn(|context| self.poll_reset_by_peer(context)).await
    }

    /// As [`Self::reset_by_peer`], for who waits for other things too.
    pub fn poll_reset_by_peer(&mut self, context: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.poll_reset(context).map(|reset| match reset {
            Ok(reason) => StreamError::Reset(reason),
            Err(error) => error.into(),
        })
    }
}

/// The direction towards here.
#[derive(Debug)]
pub struct ReceiveHalf {
    stream: RecvStream,
    windows: Arc<Windows>,
}

impl ReceiveHalf {
    /// The next bytes; `None` once the other end has half-closed. Never empty.
    ///
    /// The sender may not go on beyond its window until [`Self::release`] says that the bytes have
    /// been passed on, which is what bounds the memory of a stream.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel is gone, after all that came before.
    pub async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|context| self.poll_data(context)).await
    }

    /// As [`Self::data`], for who waits for other things too.
    ///
    /// # Errors
    /// As there.
    pub fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        loop {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(data) => return Poll::Ready(Ok(Some(data?))),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Lets the other end send as many bytes again. Call it when the bytes have gone on.
    pub fn release(&mut self, bytes: usize) {
        let released = self.stream.flow_control().release_capacity(bytes);
        debug_assert!(released.is_ok(), "released more than was received");
    }

    /// To be held while received bytes can't be passed on, so that a reader that stopped doesn't
    /// stop the tunnel's other streams.
    pub fn stall(&mut self) -> Stall {
        let flow = self.stream.flow_control();
        let available = u64::try_from(flow.available_capacity()).unwrap_or(0);
        let used = u64::try_from(flow.used_capacity()).unwrap_or(u64::MAX);
        self.windows.stall(available.saturating_add(used))
    }
}

#[cfg(test)]
mod tests;
