//! What the agent writes to an application, held back where the application doesn't read.
//!
//! Above the limit the programs fall back to TCP, whose window holds the sender back. That is
//! right for an application that sends to the agent. The other way it isn't enough: while both
//! queues of an application hold bytes, a read that returns less than was asked for doesn't mean
//! that there is no more; programs with edge-triggered epoll take it to mean that, and would wait
//! for a wake-up that never comes. So the agent stays below the limit by itself: where an application
//! lags, it waits until all is read, and goes on through TCP, which can tell it when there is room
//! again. The next small message goes past TCP once more.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use ambit_common::splice::PATH_SPLICED;
use tokio::net::TcpStream;

use super::{ACTIVE, Active, Leg, pause::Pause};

/// The way from the agent to one application. It asks the kernel once for as many bytes as may
/// wait there unread, and only where the connection is spliced.
///
/// For each write: [`Outlet::room`]; if that is 0, [`Outlet::wait`] and again; else write at most as
/// much, and tell [`Outlet::wrote`].
#[derive(Debug)]
pub struct Outlet<'a> {
    leg: &'a Leg,
    /// Bytes that may be written before the kernel is asked again.
    left: usize,
    /// The application was found to have too much to read, and hasn't read all of it since.
    is_lagging: bool,
    pause: Pause,
}

impl<'a> Outlet<'a> {
    /// Of that connection.
    #[must_use]
    pub fn new(leg: &'a Leg) -> Self {
        Self {
            leg,
            left: 0,
            is_lagging: false,
            pause: Pause::default(),
        }
    }

    /// How many bytes may be written now; 0: none, the application must read first.
    pub fn room(&mut self, stream: &TcpStream) -> usize {
        let Some(active) = ACTIVE.get().filter(|_| self.leg.is_spliced()) else {
            return usize::MAX;
        };
        if self.left == 0 {
            self.left = self.ask(active, stream);
        }
        self.left
    }

    /// So many were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.pause.reset();
    }

    /// Waits for the application to read. No event tells when it has, so this is a pause.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.pause.poll(context)).await;
    }

    /// [`Outlet::room`], once there is any.
    pub fn poll_room(&mut self, context: &mut Context<'_>, stream: &TcpStream) -> Poll<usize> {
        loop {
            match self.room(stream) {
                0 => ready!(self.pause.poll(context)),
                room => return Poll::Ready(room),
            }
        }
    }

    fn ask(&mut self, active: &Active, stream: &TcpStream) -> usize {
        let Some(end) = active.kernel.end(stream) else {
            return usize::MAX;
        };
        let limit = usize::try_from(active.kernel.limit(end.peer)).unwrap_or(usize::MAX);
        if end.path != PATH_SPLICED {
            // Not more: the next small message may be spliced again.
            return limit.max(1);
        }
        let queued = usize::try_from(active.kernel.queued(end.peer)).unwrap_or(usize::MAX);
        match grant(queued, limit, self.is_lagging) {
            Grant::Bytes(bytes) => bytes,
            Grant::None => {
                self.is_lagging = true;
                0
            }
            Grant::Tcp => {
                self.is_lagging = false;
                active.kernel.keep_to_tcp(stream, end);
                limit.max(1)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Grant {
    /// So many more past TCP.
    Bytes(usize),
    /// The application must read first.
    None,
    /// As many as TCP takes.
    Tcp,
}

/// An application that keeps up goes on; one that has left half of it unread is waited for once.
fn grant(queued: usize, limit: usize, is_lagging: bool) -> Grant {
    match queued {
        0 if is_lagging => Grant::Tcp,
        _ if is_lagging || queued >= limit.div_ceil(2) => Grant::None,
        _ => Grant::Bytes(limit - queued),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_lags_is_waited_for_and_goes_on_through_tcp() {
        for (queued, is_lagging, expected) in [
            (0, false, Grant::Bytes(100)),
            (49, false, Grant::Bytes(51)),
            (50, false, Grant::None),
            (1000, false, Grant::None),
            (51, true, Grant::None),
            (1, true, Grant::None),
            (0, true, Grant::Tcp),
        ] {
            assert_eq!(
                grant(queued, 100, is_lagging),
                expected,
                "{queued} {is_lagging}"
            );
        }
    }
}
