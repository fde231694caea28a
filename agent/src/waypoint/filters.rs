//! What a route's filters do to requests and answers. Pure.

mod cors;

use http::{
    HeaderMap, HeaderValue, Uri, header,
    request::Parts as Request,
    response::{self, Parts as Response},
    uri::{Authority, PathAndQuery, Scheme},
};

pub use self::cors::{CorsGrant, CrossOrigin, cross_origin};
pub use crate::discovery::model::{Filters, HeaderChange, PathChange, Redirect, Rewrite};

/// Why a filter can't be applied to a request. It is the client's fault: 400.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows where a redirect leads.
    #[error("the request has no usable host to redirect to: send one")]
    NoHost,
    /// Path and query become too long for a URI.
    #[error("the path can't be rewritten: {0}")]
    Uri(#[from] http::Error),
}

/// Changes a request on its way to the backend: headers first, then what is asked for. `path` is the
/// normalised path, and `prefix` what of it the rule matched.
///
/// # Errors
/// [`Error::Uri`]; nothing is asked of the backend then.
pub fn change_request(
    filters: &Filters,
    request: &mut Request,
    path: &str,
    prefix: &str,
) -> Result<(), Error> {
    let change = &filters.request_headers;
    change_headers(change, &mut request.headers);
    // HTTP/2 has the host elsewhere.
    if let Some((_, host)) = change.set.iter().find(|(name, _)| *name == header::HOST)
        && let Ok(host) = host.to_str()
    {
        set_host(request, host)?;
    }
    let Some(rewrite) = &filters.rewrite else {
        return Ok(());
    };
    if let Some(change) = &rewrite.path {
        let mut text = changed(change, path, prefix);
        if let Some(query) = request.uri.query() {
            text.push('?');
            text.push_str(query);
        }
        let mut parts = request.uri.clone().into_parts();
        let path = PathAndQuery::from_maybe_shared(text).map_err(http::Error::from)?;
        parts.path_and_query = Some(path);
        request.uri = Uri::from_parts(parts).map_err(http::Error::from)?;
    }
    match &rewrite.hostname {
        None => Ok(()),
        Some(host) => set_host(request, host),
    }
}

/// Changes an answer on its way to the client.
pub fn change_response(filters: &Filters, response: &mut Response) {
    change_headers(&filters.response_headers, &mut response.headers);
}

/// Sets, adds and removes headers.
pub fn change_headers(change: &HeaderChange, headers: &mut HeaderMap) {
    for (name, value) in &change.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &change.add {
        headers.append(name, value.clone());
    }
    for name in &change.remove {
        headers.remove(name);
    }
}

/// The answer that sends a client elsewhere. `port` is the Service's that was asked, `path` the normalised
/// path, and `prefix` what of it the rule matched.
///
/// # Errors
/// [`Error::NoHost`], [`Error::Uri`].
pub fn redirect(
    redirect: &Redirect,
    request: &Request,
    port: u16,
    path: &str,
    prefix: &str,
) -> Result<Response, Error> {
    let own = match request.uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => "https",
        _ => "http",
    };
    let scheme = redirect.scheme.unwrap_or(own);
    let default = match scheme {
        "https" => 443,
        _ => 80,
    };
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => default,
        (None, None) => port,
    };
    let asked;
    let host = match &redirect.hostname {
        Some(host) => host,
        None => {
            asked = authority(request).ok_or(Error::NoHost)?;
            asked.host()
        }
    };
    let mut location = format!("{scheme}://{host}");
    if port != default {
        location.push_str(&format!(":{port}"));
    }
    match &redirect.path {
        None => location.push_str(path),
        Some(change) => location.push_str(&changed(change, path, prefix)),
    }
    if let Some(query) = request.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    let mut response = empty(redirect.status);
    let location = HeaderValue::from_maybe_shared(location).map_err(http::Error::from)?;
    response.headers.insert(header::LOCATION, location);
    Ok(response)
}

/// Who was asked, by the request itself.
fn authority(request: &Request) -> Option<Authority> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.clone());
    }
    let host = request.headers.get(header::HOST)?;
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// Has the request ask that host, wherever its version of HTTP says so.
fn set_host(request: &mut Request, host: &str) -> Result<(), Error> {
    if request.uri.authority().is_some() {
        let mut parts = request.uri.clone().into_parts();
        parts.authority = Some(host.parse().map_err(http::Error::from)?);
        request.uri = Uri::from_parts(parts).map_err(http::Error::from)?;
        if !request.headers.contains_key(header::HOST) {
            return Ok(());
        }
    }
    let host = HeaderValue::from_str(host).map_err(http::Error::from)?;
    request.headers.insert(header::HOST, host);
    Ok(())
}

/// The path as it is to be.
fn changed(change: &PathChange, path: &str, prefix: &str) -> String {
    match change {
        PathChange::Full(full) => full.to_string(),
        PathChange::Prefix(other) => {
            let rest = path.strip_prefix(prefix).unwrap_or(path);
            match (&**other, rest) {
                ("", "") => "/".to_owned(),
                (other, rest) => format!("{other}{rest}"),
            }
        }
    }
}

/// An answer of our own, without headers.
fn empty(status: http::StatusCode) -> Response {
    let mut response = response::Response::new(()).into_parts().0;
    response.status = status;
    response
}

#[cfg(test)]
mod tests;
