//! Bodies of answers: whole, or piece by piece.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{sync::mpsc, time};

/// How large the pieces are of a body that is sent slowly.
const PIECE: usize = 4096;

/// The connection is to end in the middle of the body.
#[derive(Debug, thiserror::Error)]
#[error("the lab cuts the connection")]
pub(super) struct Cut;

/// Where a body's pieces go.
pub(super) type Pieces = mpsc::Sender<Result<Bytes, Cut>>;

#[derive(Debug)]
pub(super) enum Outgoing {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Result<Bytes, Cut>>),
}

impl Outgoing {
    /// A body whose pieces the sender sends; it ends with the sender.
    pub(super) fn pieces() -> (Pieces, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Self::Pieces(receiver))
    }

    /// A body that waits before each piece. To be called on a runtime.
    pub(super) fn slowly(bytes: Bytes, wait: Duration) -> Self {
        let (sender, body) = Self::pieces();
        tokio::spawn(async move {
            for piece in bytes.chunks(PIECE) {
                time::sleep(wait).await;
                if sender
                    .send(Ok(Bytes::copy_from_slice(piece)))
                    .await
                    .is_err()
                {
                    break;
                }
            }
        });
        body
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(receiver) => receiver
                .poll_recv(context)
                .map(|piece| Some(piece?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
