//! When hyper may be asked for a connection of HTTP/1.1 back.
//!
//! hyper doesn't say whether it is between two requests, but it can be seen from what it is given. It asks its timer
//! for a sleep when it begins to wait for a request's head, polls that whenever the head isn't whole yet, and drops it
//! when it is. In between it has no request: the last one's body was read to its end, and its answer was put into the
//! write buffer as a whole, or hyper wouldn't look for another head (`State::idle`, the only way back to
//! `Reading::Init`). What is in that buffer may not have gone, though, if it was the request's body that ended last.
//! hyper flushes the I/O only when the buffer is empty (`Buffered::poll_flush`), once in each poll, and waiting for a
//! head it writes nothing after that. So a poll in which it has waited for a head and flushed, and has neither read
//! nor written since, leaves nothing in it but what it has read of that head, which `into_parts` gives back.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{self, Duration},
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use tokio::time::Instant;

/// hyper has waited for a request's head.
const AWAITS: u8 = 1;
/// All that was written has gone.
const FLUSHED: u8 = 2;

/// What is seen of one connection. Its own task is the only one that looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// In the latest poll.
    seen: AtomicU8,
    heads: Mutex<Heads>,
}

#[derive(Debug, Default)]
struct Heads {
    /// Until when the first must be whole, if it has been waited for before.
    first_until: Option<Instant>,
    /// The one that is waited for.
    awaited: Option<Head>,
}

/// A request's head that isn't whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Since when it has been waited for.
    pub(super) since: Instant,
    /// When it is late.
    pub(super) until: Instant,
}

impl Watch {
    /// With the time until which the first head must be whole, if that is earlier than it would be from now on.
    pub(super) fn new(first_until: Option<Instant>) -> Arc<Self> {
        let heads = Heads {
            first_until,
            awaited: None,
        };
        Arc::new(Self {
            seen: AtomicU8::default(),
            heads: Mutex::new(heads),
        })
    }

    /// To be called before each poll of the connection.
    pub(super) fn begin(&self) {
        self.seen.store(0, Relaxed);
    }

    /// The head that the connection waits for, if it was in the latest poll, and whether it has nothing to do but that.
    pub(super) fn awaited(&self) -> Option<(Head, bool)> {
        let seen = self.seen.load(Relaxed);
        let head = self.heads().awaited.filter(|_| seen & AWAITS != 0)?;
        Some((head, seen & FLUSHED != 0))
    }

    fn await_head(&self, now: Instant, until: Instant) {
        let mut heads = self.heads();
        let until = heads
            .first_until
            .take()
            .map_or(until, |first| first.min(until));
        heads.awaited = Some(Head { since: now, until });
    }

    /// Whether it is late.
    fn poll_head(&self, now: Instant) -> bool {
        self.seen.fetch_or(AWAITS, Relaxed);
        self.heads().awaited.is_some_and(|head| now >= head.until)
    }

    fn end_head(&self) {
        self.forget(AWAITS);
        self.heads().awaited = None;
    }

    fn forget(&self, sign: u8) {
        self.seen.fetch_and(!sign, Relaxed);
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// hyper's timer, which it asks for nothing but the time that heads may take. It wakes nobody: whoever polls the
/// connection polls it again by then.
pub(super) struct HeadTimer(pub(super) Arc<Watch>);

struct HeadSleep(Arc<Watch>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: time::Instant) -> Pin<Box<dyn Sleep>> {
        self.0.await_head(Instant::now(), deadline.into());
        Box::pin(HeadSleep(self.0.clone()))
    }

    fn now(&self) -> time::Instant {
        Instant::now().into()
    }

    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, deadline: time::Instant) {
        self.0.await_head(Instant::now(), deadline.into());
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match self.0.poll_head(Instant::now()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Sleep for HeadSleep {}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.0.end_head();
    }
}

/// The I/O that hyper is given.
pub(super) struct Watched<Io> {
    io: Io,
    /// Read before, to be read again.
    unread: Bytes,
    watch: Arc<Watch>,
}

impl<Io> Watched<Io> {
    pub(super) fn new(io: Io, unread: Bytes, watch: Arc<Watch>) -> Self {
        Self { io, unread, watch }
    }

    /// Nothing is left of what was to be read again.
    pub(super) fn into_inner(self) -> Io {
        debug_assert!(self.unread.is_empty(), "bytes were read and lost");
        self.io
    }
}

impl<Io: Read + Unpin> Read for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            let now = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread[..now]);
            this.unread.advance(now);
            this.watch.forget(AWAITS);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        if read.is_ready() {
            this.watch.forget(AWAITS);
        }
        read
    }
}

impl<Io: Write + Unpin> Write for Watched<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.forget(FLUSHED);
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.forget(FLUSHED);
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.watch.seen.fetch_or(FLUSHED, Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.begin();
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn nothing_is_left_to_do_only_after_a_poll_that_waited_and_flushed_and_did_nothing_since() {
        let flush = |watch: &Watch| _ = watch.seen.fetch_or(FLUSHED, Relaxed);
        let wait = |watch: &Watch| _ = watch.poll_head(Instant::now());
        let read = |watch: &Watch| watch.forget(AWAITS);
        let write = |watch: &Watch| watch.forget(FLUSHED);
        type Steps<'a> = &'a [&'a dyn Fn(&Watch)];
        let cases: [(Steps<'_>, Option<bool>); 8] = [
            (&[], None),
            (&[&flush], None),
            (&[&wait], Some(false)),
            (&[&wait, &flush], Some(true)),
            (&[&flush, &wait, &write], Some(false)),
            (&[&wait, &read, &flush], None),
            (&[&wait, &flush, &Watch::begin], None),
            (&[&wait, &flush, &Watch::end_head], None),
        ];
        for (index, (steps, expected)) in cases.into_iter().enumerate() {
            let watch = Watch::new(None);
            let now = Instant::now();
            watch.await_head(now, now + HOUR);
            for step in steps {
                step(&watch);
            }
            let awaited = watch.awaited().map(|(_, is_all)| is_all);
            assert_eq!(awaited, expected, "{index}");
        }
    }

    #[test]
    fn a_head_that_has_been_waited_for_before_gets_no_more_time_and_the_next_gets_all() {
        let now = Instant::now();
        let watch = Watch::new(Some(now + HOUR / 2));
        let timer = HeadTimer(watch.clone());
        let until = || watch.heads().awaited.map(|head| head.until);
        let mut sleep = timer.sleep_until((now + HOUR).into());
        assert_eq!(until(), Some(now + HOUR / 2));
        assert!(!watch.poll_head(now) && watch.poll_head(now + HOUR / 2));
        timer.reset(&mut sleep, (now + HOUR).into());
        assert_eq!(until(), Some(now + HOUR));
        drop(sleep);
        assert_eq!(until(), None);
        let _sleep = timer.sleep_until((now + 2 * HOUR).into());
        assert_eq!(until(), Some(now + 2 * HOUR));
    }
}
