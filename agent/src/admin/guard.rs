//! Keeps web sites out of the admin port.
//!
//! It asks for no credentials, and a browser on the machine that can reach it runs what others wrote.
//! A site whose name its owner lets resolve to 127.0.0.1 (DNS rebinding) would be of the same origin:
//! so the host must be said as loopback is. Requests of other origins are refused too: they can't
//! read answers, but could change the log's level.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    uri::Authority,
};
use hyper::Response;

/// What a page may do that says nothing itself.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Why a request isn't answered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The name may be anybody's.
    #[error(
        "the host {0:?} isn't a name of loopback; ask for localhost, 127.0.0.1 or [::1], as \
         http://127.0.0.1:15000/"
    )]
    Host(String),
    /// Another site's page asks.
    #[error("a page of {0:?} may not ask; open the admin address itself")]
    Origin(String),
}

/// Whether it is asked by name of loopback, and by no page of another origin.
///
/// # Errors
/// [`Refusal`].
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = text(headers.get(HOST));
    if !is_loopback(&host) {
        return Err(Refusal::Host(host));
    }
    match headers.get(ORIGIN) {
        Some(origin) if *origin != *format!("http://{host}") => {
            Err(Refusal::Origin(text(Some(origin))))
        }
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(name).parse::<IpAddr>();
    // No `user@`, which a Host header doesn't have.
    !host.contains('@')
        && (address.is_ok_and(|address| address.is_loopback())
            || name.eq_ignore_ascii_case("localhost"))
}

fn text(value: Option<&HeaderValue>) -> String {
    let bytes = value.map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// With headers that keep a browser from making more of it than it is.
pub(super) fn protected<B>(mut answer: Response<B>) -> Response<B> {
    let headers = answer.headers_mut();
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, origin: Option<&str>) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&headers)
    }

    #[test]
    fn only_names_of_loopback_are_answered() {
        for host in [
            "localhost",
            "LocalHost:15000",
            "127.0.0.1",
            "127.0.0.1:15000",
            "127.1.2.3:1",
            "[::1]:15000",
            "[::1]",
        ] {
            assert_eq!(asked(host, None), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:15000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "10.0.0.1",
            "0.0.0.0:15000",
            "[::]",
            "[::ffff:10.0.0.1]",
            "::1",
        ] {
            assert_eq!(asked(host, None), Err(Refusal::Host(host.into())), "{host}");
        }
        assert_eq!(check(&HeaderMap::new()), Err(Refusal::Host(String::new())));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = "localhost:15000";
        assert_eq!(asked(host, Some("http://localhost:15000")), Ok(()));
        for origin in [
            "http://evil.example",
            "https://localhost:15000",
            "http://localhost:3000",
            "null",
        ] {
            let refusal = Refusal::Origin(origin.into());
            assert_eq!(asked(host, Some(origin)), Err(refusal), "{origin}");
        }
    }
}
