//! Whether a header has what a rule asks for.

use http::{HeaderName, HeaderValue, header::HOST};

use crate::policy::{
    model::{Action, Criteria, Pattern, http::bare_host},
    request::HttpRequest,
};

/// Whether a header fits.
///
/// A header may come more than once, and many servers take `x_user` for `x-user`: which of the values a server
/// believes nobody knows here. So doubt speaks against the client: to an ALLOW rule all values must fit, to a
/// DENY rule one is enough, and with the negative form it is the other way round.
pub(super) fn header_fits(
    request: &HttpRequest<'_>,
    name: &HeaderName,
    values: &Criteria<Pattern>,
    action: Action,
) -> bool {
    let denies = action != Action::Allow;
    let wanted = values.any_of.is_empty() || is_one_of(request, name, &values.any_of, denies);
    let unwanted = !values.none_of.is_empty() && is_one_of(request, name, &values.none_of, !denies);
    wanted && !unwanted
}

/// Whether the header fits one of the patterns, if what is doubtful counts as `doubtful`.
fn is_one_of(
    request: &HttpRequest<'_>,
    name: &HeaderName,
    patterns: &[Pattern],
    doubtful: bool,
) -> bool {
    let fits = |value: &[u8]| patterns.iter().any(|pattern| pattern.fits(value));
    if name == HOST {
        // As for `hosts`: its case, port and last dot get nobody past a policy.
        let host = |name: &str| patterns.iter().any(|it| it.fits_in_any_case(name));
        return host(request.host) || host(bare_host(request.host));
    }
    let asks_for_presence = patterns.contains(&Pattern::Present);
    let named = request.headers.get_all(name).into_iter();
    let mut all = named
        .chain(aliases(request, name))
        .map(HeaderValue::as_bytes);
    if !doubtful {
        return request.headers.contains_key(name) && all.all(fits);
    }
    // An empty value is a present header all the same; several values are one list (RFC 9110, 5.3).
    let mut seen = Vec::new();
    let is_found = all.any(|value| {
        seen.push(value);
        asks_for_presence || fits(value)
    });
    let joined = |with: &[u8]| seen.len() > 1 && fits(&seen.join(with));
    is_found || joined(b",") || joined(b", ")
}

/// The values of other headers that a server may take for this one.
fn aliases<'a>(
    request: &'a HttpRequest<'_>,
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let is_alias = move |other: &HeaderName| {
        let (name, other) = (name.as_str().bytes(), other.as_str().bytes());
        name.len() == other.len() && name.map(plain).eq(other.map(plain))
    };
    let others = request.headers.iter();
    others
        .filter(move |(other, _)| *other != name && is_alias(other))
        .map(|(_, value)| value)
}
