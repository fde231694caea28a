//! HBONE: HTTP/2 CONNECT over mutual TLS, as Istio ambient speaks it.
//!
//! A *tunnel* is one HTTP/2 connection between two agents, over a TLS stream that the caller has
//! authenticated already. A *stream* is one application connection in it. [`client`] opens
//! streams, [`server`] accepts them, [`pool`] keeps tunnels warm, [`stream`] moves the bytes.

use std::time::Duration;

pub mod authority;
pub mod client;
pub mod headers;
mod keepalive;
pub mod pool;
pub mod server;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod windows;

pub use authority::Authority;
pub use headers::{Baggage, Forwarded, RequestHeaders, TraceParent};
pub use stream::HboneStream;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// How a tunnel is set up, on either side. Both sides of one tunnel need not agree.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes that a peer may send on one stream before the other side has taken them. Default
    /// 4 MiB, at most 2^31-1. It caps throughput at one window a round trip, and it is what one
    /// reader that stopped reading costs in memory.
    pub stream_window: u32,
    /// Bytes that a peer may send on all streams together. Default 16 MiB, at least twice
    /// `stream_window`.
    pub connection_window: u32,
    /// How far `connection_window` may grow so that streams whose reader stopped don't stop the
    /// others. Default 128 MiB: the memory bound of one tunnel.
    pub max_connection_window: u32,
    /// The largest frame accepted. Default 1 MiB, 16 KiB to 16 MiB.
    pub max_frame_size: u32,
    /// Bytes of one stream that wait for the tunnel's socket. Default 512 KiB.
    pub max_send_buffer: usize,
    /// Client: streams of one tunnel, or what the peer allows if that is less. Server: streams a
    /// peer may open. Default 100.
    pub max_streams: u32,
    /// Time between keepalive pings, whether or not the tunnel is in use. Default 10 s.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered before the tunnel counts as dead. Default 20 s.
    pub ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 * MIB,
            connection_window: 16 * MIB,
            max_connection_window: 128 * MIB,
            max_frame_size: MIB,
            max_send_buffer: 512 * KIB as usize,
            max_streams: 100,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// Bytes of headers accepted in one request or response (RFC 9113 section 6.5.2).
const MAX_HEADER_LIST: u32 = 16 * KIB;

/// Streams that we have reset and still remember, and for how long. Frames that were on their way
/// when we reset must find their stream, or h2 counts them as the peer's errors and closes the
/// tunnel after 1,024 of them.
const REMEMBERED_RESETS: usize = 512;
const REMEMBER_RESETS_FOR: Duration = Duration::from_secs(5);

/// What h2 may spend on book-keeping for unread frames under 256 bytes, in bytes. h2 closes the
/// tunnel beyond it; its own default, half the connection window, is reached by an application
/// that writes single lines to a reader that stopped.
const SMALL_FRAME_BUDGET: usize = 32 * MIB as usize;
