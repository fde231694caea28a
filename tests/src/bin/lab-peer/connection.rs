//! What both ends of a connection do: send, receive, and say how it ended.

use std::{
    io::{self, Read, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// How much is read or written at once.
const CHUNK: usize = 256 * 1024;
/// The length after which sent bytes repeat: a prime, so that a lost or doubled chunk is noticed.
const PERIOD: usize = 1_000_003;

/// The bytes that came in one direction.
pub(crate) struct Received {
    bytes: u64,
    hash: Sha256,
    /// None at the other side's orderly end.
    error: Option<io::Error>,
}

impl Received {
    pub(crate) fn json(self) -> Value {
        json!({
            "received_bytes": self.bytes,
            "received_sha256": hexadecimal(self.hash),
            "end": self.error.as_ref().map_or("eof".into(), end),
        })
    }
}

/// Sends and receives at once, each to its end.
pub(crate) fn transfer(stream: &TcpStream, bytes: u64) -> io::Result<Value> {
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send_and_close(stream, bytes));
        let received = receive(stream, |_| ());
        (sender.join(), received)
    });
    let sent = sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(merged(sent, received.json()))
}

/// Sends and ends this direction, before or after the other side has ended its own.
pub(crate) fn half_close(stream: &TcpStream, bytes: u64, first: bool) -> io::Result<Value> {
    if first {
        let sent = send_and_close(stream, bytes);
        Ok(merged(sent, receive(stream, |_| ()).json()))
    } else {
        let received = receive(stream, |_| ()).json();
        Ok(merged(send_and_close(stream, bytes), received))
    }
}

/// Reads to the end; `after_read` is called with each chunk's length.
pub(crate) fn receive(mut stream: &TcpStream, mut after_read: impl FnMut(usize)) -> Received {
    let mut received = Received {
        bytes: 0,
        hash: Sha256::new(),
        error: None,
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return received,
            Ok(n) => {
                received.bytes += n as u64;
                received.hash.update(&buffer[..n]);
                after_read(n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                received.error = Some(error);
                return received;
            }
        }
    }
}

/// Sends bytes that no two places of the stream share, and ends the direction.
fn send_and_close(mut stream: &TcpStream, bytes: u64) -> Value {
    // Another one in each direction, so that bytes that come back to their sender are noticed.
    let pattern = pattern(stream.local_addr().map_or(0, |address| address.port()));
    let (mut sent, mut hash) = (0, Sha256::new());
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    let mut error = None;
    while sent < bytes {
        let at = usize::try_from(sent % PERIOD as u64).unwrap_or(0);
        let left = usize::try_from(bytes - sent).unwrap_or(usize::MAX);
        let chunk = &pattern[at..][..left.min(CHUNK)];
        let before = Instant::now();
        match stream.write(chunk) {
            Ok(n) => {
                longest = longest.max(before.elapsed());
                hash.update(&chunk[..n]);
                sent += n as u64;
            }
            Err(failed) if failed.kind() == io::ErrorKind::Interrupted => {}
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    let closed = stream.shutdown(Shutdown::Write);
    json!({
        "sent_bytes": sent,
        "sent_sha256": hexadecimal(hash),
        "seconds": start.elapsed().as_secs_f64(),
        "longest_stall_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
        "send_error": error.or(closed.err()).as_ref().map(end),
    })
}

/// How a connection ended, in a word where there is one.
pub(crate) fn end(error: &io::Error) -> String {
    match error.kind() {
        // Of a socket that was connected: the reset came before whatever was asked of it.
        io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => "reset".into(),
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::BrokenPipe => "broken pipe".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        _ => error.to_string(),
    }
}

/// Resets the connection: what `close` does when nothing may linger.
pub(crate) fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// The fields of two objects in one.
pub(crate) fn merged(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}

/// Bytes of one period and a chunk, from a small generator (xorshift64, Marsaglia 2003).
fn pattern(seed: u16) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(seed);
    let mut pattern = Vec::with_capacity(PERIOD + CHUNK + 8);
    while pattern.len() < PERIOD {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern.extend(state.to_le_bytes());
    }
    pattern.truncate(PERIOD);
    pattern.extend_from_within(..CHUNK);
    pattern
}

pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_repeats_after_its_period_only() {
        let (pattern, other) = (pattern(80), pattern(40_000));
        assert_ne!(pattern[..64], other[..64]);
        assert_eq!(pattern[..100], pattern[PERIOD..PERIOD + 100]);
        assert!((1..CHUNK).all(|shift| pattern[..64] != pattern[shift..shift + 64]));
    }
}
