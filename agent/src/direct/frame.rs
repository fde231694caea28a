//! Frames: a byte that says which, and the rest of the record.

use http::StatusCode;

use crate::hbone::{Authority, Baggage, Forwarded, RequestHeaders, TraceParent};

/// What a record's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the application.
    Data = 0,
    /// The client's agent asks for a connection.
    Open = 1,
    /// The server's agent has made it.
    Accept = 2,
    /// Or hasn't.
    Refuse = 3,
    /// The application has closed this direction.
    End = 4,
    /// The server's agent takes no other connection in this tunnel, but for one that was asked for already.
    Closing = 5,
}

/// A frame other than data.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// Where to, and what is said about the client. Nothing of it is evidence.
    Open(Authority, Box<RequestHeaders>),
    /// What the workload at the other end calls itself. Not evidence.
    Accept(Box<Baggage>),
    /// The status that HBONE would have answered.
    Refuse(StatusCode),
    /// Half-close.
    End,
    /// Nothing more is asked for in this tunnel.
    Closing,
}

/// Why a frame can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing in it.
    #[error("an empty frame")]
    Empty,
    /// A newer protocol, or none.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// What is in it ends too early, or isn't what it should be.
    #[error("a malformed {0:?} frame")]
    Malformed(Kind),
    /// Data where none can be.
    #[error("a frame that has no place at this point of a connection")]
    OutOfPlace,
}

impl Kind {
    /// The kind of a record's content.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn of(content: &[u8]) -> Result<Self, FrameError> {
        match *content.first().ok_or(FrameError::Empty)? {
            0 => Ok(Self::Data),
            1 => Ok(Self::Open),
            2 => Ok(Self::Accept),
            3 => Ok(Self::Refuse),
            4 => Ok(Self::End),
            5 => Ok(Self::Closing),
            unknown => Err(FrameError::UnknownKind(unknown)),
        }
    }
}

/// The longest text in a frame, so that all four of an OPEN fit into one record. A longer header is
/// left out, as an HBONE header is that is too long.
const MAX_TEXT: usize = 4000;

impl Frame {
    /// The content of a record that says it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(authority, headers) => {
                let mut content = vec![Kind::Open as u8];
                put(&mut content, &authority.to_string());
                put(&mut content, &headers.baggage.to_string());
                let forwarded = headers.forwarded.as_ref().map(ToString::to_string);
                put(&mut content, forwarded.as_deref().unwrap_or_default());
                let trace = headers.traceparent.as_ref().map(TraceParent::as_str);
                put(&mut content, trace.unwrap_or_default());
                content
            }
            Self::Accept(baggage) => {
                let mut content = vec![Kind::Accept as u8];
                put(&mut content, &baggage.to_string());
                content
            }
            Self::Refuse(status) => {
                let [high, low] = status.as_u16().to_be_bytes();
                vec![Kind::Refuse as u8, high, low]
            }
            Self::End => vec![Kind::End as u8],
            Self::Closing => vec![Kind::Closing as u8],
        }
    }

    /// Reads the content of a record.
    ///
    /// # Errors
    /// [`FrameError`]; data has no place here.
    pub fn decode(content: &[u8]) -> Result<Self, FrameError> {
        let kind = Kind::of(content)?;
        let mut rest = &content[1..];
        let malformed = || FrameError::Malformed(kind);
        let mut text = || take(&mut rest).ok_or_else(malformed);
        let frame = match kind {
            Kind::Data => return Err(FrameError::OutOfPlace),
            Kind::Open => {
                let authority = text()?.parse().map_err(|_| malformed())?;
                let (baggage, forwarded, trace) = (text()?, text()?, text()?);
                let headers = RequestHeaders {
                    baggage: Baggage::parse(baggage),
                    forwarded: Forwarded::parse(forwarded),
                    traceparent: TraceParent::parse(trace),
                };
                Self::Open(authority, Box::new(headers))
            }
            Kind::Accept => Self::Accept(Box::new(Baggage::parse(text()?))),
            Kind::Refuse => {
                let (status, behind) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
                rest = behind;
                let status = StatusCode::from_u16(u16::from_be_bytes(*status));
                Self::Refuse(status.map_err(|_| malformed())?)
            }
            Kind::End => Self::End,
            Kind::Closing => Self::Closing,
        };
        if rest.is_empty() {
            Ok(frame)
        } else {
            Err(malformed())
        }
    }
}

fn put(content: &mut Vec<u8>, text: &str) {
    let text = if text.len() <= MAX_TEXT { text } else { "" };
    let length = u16::try_from(text.len()).unwrap_or_default();
    content.extend(length.to_be_bytes());
    content.extend(text.as_bytes());
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let (text, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = behind;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> RequestHeaders {
        RequestHeaders {
            baggage: Baggage::parse("k8s.namespace.name=shop,service.name=cart"),
            forwarded: Forwarded::parse("for=\"10.0.0.7:4711\";host=db.shop.svc"),
            traceparent: TraceParent::parse(
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let authority = || "10.1.2.3:80".parse().unwrap();
        for frame in [
            Frame::Open(authority(), Box::new(headers())),
            Frame::Open(authority(), Box::default()),
            Frame::Accept(Box::new(headers().baggage)),
            Frame::Refuse(StatusCode::UNAUTHORIZED),
            Frame::End,
            Frame::Closing,
        ] {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_named() {
        for (content, error) in [
            (&[][..], FrameError::Empty),
            (&[9], FrameError::UnknownKind(9)),
            (&[0, 1, 2], FrameError::OutOfPlace),
            (&[1], FrameError::Malformed(Kind::Open)),
            (&[1, 0, 9, b'x'], FrameError::Malformed(Kind::Open)),
            (&[2, 0, 1, 0xff], FrameError::Malformed(Kind::Accept)),
            (&[3, 0], FrameError::Malformed(Kind::Refuse)),
            (&[3, 0, 1], FrameError::Malformed(Kind::Refuse)),
            (&[4, 0], FrameError::Malformed(Kind::End)),
        ] {
            assert_eq!(Frame::decode(content), Err(error), "{content:?}");
        }
    }

    #[test]
    fn a_header_that_is_too_long_is_left_out() {
        let long = "a".repeat(MAX_TEXT + 1);
        let mut content = Vec::new();
        put(&mut content, &long);
        assert_eq!(content, [0, 0]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(content: Vec<u8>) {
            crate::fuzzing::headers::check_frame(&content);
        }
    }
}
