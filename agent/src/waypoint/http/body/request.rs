//! A request's body, which may have to be sent more than once.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;

use super::BodyError;
use crate::telemetry::requests::RequestSizes;

/// How much of a body is kept so that it can be sent again, in bytes. Larger ones are sent once.
const KEPT: usize = 64 * 1024;
/// In how many pieces that may have come: each takes more memory than its bytes, if they are few.
const KEPT_PIECES: usize = 1024;
/// Pieces of a body that a mirror may be behind before it is given up.
const MIRROR_BEHIND: usize = 64;

/// What the client sends, for as many tries as it takes.
#[derive(Clone)]
pub(in crate::waypoint::http) struct Source(Option<Arc<Mutex<Shared>>>);

struct Shared {
    client: Incoming,
    sizes: Arc<RequestSizes>,
    /// What has come, unless that is too much.
    kept: Option<Vec<Piece>>,
    kept_bytes: usize,
    /// Pieces that have come.
    read: usize,
    /// Which try's body may be read: the one that was made last.
    current: u32,
    /// Who waits for more.
    reader: Option<Waker>,
    has_ended: bool,
    /// As the client has announced it.
    length: Option<u64>,
    /// `None` is the end.
    mirrors: Vec<mpsc::Sender<Option<Piece>>>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The body of one try.
pub(in crate::waypoint::http) struct RequestBody(Content);

enum Content {
    /// There is none.
    Empty,
    /// As the client sends it.
    Passed {
        source: Arc<Mutex<Shared>>,
        /// Which try it is for.
        of: u32,
        /// Pieces, and bytes, that this try has had.
        pieces: usize,
        bytes: u64,
    },
    /// A copy of it.
    Mirrored(mpsc::Receiver<Option<Piece>>),
}

impl Source {
    pub(in crate::waypoint::http) fn new(client: Incoming, sizes: &Arc<RequestSizes>) -> Self {
        if client.is_end_stream() {
            return Self(None);
        }
        let length = client.size_hint().exact();
        Self(Some(Arc::new(Mutex::new(Shared {
            client,
            sizes: sizes.clone(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            read: 0,
            current: 0,
            reader: None,
            has_ended: false,
            length,
            mirrors: Vec::new(),
        }))))
    }

    /// Of a request without a body.
    #[cfg(test)]
    pub(in crate::waypoint::http) fn nothing() -> Self {
        Self(None)
    }

    /// The body for one try. An earlier one, whose connection may go on sending it, can't be read any more.
    pub(in crate::waypoint::http) fn body(&self) -> RequestBody {
        match &self.0 {
            None => RequestBody(Content::Empty),
            Some(source) => {
                let mut shared = lock(source);
                shared.supersede();
                RequestBody(Content::Passed {
                    source: source.clone(),
                    of: shared.current,
                    pieces: 0,
                    bytes: 0,
                })
            }
        }
    }

    /// Lets nobody read on, mirrors neither.
    pub(in crate::waypoint::http) fn cut(&self) {
        if let Some(source) = &self.0 {
            let mut shared = lock(source);
            shared.supersede();
            shared.mirrors.clear();
        }
    }

    /// A copy of the body, as it comes.
    pub(in crate::waypoint::http) fn mirror(&self) -> RequestBody {
        let Some(source) = &self.0 else {
            return RequestBody(Content::Empty);
        };
        let (sender, receiver) = mpsc::channel(MIRROR_BEHIND);
        lock(source).mirrors.push(sender);
        RequestBody(Content::Mirrored(receiver))
    }

    /// Whether all that has come can be sent again.
    pub(in crate::waypoint::http) fn is_whole(&self) -> bool {
        let Some(source) = &self.0 else { return true };
        lock(source).kept.is_some()
    }

    /// Whether nobody has said how long it is.
    pub(in crate::waypoint::http) fn has_unknown_length(&self) -> bool {
        let source = self.0.as_ref();
        source.is_some_and(|source| lock(source).length.is_none())
    }

    /// Whether all of it has come.
    pub(in crate::waypoint::http) fn has_ended(&self) -> bool {
        let source = self.0.as_ref();
        source.is_none_or(|source| lock(source).has_ended)
    }

    /// Whether there is nothing in it.
    pub(in crate::waypoint::http) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Shared {
    /// Lets the try that was made last read no more.
    fn supersede(&mut self) {
        self.current += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.client).poll_frame(context)) {
            None => {
                self.end();
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let piece = match frame.into_data() {
            Ok(data) => {
                self.sizes.add_request(data.len() as u64);
                Piece::Data(data)
            }
            Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
        };
        self.read += 1;
        self.keep(&piece);
        // One that is too far behind doesn't see the rest, and its server that the body was cut off.
        self.mirrors
            .retain(|mirror| mirror.try_send(Some(piece.clone())).is_ok());
        if self.client.is_end_stream() {
            self.end();
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn end(&mut self) {
        self.has_ended = true;
        for mirror in self.mirrors.drain(..) {
            // As above.
            let _ = mirror.try_send(None);
        }
    }

    fn keep(&mut self, piece: &Piece) {
        if let Piece::Data(data) = piece {
            self.kept_bytes += data.len();
        }
        if self.kept_bytes > KEPT || self.read > KEPT_PIECES {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match &mut self.0 {
            Content::Empty => return Poll::Ready(None),
            Content::Mirrored(receiver) => match ready!(receiver.poll_recv(context)) {
                Some(Some(piece)) => Some(Ok(piece)),
                Some(None) => {
                    self.0 = Content::Empty;
                    None
                }
                None => Some(Err(BodyError::partial())),
            },
            Content::Passed {
                source,
                of,
                pieces,
                bytes,
            } => {
                let mut shared = lock(source);
                let before = shared.kept.as_ref().and_then(|kept| kept.get(*pieces));
                let piece = match before.cloned() {
                    // Another has what comes from here on, or what came before is gone.
                    _ if shared.current != *of => Some(Err(BodyError::partial())),
                    None if *pieces < shared.read => Some(Err(BodyError::partial())),
                    Some(piece) => Some(Ok(piece)),
                    None => {
                        let polled = shared.poll_piece(context);
                        if polled.is_pending() {
                            shared.reader = Some(context.waker().clone());
                        }
                        ready!(polled)
                    }
                };
                *pieces += 1;
                if let Some(Ok(Piece::Data(data))) = &piece {
                    *bytes += data.len() as u64;
                }
                piece
            }
        };
        Poll::Ready(piece.map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Empty => true,
            Content::Mirrored(_) => false,
            Content::Passed {
                source, of, pieces, ..
            } => {
                let shared = lock(source);
                let is_last = shared
                    .kept
                    .as_ref()
                    .is_none_or(|kept| *pieces >= kept.len());
                shared.has_ended && is_last && shared.current == *of
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Empty => SizeHint::with_exact(0),
            Content::Mirrored(_) => SizeHint::default(),
            Content::Passed { source, bytes, .. } => match lock(source).length {
                Some(length) => SizeHint::with_exact(length.saturating_sub(*bytes)),
                None => SizeHint::default(),
            },
        }
    }
}

fn lock(source: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}
