//! Bytes of one request's bodies.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one request's bodies, counted by whoever passes them on.
#[derive(Debug, Default)]
pub struct RequestSizes {
    request: AtomicU64,
    response: AtomicU64,
}

impl RequestSizes {
    /// Counts bytes from client to server.
    pub fn add_request(&self, bytes: u64) {
        self.request.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes from server to client.
    pub fn add_response(&self, bytes: u64) {
        self.response.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes from client to server so far.
    #[must_use]
    pub fn request(&self) -> u64 {
        self.request.load(Ordering::Relaxed)
    }

    /// Bytes from server to client so far.
    #[must_use]
    pub fn response(&self) -> u64 {
        self.response.load(Ordering::Relaxed)
    }
}
