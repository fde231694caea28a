//! Direct tunnels: one application connection at a time in a TLS connection of its own, between
//! agents of our own (ALPN `ambit/2`; HBONE stays for everybody else, and for whatever is beyond
//! the bounds here).
//!
//! With one connection in it a tunnel needs no windows, no interleaving and no second framing: a TLS
//! record is a frame. The kernel's own flow control holds a sender back, and bytes are sealed and opened
//! in the buffer that they were read into. A tunnel whose connection has ended well in both directions
//! carries the next one, so that a new connection costs no handshake. One that hasn't is reset,
//! and so the other end resets its application too, as TCP would have.
//!
//! ```text
//! client's agent                        server's agent
//!   OPEN authority, baggage, ... ─────▶                    with the first DATA, if it's there
//!                       ◀───────────── ACCEPT baggage      or REFUSE status
//!   DATA ...            ◀────────────▶ DATA ...
//!   END                 ◀────────────▶ END                 each direction for itself
//!   OPEN the next       ─────▶
//! ```
//!
//! DATA that came with an OPEN may have reached the server by the time that a tunnel breaks, so such a connection
//! isn't asked for again elsewhere. Hence a server's agent that stops says so (CLOSING) before it closes a tunnel, and
//! still serves an OPEN that was on its way. What came with an OPEN that was refused is passed over.

mod client;
mod frame;
mod pool;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use client::open;
pub use frame::{Frame, FrameError, Kind};
pub use pool::{Lease, Pool, PoolSettings};
pub use server::{DirectRequest, serve};
pub use stream::{Answer, DirectStream, Home, TunnelError, tell};
