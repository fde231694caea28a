//! The encrypted connection between two agents: TLS 1.3 over any byte stream.
//!
//! rustls does the handshake and derives every key (`handshake`); the records after it are protected
//! here (`records`), in place, in buffers that are read from and written to sockets directly. A TLS
//! library's own record layer copies each byte at least twice more, which is most of what encryption costs
//! a node. [`ChannelStream`] makes ordinary reads and writes of it, for HTTP/2.

mod buffer;
mod cipher;
mod handshake;
mod inbox;
mod records;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use buffer::{Buffer, RECORD, RECORDS};
pub use handshake::{ClientHello, HandshakeError, Handshaken, Incoming, connect};
pub use inbox::{Content, Inbox, Next};
pub use records::{HEADER, Keys, MAX_CONTENT, RecordError, TRAILER};
pub use stream::ChannelStream;

/// A connection whose peer is known, with whatever of it was received and not yet read.
#[derive(Debug)]
pub struct Channel<Io> {
    /// The connection beneath.
    pub io: Io,
    /// Both directions' keys.
    pub keys: Keys,
    /// Sealed bytes that were received and not opened: the last read may have gone beyond what was
    /// waited for.
    pub received: Vec<u8>,
}
