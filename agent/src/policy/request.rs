//! What policies see of an HTTP request.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, Version, header::HOST, request::Parts};

use super::{
    jwt::Token,
    path::{PathError, normalise},
};

/// What is known of a request when it is decided.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// As it is sent on: methods are compared with their case.
    pub method: &'a str,
    /// The host that was asked for, and the port if the client named it; see [`RequestTarget`].
    pub host: &'a str,
    /// Normalised, without its query; see [`RequestTarget`].
    pub path: &'a str,
    /// As they came, but for tokens that were taken out.
    pub headers: &'a HeaderMap,
    /// What the client has proven to be by a token.
    pub token: Option<&'a Token>,
    /// The client behind the proxies that are trusted to tell; `None` where that is the client itself.
    pub forwarded_for: Option<IpAddr>,
}

/// What a request is for, in the one form that is decided upon and has to be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// Empty for a client of HTTP/1.0 that names none.
    pub host: &'a str,
    /// As [`normalise`] makes it.
    pub path: Cow<'a, str>,
}

/// Why nobody can say what a request is for. The answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// No host, with a version that demands one.
    #[error("the request names no host")]
    NoHost,
    /// Several hosts, of which servers take different ones.
    #[error("the request names more than one host")]
    SeveralHosts,
    /// What it names can't be a host.
    #[error("the request's host can't be one")]
    NotAHost,
    /// The path can't be normalised.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl<'a> RequestTarget<'a> {
    /// Reads the target of a request of any version: the host is that of the request line or `:authority` where
    /// there is one, and a `Host` beside it must say the same.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn of(request: &'a Parts) -> Result<Self, BadTarget> {
        let mut headers = request.headers.get_all(HOST).into_iter();
        let header = headers.next();
        if headers.next().is_some() {
            return Err(BadTarget::SeveralHosts);
        }
        let header = header
            .map(|value| value.to_str().map_err(|_| BadTarget::NotAHost))
            .transpose()?;
        let host = match (request.uri.authority(), header) {
            (Some(authority), Some(header)) if !header.eq_ignore_ascii_case(authority.as_str()) => {
                return Err(BadTarget::SeveralHosts);
            }
            (Some(authority), _) => authority.as_str(),
            (None, Some(header)) => header,
            (None, None) if request.version <= Version::HTTP_10 => "",
            (None, None) => return Err(BadTarget::NoHost),
        };
        if !host.is_empty() && !is_host(host) {
            return Err(BadTarget::NotAHost);
        }
        Ok(Self {
            host,
            path: normalise(request.uri.path())?,
        })
    }
}

/// Whether that is a name or an address, with or without port.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (text, ""),
    };
    let is_address = name.starts_with('[') && name.ends_with(']');
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || is_address && b"[]:".contains(&byte)
    };
    !name.is_empty() && name.bytes().all(allowed) && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_is_for_one_host_and_one_path() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let ok = |host, path| Ok((host, path));
        for (version, uri, hosts, expected) in [
            (one, "/a", &["b"][..], ok("b", "/a")),
            (one, "/a/%2e%2e//b?x=//", &["b:80"], ok("b:80", "/b")),
            (one, "http://c/a", &["c"], ok("c", "/a")),
            (one, "http://c/a", &["C"], ok("c", "/a")),
            (one, "http://c", &["c"], ok("c", "/")),
            (one, "*", &["b"], ok("b", "*")),
            (two, "http://c:1/a", &[], ok("c:1", "/a")),
            (two, "http://[fd00::1]:1/a", &[], ok("[fd00::1]:1", "/a")),
            (Version::HTTP_10, "/a", &[], ok("", "/a")),
            (one, "/a", &[], Err(BadTarget::NoHost)),
            (one, "/a", &["b", "b"], Err(BadTarget::SeveralHosts)),
            (one, "/a", &["b", "c"], Err(BadTarget::SeveralHosts)),
            (one, "http://c/a", &["b"], Err(BadTarget::SeveralHosts)),
            (two, "http://c/a", &["c:80"], Err(BadTarget::SeveralHosts)),
            (one, "/a", &["x@b"], Err(BadTarget::NotAHost)),
            (two, "http://x@b/a", &[], Err(BadTarget::NotAHost)),
            (one, "/a", &["b/c"], Err(BadTarget::NotAHost)),
            (one, "/a", &["b:80:80"], Err(BadTarget::NotAHost)),
            (one, "/a", &["b,c"], Err(BadTarget::NotAHost)),
            (one, "/a", &["b:x"], Err(BadTarget::NotAHost)),
            (one, "/a%2fb", &["b"], Err(PathError::HiddenSlash.into())),
        ] {
            let parts = parts(version, uri, hosts);
            let target = RequestTarget::of(&parts);
            let told = target.as_ref().map(|it| (it.host, &*it.path));
            assert_eq!(told, expected.as_ref().map(|it| *it), "{uri} {hosts:?}");
        }
    }
}
