//! Answers of the waypoint's own.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::body::ResponseBody;
use crate::telemetry::RequestFlags;

/// An answer that no server has given.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// What the client reads of the reason.
    text: String,
    /// What the log says of it, where that is more.
    reason: Option<String>,
    pub(super) flags: RequestFlags,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What a client of gRPC is told, where that doesn't follow from the status.
    grpc_status: Option<u16>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            reason: None,
            flags: RequestFlags::NONE,
            headers: Vec::new(),
            grpc_status: None,
        }
    }

    /// With a reason that metrics and log tell.
    pub(super) fn flagged(mut self, flags: RequestFlags) -> Self {
        self.flags = self.flags | flags;
        self
    }

    /// With a reason in words that are for the log alone.
    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// With one more header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a status for clients of gRPC.
    pub(super) fn grpc(mut self, status: Option<u8>) -> Self {
        self.grpc_status = status.map(u16::from);
        self
    }

    /// For the log.
    pub(super) fn reason(&self) -> &str {
        self.reason.as_ref().unwrap_or(&self.text)
    }

    /// As a client of gRPC, or any other, understands it.
    pub(super) fn response(self, is_grpc: bool) -> Response<ResponseBody> {
        let mut headers: HeaderMap = self.headers.into_iter().collect();
        let (status, text) = if is_grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
            headers.insert("grpc-status", HeaderValue::from(status));
            if let Ok(message) = HeaderValue::from_str(&self.text) {
                headers.insert("grpc-message", message);
            }
            (StatusCode::OK, Bytes::new())
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            (self.status, self.text.into())
        };
        let mut response = Response::new(ResponseBody::own(text));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The code of gRPC for a status of HTTP, as gRPC's own document on the two maps them.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}
