//! How hosts and paths of requests are matched.

use std::fmt;

use super::Pattern;

/// A pattern for hosts: regardless of case, and of the port unless it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, as everything else that is read of it.
    pub pattern: Pattern,
    /// It says something of the port.
    pub has_port: bool,
}

impl HostPattern {
    /// Whether the host of a request fits. `shop.example`, `Shop.Example.` and `shop.example:8080` are
    /// one host to a pattern without port: a client must not get past a policy by naming one.
    #[must_use]
    pub fn fits(&self, host: &str) -> bool {
        let (name, port) = split_port(host);
        let rooted = name.trim_end_matches('.');
        match port {
            Some(port) if self.has_port && rooted.len() < name.len() => {
                self.pattern.fits_in_any_case(&format!("{rooted}:{port}"))
            }
            _ if self.has_port => self.pattern.fits_in_any_case(host),
            _ => self.pattern.fits_in_any_case(rooted),
        }
    }
}

/// The host without its port and its last dot.
pub(crate) fn bare_host(host: &str) -> &str {
    split_port(host).0.trim_end_matches('.')
}

/// The host and the port behind it, if there is one.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // An IPv6 address is in brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// A pattern for paths. It holds no escapes, and is compared with what a path is without its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// As for any text.
    Text(Pattern),
    /// With `{*}` or `{**}`.
    Template(Template),
}

impl PathPattern {
    /// Whether a normalised path fits, given without its escapes.
    #[must_use]
    pub fn fits(&self, decoded: &[u8]) -> bool {
        match self {
            Self::Text(pattern) => pattern.fits(decoded),
            Self::Template(template) => template.fits(decoded),
        }
    }
}

/// Such as `/shops/{*}/items/{**}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The segments, up to `{**}` if it has one.
    head: Vec<Segment>,
    /// What stands behind `{**}`.
    tail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `{*}`: any one segment but an empty one.
    Any,
    Literal(String),
}

/// Why a text isn't a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotATemplate(pub(crate) String);

impl fmt::Display for NotATemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// Reads a template; `literal` says what becomes of the text between the operators.
    pub(crate) fn read(
        text: &str,
        literal: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, NotATemplate> {
        let wrong = |problem: &str| NotATemplate(problem.to_owned());
        let segments = text.strip_prefix('/');
        let mut segments = segments
            .ok_or_else(|| wrong("a template begins with /"))?
            .split('/');
        let check = |segment: &str| match segment.contains(['{', '}', '*']) {
            true => Err(wrong(
                "{*} and {**} stand for whole segments, and {**} is the last of them",
            )),
            false => literal(segment).map_err(NotATemplate),
        };
        let mut head = Vec::new();
        while let Some(segment) = segments.next() {
            match segment {
                "{*}" => head.push(Segment::Any),
                "{**}" => {
                    let mut tail = String::new();
                    for segment in segments {
                        tail.push('/');
                        tail.push_str(&check(segment)?);
                    }
                    return Ok(Self {
                        head,
                        tail: Some(tail),
                    });
                }
                segment => head.push(Segment::Literal(check(segment)?)),
            }
        }
        Ok(Self { head, tail: None })
    }

    fn fits(&self, path: &[u8]) -> bool {
        let [b'/', rest @ ..] = path else {
            return false;
        };
        let mut rest = Some(rest);
        for wanted in &self.head {
            let Some(left) = rest else {
                return false;
            };
            let end = left.iter().position(|byte| *byte == b'/');
            let segment = &left[..end.unwrap_or(left.len())];
            let fits = match wanted {
                Segment::Any => !segment.is_empty(),
                Segment::Literal(literal) => segment == literal.as_bytes(),
            };
            if !fits {
                return false;
            }
            rest = end.map(|end| &left[end + 1..]);
        }
        match &self.tail {
            // `{**}` may be nothing, but the / before it is there.
            Some(tail) => rest.is_some_and(|rest| rest.ends_with(tail.as_bytes())),
            None => rest.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path;

    #[test]
    fn a_template_matches_segment_by_segment() {
        for (template, path, fits) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo", false),
            ("/foo/{*}", "/foo/bar/", false),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}/", "/foo/bar/", true),
            ("/{*}/bar", "/x/bar", true),
            ("/{*}/bar", "/x/y/bar", false),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo", false),
            ("/foo/{**}", "/foo/bar/baz.txt", true),
            ("/foo/{**}", "/foobar/baz", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo/bar/baz/", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/{**}", "/", true),
            ("/{*}/bar/{**}/qux", "/foo/bar/baz/qux", true),
            ("/{*}/bar/{**}/qux", "/foo/bar/qux", false),
            ("/{*}/bar/{**}/qux", "/foo/bar/a/b/qux", true),
            ("/{*}/bar/{**}/qux", "/foo/bar/a/b/qux/x", false),
            ("/a b/{*}", "/a b/c", true),
            ("/{*}", "*", false),
        ] {
            let read = Template::read(template, path::literal).unwrap();
            assert_eq!(read.fits(path.as_bytes()), fits, "{template} {path}");
        }
    }

    #[test]
    fn a_wrong_template_is_refused() {
        for template in [
            "{*}",
            "/a{*}",
            "/{*}b",
            "/{**}/{*}",
            "/{**}/{**}",
            "/{a}",
            "/{",
            "/}/{*}",
            "/{***}",
            "/{*}/b*",
            "/{*}/a%2fb",
            "/{**}/..;\\",
        ] {
            assert!(
                Template::read(template, path::literal).is_err(),
                "{template}"
            );
        }
    }

    #[test]
    fn a_host_fits_whatever_its_case_its_port_and_its_last_dot() {
        let pattern = |text: Pattern, has_port| HostPattern {
            pattern: text,
            has_port,
        };
        let exact = pattern(Pattern::Exact("shop.example".into()), false);
        let of_port = pattern(Pattern::Exact("shop.example:8080".into()), true);
        let any_port = pattern(Pattern::Prefix("shop.example:".into()), true);
        let suffix = pattern(Pattern::Suffix(".example".into()), false);
        let present = pattern(Pattern::Present, false);
        let v6 = pattern(Pattern::Exact("[fd00::1]".into()), false);
        for (pattern, host, fits) in [
            (&exact, "shop.example", true),
            (&exact, "SHOP.Example", true),
            (&exact, "shop.example:80", true),
            (&exact, "shop.example:", true),
            (&exact, "shop.example.", true),
            (&exact, "shop.example.:80", true),
            (&exact, "shop.example.evil", false),
            (&exact, "xshop.example", false),
            (&exact, "", false),
            (&of_port, "Shop.example:8080", true),
            (&of_port, "shop.example.:8080", true),
            (&of_port, "shop.example", false),
            (&of_port, "shop.example:80", false),
            (&any_port, "shop.example:1", true),
            (&any_port, "shop.example", false),
            (&suffix, "Shop.EXAMPLE:80", true),
            (&suffix, "shop.example.com", false),
            (&present, "a", true),
            (&present, "", false),
            (&present, ":80", false),
            (&v6, "[FD00::1]", true),
            (&v6, "[fd00::1]:80", true),
        ] {
            assert_eq!(pattern.fits(host), fits, "{pattern:?} {host}");
        }
    }
}
