//! Which requests a rule is for.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, header, request::Parts};
use regex::{Regex, RegexBuilder};

/// Bytes that one compiled expression may take. The longest that the API allows (a header's 4,096
/// characters) stays far below; counted repetitions of large classes don't.
const PATTERN_SIZE: usize = 256 * 1024;
/// Levels of groups in one expression.
const PATTERN_DEPTH: u32 = 50;

/// All that must hold of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMatch {
    /// Of its path.
    pub path: PathMatch,
    /// Its method, if it matters.
    pub method: Option<Method>,
    /// Headers; each name is there once.
    pub headers: Vec<(HeaderName, TextMatch)>,
    /// Query parameters; each name is there once.
    pub query: Vec<(Box<str>, TextMatch)>,
}

/// What a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This.
    Exact(Box<str>),
    /// This, or this and more segments. Without `/` at the end: empty matches every path.
    Prefix(Box<str>),
    /// All of it as the expression says.
    Pattern(Pattern),
    /// `/service/method` with a condition on one or both of them.
    Call {
        /// With its package.
        service: Option<TextMatch>,
        /// Without the service.
        method: Option<TextMatch>,
    },
}

/// What a header or query parameter must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// This, in this case.
    Exact(Box<str>),
    /// All of it as the expression says.
    Pattern(Pattern),
}

/// A regular expression that a text must match from its beginning to its end. The syntax is RE2's, but for
/// look-around and references back, which neither has.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Box<str>,
    compiled: Regex,
}

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("\"{text}\" can't be used as a regular expression: {reason}")]
pub struct PatternError {
    text: Box<str>,
    reason: String,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It isn't one, or would take more than 256 KiB.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(PATTERN_SIZE)
                .dfa_size_limit(PATTERN_SIZE)
                .nest_limit(PATTERN_DEPTH)
                .build()
        };
        // By itself first: `a)|(b` would be fine in a group.
        let compiled = compile(text).and_then(|_| compile(&format!(r"\A(?:{text})\z")));
        match compiled {
            Ok(compiled) => Ok(Self {
                source: text.into(),
                compiled,
            }),
            Err(error) => Err(PatternError {
                text: text.into(),
                reason: last_line(&error.to_string()).to_owned(),
            }),
        }
    }

    /// Whether all of the text is as it says.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    fn len(&self) -> usize {
        self.source.len()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl RequestMatch {
    /// Whether a request is one of those, whatever its path.
    pub(super) fn matches_but_path(&self, request: &Parts) -> bool {
        let method = self.method.as_ref();
        method.is_none_or(|method| *method == request.method)
            && self
                .headers
                .iter()
                .all(|(name, wanted)| header_matches(request, name, wanted))
            && (self.query.is_empty() || self.query_matches(request.uri.query().unwrap_or("")))
    }

    /// Where a parameter is repeated its first value counts.
    fn query_matches(&self, query: &str) -> bool {
        self.query.iter().all(|(name, wanted)| {
            let mut all = form_urlencoded::parse(query.as_bytes());
            let first = all.find(|(found, _)| **found == **name);
            first.is_some_and(|(_, value)| wanted.matches(&value))
        })
    }
}

impl PathMatch {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                let rest = path.strip_prefix(&**prefix);
                prefix.is_empty() || rest.is_some_and(|it| it.is_empty() || it.starts_with('/'))
            }
            Self::Pattern(pattern) => pattern.matches(path),
            Self::Call { service, method } => {
                let Some((of, called)) = path.strip_prefix('/').and_then(|it| it.split_once('/'))
                else {
                    return false;
                };
                let matches = |wanted: &Option<TextMatch>, text| {
                    wanted.as_ref().is_none_or(|wanted| wanted.matches(text))
                };
                matches(service, of) && matches(method, called)
            }
        }
    }

    /// Characters asked for of a gRPC service and of its method: what the order of GRPCRoutes is made of.
    pub(super) fn call_lengths(&self) -> (usize, usize) {
        let length = |text: &Option<TextMatch>| match text {
            None => 0,
            Some(TextMatch::Exact(text)) => text.len(),
            Some(TextMatch::Pattern(pattern)) => pattern.len(),
        };
        match self {
            Self::Call { service, method } => (length(service), length(method)),
            _ => (0, 0),
        }
    }
}

impl TextMatch {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Pattern(pattern) => pattern.matches(text),
        }
    }
}

/// Whether a request says to be gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|it| it.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Repeated headers count as one with all values, as RFC 9110 (5.3) says. HTTP/2 has the host elsewhere.
fn header_matches(request: &Parts, name: &HeaderName, wanted: &TextMatch) -> bool {
    let mut values = request.headers.get_all(name).iter();
    let text = match (values.next(), values.next()) {
        (None, _) if *name == header::HOST => request.uri.authority().map(|it| it.as_str().into()),
        (None, _) => None,
        (Some(value), None) => str::from_utf8(value.as_bytes()).ok().map(Cow::from),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(values);
            let all: Vec<&[u8]> = all.map(|value| value.as_bytes()).collect();
            String::from_utf8(all.join(&b","[..])).ok().map(Cow::from)
        }
    };
    text.is_some_and(|text| wanted.matches(&text))
}

fn last_line(text: &str) -> &str {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or(text).trim();
    line.strip_prefix("error: ").unwrap_or(line)
}
