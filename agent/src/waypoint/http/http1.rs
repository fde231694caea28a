//! A client's connection of HTTP/1.1, which takes no more memory than its I/O while it is idle.
//!
//! hyper has a buffer of 8 KiB for either direction for as long as it has the connection. So that is taken back once
//! it has been idle for a moment, and given to hyper anew when something comes.

mod watch;

use std::{
    error,
    future::{Future, poll_fn, ready},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1::{Builder, UpgradeableConnection},
    service::HttpService,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    select,
    time::{Instant, Sleep, sleep},
};

use self::watch::{HeadTimer, Watch, Watched};
use super::{IDLE, MAX_HEAD, MAX_HEADERS};

/// How long a connection is idle before it is parked. Of many that come at once, those that come within this time
/// have their buffers at the same time.
const MOMENT: Duration = Duration::from_secs(1);
/// How much is read at once of what ends that, in bytes: most requests' heads as a whole.
const FIRST_READ: usize = 2048;

/// Of bodies.
type AnyError = Box<dyn error::Error + Send + Sync>;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// While it was served.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// While it was idle.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves a connection until either side closes it, or `cancelled` completes, at once. When `drained` does, it is
/// closed after the request that is under way, if one is.
///
/// # Errors
/// [`Error`].
pub(super) async fn serve<Io, S>(
    io: Io,
    mut service: S,
    cancelled: impl Future<Output = ()>,
    drained: impl Future<Output = ()>,
) -> Result<(), Error>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody: Body<Error: Into<AnyError>> + 'static>,
{
    let (mut cancelled, mut drained) = (pin!(cancelled), pin!(drained));
    let mut timer = pin!(sleep(IDLE));
    let mut parked = Parked {
        io,
        unread: Bytes::new(),
        until: None,
    };
    loop {
        let mut served = Served::new(parked, service);
        let driven = select! {
            biased;
            () = &mut cancelled => return Ok(()),
            driven = served.drive(timer.as_mut(), true) => driven,
            () = &mut drained => return Box::pin(served.finish(timer, cancelled)).await,
        };
        let until = match driven {
            Driven::Ended(served) => return Ok(served?),
            Driven::Idle(until) => until,
        };
        // It is there: one that was upgraded has ended.
        let Some(idle) = served.park(until) else {
            return Ok(());
        };
        (parked, service) = idle;
        select! {
            biased;
            () = &mut cancelled => return Ok(()),
            woken = parked.wait(timer.as_mut()) => woken?,
            () = &mut drained => {
                let served = Served::new(parked, service);
                return Box::pin(served.finish(timer, cancelled)).await;
            }
        }
    }
}

/// A connection that hyper has.
struct Served<Io, S: HttpService<Incoming>> {
    connection: Box<UpgradeableConnection<Watched<TokioIo<Io>>, S>>,
    watch: Arc<Watch>,
}

/// What became of it.
enum Driven {
    Ended(hyper::Result<()>),
    /// It has been without a request for a moment, and has until then for the next one's head.
    Idle(Instant),
}

impl<Io, S> Served<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody: Body<Error: Into<AnyError>> + 'static>,
{
    fn new(parked: Parked<Io>, service: S) -> Self {
        let watch = Watch::new(parked.until);
        let io = Watched::new(TokioIo::new(parked.io), parked.unread, watch.clone());
        let mut server = Builder::new();
        server
            .timer(HeadTimer(watch.clone()))
            .header_read_timeout(IDLE)
            .max_header_size(MAX_HEAD.into())
            .max_headers(MAX_HEADERS);
        let connection = server.serve_connection(io, service).with_upgrades();
        Self {
            connection: Box::new(connection),
            watch,
        }
    }

    /// Until it has ended, or is idle if it `may_park`.
    async fn drive(&mut self, mut timer: Pin<&mut Sleep>, may_park: bool) -> Driven {
        poll_fn(|context| self.poll(context, timer.as_mut(), may_park)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        may_park: bool,
    ) -> Poll<Driven> {
        self.watch.begin();
        if let Poll::Ready(served) = Pin::new(&mut *self.connection).poll(context) {
            return Poll::Ready(Driven::Ended(served));
        }
        let Some((head, has_only_that)) = self.watch.awaited() else {
            return Poll::Pending;
        };
        let idle_at = Some(head.since + MOMENT).filter(|_| may_park);
        let is_idle = idle_at.is_some_and(|at| at <= Instant::now());
        if is_idle && has_only_that {
            return Poll::Ready(Driven::Idle(head.until));
        }
        // Whoever doesn't read its last answer isn't looked at again before it does, or is late.
        let wake = idle_at.filter(|_| !is_idle).unwrap_or(head.until);
        if timer.deadline() != wake {
            timer.as_mut().reset(wake);
        }
        if timer.poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Takes it back from hyper, with nothing but what has come of the next head.
    fn park(self, until: Instant) -> Option<(Parked<Io>, S)> {
        let parts = self.connection.into_parts()?;
        let parked = Parked {
            io: parts.io.into_inner().into_inner(),
            // A copy, as hyper's has the whole buffer behind it.
            unread: Bytes::copy_from_slice(&parts.read_buf),
            until: Some(until),
        };
        Some((parked, parts.service))
    }

    /// Closes it after the request that is under way, or that has come in part.
    async fn finish(
        mut self,
        mut timer: Pin<&mut Sleep>,
        mut cancelled: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Error> {
        // Told before it has seen what was read, hyper would take it for idle.
        let driven = select! {
            biased;
            driven = self.drive(timer.as_mut(), false) => Some(driven),
            () = ready(()) => None,
        };
        let driven = match driven {
            Some(driven) => driven,
            None => {
                Pin::new(&mut *self.connection).graceful_shutdown();
                select! {
                    biased;
                    () = &mut cancelled => return Ok(()),
                    driven = self.drive(timer, false) => driven,
                }
            }
        };
        match driven {
            Driven::Ended(served) => Ok(served?),
            Driven::Idle(_) => Ok(()),
        }
    }
}

/// A connection that nobody has asked anything for a moment.
struct Parked<Io> {
    io: Io,
    /// What has come of the next request.
    unread: Bytes,
    /// When its head is late, unless it is waited for from now on.
    until: Option<Instant>,
}

impl<Io: AsyncRead + Unpin> Parked<Io> {
    /// Waits for more of it, the end, or the time to be up: hyper tells these apart.
    async fn wait(&mut self, mut timer: Pin<&mut Sleep>) -> io::Result<()> {
        if let Some(until) = self.until {
            timer.as_mut().reset(until);
        }
        poll_fn(|context| {
            if let Poll::Ready(read) = self.poll_more(context) {
                return Poll::Ready(read);
            }
            timer.as_mut().poll(context).map(Ok)
        })
        .await
    }

    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nowhere but here, so that it isn't there meanwhile.
        let mut space = [0; FIRST_READ];
        let mut more = ReadBuf::new(&mut space);
        Pin::new(&mut self.io)
            .poll_read(context, &mut more)
            .map_ok(|()| self.unread = [&self.unread, more.filled()].concat().into())
    }
}

#[cfg(test)]
mod tests;
