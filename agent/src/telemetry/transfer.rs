//! The byte counts of one connection.

use std::sync::atomic::{AtomicU64, Ordering};

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
