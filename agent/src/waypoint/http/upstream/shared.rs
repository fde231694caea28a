//! Connections of HTTP/2, which requests share.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use hyper::client::conn::http2;
use tokio::time::Instant;

use super::{Life, RequestBody};
use crate::discovery::model::ConnectionPool;

/// One of them.
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<RequestBody>,
    /// When it takes no more requests.
    pub(super) ends: Instant,
    requests: AtomicU32,
    in_flight: AtomicU32,
}

impl Shared {
    /// A new one, and the place of the request that it was opened for.
    pub(super) fn open(sender: http2::SendRequest<RequestBody>, ends: Instant) -> InFlight {
        InFlight::new(&Arc::new(Self {
            sender,
            ends,
            requests: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
        }))
    }
}

/// A request on a shared connection.
pub(super) struct InFlight(pub(super) Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Relaxed);
        shared.requests.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A place on a connection that has one.
pub(super) fn place(all: &[Arc<Shared>], pool: &ConnectionPool) -> Option<InFlight> {
    let now = Instant::now();
    let free = all.iter().find(|shared| {
        let life = Life {
            ends: shared.ends,
            requests: shared.requests.load(Relaxed),
        };
        let is_free = shared.in_flight.load(Relaxed) < pool.max_streams_per_connection;
        is_free && life.goes_on(pool, now) && !shared.sender.is_closed()
    });
    free.map(InFlight::new)
}
