//! The headers of a CONNECT request and its response: who is at the other end, for telemetry.
//!
//! None of them is evidence: identity comes from the certificate alone. So whatever can't be
//! understood is left out, and never fails a connection.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::telemetry::trace::SpanContext;

mod baggage;
mod forwarded;

pub use baggage::Baggage;
pub use forwarded::Forwarded;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The most bytes of one header that are looked at: the least that W3C Baggage asks an
/// implementation to carry. A longer one is ignored whole.
const MAX_HEADER: usize = 8192;

/// What either side says about itself and its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeaders {
    /// The workload that sends the header: the client's in a request, the server's in a response.
    pub baggage: Baggage,
    /// The original client and the service it asked for. Requests only.
    pub forwarded: Option<Forwarded>,
    /// The trace that the connection belongs to. Requests only.
    pub traceparent: Option<TraceParent>,
}

impl RequestHeaders {
    /// Reads what is there and understood.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let text = |name| joined(headers, &name);
        Self {
            baggage: text(BAGGAGE)
                .map(|t| Baggage::parse(&t))
                .unwrap_or_default(),
            forwarded: text(FORWARDED).and_then(|text| Forwarded::parse(&text)),
            traceparent: text(TRACEPARENT).and_then(|text| TraceParent::parse(&text)),
        }
    }

    /// Adds the headers that have something to say.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        let traceparent = self.traceparent.as_ref().map(|t| t.0.to_string());
        for (name, text) in [
            (BAGGAGE, Some(self.baggage.to_string())),
            (FORWARDED, self.forwarded.as_ref().map(ToString::to_string)),
            (TRACEPARENT, traceparent),
        ] {
            let text = text.filter(|text| !text.is_empty() && text.len() <= MAX_HEADER);
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// All values of a header in one, as RFC 9110 section 5.3 joins them. `None` if it is absent, not
/// ASCII, or too long.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut text = String::new();
    for value in headers.get_all(name) {
        let value = value.to_str().ok()?;
        if text.len() + value.len() >= MAX_HEADER {
            return None;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(value);
    }
    (!text.is_empty()).then_some(text)
}

/// A W3C trace context, passed on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Arc<str>);

impl TraceParent {
    /// What [`SpanContext::parse`] can read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        SpanContext::parse(text).map(|_| Self(text.into()))
    }

    /// The header's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn headers_survive_the_wire() {
        let sent = RequestHeaders {
            baggage: Baggage::parse("k8s.namespace.name=shop,service.name=web"),
            forwarded: Forwarded::parse("for=\"10.0.0.1:80\";host=web.shop"),
            traceparent: TraceParent::parse(TRACE),
        };
        let mut headers = HeaderMap::new();
        sent.insert_into(&mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(RequestHeaders::parse(&headers), sent);
    }

    #[test]
    fn nothing_to_say_sends_nothing() {
        let mut headers = HeaderMap::new();
        RequestHeaders::default().insert_into(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn overlong_headers_are_ignored() {
        let mut headers = HeaderMap::new();
        let long = format!("service.name=web,x={}", "a".repeat(MAX_HEADER));
        headers.insert(BAGGAGE, HeaderValue::try_from(long).unwrap());
        headers.insert(TRACEPARENT, HeaderValue::from_static(TRACE));
        let parsed = RequestHeaders::parse(&headers);
        assert_eq!(parsed.baggage, Baggage::default());
        assert!(parsed.traceparent.is_some(), "the others still count");
    }

    #[test]
    fn repeated_headers_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append(BAGGAGE, HeaderValue::from_static("service.name=web"));
        headers.append(BAGGAGE, HeaderValue::from_static("k8s.namespace.name=shop"));
        let baggage = RequestHeaders::parse(&headers).baggage;
        assert_eq!(baggage.service.as_deref(), Some("web"));
        assert_eq!(baggage.namespace.as_deref(), Some("shop"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_tolerated(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in [BAGGAGE, FORWARDED, TRACEPARENT] {
                    headers.insert(name, value.clone());
                }
            }
            crate::fuzzing::headers::check(&headers);
        }
    }
}
