//! What tunnels carry beside bytes: authorities, headers, frames; and the traces of requests.

use std::{net::SocketAddr, time::UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    direct::Frame,
    hbone::{Authority, RequestHeaders},
    telemetry::trace::{Fresh, RequestTrace, Sampling, SpanContext, SpanId, TraceContext, TraceId},
};

/// As one header is read, and as one text of a frame.
const LONGEST_HEADER: usize = 8191;
const LONGEST_TEXT: usize = 4000;

pub(super) fn authority(data: &[u8]) {
    check_authority(&String::from_utf8_lossy(data));
}

/// What is read is written so that it is read alike, and means what it says.
pub(crate) fn check_authority(text: &str) {
    let parsed = text.parse::<Authority>();
    // The standard library's reading; it takes scopes, which mean nothing on another machine.
    if let (Ok(address), false) = (text.parse::<SocketAddr>(), text.contains('%')) {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        let expected = (address.port() != 0).then_some(Authority::Address(canonical));
        assert_eq!(parsed.as_ref().ok(), expected.as_ref(), "{text:?}");
    }
    let Ok(authority) = parsed else {
        return;
    };
    assert_ne!(authority.port(), 0, "{text:?}");
    if let Authority::Host { host, .. } = &authority {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        assert!(host.bytes().all(plain) && !host.ends_with('.'), "{text:?}");
        assert!(text.to_ascii_lowercase().starts_with(&**host), "{text:?}");
    }
    assert_eq!(authority.to_string().parse(), Ok(authority), "{text:?}");
}

/// Lines: each is a header's value, of the next of three names.
pub(super) fn run(data: &[u8]) {
    let names = ["baggage", "forwarded", "traceparent"];
    check(&header_map(data, &names));
}

/// Whatever comes is tolerated, and what is understood is passed on so that it is understood alike.
pub(crate) fn check(came: &HeaderMap) {
    let parsed = RequestHeaders::parse(came);
    if is_too_long(&parsed, LONGEST_HEADER) {
        return;
    }
    let mut again = HeaderMap::new();
    parsed.insert_into(&mut again);
    assert_eq!(RequestHeaders::parse(&again), parsed, "{came:?}");
}

/// Escaped, a text may be longer than it was, and then it is left out.
fn is_too_long(headers: &RequestHeaders, longest: usize) -> bool {
    let forwarded = headers.forwarded.as_ref().map(ToString::to_string);
    let texts = [headers.baggage.to_string(), forwarded.unwrap_or_default()];
    texts.iter().any(|text| text.len() > longest)
}

pub(super) fn frame(data: &[u8]) {
    check_frame(data);
}

/// A frame that is read is written so that it is read alike.
pub(crate) fn check_frame(content: &[u8]) {
    let Ok(frame) = Frame::decode(content) else {
        return;
    };
    let headers = match &frame {
        Frame::Open(_, headers) => (**headers).clone(),
        Frame::Accept(baggage) => RequestHeaders {
            baggage: (**baggage).clone(),
            ..RequestHeaders::default()
        },
        Frame::Refuse(_) | Frame::End | Frame::Closing => RequestHeaders::default(),
    };
    if !is_too_long(&headers, LONGEST_TEXT) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame), "{content:?}");
    }
}

/// Lines: values of the two headers in turn.
pub(super) fn trace(data: &[u8]) {
    check_traceparent(&String::from_utf8_lossy(data));
    check_trace(&header_map(data, &["traceparent", "tracestate"]));
}

/// What is read of a `traceparent` is written and read alike.
pub(crate) fn check_traceparent(text: &str) {
    if let Some(context) = SpanContext::parse(text) {
        let written = context.to_string();
        assert_eq!(SpanContext::parse(&written), Some(context), "{text:?}");
        assert_eq!(&written[2..53], &text[2..53]);
    }
}

/// Any headers are tolerated, and good ones go on.
pub(crate) fn check_trace(came: &HeaderMap) {
    let sampling = Sampling::new(1.0).expect("a share");
    let fresh = Fresh {
        trace: TraceId::new([0x11; 16]),
        span: SpanId::new([0x22; 8]),
    };
    let trace = RequestTrace::begin(came, sampling, fresh, UNIX_EPOCH);
    let mut goes = came.clone();
    trace.insert_into(&mut goes);
    let read = TraceContext::of(&goes).expect("a trace goes on");
    assert_eq!(Some(read.span.trace), trace.id());
    let RequestTrace::Own(own) = &trace else {
        assert_eq!(goes, *came);
        return;
    };
    assert_eq!(read, own.context);
    // At most 32 members, each with a key of its own.
    let members = read.state.as_str().unwrap_or_default().split(',');
    let keys = members.filter_map(|member| Some(member.split_once('=')?.0.trim()));
    let mut keys: Vec<_> = keys.collect();
    let count = keys.len();
    assert!(count <= 32, "{came:?}");
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "{came:?}");
}

/// Values from lines, in turn of these names; what can't be a value is left out.
fn header_map(data: &[u8], names: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let lines = data.split(|byte| *byte == b'\n');
    for (line, name) in lines.zip(names.iter().cycle()).take(12) {
        if let (Ok(value), false) = (HeaderValue::from_bytes(line), line.is_empty()) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}
