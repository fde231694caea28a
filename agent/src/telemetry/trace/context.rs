//! `traceparent`, and both headers together.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::TraceState;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The text of version 00, and of as much of later versions as is understood.
const LENGTH: usize = 55;
/// A later version's text may be longer than ours, but for this.
const MAX_LENGTH: usize = 256;

const SAMPLED: u8 = 0b01;
const RANDOM: u8 = 0b10;

/// A trace; never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span within a trace; never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// From random bytes. One of 2^128 is not allowed, and becomes another.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(if bytes == [0; 16] { [1; 16] } else { bytes })
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The last 56 bits.
    pub(super) fn random_bits(self) -> u64 {
        let [.., a, b, c, d, e, f, g] = self.0;
        u64::from_be_bytes([0, a, b, c, d, e, f, g])
    }
}

impl SpanId {
    /// From random bytes. One of 2^64 is not allowed, and becomes another.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(if bytes == [0; 8] { [1; 8] } else { bytes })
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that whoever reads this is a child of.
    pub span: SpanId,
    /// Bits that version 00 knows; others are dropped, as its section 3.2.2.5 asks.
    flags: u8,
}

impl SpanContext {
    /// The first span of a trace, whose id is random.
    #[must_use]
    pub fn begin(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        let flags = RANDOM | if sampled { SAMPLED } else { 0 };
        Self { trace, span, flags }
    }

    /// A child of it.
    #[must_use]
    pub fn child(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// Whether the caller records the trace.
    #[must_use]
    pub fn sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As they go over the wire.
    pub(in crate::telemetry) fn flags(self) -> u8 {
        self.flags
    }

    /// Reads `<version>-<trace id>-<parent id>-<flags>` (W3C Trace Context, section 3.2). Versions
    /// above 00 may carry more fields.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (known, more) = bytes.split_at_checked(LENGTH)?;
        let [version] = hex(&known[..2])?;
        let complete = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|byte| *byte == b'-') && bytes.len() <= MAX_LENGTH,
        };
        let separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let (trace, span) = (hex(&known[3..35])?, hex(&known[36..52])?);
        let [flags] = hex(&known[53..])?;
        let given = trace != [0; 16] && span != [0; 8];
        (complete && separated && given).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            flags: flags & (SAMPLED | RANDOM),
        })
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// What both headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `traceparent`.
    pub span: SpanContext,
    /// `tracestate`.
    pub state: TraceState,
}

impl TraceContext {
    /// What a request says. None if it has no `traceparent`, more than one, or one that can't be
    /// read; `tracestate` is worth nothing then.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        Some(Self {
            span: SpanContext::parse(parent.to_str().ok()?)?,
            state: TraceState::of(headers),
        })
    }

    /// Puts both headers in the place of what is there.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        // It is made of hexadecimal digits.
        if let Ok(value) = HeaderValue::try_from(self.span.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        self.state.insert_into(headers);
    }
}

/// Digits of the lower case, which are the only ones allowed.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
