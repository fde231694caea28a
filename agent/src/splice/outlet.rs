//! How much the agent may write to an application.
//!
//! Above the limit the programs fall back to TCP, whose window holds the sender back. That is
//! right for an application that sends to the agent. The other way it isn't enough: while both
//! queues of an application hold bytes, a read that returns less than was asked for doesn't mean
//! that there is no more; programs with edge-triggered epoll take it to mean that, and would wait
//! for a wake-up that never comes. So the agent stays below the limit by itself.

use tokio::net::TcpStream;

use super::{ACTIVE, Active, pause::Pause};

/// The way from the agent to one application. It asks the kernel once for about as many bytes as
/// the limit.
///
/// For each write: [`Outlet::room`]; if that is 0, [`Outlet::wait`] and again; else write at most as
/// much, and tell [`Outlet::wrote`].
#[derive(Debug)]
pub struct Outlet {
    /// Bytes that may be written before the kernel is asked again.
    left: usize,
    /// The kernel's address of the application's socket; 0 while it isn't spliced.
    peer: u64,
    pause: Pause,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            left: ACTIVE.get().map_or(usize::MAX, |active| active.limit),
            peer: 0,
            pause: Pause::default(),
        }
    }
}

impl Outlet {
    /// How many bytes may be written now; 0: none, the application must read first.
    pub fn room(&mut self, stream: &TcpStream) -> usize {
        if self.left == 0 {
            self.left = match ACTIVE.get() {
                Some(active) => self.ask(active, stream),
                None => usize::MAX,
            };
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
        self.pause.wait().await;
    }

    fn ask(&mut self, active: &Active, stream: &TcpStream) -> usize {
        if self.peer == 0 {
            self.peer = active.kernel.end(stream).map_or(0, |end| end.peer);
        }
        if self.peer == 0 {
            // It goes through TCP.
            return active.limit;
        }
        let queued = usize::try_from(active.kernel.queued(self.peer)).unwrap_or(usize::MAX);
        grant(queued, active.limit)
    }
}

/// Nothing, until the application has read half: small grants would cost a question each.
fn grant(queued: usize, limit: usize) -> usize {
    let left = limit.saturating_sub(queued);
    if left < limit / 2 { 0 } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_given_more_once_it_has_read_half() {
        for (queued, granted) in [(0, 100), (1, 99), (50, 50), (51, 0), (100, 0), (1000, 0)] {
            assert_eq!(grant(queued, 100), granted, "{queued}");
        }
    }
}
