//! Values that say something of HTTP requests.

use http::HeaderName;

use super::values::Readable;
use crate::policy::{
    model::{HostPattern, PathPattern, Pattern, Template},
    path,
};

impl Readable for HostPattern {
    const EXPECTED: &'static str = "a host such as \"shop.example\", \"*.example\" or \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        let pattern = Pattern::read(&text.to_ascii_lowercase())?;
        if text.contains(['/', '@', '?']) {
            return Err(format!(
                "{text:?} would never match: write the host alone, or host:port"
            ));
        }
        // Of an IPv6 address, what is behind the brackets.
        let behind = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
        Ok(Self {
            pattern,
            has_port: behind.contains(':'),
        })
    }
}

impl Readable for PathPattern {
    const EXPECTED: &'static str =
        "a path such as \"/a\", \"/a/*\", \"*/a\", \"/a/{*}/b\" or \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        let never = |why: &str| format!("{text:?} would never match: {why}");
        if text.contains(['{', '}']) {
            return Template::read(text, path::literal)
                .map(Self::Template)
                .map_err(|why| never(&why.to_string()));
        }
        let literal = |part: String| path::literal(&part).map_err(|why| never(&why));
        let absolute = |part: String| match part.starts_with('/') {
            true => literal(part),
            false => Err(never("a path begins with /")),
        };
        Ok(Self::Text(match Pattern::read(text)? {
            Pattern::Present => Pattern::Present,
            Pattern::Exact(exact) => match path::normalise(&exact) {
                Ok(normal) if normal.ends_with('/') && !exact.ends_with('/') => {
                    return Err(never(&format!("it is {normal:?} when it is matched")));
                }
                _ => Pattern::Exact(absolute(exact)?),
            },
            Pattern::Prefix(prefix) => Pattern::Prefix(absolute(prefix)?),
            Pattern::Suffix(suffix) => Pattern::Suffix(literal(suffix)?),
        }))
    }
}

/// A method: any token, with its case.
#[derive(Debug)]
pub(super) struct Method(pub(super) Pattern);

impl Readable for Method {
    const EXPECTED: &'static str = "a method such as \"GET\"";

    fn read(text: &str) -> Result<Self, String> {
        let pattern = Pattern::read(text)?;
        let is_known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
            .contains(&text.to_ascii_uppercase().as_str());
        if is_known && text.contains(|c: char| c.is_ascii_lowercase()) {
            return Err(format!(
                "{text:?} would never match: write {:?}",
                text.to_ascii_uppercase()
            ));
        }
        Ok(Self(pattern))
    }
}

impl Readable for HeaderName {
    const EXPECTED: &'static str = "the name of a header";

    fn read(text: &str) -> Result<Self, String> {
        if text.starts_with(':') {
            return Err(format!(
                "{text:?} is no header: write hosts, methods or paths of the operation"
            ));
        }
        text.parse()
            .map_err(|_| format!("{text:?} can't be the name of a header"))
    }
}

/// What stands in brackets behind a key: `[a]`, or `[a][b]`.
pub(super) fn in_brackets(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<_> = inner.split("][").map(str::to_owned).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains(['[', ']']);
    names.iter().all(is_name).then_some(names)
}
