//! What is counted and measured of one connection.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ambit_common::passed::Path;

/// Bytes of one connection, counted by the copy loop and read by metrics while it runs.
///
/// Istio's directions, which are the server's: its standard metrics call the response "sent" and
/// the request "received".
#[derive(Debug, Default)]
pub struct Transfer {
    /// Bytes from server to client.
    sent: AtomicU64,
    /// Bytes from client to server.
    received: AtomicU64,
    /// As in [`Path`].
    round_trip: AtomicU32,
    /// As in [`Path`].
    retransmitted: AtomicU32,
}

impl Transfer {
    /// Counts bytes from server to client.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes from client to server.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// At least so many have gone from server to client, as somebody else has counted.
    pub fn raise_sent(&self, bytes: u64) {
        self.sent.fetch_max(bytes, Ordering::Relaxed);
    }

    /// At least so many have gone from client to server, as somebody else has counted.
    pub fn raise_received(&self, bytes: u64) {
        self.received.fetch_max(bytes, Ordering::Relaxed);
    }

    /// An end has measured this of the way to the other. If both have, the longer round trip counts.
    pub fn measured(&self, path: Path) {
        self.round_trip
            .fetch_max(path.round_trip, Ordering::Relaxed);
        self.retransmitted
            .fetch_add(path.retransmitted, Ordering::Relaxed);
    }

    /// What TCP has measured, if that is known.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        let path = Path {
            round_trip: self.round_trip.load(Ordering::Relaxed),
            retransmitted: self.retransmitted.load(Ordering::Relaxed),
        };
        (path.round_trip > 0).then_some(path)
    }

    /// Bytes from server to client so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from client to server so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
