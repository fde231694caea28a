//! What the agent writes to an application, held back where the application doesn't read.
//!
//! Above the limit the programs fall back to TCP, whose window holds the sender back. That is
//! right for an application that sends to the agent. The other way it isn't enough: while both
//! queues of an application hold bytes, a read that returns less than was asked for doesn't mean
//! that there is no more; programs with edge-triggered epoll take it to mean that, and would wait
//! for a wake-up that never comes. So the agent stays below the limit by itself, and goes over to TCP
//! only when the application has read all that it was given past it: at once where there is a lot to
//! send, and where the application lags, after it has been waited for. TCP can tell when there is
//! room again, so bulk goes that way until it is over.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use ambit_common::splice::{PATH_BULK, PATH_SPLICED, PATH_TCP};
use tokio::net::TcpStream;

use super::{ACTIVE, Active, Leg, pause::Pause};

/// Bytes below which a write is small: less than a record.
const SMALL: usize = 16 * 1024;

/// Small writes in a row after which bulk is over. One is the end of a large message.
const BULK_IS_OVER: u32 = 8;

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
    /// All goes through TCP; so many writes in a row were small.
    bulk: Option<u32>,
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
            bulk: None,
            pause: Pause::default(),
        }
    }

    /// How many bytes may be written now, of as many as are `wanted`; 0: none, the application must
    /// read first.
    pub fn room(&mut self, stream: &TcpStream, wanted: usize) -> usize {
        let Some(active) = ACTIVE.get().filter(|_| self.leg.is_spliced()) else {
            return usize::MAX;
        };
        if self.bulk.is_some_and(|small| small < BULK_IS_OVER) {
            return usize::MAX;
        }
        if self.left < wanted || self.bulk.is_some() {
            self.left = self.ask(active, stream, wanted);
        }
        self.left
    }

    /// So many were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.bulk = self.bulk.map(|small| match bytes {
            0..SMALL => small + 1,
            _ => 0,
        });
        self.pause.reset();
    }

    /// Waits for the application to read. No event tells when it has, so this is a pause.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.pause.poll(context)).await;
    }

    /// [`Outlet::room`], once there is any.
    pub fn poll_room(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
        wanted: usize,
    ) -> Poll<usize> {
        loop {
            match self.room(stream, wanted) {
                0 => ready!(self.pause.poll(context)),
                room => return Poll::Ready(room),
            }
        }
    }

    fn ask(&mut self, active: &Active, stream: &TcpStream, wanted: usize) -> usize {
        let Some(end) = active.kernel.end(stream) else {
            return usize::MAX;
        };
        let limit = usize::try_from(active.kernel.limit(end.peer)).unwrap_or(usize::MAX);
        if self.bulk.take().is_some() {
            active.kernel.set_path(stream, end, PATH_TCP);
        }
        let queued = if end.path == PATH_SPLICED {
            usize::try_from(active.kernel.queued(end.peer)).unwrap_or(usize::MAX)
        } else {
            0
        };
        match grant(queued, wanted, limit, self.is_lagging) {
            Grant::Bytes(bytes) => bytes,
            Grant::None => {
                self.is_lagging = true;
                0
            }
            Grant::Bulk => {
                self.is_lagging = false;
                self.bulk = Some(0);
                active.kernel.set_path(stream, end, PATH_BULK);
                usize::MAX
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
    Bulk,
}

/// An application that keeps up goes on; one that has left half of it unread is waited for once.
fn grant(queued: usize, wanted: usize, limit: usize, is_lagging: bool) -> Grant {
    let half = limit.div_ceil(2);
    match queued {
        0 if is_lagging || wanted >= half => Grant::Bulk,
        _ if is_lagging || wanted >= half || queued >= half => Grant::None,
        _ => Grant::Bytes(limit - queued),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_lags_is_waited_for_and_bulk_goes_through_tcp() {
        for (queued, wanted, is_lagging, expected) in [
            (0, 1, false, Grant::Bytes(100)),
            (49, 49, false, Grant::Bytes(51)),
            (50, 1, false, Grant::None),
            (1000, 1, false, Grant::None),
            (51, 1, true, Grant::None),
            (1, 1, true, Grant::None),
            (0, 1, true, Grant::Bulk),
            (0, 50, false, Grant::Bulk),
            (0, 1000, false, Grant::Bulk),
            (1, 50, false, Grant::None),
        ] {
            assert_eq!(
                grant(queued, wanted, 100, is_lagging),
                expected,
                "{queued} {wanted} {is_lagging}"
            );
        }
    }

    #[test]
    fn bulk_is_over_after_some_small_writes_in_a_row() {
        let leg = Leg::default();
        let mut outlet = Outlet::new(&leg);
        outlet.bulk = Some(0);
        for (bytes, expected) in [(1, 1), (SMALL - 1, 2), (SMALL, 0), (1, 1)] {
            outlet.wrote(bytes);
            assert_eq!(outlet.bulk, Some(expected), "{bytes}");
        }
        outlet.bulk = None;
        outlet.wrote(1);
        assert_eq!(outlet.bulk, None);
    }
}
