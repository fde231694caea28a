//! What a client speaks, told by the first bytes that it says.

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::proxy::tunnel_io::TunnelIo;

/// What every HTTP/2 connection without TLS begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The methods of RFC 9110, PATCH, and those of WebDAV. Who uses others declares `appProtocol: http`.
const METHODS: [&[u8]; 17] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
];

/// Whoever has said as much, and neither a method nor the preface, says something else. Nothing behind it counts:
/// the answer must not depend on how the network cuts what is said.
pub(crate) const MOST: usize = 64;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// Neither, or nothing before the end.
    Other,
}

/// What a client has said so far.
#[derive(Default)]
pub(super) struct Detector {
    said: BytesMut,
}

impl Detector {
    /// Reads until it is clear what the client speaks. May be given up and called again.
    ///
    /// # Errors
    /// If the connection fails.
    pub(super) async fn detect(&mut self, io: &mut TunnelIo) -> io::Result<Spoken> {
        loop {
            let read = io.read_buf(&mut self.said).await?;
            match (tell(&self.said), read) {
                (Some(spoken), _) => return Ok(spoken),
                (None, 0) => return Ok(Spoken::Other),
                (None, _) => {}
            }
        }
    }

    /// Has what was read be read again.
    pub(super) fn finish(self, io: &mut TunnelIo) {
        io.unread(self.said.freeze());
    }
}

/// Whether a server begins with the settings of HTTP/2, which it may say before its client says anything
/// (RFC 9113, 3.4).
pub(super) fn is_settings(said: &[u8]) -> bool {
    // Type and stream; length and flags are as they are.
    matches!(said, [_, _, _, 4, _, 0, 0, 0, 0, ..])
}

/// `None`: it takes more bytes to tell.
pub(crate) fn tell(said: &[u8]) -> Option<Spoken> {
    let said = &said[..said.len().min(MOST)];
    let is_enough = said.len() == MOST;
    let begins = |with: &[u8]| {
        let common = said.len().min(with.len());
        said[..common] == with[..common]
    };
    if begins(PREFACE) && !said.is_empty() {
        return (said.len() >= PREFACE.len()).then_some(Spoken::Http2);
    }
    // Lines before a request line are to be ignored (RFC 9112, 2.2).
    let line = said.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let said = &said[line.unwrap_or(said.len())..];
    let mut methods = METHODS.iter().filter(|method| {
        let common = said.len().min(method.len());
        said[..common] == method[..common]
    });
    match methods.next() {
        None => Some(Spoken::Other),
        Some(method) if said.len() >= method.len() => Some(Spoken::Http1),
        Some(_) => is_enough.then_some(Spoken::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_http2_are_told_from_greetings() {
        assert!(is_settings(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]));
        for said in [
            &b"220 mail ESMTP\r\n"[..],
            &[0, 0, 6, 4],
            b"",
            &[0, 0, 6, 0, 0, 0, 0, 0, 1],
        ] {
            assert!(!is_settings(said), "{said:?}");
        }
    }

    #[test]
    fn a_protocol_is_told_by_its_first_bytes_and_no_sooner() {
        let cases: [(&[u8], Option<Spoken>); 14] = [
            (b"", None),
            (b"G", None),
            (b"GET ", Some(Spoken::Http1)),
            (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
            (b"\r\nPOST /a", Some(Spoken::Http1)),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (PREFACE, Some(Spoken::Http2)),
            (b"PRI * HTTP/3", Some(Spoken::Other)),
            (b"get / HTTP/1.1", Some(Spoken::Other)),
            (b"GETS", Some(Spoken::Other)),
            (b"hello", Some(Spoken::Other)),
            (b"\x16\x03\x01", Some(Spoken::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Other)),
        ];
        for (said, expected) in cases {
            assert_eq!(tell(said), expected, "{said:?}");
        }
    }

    /// Read in one piece it was a request, and in two it wasn't.
    #[test]
    fn a_request_behind_more_empty_lines_than_are_looked_at_is_none_however_it_is_cut() {
        let lines = |count: usize| ["\r\n".repeat(count).as_bytes(), b"GET / HTTP/1.1"].concat();
        assert_eq!(tell(&lines(30)), Some(Spoken::Http1));
        let late = lines(32);
        for end in [63, 64, 65, late.len()] {
            let expected = (end >= MOST).then_some(Spoken::Other);
            assert_eq!(tell(&late[..end]), expected, "{end}");
        }
    }
}
