//! What a proxy does to heads of messages. Pure.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, HOST, InvalidHeaderValue, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    request, uri,
};

use crate::identity::Identity;

/// Header fields of one connection only, beside those that `Connection` names (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 3] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Who the client is, by its certificate. What the client itself says there is taken away.
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The same to servers that take `_` for `-`.
const UNDERSCORED: HeaderName = HeaderName::from_static("x_forwarded_client_cert");

/// What an Upgrade asks for, if a message asks for any that may be granted: in HTTP/2 without TLS, and in
/// TLS, further requests would pass unseen.
pub(super) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut names = connection_names(headers);
    let asks = names.any(|name| name.eq_ignore_ascii_case("upgrade"));
    if !asks || names_of(headers, &UPGRADE).any(hides_requests) {
        return None;
    }
    headers.get(UPGRADE).cloned()
}

/// Whether a connection that became that would carry requests that nobody decides.
pub(super) fn hides_requests(protocol: &str) -> bool {
    let protocol = protocol.to_ascii_lowercase();
    let hidden = ["h2", "http", "tls", "connect-"];
    hidden.iter().any(|hidden| protocol.starts_with(hidden))
}

/// Takes away what is for one connection only.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_names(headers)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        // One tells where a request goes, so that nobody may have it taken away; the other is seen to below.
        if name != HOST && name != TE {
            headers.remove(name);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // It is the one that counts, and the other may be wrong (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    // Trailers pass; anything else there is between two ends of one connection.
    let passes = |name: &str| name.eq_ignore_ascii_case("trailers");
    let has_trailers = names_of(headers, &TE).any(passes);
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    names_of(headers, &CONNECTION)
}

/// The members of a header that is a list.
fn names_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Where the request says that it goes: `:authority`, or `Host`.
pub(super) fn host(parts: &request::Parts) -> &str {
    let authority = parts.uri.authority().map(uri::Authority::as_str);
    let host = || parts.headers.get(HOST)?.to_str().ok();
    authority.or_else(host).unwrap_or_default()
}

/// Says in a request of HTTP/1.0, which need not, what it is for.
pub(super) fn name_host(parts: &mut request::Parts, asked: SocketAddr) {
    let is_named = parts.uri.authority().is_some() || parts.headers.contains_key(HOST);
    if is_named || parts.version > Version::HTTP_10 {
        return;
    }
    let host = match asked.port() {
        80 => uri_host(asked.ip()),
        port => format!("{}:{port}", uri_host(asked.ip())),
    };
    if let Ok(host) = HeaderValue::try_from(host) {
        parts.headers.insert(HOST, host);
    }
}

fn uri_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Gives a request a path, and leaves its query as it is. A CONNECT without one stays without.
///
/// # Errors
/// If it becomes too long for a target: escapes take more room than what they stand for.
pub(super) fn set_path(parts: &mut request::Parts, path: &str) -> Result<(), http::Error> {
    let Some(before) = parts.uri.path_and_query() else {
        return Ok(());
    };
    if before.path() == path {
        return Ok(());
    }
    let text = match before.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut target = parts.uri.clone().into_parts();
    target.path_and_query = Some(uri::PathAndQuery::from_maybe_shared(text)?);
    parts.uri = Uri::from_parts(target)?;
    Ok(())
}

/// What requests of a connection tell of its client, by what is proven.
pub(super) struct ClientNames {
    certificate: HeaderValue,
    address: HeaderValue,
}

impl ClientNames {
    /// # Errors
    /// The identity can't stand in a header field. Those that certificates prove can.
    pub(super) fn new(client: &Identity, address: IpAddr) -> Result<Self, InvalidHeaderValue> {
        Ok(Self {
            certificate: HeaderValue::try_from(format!("URI={client}"))?,
            address: HeaderValue::try_from(address.to_string())?,
        })
    }

    /// Replaces what the client itself says, and adds its address to those that the request has come from.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CLIENT_CERTIFICATE, self.certificate.clone());
        headers.remove(UNDERSCORED);
        let before: Vec<&[u8]> = headers
            .get_all(&FORWARDED_FOR)
            .into_iter()
            .filter(|line| line.to_str().is_ok())
            .map(HeaderValue::as_bytes)
            .chain([self.address.as_bytes()])
            .collect();
        let all = match before[..] {
            [_] => self.address.clone(),
            _ => HeaderValue::from_bytes(&before.join(&b", "[..]))
                .unwrap_or_else(|_| self.address.clone()),
        };
        headers.insert(FORWARDED_FOR, all);
    }
}

/// Gives a request the form that a version of HTTP has it in. `host` is what it is for.
pub(super) fn write_for(parts: &mut request::Parts, is_http2: bool) {
    let host = host(parts).to_owned();
    let mut target = std::mem::take(&mut parts.uri).into_parts();
    if is_http2 {
        parts.version = Version::HTTP_2;
        parts.headers.remove(HOST);
        target.authority = host.parse().ok().or(target.authority);
        if parts.method != Method::CONNECT
            || parts.extensions.get::<hyper::ext::Protocol>().is_some()
        {
            target.scheme = Some(uri::Scheme::HTTP);
            target
                .path_and_query
                .get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
        }
    } else {
        parts.version = Version::HTTP_11;
        if let Ok(host) = HeaderValue::try_from(&host) {
            parts.headers.insert(HOST, host);
        }
        if parts.method != Method::CONNECT {
            target.scheme = None;
            target.authority = None;
        }
        join_cookies(&mut parts.headers);
    }
    // Its parts were those of a valid one, as far as they were replaced.
    parts.uri = Uri::from_parts(target).unwrap_or_default();
}

/// HTTP/2 may send each cookie in a field of its own, HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = all.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(Headers, Headers); 9] = [
            (&[("x-a", "b")], &[("x-a", "b")]),
            (
                &[("connection", "x-a, X-B"), ("x-a", "1"), ("x-b", "2")],
                &[],
            ),
            (
                &[("connection", "x-a"), ("connection", "x-b"), ("x-b", "2")],
                &[],
            ),
            (&[("connection", "host"), ("host", "h")], &[("host", "h")]),
            (
                &[
                    ("keep-alive", "1"),
                    ("proxy-connection", "close"),
                    ("upgrade", "x"),
                ],
                &[],
            ),
            (
                &[("te", "trailers"), ("connection", "te")],
                &[("te", "trailers")],
            ),
            (&[("te", "gzip, Trailers")], &[("te", "trailers")]),
            (&[("te", "gzip")], &[]),
            (
                &[("content-length", "3"), ("transfer-encoding", "chunked")],
                &[],
            ),
        ];
        for (before, after) in cases {
            let mut all = headers(before);
            remove_hop_by_hop(&mut all);
            assert_eq!(all, headers(after), "{before:?}");
        }
    }

    #[test]
    fn an_upgrade_in_which_requests_would_be_hidden_is_none() {
        for (connection, upgrade, expected) in [
            ("upgrade", "websocket", Some("websocket")),
            ("keep-alive, Upgrade", "SPDY/3.1", Some("SPDY/3.1")),
            ("keep-alive", "websocket", None),
            ("upgrade, http2-settings", "h2c", None),
            ("upgrade", "websocket, H2C", None),
            ("upgrade", "HTTP/2.0", None),
            ("upgrade", "TLS/1.3", None),
        ] {
            let told = upgrade_of(&headers(&[
                ("connection", connection),
                ("upgrade", upgrade),
            ]));
            let expected = expected.map(HeaderValue::from_static);
            assert_eq!(told, expected, "{connection}: {upgrade}");
        }
    }

    #[test]
    fn a_request_of_http_1_0_is_for_whom_its_client_connected_to() {
        let asked = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (version, before, address, after) in [
            (Version::HTTP_10, None, "10.0.0.1:80", Some("10.0.0.1")),
            (Version::HTTP_10, None, "[fd00::1]:81", Some("[fd00::1]:81")),
            (Version::HTTP_10, Some("h"), "10.0.0.1:80", Some("h")),
            (Version::HTTP_11, None, "10.0.0.1:80", None),
        ] {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            parts.version = version;
            if let Some(host) = before {
                parts.headers.insert(HOST, HeaderValue::from_static(host));
            }
            name_host(&mut parts, asked(address));
            let told = parts.headers.get(HOST).map(|it| it.to_str().unwrap());
            assert_eq!(told, after, "{version:?} {before:?} {address}");
        }
    }

    fn parts(uri: &str) -> request::Parts {
        http::Request::get(uri).body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_client_is_who_it_has_proven_to_be_and_not_who_it_says() {
        let identity: Identity = "spiffe://td/ns/shop/sa/web".parse().unwrap();
        let mut told = headers(&[
            ("x-forwarded-client-cert", "URI=spiffe://td/ns/bank/sa/root"),
            ("x_forwarded_client_cert", "URI=spiffe://td/ns/bank/sa/root"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
        ]);
        let names = ClientNames::new(&identity, [10, 0, 0, 1].into()).unwrap();
        names.write(&mut told);
        let expected = headers(&[
            ("x-forwarded-client-cert", "URI=spiffe://td/ns/shop/sa/web"),
            ("x-forwarded-for", "192.0.2.1, 192.0.2.2, 10.0.0.1"),
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn a_path_that_becomes_too_long_is_refused_and_not_sent_as_it_was() {
        let mut request = parts("/a");
        let longer = "/%C3%A9".repeat(10_000);
        assert!(set_path(&mut request, &longer).is_err());
        assert_eq!(request.uri, "/a");
    }

    #[test]
    fn an_extended_connect_has_a_path_that_is_replaced_too() {
        let mut request = parts("http://web/a//b");
        request.method = Method::CONNECT;
        set_path(&mut request, "/a/b").unwrap();
        assert_eq!(request.uri, "http://web/a/b");
        let mut plain = parts("web:80");
        plain.method = Method::CONNECT;
        set_path(&mut plain, "/").unwrap();
        assert_eq!(plain.uri, "web:80");
    }
}
