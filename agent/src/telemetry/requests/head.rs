//! What telemetry tells of a request's head.

use std::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
    request::Parts,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_CONTENT: &[u8] = b"application/grpc";

/// Label `request_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// HTTP of any version.
    Http,
    /// gRPC, by its content type.
    Grpc,
}

impl RequestProtocol {
    /// By the headers of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let rest = content.and_then(|content| content.strip_prefix(GRPC_CONTENT));
        // Not application/grpc-web, which has no trailers of HTTP's.
        match rest.map(|rest| rest.first()) {
            Some(None | Some(b'+' | b';')) => Self::Grpc,
            _ => Self::Http,
        }
    }

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// The status of a gRPC call, from 0 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrpcStatus(u8);

impl GrpcStatus {
    const UNKNOWN: Self = Self(2);
    const LAST: u8 = 16;

    /// What headers or trailers of a response say; `None` if nothing. What isn't a status that gRPC
    /// knows is UNKNOWN, as it is to its clients.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(GRPC_STATUS)?.to_str().ok();
        let known = text
            .and_then(|text| text.parse().ok())
            .filter(|code| *code <= Self::LAST);
        Some(known.map_or(Self::UNKNOWN, Self))
    }

    /// Whether it says that the server is at fault: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and
    /// DATA_LOSS.
    #[must_use]
    pub fn is_server_error(self) -> bool {
        matches!(self.0, 2 | 4 | 13 | 14 | 15)
    }

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a request asks for. Cheap to make and to clone: it shares the request's own bytes.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Of which the query is told to nobody: it may hold secrets.
    uri: Uri,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// Of HTTP.
    pub version: Version,
    /// gRPC or not.
    pub protocol: RequestProtocol,
}

impl RequestHead {
    /// Of a request as it came.
    #[must_use]
    pub fn of(request: &Parts) -> Self {
        Self {
            method: request.method.clone(),
            uri: request.uri.clone(),
            host: request.headers.get(HOST).cloned(),
            user_agent: request.headers.get(USER_AGENT).cloned(),
            version: request.version,
            protocol: RequestProtocol::of(&request.headers),
        }
    }

    /// The path, without query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The host, with port if the client gave it.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        let of_uri = self.uri.authority().map(http::uri::Authority::as_str);
        of_uri.or_else(|| self.host.as_ref()?.to_str().ok())
    }

    /// The client's program.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_ref()?.to_str().ok()
    }

    /// HTTP's version as OpenTelemetry writes it.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.version {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(request: http::request::Builder) -> RequestHead {
        RequestHead::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_host_is_of_the_target_or_else_of_the_header() {
        let of_uri = head(Request::get("http://web.shop/a?b=c").header(HOST, "other"));
        assert_eq!(of_uri.authority(), Some("web.shop"));
        assert_eq!(of_uri.path(), "/a");
        let of_header = head(Request::get("/a").header(HOST, "web.shop:80"));
        assert_eq!(of_header.authority(), Some("web.shop:80"));
        assert_eq!(head(Request::get("/a")).authority(), None);
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (content, protocol) in [
            ("application/grpc", RequestProtocol::Grpc),
            ("application/grpc+proto", RequestProtocol::Grpc),
            ("application/grpc;charset=utf-8", RequestProtocol::Grpc),
            ("application/grpc-web", RequestProtocol::Http),
            ("application/grpcish", RequestProtocol::Http),
            ("application/json", RequestProtocol::Http),
        ] {
            let head = head(Request::post("/").header(CONTENT_TYPE, content));
            assert_eq!(head.protocol, protocol, "{content}");
        }
        assert_eq!(head(Request::get("/")).protocol, RequestProtocol::Http);
    }

    #[test]
    fn a_grpc_status_is_one_that_grpc_knows() {
        for (text, code) in [
            ("0", 0),
            ("16", 16),
            ("17", 2),
            ("-1", 2),
            ("x", 2),
            ("", 2),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_STATUS, HeaderValue::from_static(text));
            let status = GrpcStatus::of(&headers).map(GrpcStatus::code);
            assert_eq!(status, Some(code), "{text:?}");
        }
        assert_eq!(GrpcStatus::of(&HeaderMap::new()), None);
    }
}
