//! `tracestate`.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most members that a list may have (W3C Trace Context, section 3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// The most bytes that are passed on. The specification asks for 512 at least.
const MAX_LENGTH: usize = 8192;
/// Of a key.
const MAX_KEY: usize = 256;
/// Of a value.
const MAX_VALUE: usize = 256;

/// What other tracing systems say of a trace; passed on as it came, if it is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState(Option<HeaderValue>);

impl TraceState {
    /// What a request says. One that is against the rules is dropped whole: section 3.3 allows it,
    /// and whoever follows may trust what it gets from here.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACESTATE).iter();
        let Some(first) = values.next() else {
            return Self(None);
        };
        let mut whole = first.clone();
        if values.next().is_some() {
            let all: Vec<&[u8]> = headers
                .get_all(TRACESTATE)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            // Parts of header values, and a comma.
            let Ok(joined) = HeaderValue::from_bytes(&all.join(&b',')) else {
                return Self(None);
            };
            whole = joined;
        }
        let valid = whole.to_str().is_ok_and(is_valid);
        Self(valid.then_some(whole))
    }

    /// The header's text, if it has any.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_ref()?.to_str().ok()
    }

    /// Puts it in the place of what is there.
    pub(super) fn insert_into(&self, headers: &mut HeaderMap) {
        match &self.0 {
            Some(value) => {
                headers.insert(TRACESTATE, value.clone());
            }
            None => {
                headers.remove(TRACESTATE);
            }
        }
    }
}

/// Members `key=value`, empty ones allowed, at least one that isn't, and no key twice.
fn is_valid(text: &str) -> bool {
    if text.len() > MAX_LENGTH {
        return false;
    }
    let members = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let mut keys = [""; MAX_MEMBERS];
    let mut count = 0;
    for member in members.filter(|member| !member.is_empty()) {
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        if count == MAX_MEMBERS || !is_key(key) || !is_value(value) || keys[..count].contains(&key)
        {
            return false;
        }
        keys[count] = key;
        count += 1;
    }
    count > 0
}

/// Section 3.3.1.3.1, as level 2 has it.
fn is_key(key: &str) -> bool {
    let starts = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let follows = |byte: &u8| starts(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    let bytes = key.as_bytes();
    bytes.first().is_some_and(starts) && bytes.iter().all(follows) && bytes.len() <= MAX_KEY
}

/// Printable, but for `,` and `=`; a space isn't the last.
fn is_value(value: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(allowed)
}
