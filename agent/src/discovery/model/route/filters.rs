//! What a route does to requests and their answers. `waypoint/filters` does it.

use http::{HeaderName, HeaderValue, Method, StatusCode, uri::Authority};

use super::BackendTarget;

/// All filters of a rule or of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// On the way there.
    pub request_headers: HeaderChange,
    /// On the way back.
    pub response_headers: HeaderChange,
    /// Instead of going there.
    pub redirect: Option<Redirect>,
    /// What the backend is asked for instead.
    pub rewrite: Option<Rewrite>,
    /// Who else gets the request; their answers are dropped.
    pub mirrors: Vec<Mirror>,
    /// Whom browsers may show the answer.
    pub cors: Option<Cors>,
}

/// Headers that are set, added and removed, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// In place of all values of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Besides those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// All values of that name.
    pub remove: Vec<HeaderName>,
}

/// Sends the client elsewhere. What is `None` stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// Where to.
    pub hostname: Option<Box<str>>,
    /// At which path.
    pub path: Option<PathChange>,
    /// At which port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// What the backend is asked for instead. What is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// As host; a valid header value and a valid authority.
    pub hostname: Option<Box<str>>,
    /// At which path.
    pub path: Option<PathChange>,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// All of it. Begins with `/`.
    Full(Box<str>),
    /// The prefix that matched. Begins with `/` and doesn't end with one, or is empty for `/`.
    Prefix(Box<str>),
}

/// Who else gets requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Who.
    pub target: BackendTarget,
    /// How many of them.
    pub fraction: Fraction,
}

/// A part of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// At most `denominator`.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// Whether a request is among them. `random` is to be equally likely over all of its range.
    #[must_use]
    pub fn has(self, random: u32) -> bool {
        let place = (u64::from(random) * u64::from(self.denominator)) >> u32::BITS;
        place < u64::from(self.numerator)
    }
}

/// Cross-origin requests that browsers may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Of which pages.
    pub origins: AllowedOrigins,
    /// With cookies and other credentials.
    pub credentials: bool,
    /// By which methods.
    pub methods: Listed<Method>,
    /// With which headers.
    pub headers: Listed<HeaderName>,
    /// Which headers of the answer pages may read.
    pub expose: Listed<HeaderName>,
    /// How many seconds a browser may remember that.
    pub max_age: u32,
}

/// Pages that may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// All.
    Any,
    /// Those of these origins.
    These(Vec<Origin>),
}

/// An origin, or all whose host ends alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Box<str>,
    /// In lower case. What follows the `*` if `is_suffix`, `.example.com`; empty for all hosts.
    pub host: Box<str>,
    /// `host` is the end of it.
    pub is_suffix: bool,
    /// The scheme's own, where none is said.
    pub port: u16,
}

impl Origin {
    /// `scheme://host[:port]`, as browsers send it. `None` for what is no such thing, such as `null`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority: Authority = rest.parse().ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // Something follows the host that is no port.
            None if authority.host().len() != rest.len() => return None,
            None => default,
        };
        Some(Self {
            scheme: scheme.into(),
            host: authority.host().to_ascii_lowercase().into(),
            is_suffix: false,
            port,
        })
    }

    /// Whether an origin that was sent is this one, or one of these.
    #[must_use]
    pub fn matches(&self, sent: &Self) -> bool {
        let host = match self.is_suffix {
            true => sent.host.ends_with(&*self.host),
            false => sent.host == self.host,
        };
        host && (&self.scheme, self.port) == (&sent.scheme, sent.port)
    }
}

/// All of a kind, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed<T> {
    /// `*`.
    Any,
    /// These, as a header lists them; empty if none is.
    These {
        /// Each.
        all: Vec<T>,
        /// Joined.
        text: HeaderValue,
    },
}
