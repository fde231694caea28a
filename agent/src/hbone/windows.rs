//! Flow control windows that keep one stream's stopped reader from stopping the others.
//!
//! HTTP/2 counts unread bytes of every stream against one window of the connection. With streams
//! of 4 MiB and a connection of 16 MiB, four readers that stop reading would stop all the other
//! streams of the tunnel for good, and two streams that wait for each other through their
//! applications would deadlock (one of the causes of hyperium/h2#853). So a stream whose reader
//! stopped says how many bytes it may come to hold, and the connection's window grows by as much:
//! half of it is always left for streams that move. Beyond the first few, the window of each
//! stream shrinks, so that the sum stays far below the bound.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use super::Settings;

/// The windows of one tunnel, as shared by its streams and the task that drives it.
#[derive(Debug)]
pub(super) struct Windows {
    limits: Limits,
    /// Bytes that streams with a stopped reader hold, or may be sent before they can refuse.
    held: AtomicU64,
    /// What was last asked of h2.
    connection: AtomicU32,
    stream: AtomicU32,
    /// Set once in a while: time to give back what is no longer needed.
    relax: AtomicBool,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    stream: u32,
    connection: u32,
    max_connection: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Targets {
    stream: u32,
    connection: u32,
}

/// Pure: the windows that `held` bytes call for.
fn targets(limits: Limits, held: u64) -> Targets {
    let wanted = u64::from(limits.connection / 2).saturating_add(held);
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    let max = limits.max_connection.max(limits.connection);
    // 16 times less is 256 KiB by default: still 10 Gbit/s at a round trip of 0.2 ms.
    let crowded = held > u64::from(limits.connection);
    Targets {
        stream: if crowded {
            limits.stream / 16
        } else {
            limits.stream
        },
        connection: wanted.clamp(limits.connection, max),
    }
}

impl Windows {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let limits = Limits {
            stream: settings.stream_window,
            connection: settings.connection_window,
            max_connection: settings.max_connection_window,
        };
        Arc::new(Self {
            limits,
            held: AtomicU64::new(0),
            connection: AtomicU32::new(limits.connection),
            stream: AtomicU32::new(limits.stream),
            relax: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Notes that a stream's reader stopped. `window` is what h2 knows of the stream: bytes
    /// received and not released, and bytes that the peer may still send.
    pub(super) fn stall(self: &Arc<Self>, window: u64) -> Stall {
        // A wider window may be on its way to the peer.
        let granted = window.max(u64::from(self.stream.load(Relaxed)));
        let held = self.held.fetch_add(granted, Relaxed) + granted;
        if targets(self.limits, held).connection > self.connection.load(Relaxed) {
            self.changed.notify_one();
        }
        Stall {
            windows: Arc::clone(self),
            granted,
        }
    }

    /// Lets windows shrink again. Called rarely, so that streams that stop and go don't make the
    /// windows follow them.
    pub(super) fn relax(&self) {
        if self.connection.load(Relaxed) != self.limits.connection
            || self.stream.load(Relaxed) != self.limits.stream
        {
            self.relax.store(true, Relaxed);
            self.changed.notify_one();
        }
    }

    /// Waits until [`Self::adjust`] has something to do.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells h2 the windows that are needed now.
    pub(super) fn adjust(&self, connection: &mut impl SetWindows) {
        let held = self.held.load(Relaxed);
        let wanted = targets(self.limits, held);
        let relax = self.relax.swap(false, Relaxed);

        let current = self.connection.load(Relaxed);
        if wanted.connection > current || (relax && wanted.connection < current) {
            connection.set_connection_window(wanted.connection);
            self.connection.store(wanted.connection, Relaxed);
        }
        // A wider stream window also widens that of stalled streams, beyond what they noted.
        let current = self.stream.load(Relaxed);
        let wider = relax && held == 0 && wanted.stream > current;
        if (wanted.stream < current || wider)
            // Fails while an earlier change is not acknowledged; the next call tries again.
            && connection.set_stream_window(wanted.stream).is_ok()
        {
            self.stream.store(wanted.stream, Relaxed);
        }
    }
}

/// A stream's reader has stopped for as long as this lives.
#[derive(Debug)]
#[must_use = "dropping it says that the reader goes on"]
pub struct Stall {
    windows: Arc<Windows>,
    granted: u64,
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.windows.held.fetch_sub(self.granted, Relaxed);
    }
}

/// What h2's two kinds of connection have in common here.
pub(super) trait SetWindows {
    fn set_connection_window(&mut self, bytes: u32);
    fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error>;
}

impl<T: AsyncRead + AsyncWrite + Unpin> SetWindows for h2::client::Connection<T, Bytes> {
    fn set_connection_window(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }

    fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(bytes)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> SetWindows for h2::server::Connection<T, Bytes> {
    fn set_connection_window(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }

    fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;
    const LIMITS: Limits = Limits {
        stream: 4 * MIB,
        connection: 16 * MIB,
        max_connection: 128 * MIB,
    };

    #[test]
    fn half_the_window_is_left_for_streams_that_move() {
        for (held, stream, connection) in [
            (0, 4 * MIB, 16 * MIB),
            (8 * MIB, 4 * MIB, 16 * MIB),
            (12 * MIB, 4 * MIB, 20 * MIB),
            (16 * MIB, 4 * MIB, 24 * MIB),
            (20 * MIB, MIB / 4, 28 * MIB),
            (120 * MIB, MIB / 4, 128 * MIB),
            (1000 * MIB, MIB / 4, 128 * MIB),
        ] {
            let expected = Targets { stream, connection };
            assert_eq!(targets(LIMITS, u64::from(held)), expected, "{held}");
        }
    }

    #[test]
    fn a_hundred_stopped_readers_stay_below_the_bound() {
        let mut held = 0;
        for _ in 0..100 {
            held += u64::from(targets(LIMITS, held).stream);
        }
        assert!(targets(LIMITS, held).connection < 64 * MIB, "{held}");
    }
}
